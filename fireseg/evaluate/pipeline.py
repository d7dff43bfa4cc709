"""From a finished run to its evaluation, step by step."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from fireseg.engine.device import DeviceName, set_threads
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.baseline import FIXED_RATIO, WETTEST_BURN, tune_threshold
from fireseg.evaluate.compare import check_comparable, compare_runs
from fireseg.evaluate.inference import AvailableIndices, compute_ratios, count_fire_ratios, predict_patches
from fireseg.evaluate.mosaic import assemble_mosaics
from fireseg.evaluate.patches import Patches, Split, find_root, open_patches
from fireseg.evaluate.report import PreviewSelection
from fireseg.evaluate.results import (
    BaselineRules,
    Content,
    Evaluation,
    build_results,
    name_evaluation,
    read_content,
    write_content,
)
from fireseg.evaluate.scores import MODEL, FireScores, decide_fire, measure_fire, score_fire
from fireseg.evaluate.summary import format_summary, log_to_tracker
from fireseg.evaluate.thresholds import OperatingPoint, select_operating_point
from fireseg.metric import DetectionRule
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.folder import RunFolder

log = logging.getLogger("fireseg")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What a user asks for.

    Attributes:
        run: A run folder, or a checkpoint in one.
        split: What the run is judged on.
        data: Folder of the patches; None for where they were when the run was trained.
        against: Another run folder to be held against, or None.
        device: `auto`, `cuda`, `mps` or `cpu`.
        batch_size: Patches at a time; None for those of the run.
        workers: Processes that read patches; None for those of the run.
        is_tracked: Whether the run's tracker is told.
    """

    run: Path
    split: Split = "test"
    data: Path | None = None
    against: Path | None = None
    device: DeviceName = "auto"
    batch_size: int | None = None
    workers: int | None = None
    is_tracked: bool = True


def evaluate(wish: EvaluateOptions) -> Evaluation:
    """Judges a run, and leaves `evaluation_<split>.json` and its page in the run's folder.

    Args:
        wish: What the user asks for.

    Raises:
        FiresegError: If something is wrong that the user can mend.
    """
    set_threads(None)
    trained, folder = _open_run(wish.run, wish)
    theirs = None if wish.against is None else _open_opponent(wish, trained)
    patches = _open_patches(trained, folder, wish)
    rival = None if theirs is None else _judge_opponent(theirs, patches, wish)
    evaluated = score_run(trained, folder, patches, wish.split)
    if rival is not None:
        try:
            content = {**evaluated.content, "against": compare_runs(evaluated.content, rival)}
        except FiresegError:  # what was found of this run is not lost with the comparison
            _leave(evaluated, trained, folder, wish)
            raise
        evaluated = replace(evaluated, content=content)
    _leave(evaluated, trained, folder, wish)
    return evaluated


def score_run(trained: TrainedModel, folder: RunFolder, patches: Patches, split: Split) -> Evaluation:
    """Chooses on val, tunes on train, and looks at every patch of a split once.

    Args:
        trained: The model.
        folder: Of its run: what is chosen on val stays there.
        patches: What it is judged on.
        split: Of these.
    """
    fires = patches.lay_fires(split)
    decision = get_operating_point(trained, folder, patches)
    rules = tune_baseline(trained, patches)
    gallery, scores = PreviewSelection(), list[FireScores]()
    with patches.batches(split, split) as batches:
        for stitched in assemble_mosaics(predict_patches(trained, batches), fires):
            maps = decide_fire(stitched, decision, rules.threshold)
            scores.append(measure_fire(stitched, maps, num_classes=trained.task.num_classes))
            gallery.add(stitched, maps[MODEL], score_fire(scores[-1].methods[MODEL])["iou"])
    scores.sort(key=lambda one: one.fire.places[0].number)
    content = build_results(trained, patches, split, fires=scores, decision=decision, rules=rules)
    return Evaluation(content=content, previews=gallery.previews)


def get_operating_point(trained: TrainedModel, folder: RunFolder, patches: Patches) -> OperatingPoint:
    """Temperature, threshold and rule: those of the run where it has them for these patches, else chosen on val.

    Args:
        trained: The model, with what was chosen for it before.
        folder: Of its run.
        patches: Of whose val they must be.
    """
    known = trained.calibration
    if known is not None and known.fingerprint == patches.fingerprint:
        rule = DetectionRule(known.rule_min_pixels, known.rule_min_odds)
        return OperatingPoint(temperature=known.temperature, threshold=known.threshold, rule=rule, is_chosen=True)
    with patches.batches("val", "val, to choose the threshold") as batches:
        decision = select_operating_point(assemble_mosaics(predict_patches(trained, batches), patches.lay_fires("val")))
    if not decision.is_chosen:
        return decision
    if patches.fingerprint != trained.fingerprint:
        log.warning("%s: what was chosen on other patches than the run's own is not kept for maps", folder.calibration)
        return decision
    calibration = Calibration(
        temperature=decision.temperature,
        threshold=decision.threshold,
        rule_min_pixels=decision.rule.min_pixels,
        rule_min_odds=decision.rule.min_odds,
        checkpoint_sha256=trained.sha256,
        fingerprint=patches.fingerprint,
    )
    write_calibration(folder, calibration)
    return decision


def tune_baseline(trained: TrainedModel, patches: Patches) -> BaselineRules:
    """The rules that cost nothing: the threshold of the burn ratio is tuned on train, where its bands are.

    Args:
        trained: Whose bands there are.
        patches: Of whose train it must be.
    """
    lacking = AvailableIndices.of(trained.bands)
    fixed = lacking.fixed or f"burned where NBR < {FIXED_RATIO:g} and NDWI <= {WETTEST_BURN:g}"
    if lacking.ratio:
        return BaselineRules(None, lacking.ratio, fixed)
    with patches.batches("train", "train, to tune the burn ratio") as batches:
        seen = compute_ratios(batches, trained.bands, ignore_index=trained.task.ignore_index)
        counts = count_fire_ratios(assemble_mosaics(seen, patches.lay_fires("train")))
    try:
        threshold = tune_threshold(counts)
    except FiresegError:
        return BaselineRules(None, "train has no burned pixel to tune a threshold on", fixed)
    return BaselineRules(threshold, f"burned where NBR is below {threshold:.3g}, the best threshold on train", fixed)


def _open_run(path: Path, wish: EvaluateOptions) -> tuple[TrainedModel, RunFolder]:
    trained = load_trained_model(path, device=wish.device)
    if trained.folder is None:
        raise SettingError(
            f"{path}: a checkpoint on its own, but an evaluation is written into the folder of a run; "
            "give a folder as outputs/<run>"
        )
    return trained, trained.folder


def _open_opponent(wish: EvaluateOptions, ours: TrainedModel) -> tuple[TrainedModel, RunFolder]:
    assert wish.against is not None
    theirs, folder = _open_run(wish.against, wish)
    if theirs.sha256 == ours.sha256:
        raise SettingError(f"--against {wish.against}: the same checkpoint; name another run")
    check_comparable(ours, theirs)
    return theirs, folder


def _open_patches(trained: TrainedModel, folder: RunFolder, wish: EvaluateOptions) -> Patches:
    patches = open_patches(
        trained.settings,
        find_root(trained.settings, folder.read_provenance(), wish.data),
        task=trained.task,
        batch_size=wish.batch_size,
        num_workers=wish.workers,
        pin_memory=trained.device.type == "cuda",
    )
    patches.get(wish.split)
    if patches.fingerprint != trained.fingerprint:
        log.warning(
            "%s holds other patches than %s was trained on (fingerprint %s, then %s): what it learned from may be "
            "among those that it is judged on",
            *(patches.root, folder.path.name, patches.fingerprint[:12], trained.fingerprint[:12]),
        )
    return patches


def _judge_opponent(theirs: tuple[TrainedModel, RunFolder], patches: Patches, wish: EvaluateOptions) -> Content:
    """The other run's evaluation: that which it has, if it is of the same model and patches, else a new one."""
    trained, folder = theirs
    content = read_content(
        folder.evaluation(name_evaluation(wish.split, patches.fingerprint, trained.fingerprint), "json")
    )
    wanted = {"sha256": trained.sha256, "fingerprint": patches.fingerprint}
    if content is not None and {**wanted, **_identify(content)} == wanted:
        return content
    log.info("%s: evaluated first, on the same patches", folder.path)
    its_wish = replace(wish, data=patches.root, against=None)
    evaluated = score_run(trained, folder, _open_patches(trained, folder, its_wish), wish.split)
    _leave(evaluated, trained, folder, its_wish)
    return evaluated.content


def _identify(content: Content) -> dict[str, str]:
    return {"sha256": content["run"]["sha256"], "fingerprint": content["data"]["fingerprint"]}


def _leave(evaluated: Evaluation, trained: TrainedModel, folder: RunFolder, wish: EvaluateOptions) -> None:
    """Writes what came of it, tells the tracker, and says it."""
    from fireseg.evaluate.report import write_report  # a second of drawing tools that a refused run need not wait for

    name = name_evaluation(wish.split, evaluated.content["data"]["fingerprint"], trained.fingerprint)
    json_path, page_path = (folder.evaluation(name, kind) for kind in ("json", "html"))
    write_content(evaluated.content, json_path)
    write_report(evaluated, page_path)
    if wish.is_tracked:
        # The calibration goes along, so that whoever loads the model from there maps with the threshold chosen here.
        files = [path for path in (json_path, page_path, folder.calibration) if path.exists()]
        log_to_tracker(evaluated.content, trained, folder, files=files)
    for line in format_summary(evaluated.content):
        log.info("%s", line)
    log.info("look at it: %s", page_path)
