"""How far the drawn edge of a fire lies from the true one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BOUNDARY_DISTANCES = (1, 2, 3)
"""Pixels; Euclidean, from centre to centre."""

Map = NDArray[np.bool_]


class BoundaryCounts(NamedTuple):
    """Pixels at the edges of one map or, added by `sum_boundary_counts`, of many.

    Attributes:
        truth_pixels: Boundary pixels of the truth.
        predicted_pixels: Boundary pixels of the prediction.
        truth_near: Those of the truth within 1, 2 and 3 px of one of the prediction, `(3,)`.
        predicted_near: Those of the prediction within 1, 2 and 3 px of one of the truth, `(3,)`.
        band_intersection: Pixels in the bands of both, for bands of 1, 2 and 3 px, `(3,)`.
        band_union: Pixels in the band of either, `(3,)`.
    """

    truth_pixels: int
    predicted_pixels: int
    truth_near: NDArray[np.int64]
    predicted_near: NDArray[np.int64]
    band_intersection: NDArray[np.int64]
    band_union: NDArray[np.int64]


def boundary_counts(truth: Map, predicted: Map, *, is_labelled: Map) -> BoundaryCounts:
    """Counts what boundary F1 and boundary IoU are read off.

    A boundary pixel of a region is one of its labelled pixels with a 4-neighbour that is labelled and outside of
    the region. So neither the map's rim nor the rim of an unlabelled area is a boundary. The band of a region at
    d is d pixels deep: its labelled pixels within d - 1 of its boundary, at 1 the boundary itself.

    Args:
        truth: Burned or not, `(H, W)` bool.
        predicted: Burned or not, `(H, W)` bool.
        is_labelled: Where the truth is known, `(H, W)` bool; elsewhere nothing is counted.

    Raises:
        ValueError: If the three are not boolean maps of one shape.
    """
    regions, boundaries = _crop_and_outline(truth, predicted, is_labelled)
    near = [[_is_within(boundary, distance) for distance in (0, *BOUNDARY_DISTANCES)] for boundary in boundaries]
    bands = [[region & close for close in kind[:-1]] for region, kind in zip(regions, near, strict=True)]
    return BoundaryCounts(
        int(boundaries[0].sum()),
        int(boundaries[1].sum()),
        _count(boundaries[0] & close for close in near[1][1:]),
        _count(boundaries[1] & close for close in near[0][1:]),
        _count(ours & theirs for ours, theirs in zip(*bands, strict=True)),
        _count(ours | theirs for ours, theirs in zip(*bands, strict=True)),
    )


def sum_boundary_counts(counts: Iterable[BoundaryCounts]) -> BoundaryCounts:
    """Adds the counts of many maps (`+` would only string two tuples together)."""
    none = np.zeros(len(BOUNDARY_DISTANCES), np.int64)
    columns = zip(BoundaryCounts(0, 0, none, none, none, none), *counts, strict=True)
    return BoundaryCounts._make(sum(column) for column in columns)


def boundary_scores(counts: BoundaryCounts) -> dict[str, float]:
    """Boundary F1 and boundary IoU at 1, 2 and 3 pixels; NaN where neither map has a boundary.

    F1 at d is the harmonic mean of precision, the share of predicted boundary pixels within d of a true one, and
    recall, the share of true ones within d of a predicted one; 0 if one of the two maps has none. IoU at d is that of
    the bands of the two regions.

    Args:
        counts: From `boundary_counts` or `sum_boundary_counts`.

    Returns:
        `boundary_f1_{1,2,3}px`, `boundary_iou_{1,2,3}px`, each 0 to 1 or NaN.

    References:
        Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013 (F1).
        Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021 (IoU).
    """
    f1 = [
        _f1(int(hits), counts.predicted_pixels, int(found), counts.truth_pixels)
        for hits, found in zip(counts.predicted_near, counts.truth_near, strict=True)
    ]
    bands = zip(counts.band_intersection.tolist(), counts.band_union.tolist(), strict=True)
    iou = [both / either if either else math.nan for both, either in bands]
    return {f"boundary_f1_{distance}px": value for distance, value in zip(BOUNDARY_DISTANCES, f1, strict=True)} | {
        f"boundary_iou_{distance}px": value for distance, value in zip(BOUNDARY_DISTANCES, iou, strict=True)
    }


def hausdorff_95(truth: Map, predicted: Map, *, is_labelled: Map) -> float:
    """Distance that 95 % of the boundary pixels of either map do not exceed, to the other's boundary.

    The larger of the two directed 95th percentiles, linear between ranks; the full Hausdorff distance would hang on one
    stray pixel.

    Args:
        truth: Burned or not, `(H, W)` bool.
        predicted: Burned or not, `(H, W)` bool.
        is_labelled: Where the truth is known, `(H, W)` bool; boundaries are as in `boundary_counts`.

    Returns:
        Pixels, from 0; NaN where one of the two has no boundary.

    Raises:
        ValueError: If the three are not boolean maps of one shape.

    References:
        Huttenlocher et al., Comparing Images Using the Hausdorff Distance, IEEE PAMI 15(9), 1993 (ranked distances).
    """
    from scipy import ndimage

    _, boundaries = _crop_and_outline(truth, predicted, is_labelled)
    if not all(boundary.any() for boundary in boundaries):
        return math.nan
    directed = []
    for here, there in (boundaries, boundaries[::-1]):
        distance = np.asarray(ndimage.distance_transform_edt(~there))
        directed.append(float(np.percentile(distance[here], 95)))
    return max(directed)


def _crop_and_outline(truth: Map, predicted: Map, is_labelled: Map) -> tuple[tuple[Map, Map], tuple[Map, Map]]:
    """The two regions and their boundaries, cut to where something is."""
    maps = (truth, predicted, is_labelled)
    if truth.ndim != 2 or {(each.shape, each.dtype) for each in maps} != {(truth.shape, np.dtype(bool))}:
        given = ", ".join(f"{each.shape} {each.dtype}" for each in maps)
        raise ValueError(f"truth, predicted, is_labelled: {given}; want three (H, W) of bool")
    box = _box_around((truth | predicted) & is_labelled)
    labelled = is_labelled[box]
    ours, theirs = truth[box] & labelled, predicted[box] & labelled
    return (ours, theirs), (_outline(ours, labelled), _outline(theirs, labelled))


def _box_around(is_there: Map) -> tuple[slice, slice]:
    """Where something is, and one pixel more to see its neighbours."""
    spans = [np.flatnonzero(is_there.any(axis=axis)) for axis in (1, 0)]
    if not len(spans[0]):
        return slice(0), slice(0)
    rows, cols = (slice(max(int(span[0]) - 1, 0), int(span[-1]) + 2) for span in spans)
    return rows, cols


def _outline(region: Map, labelled: Map) -> Map:
    return region & _is_within(labelled & ~region, 1)


def _is_within(pixels: Map, distance: int) -> Map:
    """Where a pixel is at most so far away."""
    is_near = np.zeros_like(pixels)
    reach = range(-distance, distance + 1)
    for step in ((down, right) for down in reach for right in reach if math.hypot(down, right) <= distance):
        _spread(pixels, step, is_near)
    return is_near


def _spread(pixels: Map, step: tuple[int, int], onto: Map) -> None:
    """Marks in `onto` what the pixels are after a step down and right; what leaves the map is gone."""
    to = tuple(slice(max(move, 0), max(size + min(move, 0), 0)) for move, size in zip(step, pixels.shape, strict=True))
    came = tuple(
        slice(max(-move, 0), max(size - max(move, 0), 0)) for move, size in zip(step, pixels.shape, strict=True)
    )
    onto[to] |= pixels[came]


def _count(maps: Iterable[Map]) -> NDArray[np.int64]:
    return np.array([np.count_nonzero(each) for each in maps], np.int64)


def _f1(hits: int, predicted: int, found: int, true: int) -> float:
    if not predicted + true:
        return math.nan
    if not hits * found:
        return 0.0
    precision, recall = hits / predicted, found / true
    return 2 * precision * recall / (precision + recall)
