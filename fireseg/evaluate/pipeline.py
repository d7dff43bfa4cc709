"""Evaluation of a trained run, from loading the model to the written results."""

from __future__ import annotations

import logging
from dataclasses import replace

from fireseg.engine.device import set_threads
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.baseline import FIXED_MAX_NBR, FIXED_MAX_NDWI, tune_threshold
from fireseg.evaluate.compare import check_comparable, compare_runs
from fireseg.evaluate.inference import compute_nbr, count_nbr, find_missing_bands, predict_patches
from fireseg.evaluate.mosaic import assemble_mosaics
from fireseg.evaluate.options import EvaluateOptions, Split
from fireseg.evaluate.patches import Patches, find_patches_root, open_patches
from fireseg.evaluate.report import PreviewSelection, write_report
from fireseg.evaluate.results import (
    BaselineRules,
    Evaluation,
    Results,
    build_results,
    name_evaluation,
    read_results,
    write_results,
)
from fireseg.evaluate.scores import MODEL, FireScores, decide_fire, measure_fire, score_fire
from fireseg.evaluate.summary import format_summary, log_to_tracker
from fireseg.evaluate.thresholds import OperatingPoint, select_operating_point
from fireseg.metric import DetectionRule
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.folder import RunFolder

log = logging.getLogger("fireseg")


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
    patches = _open_patches(trained, folder, options)
    other_results = _get_results(*other, patches, options) if other else None
    evaluation = score_run(trained, folder, patches, options.split)
    if other_results is not None:
        try:
            comparison = compare_runs(evaluation.results, other_results)
        except FiresegError:  # keep the results of this run although the comparison fails
            _write_evaluation(evaluation, trained, folder, options)
            raise
        evaluation = replace(evaluation, results={**evaluation.results, "against": comparison})
    _write_evaluation(evaluation, trained, folder, options)
    return evaluation


def score_run(trained: TrainedModel, folder: RunFolder, patches: Patches, split: Split) -> Evaluation:
    """Scores a run on a split: operating point from val, baseline from train, then one pass over the split.

    Args:
        trained: Model to evaluate.
        folder: Folder of its run; the calibration is stored there.
        patches: Patches to evaluate on.
        split: Split to evaluate on.
    """
    fires = patches.group_by_fire(split)
    point = get_operating_point(trained, folder, patches)
    rules = tune_baseline(trained, patches)
    selection, scores = PreviewSelection(), list[FireScores]()
    with patches.batches(split, split) as batches:
        for mosaic in assemble_mosaics(predict_patches(trained, batches), fires):
            maps = decide_fire(mosaic, point, rules.threshold)
            scores.append(measure_fire(mosaic, maps, num_classes=trained.task.num_classes))
            selection.add(mosaic, maps[MODEL], score_fire(scores[-1].methods[MODEL])["iou"])
    scores.sort(key=lambda each: each.fire.positions[0].number)
    results = build_results(trained, patches, split, fires=scores, point=point, rules=rules)
    return Evaluation(results=results, previews=selection.previews)


def get_operating_point(trained: TrainedModel, folder: RunFolder, patches: Patches) -> OperatingPoint:
    """Returns the stored operating point of the run for these patches, or chooses and stores one on val.

    Args:
        trained: Model with its stored calibration, if any.
        folder: Folder of its run.
        patches: Patches whose val split is used.
    """
    stored = trained.calibration
    if stored is not None and stored.fingerprint == patches.fingerprint:
        rule = DetectionRule(stored.rule_min_pixels, stored.rule_min_odds)
        return OperatingPoint(temperature=stored.temperature, threshold=stored.threshold, rule=rule, is_chosen=True)
    with patches.batches("val", "val, to choose the threshold") as batches:
        mosaics = assemble_mosaics(predict_patches(trained, batches), patches.group_by_fire("val"))
        point = select_operating_point(mosaics)
    if not point.is_chosen:
        return point
    if patches.fingerprint != trained.fingerprint:
        log.warning(
            "%s: not written, because the threshold was chosen on other patches than those of the run",
            folder.calibration,
        )
        return point
    calibration = Calibration(
        temperature=point.temperature,
        threshold=point.threshold,
        rule_min_pixels=point.rule.min_pixels,
        rule_min_odds=point.rule.min_log_odds,
        checkpoint_sha256=trained.sha256,
        fingerprint=patches.fingerprint,
    )
    write_calibration(folder, calibration)
    return point


def tune_baseline(trained: TrainedModel, patches: Patches) -> BaselineRules:
    """Tunes the NBR threshold on train if the bands of the model allow it.

    Args:
        trained: Model whose bands are used.
        patches: Patches whose train split is used.
    """
    missing = find_missing_bands(trained.bands)
    fixed = missing.fixed_rule or f"burned where NBR < {FIXED_MAX_NBR:g} and NDWI <= {FIXED_MAX_NDWI:g}"
    if missing.nbr:
        return BaselineRules(None, missing.nbr, fixed)
    with patches.batches("train", "train, to tune the burn ratio") as batches:
        predictions = compute_nbr(batches, trained.bands, ignore_index=trained.task.ignore_index)
        counts = count_nbr(assemble_mosaics(predictions, patches.group_by_fire("train")))
    try:
        threshold = tune_threshold(counts)
    except FiresegError:
        return BaselineRules(None, "train has no burned pixel to tune a threshold on", fixed)
    return BaselineRules(threshold, f"burned where NBR is below {threshold:.3g}, the best threshold on train", fixed)


def _open_run(options: EvaluateOptions) -> tuple[TrainedModel, RunFolder]:
    trained = load_trained_model(options.run, device=options.device)
    if trained.folder is None:
        raise SettingError(
            f"{options.run}: a checkpoint outside a run folder, but an evaluation is written to a run folder; "
            "give a run folder, such as outputs/latest"
        )
    return trained, trained.folder


def _open_other_run(options: EvaluateOptions, trained: TrainedModel) -> tuple[TrainedModel, RunFolder]:
    assert options.against is not None
    other, folder = _open_run(replace(options, run=options.against))
    if other.sha256 == trained.sha256:
        raise SettingError(f"--against {options.against}: the same checkpoint as RUN; give another run")
    check_comparable(trained, other)
    return other, folder


def _open_patches(trained: TrainedModel, folder: RunFolder, options: EvaluateOptions) -> Patches:
    patches = open_patches(
        trained.settings,
        find_patches_root(trained.settings, folder.read_provenance(), options.data),
        task=trained.task,
        batch_size=options.batch_size,
        num_workers=options.workers,
        pin_memory=trained.device.type == "cuda",
    )
    patches.get(options.split)
    if patches.fingerprint != trained.fingerprint:
        log.warning(
            "%s: other patches than %s was trained on (fingerprint %s instead of %s); the training data may be among "
            "the patches evaluated here",
            *(patches.root, folder.path.name, patches.fingerprint[:12], trained.fingerprint[:12]),
        )
    return patches


def _get_results(trained: TrainedModel, folder: RunFolder, patches: Patches, options: EvaluateOptions) -> Results:
    """Reads the results of the other run, or evaluates it if they are missing or of other patches or weights."""
    name = name_evaluation(options.split, patches.fingerprint, trained.fingerprint)
    results = read_results(folder.evaluation(name, "json"))
    if results is not None and (results["run"]["sha256"], results["data"]["fingerprint"]) == (
        trained.sha256,
        patches.fingerprint,
    ):
        return results
    log.info("%s: evaluated first, on the same patches", folder.path)
    # Joined folders cannot be given; a run that is comparable was trained on the same ones.
    options = replace(options, data=patches.root if len(patches.roots) == 1 else None, against=None)
    evaluation = score_run(trained, folder, _open_patches(trained, folder, options), options.split)
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
    if not options.no_track:
        # With the calibration, so that a model loaded from the tracker uses the threshold chosen here.
        files = [path for path in (json_path, report_path, folder.calibration) if path.exists()]
        log_to_tracker(results, trained, folder, files=files)
    for line in format_summary(results):
        log.info("%s", line)
    log.info("report: %s", report_path)
