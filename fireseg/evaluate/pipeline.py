"""Evaluation of a trained run, from loading the model to the written results."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from fireseg.engine.device import set_threads
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.baseline import FIXED_MAX_NBR, FIXED_MAX_NDWI, tune_threshold
from fireseg.evaluate.compare import check_comparable, compare_runs
from fireseg.evaluate.inference import NBR, count_indices, find_missing_bands, predict_tile
from fireseg.evaluate.off_centre import MAX_FIRES, OffCentreCounts, check_off_centre
from fireseg.evaluate.options import EvaluateOptions, OffCentre, Split
from fireseg.evaluate.patches import Patches, open_patches
from fireseg.evaluate.report import PreviewSelection, write_report
from fireseg.evaluate.results import (
    BaselineRules,
    Evaluation,
    Results,
    build_results,
    name_evaluation,
    write_results,
)
from fireseg.evaluate.scores import MODEL, FireScores, decide_fire, measure_fire, score_fire
from fireseg.evaluate.summary import format_summary, log_to_tracker
from fireseg.evaluate.thresholds import OperatingPoint, select_operating_point
from fireseg.files import convert_disk_errors, list_leftovers
from fireseg.metric import DetectionRule, ThresholdGain
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.folder import RunFolder
from fireseg.runs.patches import find_patches_root
from fireseg.runs.summary import read_evaluation

log = logging.getLogger("fireseg")

_ON_TRAIN = "the best threshold on train"

_NOTHING_BURNED = "train has no burned pixel to tune a threshold on"


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Evaluates a run and writes `evaluation_<split>.json` and the report to its folder.

    Args:
        options: Options of the command.

    Raises:
        FiresegError: If the run, the patches or the other run cannot be used.
    """
    set_threads(None)
    trained, folder = _open_run(options)
    other = _open_other_run(options, trained) if options.against else None
    patches = _open_patches(trained, options)
    other_results = _get_results(*other, patches, options) if other else None
    evaluation = score_run(trained, folder, patches, options.split, off_centre=options.off_centre)
    if other_results is not None:
        try:
            comparison = compare_runs(evaluation.results, other_results)
        except FiresegError:  # keep the results of this run although the comparison fails
            _write_evaluation(evaluation, trained, folder, options)
            raise
        evaluation = replace(evaluation, results={**evaluation.results, "against": comparison})
    _write_evaluation(evaluation, trained, folder, options)
    return evaluation


def score_run(
    trained: TrainedModel, folder: RunFolder, patches: Patches, split: Split, *, off_centre: OffCentre = "auto"
) -> Evaluation:
    """Scores the maps of the tiles of a split: calibration of the run first, then one pass over the split.

    Args:
        trained: Model to evaluate.
        folder: Folder of its run; the calibration is stored there.
        patches: Patches to evaluate on.
        split: Split to evaluate on.
        off_centre: Make the off-centre check: `always`, `never`, or `auto`, for at most `off_centre.MAX_FIRES` tiles.
    """
    fires = patches.group_by_fire(split)
    has_off_centre = off_centre == "always" or (off_centre == "auto" and len(fires) <= MAX_FIRES)
    decisions = calibrate(trained, folder, patches)
    point, rules = decisions.point, decisions.rules
    selection, scores, views = PreviewSelection(), list[FireScores](), list[OffCentreCounts]()
    with patches.tiles(split, split, fires) as tiles:
        for tile in tiles:
            mosaic = predict_tile(trained, tile, batch_size=patches.batch_size)
            if has_off_centre and mosaic.is_burned.any():
                views.append(check_off_centre(trained, tile, mosaic, point, batch_size=patches.batch_size))
            maps = decide_fire(mosaic, point, rules.threshold, rules.changes)
            scores.append(measure_fire(mosaic, maps, num_classes=trained.task.num_classes))
            selection.add(mosaic, maps[MODEL], score_fire(scores[-1].methods[MODEL])["iou"])
    scores.sort(key=lambda each: each.fire.positions[0].number)
    results = build_results(
        trained,
        patches,
        split,
        fires=scores,
        off_centre=views,
        point=point,
        rules=rules,
        origin=decisions.origin,
    )
    return Evaluation(results=results, previews=selection.previews)


class Decisions(NamedTuple):
    """Operating point of the model and rules of the baseline.

    Attributes:
        point: Operating point of the model.
        rules: Rules of the baseline.
        origin: `run` if they were chosen on the run's own patches, `given` if on other patches given by the user.
    """

    point: OperatingPoint
    rules: BaselineRules
    origin: Literal["run", "given"]


def calibrate(trained: TrainedModel, folder: RunFolder, patches: Patches) -> Decisions:
    """Returns the calibration of the run, or chooses and stores one on the run's own val and train.

    Only if the run has neither a calibration nor its own patches, it is chosen on the splits of the given patches that
    exist, and not stored.

    Args:
        trained: Model with its stored calibration, if any.
        folder: Folder of its run.
        patches: Patches to evaluate on.
    """
    stored = trained.calibration
    if stored is not None and stored.is_checked and stored.is_blended:
        threshold = stored.index_threshold
        note = _NOTHING_BURNED if threshold is None else _ON_TRAIN
        rules = _describe_baseline(trained, threshold, note, stored.change_thresholds)
        return Decisions(_read_point(stored), rules, "run")
    own = patches if patches.fingerprint == trained.fingerprint else _open_own_patches(trained, patches)
    if own is not None:
        point, rules = _choose_point(trained, own), tune_baseline(trained, own)
        if point.is_chosen:
            write_calibration(folder, _make_calibration(trained, point, rules))
        return Decisions(point, rules, "run")
    if stored is not None:
        return Decisions(_read_point(stored), tune_baseline(trained, patches), "run")
    if patches.has("val"):
        log.warning(
            "%s: not written, because the threshold was chosen on other patches than those of the run",
            folder.calibration,
        )
        return Decisions(_choose_point(trained, patches), tune_baseline(trained, patches), "given")
    log.warning("%s: no val split to choose a threshold on; using probability 0.5", patches.root)
    return Decisions(OperatingPoint(), tune_baseline(trained, patches), "given")


def tune_baseline(trained: TrainedModel, patches: Patches) -> BaselineRules:
    """Tunes the thresholds of NBR, and of its change in a pair, on train if the bands of the model allow it.

    Args:
        trained: Model whose bands are used.
        patches: Patches whose train split is used.
    """
    if find_missing_bands(trained.bands).nbr:
        return _describe_baseline(trained, None, "")
    if not patches.has("train"):
        return _describe_baseline(trained, None, "there is no train split to tune a threshold on")
    with patches.tiles("train", "train, to tune the burn ratio") as tiles:
        counts = count_indices(tiles)
    try:
        threshold = tune_threshold(counts.pop(NBR))
    except FiresegError:
        return _describe_baseline(trained, None, _NOTHING_BURNED)
    changes = {name: -tune_threshold(values) for name, values in counts.items()}
    return _describe_baseline(trained, threshold, _ON_TRAIN, changes)


def _describe_baseline(
    trained: TrainedModel, threshold: float | None, note: str, changes: Mapping[str, float] | None = None
) -> BaselineRules:
    missing = find_missing_bands(trained.bands)
    fixed = missing.fixed_rule or f"burned where NBR < {FIXED_MAX_NBR:g} and NDWI <= {FIXED_MAX_NDWI:g}"
    if missing.nbr:
        return BaselineRules(None, missing.nbr, fixed)
    if threshold is None:
        return BaselineRules(None, note, fixed)
    return BaselineRules(threshold, f"burned where NBR is below {threshold:.3g}, {note}", fixed, changes or {})


def _choose_point(trained: TrainedModel, patches: Patches) -> OperatingPoint:
    with patches.tiles("val", "val, to choose the threshold") as tiles:
        return select_operating_point(predict_tile(trained, tile, batch_size=patches.batch_size) for tile in tiles)


def _open_own_patches(trained: TrainedModel, patches: Patches) -> Patches | None:
    """Opens the patches that the run was trained on; None if they are gone or have changed."""
    try:
        root = find_patches_root(trained.settings, trained.provenance, None)
        module = patches.module
        own = open_patches(
            trained.settings,
            root,
            task=trained.task,
            required="val",
            batch_size=patches.batch_size,
            num_workers=module.num_workers,
        )
    except FiresegError as error:
        log.info("patches of the run not used to choose the threshold: %s", error)
        return None
    return own if own.fingerprint == trained.fingerprint else None


def _read_point(stored: Calibration) -> OperatingPoint:
    gain, low, high = (
        math.nan if value is None else value for value in (stored.gain, stored.gain_low, stored.gain_high)
    )
    return OperatingPoint(
        temperature=stored.temperature,
        threshold=stored.threshold,
        rule=DetectionRule(stored.rule_min_pixels, stored.rule_min_odds),
        is_chosen=True,
        best_threshold=stored.best_threshold,
        gain=ThresholdGain(gain, low, high, stored.num_fires or 0) if stored.is_checked else None,
    )


def _make_calibration(trained: TrainedModel, point: OperatingPoint, rules: BaselineRules) -> Calibration:
    assert point.gain is not None
    gain, low, high = (None if math.isnan(value) else value for value in point.gain[:3])
    return Calibration(
        temperature=point.temperature,
        threshold=point.threshold,
        rule_min_pixels=point.rule.min_pixels,
        rule_min_odds=point.rule.min_log_odds,
        checkpoint_sha256=trained.sha256,
        fingerprint=trained.fingerprint,
        best_threshold=point.best_threshold,
        gain=gain,
        gain_low=low,
        gain_high=high,
        num_fires=point.gain.num,
        index_threshold=rules.threshold,
        change_thresholds=dict(rules.changes) or None,
        is_blended=True,
    )


def _open_run(options: EvaluateOptions) -> tuple[TrainedModel, RunFolder]:
    trained = load_trained_model(options.run, device=options.device)
    if trained.folder is None:
        raise SettingError(
            f"{options.run}: a checkpoint outside a run folder, but an evaluation is written to a run folder; "
            "give a run folder, such as outputs/latest"
        )
    if trained.members:
        with convert_disk_errors(trained.folder.path):
            trained.folder.path.mkdir(exist_ok=True)
    return trained, trained.folder


def _open_other_run(options: EvaluateOptions, trained: TrainedModel) -> tuple[TrainedModel, RunFolder]:
    assert options.against is not None
    other, folder = _open_run(replace(options, run=options.against))
    if other.sha256 == trained.sha256:
        raise SettingError(f"--against {options.against}: the same checkpoint as RUN; give another run")
    check_comparable(trained, other)
    return other, folder


def _open_patches(trained: TrainedModel, options: EvaluateOptions) -> Patches:
    patches = open_patches(
        trained.settings,
        find_patches_root(trained.settings, trained.provenance, options.data),
        task=trained.task,
        required=options.split,
        batch_size=options.batch_size,
        num_workers=options.workers,
        tiles_folder=options.tiles,
    )
    _check_unseen(trained, patches)
    if patches.fingerprint != trained.fingerprint:
        log.warning(
            "%s: other patches than %s was trained on (fingerprint %s instead of %s); the training data may be among "
            "the patches evaluated here",
            *(patches.root, trained.name, patches.fingerprint[:12], trained.fingerprint[:12]),
        )
    return patches


def _check_unseen(trained: TrainedModel, patches: Patches) -> None:
    """Checks that no run of an ensemble has learnt from the patches that another one is judged on."""
    own = [member for member in trained.members if member.fingerprint == patches.fingerprint]
    if not own or patches.fingerprint == trained.fingerprint:
        return
    origins = [(one.name, one.fingerprint[:12], one.settings.get("data", {}).get("fold")) for one in trained.members]
    listed = ", ".join(
        f"{name} (fingerprint {fingerprint}{'' if fold is None else f', fold {fold}'})"
        for name, fingerprint, fold in origins
    )
    raise FiresegError(
        f"{trained.argument}: trained on different patches or folds, {listed}, so that one of them may have learnt "
        f"from the fires of {patches.root} that another one is judged on; evaluate runs of one fold together, or give "
        "patches of other fires with --data PATCHES"
    )


def _get_results(trained: TrainedModel, folder: RunFolder, patches: Patches, options: EvaluateOptions) -> Results:
    """Reads the results of the other run, or evaluates it if they are missing or of other patches or weights."""
    name = name_evaluation(options.split, patches.fingerprint, trained.fingerprint)
    results = read_evaluation(folder.evaluation(name, "json"))
    expected = trained.sha256, patches.fingerprint, patches.input
    if results is not None:
        found = results["run"]["sha256"], results["data"]["fingerprint"], results.get("inference", {}).get("input")
        if found == expected:
            return results
    log.info("%s: evaluated first, on the same patches", folder.path)
    # Joined folders cannot be given; a run that is comparable was trained on the same ones.
    options = replace(options, data=patches.root if len(patches.roots) == 1 else None, against=None)
    patches = _open_patches(trained, options)
    evaluation = score_run(trained, folder, patches, options.split, off_centre=options.off_centre)
    _write_evaluation(evaluation, trained, folder, options)
    return evaluation.results


def _write_evaluation(
    evaluation: Evaluation, trained: TrainedModel, folder: RunFolder, options: EvaluateOptions
) -> None:
    """Writes results and report, logs them to the tracker and prints the summary."""
    results = evaluation.results
    name = name_evaluation(options.split, results["data"]["fingerprint"], trained.fingerprint)
    json_path, report_path = (folder.evaluation(name, kind) for kind in ("json", "html"))
    write_results(results, json_path)
    write_report(evaluation, report_path)
    for path in (json_path, report_path, folder.calibration):
        for leftover in list_leftovers(path):
            leftover.unlink()
    if not options.no_track:
        # With the calibration, so that a model loaded from the tracker uses the threshold chosen here.
        files = [path for path in (json_path, report_path, folder.calibration) if path.exists()]
        log_to_tracker(results, trained, folder, files=files)
    for line in format_summary(results):
        log.info("%s", line)
    log.info("report: %s", report_path)
