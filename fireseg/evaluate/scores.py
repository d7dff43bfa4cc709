"""Scores of the model and the baseline: counts of each fire, and scores over fires, groups and pixels."""

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
from fireseg.evaluate.inference import ARGMAX, FIXED_RULE, LOG_ODDS, NBR, SEVERITY
from fireseg.evaluate.mosaic import Mosaic, PatchSummary
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.metric import (
    BoundaryCounts,
    boundary_counts,
    boundary_scores,
    compare_paired,
    count_log_odds,
    estimate_mean,
    fire_scores,
    hausdorff_95,
    image_counts,
    segmentation_scores,
    severity_scores,
    sum_boundary_counts,
)

MODEL, MODEL_ARGMAX, INDEX_TUNED, INDEX_FIXED = METHODS = ("model", "model_argmax", "index_tuned", "index_fixed")
"""Model with the threshold from val; its argmax; burn ratio with the threshold from train; fixed rule."""

CHANGE_METHODS = {"index_dnbr": "dNBR", "index_rdnbr": "RdNBR", "index_rbr": "RBR"}
"""Indices of change with the threshold from train, by method; only of models of a pair."""

BASELINES = (INDEX_TUNED, INDEX_FIXED, *CHANGE_METHODS)
"""Methods without severity classes."""

Classes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class MethodCounts:
    """Counts of a method on a fire.

    Attributes:
        confusion: `(K, K)` int64, rows the truth; `(2, 2)` for a baseline, which has no severity classes.
        boundaries: Boundary counts of burned against unburned.
        hausdorff_px: Hausdorff distance (95 %) in pixels; NaN if truth or prediction has no boundary.
        predicted_ha: Predicted burned area in hectares; None without a georeference.
    """

    confusion: NDArray[np.int64]
    boundaries: BoundaryCounts
    hausdorff_px: float
    predicted_ha: float | None


@dataclass(frozen=True, kw_only=True)
class FireScores:
    """Counts of a fire.

    Attributes:
        fire: The fire.
        methods: Counts by method; without methods that lack a band.
        log_odds_counts: Counts from `metric.count_log_odds`.
        patches: Summaries of the patches with a labelled pixel.
        true_ha: True burned area in hectares; None without a georeference.
        labelled_ha: Labelled area in hectares; None without a georeference.
        truth_sha256: SHA-256 of the labels and their positions.
    """

    fire: Fire
    methods: Mapping[str, MethodCounts]
    log_odds_counts: NDArray[np.int64]
    patches: tuple[PatchSummary, ...]
    true_ha: float | None
    labelled_ha: float | None
    truth_sha256: str

    @property
    def is_burned(self) -> bool:
        """True if any labelled pixel burned; a tile on which nothing burned is no fire and has no IoU."""
        return bool(self.log_odds_counts[1].any())

    @property
    def labelled_pixels(self) -> int:
        """Number of labelled pixels."""
        return int(self.log_odds_counts.sum())

    @property
    def burned_share(self) -> float:
        """Share of the labelled pixels that burned; NaN without labelled pixels."""
        return float(self.log_odds_counts[1].sum() / self.labelled_pixels) if self.labelled_pixels else float("nan")


def decide_fire(
    mosaic: Mosaic,
    point: OperatingPoint,
    nbr_threshold: float | None,
    change_thresholds: Mapping[str, float] | None = None,
) -> dict[str, Classes]:
    """Classifies the pixels of a fire by each method.

    Args:
        mosaic: Assembled fire.
        point: Operating point from val.
        nbr_threshold: Threshold of the burn ratio from train, or None.
        change_thresholds: Thresholds of the indices of change from train by index, or None.

    Returns:
        Classes by method, `(H, W)` uint8; 0 and 1 only for the baselines.
    """
    layers = mosaic.layers
    classes = apply_threshold(
        layers[LOG_ODDS], layers[SEVERITY], threshold=point.threshold, temperature=point.temperature
    )
    maps = {MODEL: classes, MODEL_ARGMAX: layers[ARGMAX]}
    if NBR in layers and nbr_threshold is not None:
        maps[INDEX_TUNED] = (layers[NBR] < nbr_threshold).astype(np.uint8)
    if FIXED_RULE in layers:
        maps[INDEX_FIXED] = layers[FIXED_RULE].astype(np.uint8)
    for method, index in CHANGE_METHODS.items():
        if index in layers and change_thresholds:
            maps[method] = (layers[index] > change_thresholds[index]).astype(np.uint8)
    return maps


def measure_fire(mosaic: Mosaic, maps: Mapping[str, Classes], *, num_classes: int) -> FireScores:
    """Compares the classes of each method with the truth on labelled pixels.

    Args:
        mosaic: Assembled fire.
        maps: Classes by method from `decide_fire`.
        num_classes: Number of classes of the task.
    """
    burned = {"": mosaic.is_burned} | {name: mosaic.is_labelled & (classes > 0) for name, classes in maps.items()}
    areas_ha = measure_areas(mosaic.fire, {**burned, "labelled": mosaic.is_labelled})
    methods = {}
    for name, classes in maps.items():
        methods[name] = MethodCounts(
            confusion=_count_classes(classes, mosaic, 2 if name in BASELINES else num_classes),
            boundaries=boundary_counts(mosaic.is_burned, burned[name], is_labelled=mosaic.is_labelled),
            hausdorff_px=hausdorff_95(mosaic.is_burned, burned[name], is_labelled=mosaic.is_labelled),
            predicted_ha=areas_ha[name] if areas_ha else None,
        )
    return FireScores(
        fire=mosaic.fire,
        methods=methods,
        log_odds_counts=count_log_odds(mosaic.layers[LOG_ODDS], mosaic.truth),
        patches=tuple(patch for patch in mosaic.patches if patch.is_labelled),
        true_ha=areas_ha[""] if areas_ha else None,
        labelled_ha=areas_ha["labelled"] if areas_ha else None,
        truth_sha256=_hash_truth(mosaic),
    )


def _count_classes(classes: Classes, mosaic: Mosaic, num_classes: int) -> NDArray[np.int64]:
    truth = mosaic.truth
    if num_classes == 2:
        truth = np.where(mosaic.is_labelled, mosaic.is_burned.astype(np.uint8), truth)
    return image_counts(torch.from_numpy(classes)[None], torch.from_numpy(truth)[None], num_classes)[0].numpy()


def _hash_truth(mosaic: Mosaic) -> str:
    positions = [position[1:] for position in mosaic.fire.positions]
    digest = hashlib.sha256(repr((mosaic.truth.shape, positions)).encode())
    digest.update(np.ascontiguousarray(mosaic.truth).data)
    return digest.hexdigest()


MEASURES = ("iou", "dice", "precision", "recall")

SIZES = ("< 1 %", "1-10 %", "10-30 %", "> 30 %")
"""Size classes of fires by the burned share of the labelled pixels of the tile."""


def score_method(name: str, fires: Sequence[FireScores], class_names: Sequence[str]) -> dict[str, Any]:
    """Scores a method over all fires: confusion matrix, pixels, fires, edges and area, as in the results.

    Args:
        name: Method that all fires have.
        fires: One or more fires.
        class_names: Names of the classes of the task.
    """
    counts = [fire.methods[name] for fire in fires]
    confusion = np.sum([each.confusion for each in counts], axis=0)
    scores = [score_fire(fire.methods[name]) for fire in fires if fire.is_burned]
    distances = [each.hausdorff_px for each in counts if not math.isnan(each.hausdorff_px)]
    edges = boundary_scores(sum_boundary_counts(each.boundaries for each in counts))
    is_baseline = name in BASELINES
    return {
        "confusion": confusion,
        "pixels": fire_scores(torch.from_numpy(confusion))
        if is_baseline
        else segmentation_scores(torch.from_numpy(confusion), class_names),
        "fires": {measure: estimate_mean([each[measure] for each in scores]) for measure in MEASURES},
        "edges": {**edges, "hausdorff_95_px": float(np.median(distances)) if distances else math.nan},
        "area": sum_area(name, fires),
        "unburned": count_false_alarms(name, fires),
    }


def count_false_alarms(name: str, fires: Iterable[FireScores]) -> dict[str, Any]:
    """Counts the false alarms of a method on tiles on which nothing burned, which have no IoU.

    Returns:
        `num` tiles, `num_false_alarms` with a pixel predicted as burned, `predicted_pixels`, `predicted_ha` and
        `ha_per_1000_km2` of labelled area; the last two None if there is no such tile or an area is unknown.
    """
    tiles = [fire for fire in fires if not fire.is_burned]
    pixels = [int(fire.methods[name].confusion[:, 1:].sum()) for fire in tiles]
    known = [(fire.methods[name].predicted_ha, fire.labelled_ha) for fire in tiles]
    areas = [(predicted, labelled) for predicted, labelled in known if predicted is not None and labelled is not None]
    predicted_ha, labelled_ha = (sum(column) for column in zip(*areas, strict=True)) if areas else (0.0, 0.0)
    is_known = bool(tiles) and len(areas) == len(tiles) and labelled_ha > 0
    return {
        "num": len(tiles),
        "num_false_alarms": sum(count > 0 for count in pixels),
        "predicted_pixels": sum(pixels),
        "predicted_ha": predicted_ha if is_known else None,
        # 1000 km2 are 100,000 ha.
        "ha_per_1000_km2": 1e5 * predicted_ha / labelled_ha if is_known else None,
    }


def score_fire(counts: MethodCounts) -> dict[str, float]:
    """Computes IoU, Dice, precision and recall of the burned pixels of a fire; NaN if undefined."""
    return {
        name.removeprefix("fire_"): value for name, value in fire_scores(torch.from_numpy(counts.confusion)).items()
    }


def list_ious(name: str, fires: Iterable[FireScores]) -> list[float]:
    """Lists the IoU of a method on each fire; NaN if a band is missing."""
    return [score_fire(fire.methods[name])["iou"] if name in fire.methods else math.nan for fire in fires]


def sum_area(name: str, fires: Iterable[FireScores]) -> dict[str, float]:
    """Sums the true and predicted burned areas of the georeferenced fires."""
    known = [(fire.true_ha, fire.methods[name].predicted_ha) for fire in fires]
    pairs = [(true, predicted) for true, predicted in known if true is not None and predicted is not None]
    if not pairs:
        return dict.fromkeys(("true_ha", "predicted_ha", "error_ha", "relative_error"), math.nan)
    true, predicted = (sum(column) for column in zip(*pairs, strict=True))
    error = predicted - true
    relative = error / true if true else math.nan
    return {"true_ha": true, "predicted_ha": predicted, "error_ha": error, "relative_error": relative}


def compare_to_baseline(fires: Sequence[FireScores]) -> dict[str, Any]:
    """Computes the gain of the model over the tuned burn ratio; both values are None if a band is missing."""
    if not all(INDEX_TUNED in fire.methods for fire in fires):
        return {"pooled": None, "per_fire": None}
    ours, theirs = (
        fire_scores(torch.from_numpy(np.sum([fire.methods[name].confusion for fire in fires], axis=0)))["fire_iou"]
        for name in (MODEL, INDEX_TUNED)
    )
    return {
        "pooled": ours - theirs,
        "per_fire": compare_paired(list_ious(MODEL, fires), list_ious(INDEX_TUNED, fires)),
    }


def describe_fire(scores: FireScores) -> dict[str, Any]:
    """Makes the entry of a fire in the results."""
    fire, model = scores.fire, scores.methods[MODEL]
    edges = boundary_scores(model.boundaries)
    return {
        **{key: getattr(fire, key) for key in ("name", "activation", "country", "climate", "date")},
        "size": get_size_class(scores.burned_share),
        "burned_share": scores.burned_share,
        "labelled_pixels": scores.labelled_pixels,
        **score_fire(model),
        "true_ha": scores.true_ha,
        "predicted_ha": model.predicted_ha,
        "boundary_f1_2px": edges["boundary_f1_2px"],
        "boundary_iou_2px": edges["boundary_iou_2px"],
        "hausdorff_95_px": model.hausdorff_px,
        "index_tuned_iou": list_ious(INDEX_TUNED, [scores])[0],
        "index_fixed_iou": list_ious(INDEX_FIXED, [scores])[0],
        **{f"{method}_iou": list_ious(method, [scores])[0] for method in CHANGE_METHODS if method in scores.methods},
        **(severity_scores(torch.from_numpy(model.confusion)) if len(model.confusion) > 2 else {}),
        "truth_sha256": scores.truth_sha256,
    }


def get_size_class(burned_share: float) -> str:
    """Returns the size class of a fire; the smallest one if nothing is labelled.

    Example:
        >>> get_size_class(0.3), get_size_class(0.31), get_size_class(0.0)
        ('10-30 %', '> 30 %', '< 1 %')
    """
    if burned_share > 0.3:
        return SIZES[3]
    return SIZES[2] if burned_share >= 0.1 else SIZES[1] if burned_share >= 0.01 else SIZES[0]


def group_fires(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Computes the mean IoU over fires by size, and by country, climate and year if known.

    Args:
        rows: Entries from `describe_fire`; tiles on which nothing burned are left out.
    """
    rows = [row for row in rows if row["burned_share"] > 0]
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
    groups = []
    for name in names:
        if members := [row for row in rows if get(row) == name]:
            ious = {key: estimate_mean([row[key] for row in members]) for key in ("iou", "index_tuned_iou")}
            # NaN unless both have an IoU: means over different fires cannot be compared.
            gains = [row["iou"] - row["index_tuned_iou"] for row in members]
            groups.append(
                {"name": name, "num": len(members), **ious, "difference": estimate_mean(gains, bounds=(-1.0, 1.0))}
            )
    return groups
