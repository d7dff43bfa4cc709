"""What an evaluation says, as the plain dict that becomes `evaluation_<split>.json`.

Key by key; a score that cannot be read is None (null on disk), and every `interval` is
`{"mean", "low", "high", "num"}`: the mean over fires, its bootstrap 95 % interval, and over how many.

```
format        1
split         "train", "val" or "test"
run           folder, name, checkpoint (file name), sha256, epoch, task, class_names, colours, arch, encoder, bands,
              version (of fireseg)
data          root, fingerprint, trained_on (fingerprint of the run's own data), is_same, leaks, patches, fires,
              labelled_pixels, hectares_known (whether of every fire)
decision      temperature, threshold, rule {min_pixels, min_probability}, chosen_on ("val", or None where there was
              nothing to choose on), is_optimistic (judged on what it was chosen on)
methods       a list: "model" (temperature and threshold from val) first, then "model_argmax", "index_tuned",
              "index_fixed"; each
                name, label, note, is_there (False: a band is missing, and what follows is None)
                pixels     as `metric.segmentation_scores`; of an index the `fire_*` alone
                fires      iou, dice, precision, recall: an interval each
                edges      boundary_f1_{1,2,3}px, boundary_iou_{1,2,3}px pooled, hausdorff_95_px the median of fires
                area       true_ha, predicted_ha, error_ha, relative_error: of the fires whose hectares are known
                detection  as `metric.detection_scores`: a patch burns if any pixel does
gain          pooled: fire IoU of the model less that of the tuned index; per_fire: {difference (interval), wins,
              losses, ties, p_value}; both None where the index lacks a band
confusion     K x K pixels, rows the truth, of the method "model"
calibration   before and after: {ece, brier, nll, average_precision}; reliability {before, after}: {edges, confidence,
              frequency, pixels}; precision_recall {threshold, precision, recall} of at most 200 points;
              operating_point {threshold, precision, recall}
detection     plain and rule: as `metric.detection_scores`
fires         a list, one a tile, of the method "model": name, activation, country, climate, date, size, burned_share,
              labelled_pixels, iou, dice, precision, recall, true_ha, predicted_ha, boundary_f1_2px, boundary_iou_2px,
              hausdorff_95_px, index_tuned_iou, index_fixed_iou, truth_sha256
groups        size, and country, climate, year where known: lists of {name, num, iou (interval), index_tuned_iou}
against       None, or name, sha256, split, difference (interval of ours less theirs), wins, losses, ties, p_value,
              pooled {ours, theirs}, fires: a list of {name, ours, theirs}
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
from fireseg.evaluate.mosaic import score_argmax_detection, score_rule
from fireseg.evaluate.patches import Patches, Split
from fireseg.evaluate.scores import (
    INDEX_FIXED,
    INDEX_TUNED,
    METHODS,
    MODEL,
    MODEL_ARGMAX,
    FireScores,
    compare_to_index,
    describe_fire,
    group_fires,
    score_method,
)
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.files import atomic_write
from fireseg.metric import precision_recall, reliability, score_calibration
from fireseg.runs import TrainedModel

FORMAT = 1
"""Counts up whenever a reader of before could not read what is written now."""

Content = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A fire to be looked at, thinned to at most 320 pixels a side.

    Attributes:
        composite_image: Reflectance of the run's bands, `(C, h, w)` float32; 0 where there is no patch.
        truth: Classes, `(h, w)` uint8, 255 where nobody labelled.
        predicted: Classes, `(h, w)` uint8, 255 where there is no patch.
    """

    composite_image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation, and what its page shows beside.

    Attributes:
        content: The dict that this module describes, plain values only.
        previews: The best and the worst fires, by their name in `content["fires"]`.
    """

    content: Content
    previews: Mapping[str, Preview]


def to_dict(value: Any) -> Any:
    """The same in values that JSON has: arrays become lists, tuples with names dicts, NaN and infinity None.

    Example:
        >>> to_plain({"iou": float("nan"), "pixels": np.array([1, 2])})
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


def write_content(content: Content, path: Path) -> None:
    """Writes `evaluation_<split>.json`, whole or not at all; the same content gives the same bytes."""
    with atomic_write(path) as part:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


def name_evaluation(split: str, fingerprint: str, trained_on: str) -> str:
    """What an evaluation is filed under: the split, and where the patches are not the run's own, which they are.

    Args:
        split: What the run was judged on.
        fingerprint: Of the patches.
        trained_on: Fingerprint of those that the run was trained on.

    Example:
        >>> name_evaluation("test", "3f2a11bb07", "3f2a11bb07"), name_evaluation("test", "3f2a11bb07", "99")
        ('test', 'test_3f2a11bb')
    """
    return split if fingerprint == trained_on else f"{split}_{fingerprint[:8]}"


def read_content(path: Path) -> Content | None:
    """What `write_content` wrote; None where there is no such file, or one of another format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


MAX_POINTS = 200
"""Of the precision-recall curve."""


class BaselineRules(NamedTuple):
    """What burns by an index.

    Attributes:
        threshold: Of the burn ratio, from train; None where there is none.
        tuned_note: What is known of it, or why it is not there.
        fixed_note: The same of the fixed rule.
    """

    threshold: float | None
    tuned_note: str
    fixed_note: str


def build_results(
    trained: TrainedModel,
    patches: Patches,
    split: Split,
    *,
    fires: Sequence[FireScores],
    decision: OperatingPoint,
    rules: BaselineRules,
) -> Content:
    """Everything but the comparison with another run, in plain values.

    Args:
        trained: The model.
        patches: What it was judged on.
        split: Of these.
        fires: All fires of the split.
        decision: By which the model was judged.
        rules: By which the indices were.
    """
    rows = [describe_fire(fire) for fire in fires]
    odds = np.sum([fire.odds for fire in fires], axis=0)
    methods = [_describe_method(name, trained, fires, decision, rules) for name in METHODS]
    listed = [patch for fire in fires for patch in fire.patches]
    content = {
        "format": FORMAT,
        "split": split,
        "run": _describe_run(trained),
        "data": _describe_data(trained, patches, split, fires),
        "decision": _describe_decision(decision, split),
        "methods": methods,
        "gain": compare_to_index(fires),
        "confusion": np.sum([fire.methods[MODEL].confusion for fire in fires], axis=0),
        "calibration": describe_calibration(odds, decision, methods[0]["pixels"]),
        "detection": {"plain": methods[0]["detection"], "rule": score_rule(listed, decision.rule)},
        "fires": rows,
        "groups": group_fires(rows),
        "against": None,
    }
    return to_dict(content)


def describe_calibration(
    odds: NDArray[np.int64], decision: OperatingPoint, pixels: Mapping[str, float]
) -> dict[str, Any]:
    """How honest the probabilities are, before and after the temperature.

    Args:
        odds: From `metric.count_odds`, over all fires.
        decision: From val.
        pixels: Scores of the model at its threshold.
    """
    temperatures = {"before": 1.0, "after": decision.temperature}
    curve = precision_recall(odds, temperature=decision.temperature)
    num_points = len(curve.threshold)
    shown = np.unique(np.linspace(0, num_points - 1, min(num_points, MAX_POINTS)).round().astype(int))
    return {
        **{when: score_calibration(odds, temperature=value) for when, value in temperatures.items()},
        "reliability": {when: reliability(odds, temperature=value) for when, value in temperatures.items()},
        "precision_recall": {name: values[shown] for name, values in curve._asdict().items()},
        "operating_point": {
            "threshold": decision.threshold,
            "precision": pixels["fire_precision"],
            "recall": pixels["fire_recall"],
        },
    }


def _describe_run(trained: TrainedModel) -> dict[str, Any]:
    assert trained.folder is not None
    folder, task = trained.folder.path.resolve(), trained.task
    return {
        "folder": str(folder),
        "name": folder.name,
        "checkpoint": trained.checkpoint.name,
        "sha256": trained.sha256,
        "epoch": trained.epoch,
        "task": task.name,
        "class_names": task.class_names,
        "colours": task.colours,
        "arch": trained.settings["model"].get("arch"),
        "encoder": trained.settings["model"].get("encoder"),
        "bands": trained.bands,
        "version": __version__,
    }


def _describe_data(
    trained: TrainedModel, patches: Patches, split: Split, fires: Sequence[FireScores]
) -> dict[str, Any]:
    return {
        "root": str(patches.root),
        "fingerprint": patches.fingerprint,
        "trained_on": trained.fingerprint,
        "is_same": patches.fingerprint == trained.fingerprint,
        "leaks": patches.leaks,
        "patches": len(patches.get(split)),
        "fires": len(fires),
        "labelled_pixels": sum(fire.labelled_pixels for fire in fires),
        "hectares_known": all(fire.true_ha is not None for fire in fires),
    }


def _describe_decision(decision: OperatingPoint, split: Split) -> dict[str, Any]:
    return {
        "temperature": decision.temperature,
        "threshold": decision.threshold,
        "rule": {"min_pixels": decision.rule.min_pixels, "min_probability": decision.least_peak},
        "chosen_on": "val" if decision.is_chosen else None,
        "is_optimistic": split == "val",
    }


def _describe_method(
    name: str, trained: TrainedModel, fires: Sequence[FireScores], decision: OperatingPoint, rules: BaselineRules
) -> dict[str, Any]:
    label, note = _word_method(name, decision, rules)
    is_there = all(name in fire.methods for fire in fires)
    about = {"name": name, "label": label, "note": note, "is_there": is_there}
    if not is_there:
        return about | dict.fromkeys(("pixels", "fires", "edges", "area", "detection"))
    patches = [patch for fire in fires for patch in fire.patches]
    calls = {
        MODEL: [patch.peak_odds >= decision.least_odds for patch in patches],
        MODEL_ARGMAX: [patch.is_argmax for patch in patches],
        INDEX_TUNED: [rules.threshold is not None and patch.lowest_ratio < rules.threshold for patch in patches],
        INDEX_FIXED: [patch.is_fixed for patch in patches],
    }
    scores = score_method(name, fires, trained.task.class_names)
    return {**about, **scores, "detection": score_argmax_detection(patches, calls[name])}


def _word_method(name: str, decision: OperatingPoint, rules: BaselineRules) -> tuple[str, str]:
    where = "both chosen on val" if decision.is_chosen else "val had no fire to choose on"
    at_least = f"burned where the probability is {decision.threshold:.3g} or more"
    return {
        MODEL: ("model", f"{at_least}, temperature {decision.temperature:.3g}, {where}"),
        MODEL_ARGMAX: ("model, likeliest class", "as training reports it: no threshold, no temperature"),
        INDEX_TUNED: ("burn ratio, tuned", rules.tuned_note),
        INDEX_FIXED: ("burn ratio, fixed", rules.fixed_note),
    }[name]
