"""Results of an evaluation: the plain dict that is written to `evaluation_<split>.json`.

Its keys are listed below. An undefined score is None (null in the file). Every `interval` is
`{"mean", "low", "high", "num", "values"}`: mean over fires, its 95 % interval (`metric.estimate_mean`), number of fires
and, if these are fewer than 5, their values instead of the interval, which is then None.

```
format        4
split         "train", "val" or "test"
run           folder, name, checkpoint (file name), sha256, epoch, task, class_names, colours, arch, encoder, bands,
              version (of fireseg), and of several runs as one model members: a list of {name, checkpoint, sha256,
              epoch}; sha256 is then that of their digests; of a self-trained run self_training, see
              `runs.checkpoint.SelfTraining`
data          root, fingerprint, trained_on (fingerprint of the run's own data), is_same, leaks, patches, fires
              (tiles on which something burned), unburned_tiles, labelled_pixels, hectares_known (true if the area of
              every fire is known)
inference     the map that is scored: windows (side in pixels, fitted to each tile), overlap (pixels that they share and
              in which they are blended), input ("patches": each tile is stitched from its patches; "tile": read from
              the folder given with --tiles)
decision      temperature, threshold, rule {min_pixels, min_probability}, chosen_on ("val", or None if val has no
              burned pixel and they are defaults), origin ("run" if they are of the run's own calibration, "given" if
              chosen on other patches given with --data), is_optimistic (true if chosen on the split that is scored),
              best_threshold (of val; used only if its gain is certain), gain (of it over 0.5, in IoU cross-validated
              over the fires of val: {gain, low, high, num}; None if unknown), threshold_reason
methods       a list: "model" (temperature and threshold from val) first, then "model_argmax", "index_tuned",
              "index_fixed", and of a model of a pair "index_dnbr", "index_rdnbr", "index_rbr"; each
                name, label, note, is_there (false if a band is missing; the values below are then None)
                confusion  K x K pixels, rows the truth; 2 x 2 for "index_*"
                pixels     as `metric.segmentation_scores`; only `fire_*` for "index_*"
                fires      iou, dice, precision, recall: an interval each
                edges      boundary_f1_{1,2,3}px, boundary_iou_{1,2,3}px pooled, hausdorff_95_px the median of fires
                area       true_ha, predicted_ha, error_ha, relative_error: sums over fires of known area
                unburned   false alarms on tiles on which nothing burned: num, num_false_alarms, predicted_pixels,
                           predicted_ha, ha_per_1000_km2
                detection  as `metric.detection_scores`: a patch burns if any pixel does
gain          pooled: fire IoU of "model" minus that of "index_tuned"; per_fire: {difference (interval), wins,
              losses, ties, p_value}; both None if a band of the index is missing
confusion     K x K pixels of "model", rows the truth
calibration   before and after: {ece, brier, nll, average_precision}; reliability {before, after}: {edges, confidence,
              frequency, pixels}; precision_recall {threshold, precision, recall} of at most 200 points;
              operating_point {threshold, precision, recall}
detection     plain and rule: as `metric.detection_scores`
fires         a list, one entry per tile, of the method "model": name, activation, country, climate, date, size,
              burned_share, labelled_pixels, iou, dice, precision, recall, true_ha, predicted_ha, boundary_f1_2px,
              boundary_iou_2px, hausdorff_95_px, index_tuned_iou, index_fixed_iou, of a model of a pair index_dnbr_iou,
              index_rdnbr_iou and index_rbr_iou, of severity the three of `metric.severity_scores`, truth_sha256
groups        size, and country, climate, year if known: lists of {name, num, iou, index_tuned_iou, difference},
              the last three an interval each
off_centre    None, or the check of `off_centre`: drop (largest loss of pooled fire IoU), advice (empty if it is small),
              mirrored and cropped: {confusion {centred, off_centre}, pooled {centred, off_centre}, difference (interval
              of off centre minus centred, on the same pixels), wins, losses, ties, p_value}, fires: a list of {name,
              mirrored {centred, off_centre}, cropped {…}}
against       None, or name, sha256, split, difference (interval of ours minus theirs), wins, losses, ties, p_value,
              pooled {ours, theirs}, unburned {ours, theirs} (as in `methods`), fires: a list of {name, ours, theirs}
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg import __version__
from fireseg.evaluate.baseline import has_change
from fireseg.evaluate.mosaic import score_any_pixel_detection, score_rule_detection
from fireseg.evaluate.off_centre import OffCentreCounts, describe_off_centre, describe_reliance
from fireseg.evaluate.options import Split
from fireseg.evaluate.patches import Patches
from fireseg.evaluate.scores import (
    CHANGE_METHODS,
    INDEX_FIXED,
    INDEX_TUNED,
    METHODS,
    MODEL,
    MODEL_ARGMAX,
    FireScores,
    compare_to_baseline,
    describe_fire,
    group_fires,
    score_method,
)
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.files import atomic_write
from fireseg.geo.windows import OVERLAP_PX, WINDOW_PX
from fireseg.metric import precision_recall, reliability, score_calibration
from fireseg.runs import TrainedModel
from fireseg.runs.summary import EVALUATION_FORMAT, Results

MAX_POINTS = 200
"""Largest number of points of the precision-recall curve."""

_RUN_KEYS = (
    *("folder", "name", "checkpoint", "sha256", "epoch", "task", "class_names", "colours"),
    *("arch", "encoder", "bands", "version", "members", "self_training"),
)
"""Keys of `results["run"]`, in the order of the file."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Preview of a fire, subsampled to at most 320 pixels a side.

    Attributes:
        composite_image: Reflectance of the run's bands, `(C, h, w)` float32; 0 where there is no patch.
        truth: Classes, `(h, w)` uint8, 255 where unlabelled.
        predicted: Classes, `(h, w)` uint8, 255 where there is no patch.
    """

    composite_image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of an evaluation with previews for the report.

    Attributes:
        results: Dict that this module describes, plain values only.
        previews: Best and worst fires by their name in `results["fires"]`.
    """

    results: Results
    previews: Mapping[str, Preview]


def to_dict(value: Any) -> Any:
    """Converts to JSON values: arrays become lists, named tuples dicts, NaN and infinity None.

    Example:
        >>> to_dict({"iou": float("nan"), "pixels": np.array([1, 2])})
        {'iou': None, 'pixels': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return to_dict(value._asdict())
    if isinstance(value, np.ndarray | np.generic):
        return to_dict(value.tolist())
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_results(results: Results, path: Path) -> None:
    """Writes `evaluation_<split>.json` atomically; equal results give equal bytes."""
    with atomic_write(path) as part:
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


def name_evaluation(split: str, fingerprint: str, trained_on: str) -> str:
    """Names an evaluation by its split and, if the run was trained on other patches, their fingerprint.

    Args:
        split: Split of the evaluation.
        fingerprint: Fingerprint of the patches evaluated on.
        trained_on: Fingerprint of the patches that the run was trained on.

    Example:
        >>> name_evaluation("test", "3f2a11bb07", "3f2a11bb07"), name_evaluation("test", "3f2a11bb07", "99")
        ('test', 'test_3f2a11bb')
    """
    return split if fingerprint == trained_on else f"{split}_{fingerprint[:8]}"


class BaselineRules(NamedTuple):
    """Rules of the NBR baseline.

    Attributes:
        threshold: Threshold of the burn ratio, tuned on train; None if not available.
        tuned_note: Description of the threshold, or the reason why there is none.
        fixed_note: Description of the fixed rule, or the reason why it cannot be applied.
        changes: Thresholds of the indices of change, tuned on train, by index; empty if not available.
    """

    threshold: float | None
    tuned_note: str
    fixed_note: str
    changes: Mapping[str, float] = {}


def build_results(
    trained: TrainedModel,
    patches: Patches,
    split: Split,
    *,
    fires: Sequence[FireScores],
    off_centre: Sequence[OffCentreCounts],
    point: OperatingPoint,
    rules: BaselineRules,
    origin: str,
) -> Results:
    """Builds the results without the comparison with another run.

    Args:
        trained: Evaluated model.
        patches: Patches evaluated on.
        split: Split evaluated on.
        fires: Counts of all fires of the split.
        off_centre: Counts of the off-centre check; empty if it was not made.
        point: Operating point of the model.
        rules: Rules of the baseline.
        origin: Patches that both were chosen on: `run` or `given`.
    """
    rows = [describe_fire(fire) for fire in fires]
    counts = np.sum([fire.log_odds_counts for fire in fires], axis=0)
    names = (*METHODS, *(CHANGE_METHODS if has_change(trained.bands) else ()))
    methods = [_describe_method(name, trained, fires, point, rules) for name in names]
    summaries = [patch for fire in fires for patch in fire.patches]
    results = {
        "format": EVALUATION_FORMAT,
        "split": split,
        "run": _describe_run(trained),
        "data": _describe_data(trained, patches, split, fires),
        "inference": {"windows": WINDOW_PX, "overlap": OVERLAP_PX, "input": patches.input},
        "decision": _describe_decision(
            point, origin, is_optimistic=split == "val" and _is_judged(trained, patches, origin)
        ),
        "methods": methods,
        "gain": compare_to_baseline(fires),
        "confusion": np.sum([fire.methods[MODEL].confusion for fire in fires], axis=0),
        "calibration": describe_calibration(counts, point, methods[0]["pixels"]),
        "detection": {"plain": methods[0]["detection"], "rule": score_rule_detection(summaries, point.rule)},
        "fires": rows,
        "groups": group_fires(rows),
        "off_centre": describe_off_centre(off_centre),
        "against": None,
    }
    results = to_dict(results)
    if results["off_centre"]:
        window_px = trained.settings.get("data", {}).get("crop") or patches.get(split)[0].mask.shape[0]
        results["off_centre"]["advice"] = describe_reliance(results["off_centre"], window_px)
    return results


def describe_calibration(
    counts: NDArray[np.int64], point: OperatingPoint, pixels: Mapping[str, float]
) -> dict[str, Any]:
    """Describes the calibration before and after the temperature, and the precision-recall curve.

    Args:
        counts: Counts of all fires from `metric.count_log_odds`.
        point: Operating point from val.
        pixels: Scores of the model at its threshold.
    """
    temperatures = {"before": 1.0, "after": point.temperature}
    curve = precision_recall(counts, temperature=point.temperature)
    num_points = len(curve.threshold)
    shown = np.unique(np.linspace(0, num_points - 1, min(num_points, MAX_POINTS)).round().astype(int))
    return {
        **{when: score_calibration(counts, temperature=value) for when, value in temperatures.items()},
        "reliability": {when: reliability(counts, temperature=value) for when, value in temperatures.items()},
        "precision_recall": {name: values[shown] for name, values in curve._asdict().items()},
        "operating_point": {
            "threshold": point.threshold,
            "precision": pixels["fire_precision"],
            "recall": pixels["fire_recall"],
        },
    }


def _describe_run(trained: TrainedModel) -> dict[str, Any]:
    more = {"name": trained.name, "colours": trained.task.colours, "version": __version__}
    description = {**trained.describe(), **more}
    return {key: description[key] for key in _RUN_KEYS if key in description}


def _describe_data(
    trained: TrainedModel, patches: Patches, split: Split, fires: Sequence[FireScores]
) -> dict[str, Any]:
    is_same = patches.fingerprint == trained.fingerprint
    # Whether unlabelled tiles are among other patches than those of the run is not known.
    unlabelled = trained.self_training.leaks if trained.self_training and is_same else ()
    return {
        "root": " ".join(map(str, patches.roots)),
        "fingerprint": patches.fingerprint,
        "trained_on": trained.fingerprint,
        "is_same": is_same,
        "leaks": (*patches.leaks, *unlabelled),
        "patches": len(patches.get(split)),
        "fires": sum(fire.is_burned for fire in fires),
        "unburned_tiles": sum(not fire.is_burned for fire in fires),
        "labelled_pixels": sum(fire.labelled_pixels for fire in fires),
        "hectares_known": all(fire.true_ha is not None for fire in fires),
    }


def _is_judged(trained: TrainedModel, patches: Patches, origin: str) -> bool:
    return origin == "given" or patches.fingerprint == trained.fingerprint


def _describe_decision(point: OperatingPoint, origin: str, *, is_optimistic: bool) -> dict[str, Any]:
    return {
        "temperature": point.temperature,
        "threshold": point.threshold,
        "rule": {"min_pixels": point.rule.min_pixels, "min_probability": point.min_probability},
        "chosen_on": "val" if point.is_chosen else None,
        "is_optimistic": is_optimistic,
        "origin": origin,
        "best_threshold": point.best_threshold,
        "gain": point.gain,
        "threshold_reason": point.threshold_reason,
    }


def _describe_method(
    name: str, trained: TrainedModel, fires: Sequence[FireScores], point: OperatingPoint, rules: BaselineRules
) -> dict[str, Any]:
    label, note = _label_method(name, point, rules)
    is_there = all(name in fire.methods for fire in fires)
    description = {"name": name, "label": label, "note": note, "is_there": is_there}
    if not is_there:
        return description | dict.fromkeys(("confusion", "pixels", "fires", "edges", "area", "unburned", "detection"))
    patches = [patch for fire in fires for patch in fire.patches]
    predictions = {
        MODEL: [patch.max_log_odds >= point.min_log_odds for patch in patches],
        MODEL_ARGMAX: [patch.is_argmax_burned for patch in patches],
        INDEX_TUNED: [rules.threshold is not None and patch.min_nbr < rules.threshold for patch in patches],
        INDEX_FIXED: [patch.is_fixed_burned for patch in patches],
        **{
            method: [patch.max_changes[index] > rules.changes[index] for patch in patches]
            for method, index in CHANGE_METHODS.items()
            if index in rules.changes
        },
    }
    scores = score_method(name, fires, trained.task.class_names)
    return {**description, **scores, "detection": score_any_pixel_detection(patches, predictions[name])}


def _label_method(name: str, point: OperatingPoint, rules: BaselineRules) -> tuple[str, str]:
    rule = f"burned where the probability is at least {point.threshold:.3g}"
    return {
        MODEL: ("model", f"{rule} ({point.threshold_reason}), temperature {point.temperature:.3g}"),
        MODEL_ARGMAX: ("model, argmax", "the likeliest class: no threshold, no temperature"),
        INDEX_TUNED: ("NBR, tuned", rules.tuned_note),
        INDEX_FIXED: ("NBR, fixed", rules.fixed_note),
        **{method: (f"{index}, tuned", _note_change(index, rules)) for method, index in CHANGE_METHODS.items()},
    }[name]


def _note_change(index: str, rules: BaselineRules) -> str:
    if index not in rules.changes:
        return rules.tuned_note
    return f"burned where {index} is above {rules.changes[index]:.3g}, the best threshold on train"
