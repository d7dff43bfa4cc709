"""What each way of deciding is worth on one fire, in counts that add up over fires."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.decision import apply_threshold
from fireseg.evaluate.fires import Fire, measure_areas
from fireseg.evaluate.inference import ARGMAX, FIXED, LOG_ODDS, RATIO, SEVERITY
from fireseg.evaluate.mosaic import Mosaic, PatchSummary
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.metric import (
    BoundaryCounts,
    bootstrap_mean,
    boundary_counts,
    boundary_scores,
    compare_paired,
    count_log_odds,
    hausdorff_95,
    image_counts,
    segmentation_scores,
    sum_boundary_counts,
)
from fireseg.task import DELINEATION_CLASSES

MODEL, MODEL_ARGMAX, INDEX_TUNED, INDEX_FIXED = METHODS = ("model", "model_argmax", "index_tuned", "index_fixed")
"""Threshold from val; likeliest class; burn ratio with its threshold from train; the rule that nobody tuned."""

INDICES = (INDEX_TUNED, INDEX_FIXED)
"""Those that know no grades."""

Classes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One method on one fire.

    Attributes:
        confusion: `(K, K)` int64, rows the truth; `(2, 2)` of an index, which knows no grades.
        edges: Of burned against unburned.
        hausdorff_px: NaN where truth or prediction has no edge.
        predicted_ha: Burned by the method; None where the ground is unknown.
    """

    confusion: NDArray[np.int64]
    edges: BoundaryCounts
    hausdorff_px: float
    predicted_ha: float | None


@dataclass(frozen=True, kw_only=True)
class FireScores:
    """One fire.

    Attributes:
        fire: Which.
        methods: By name; without those that lack a band.
        odds: As `metric.count_odds`.
        patches: Those with a labelled pixel.
        true_ha: Truly burned; None where the ground is unknown.
        truth_sha256: Of its labels and where they lie.
    """

    fire: Fire
    methods: Mapping[str, Measures]
    odds: NDArray[np.int64]
    patches: tuple[PatchSummary, ...]
    true_ha: float | None
    truth_sha256: str

    @property
    def labelled_pixels(self) -> int:
        """How many pixels somebody labelled."""
        return int(self.odds.sum())

    @property
    def burned_share(self) -> float:
        """Share of the labelled pixels that burned, NaN where there is none."""
        return float(self.odds[1].sum() / self.labelled_pixels) if self.labelled_pixels else float("nan")


def decide_fire(fire: Mosaic, decision: OperatingPoint, ratio_threshold: float | None) -> dict[str, Classes]:
    """The map that each method draws.

    Args:
        fire: In one piece.
        decision: From val.
        ratio_threshold: From train; None where there is none.

    Returns:
        Classes, `(H, W)` uint8, by method; an index knows 0 and 1 alone.
    """
    layers = fire.layers
    threshold, temperature = decision.threshold, decision.temperature
    burned = apply_threshold(layers[LOG_ODDS], layers[SEVERITY], threshold=threshold, temperature=temperature)
    maps = {MODEL: burned, MODEL_ARGMAX: layers[ARGMAX]}
    if RATIO in layers and ratio_threshold is not None:
        maps[INDEX_TUNED] = (layers[RATIO] < ratio_threshold).astype(np.uint8)
    if FIXED in layers:
        maps[INDEX_FIXED] = layers[FIXED].astype(np.uint8)
    return maps


def measure_fire(fire: Mosaic, maps: Mapping[str, Classes], *, num_classes: int) -> FireScores:
    """Holds the maps against the truth, where there is one.

    Args:
        fire: In one piece.
        maps: From `decide_fire`.
        num_classes: K of the task.
    """
    burned = {"": fire.is_burned} | {name: fire.is_labelled & (classes > 0) for name, classes in maps.items()}
    hectares = measure_areas(fire.fire, burned)
    methods = {}
    for name, classes in maps.items():
        methods[name] = Measures(
            confusion=_count(classes, fire, 2 if name in INDICES else num_classes),
            edges=boundary_counts(fire.is_burned, burned[name], is_labelled=fire.is_labelled),
            hausdorff_px=hausdorff_95(fire.is_burned, burned[name], is_labelled=fire.is_labelled),
            predicted_ha=hectares[name] if hectares else None,
        )
    return FireScores(
        fire=fire.fire,
        methods=methods,
        odds=count_log_odds(fire.layers[LOG_ODDS], fire.truth),
        patches=tuple(patch for patch in fire.facts if patch.is_labelled),
        true_ha=hectares[""] if hectares else None,
        truth_sha256=_digest(fire),
    )


def _count(classes: Classes, fire: Mosaic, num_classes: int) -> NDArray[np.int64]:
    truth = fire.truth if num_classes > 2 else np.where(fire.is_labelled, fire.is_burned.astype(np.uint8), fire.truth)
    return image_counts(torch.from_numpy(classes)[None], torch.from_numpy(truth)[None], num_classes)[0].numpy()


def _digest(fire: Mosaic) -> str:
    places = [place[1:] for place in fire.fire.places]
    digest = hashlib.sha256(repr((fire.truth.shape, places)).encode())
    digest.update(np.ascontiguousarray(fire.truth).data)
    return digest.hexdigest()


MEASURES = ("iou", "dice", "precision", "recall")

SIZES = ("< 1 %", "1-10 %", "10-30 %", "> 30 %")
"""Of a fire: the burned share of the labelled pixels of its tile."""


def score_method(name: str, fires: Sequence[FireScores], class_names: Sequence[str]) -> dict[str, Any]:
    """All that is said of a method over all fires, but for its words and its detections.

    Args:
        name: One that all fires have.
        fires: At least one.
        class_names: K of the task.
    """
    measured = [fire.methods[name] for fire in fires]
    confusion = np.sum([one.confusion for one in measured], axis=0)
    of_fires = [score_fire(one) for one in measured]
    distances = [one.hausdorff_px for one in measured if not math.isnan(one.hausdorff_px)]
    edges = boundary_scores(sum_boundary_counts(one.edges for one in measured))
    return {
        "pixels": _score_fire(confusion)
        if name in INDICES
        else segmentation_scores(torch.from_numpy(confusion), class_names),
        "fires": {measure: bootstrap_mean([scores[measure] for scores in of_fires]) for measure in MEASURES},
        "edges": {**edges, "hausdorff_95_px": float(np.median(distances)) if distances else math.nan},
        "area": sum_area(name, fires),
    }


def score_fire(one: Measures) -> dict[str, float]:
    """IoU, Dice, precision and recall of burned against unburned on one fire; NaN where there is nothing to read."""
    return {name.removeprefix("fire_"): value for name, value in _score_fire(one.confusion).items()}


def list_ious(name: str, fires: Iterable[FireScores]) -> list[float]:
    """The IoU of a method on each fire, NaN where it lacks a band."""
    return [score_fire(fire.methods[name])["iou"] if name in fire.methods else math.nan for fire in fires]


def sum_area(name: str, fires: Iterable[FireScores]) -> dict[str, float]:
    """Hectares burned over the fires whose ground is known, true and by a method."""
    known = [(fire.true_ha, fire.methods[name].predicted_ha) for fire in fires]
    pairs = [(true, predicted) for true, predicted in known if true is not None and predicted is not None]
    if not pairs:
        return dict.fromkeys(("true_ha", "predicted_ha", "error_ha", "relative_error"), math.nan)
    true, predicted = (sum(column) for column in zip(*pairs, strict=True))
    error = predicted - true
    relative = error / true if true else math.nan
    return {"true_ha": true, "predicted_ha": predicted, "error_ha": error, "relative_error": relative}


def compare_to_index(fires: Sequence[FireScores]) -> dict[str, Any]:
    """What the model wins over the tuned index, on the same pixels; None twice where the index lacks a band."""
    if not all(INDEX_TUNED in fire.methods for fire in fires):
        return {"pooled": None, "per_fire": None}
    ours, theirs = (
        _score_fire(np.sum([fire.methods[name].confusion for fire in fires], axis=0))["fire_iou"]
        for name in (MODEL, INDEX_TUNED)
    )
    return {
        "pooled": ours - theirs,
        "per_fire": compare_paired(list_ious(MODEL, fires), list_ious(INDEX_TUNED, fires)),
    }


def describe_fire(one: FireScores) -> dict[str, Any]:
    """A row of the table of fires."""
    fire, model = one.fire, one.methods[MODEL]
    edges = boundary_scores(model.edges)
    return {
        **{key: getattr(fire, key) for key in ("name", "activation", "country", "climate", "date")},
        "size": name_size(one.burned_share),
        "burned_share": one.burned_share,
        "labelled_pixels": one.labelled_pixels,
        **score_fire(model),
        "true_ha": one.true_ha,
        "predicted_ha": model.predicted_ha,
        "boundary_f1_2px": edges["boundary_f1_2px"],
        "boundary_iou_2px": edges["boundary_iou_2px"],
        "hausdorff_95_px": model.hausdorff_px,
        "index_tuned_iou": list_ious(INDEX_TUNED, [one])[0],
        "index_fixed_iou": list_ious(INDEX_FIXED, [one])[0],
        "truth_sha256": one.truth_sha256,
    }


def name_size(burned_share: float) -> str:
    """Which of `SIZES` a fire has; a tile without labels is among the smallest.

    Example:
        >>> name_size(0.3), name_size(0.31), name_size(0.0)
        ('10-30 %', '> 30 %', '< 1 %')
    """
    if burned_share > 0.3:
        return SIZES[3]
    return SIZES[2] if burned_share >= 0.1 else SIZES[1] if burned_share >= 0.01 else SIZES[0]


def group_fires(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Mean IoU over fires by size, and by country, climate and year as far as these are known.

    Args:
        rows: From `describe_fire`.
    """
    keys: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
        "country": lambda row: row["country"],
        "climate": lambda row: row["climate"],
        "year": lambda row: row["date"][:4] if row["date"] else None,
    }
    groups = {"size": _group(rows, lambda row: row["size"], SIZES)}
    for key, get in keys.items():
        if names := sorted({name for row in rows if (name := get(row))}):
            groups[key] = _group(rows, get, names)
    return groups


def _group(
    rows: Sequence[Mapping[str, Any]], get: Callable[[Mapping[str, Any]], str | None], names: Sequence[str]
) -> list[dict[str, Any]]:
    found = []
    for name in names:
        if members := [row for row in rows if get(row) == name]:
            ious = {key: bootstrap_mean([row[key] for row in members]) for key in ("iou", "index_tuned_iou")}
            # Only where both have an IoU: means over different fires say nothing of each other.
            gains = [row["iou"] - row["index_tuned_iou"] for row in members]
            found.append({"name": name, "num": len(members), **ious, "difference": bootstrap_mean(gains)})
    return found


def _score_fire(confusion: np.ndarray) -> dict[str, float]:
    """`fire_*` of any confusion matrix, and nothing of classes."""
    scores = segmentation_scores(torch.from_numpy(_pool(confusion)), DELINEATION_CLASSES)
    return {f"fire_{measure}": scores[f"fire_{measure}"] for measure in MEASURES}


def _pool(confusion: np.ndarray) -> np.ndarray:
    """Burned or not, whatever the grade."""
    unburned, missed, alarmed = confusion[0, 0], confusion[1:, 0].sum(), confusion[0, 1:].sum()
    return np.array([[unburned, alarmed], [missed, confusion[1:, 1:].sum()]])
