"""Boundary metrics of burned-area masks: boundary F1, boundary IoU and the 95 % Hausdorff distance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BOUNDARY_DISTANCES = (1, 2, 3)
"""Distance tolerances in pixels, Euclidean between pixel centres."""

Mask = NDArray[np.bool_]


class BoundaryCounts(NamedTuple):
    """Boundary pixel counts of one mask pair or, added by `sum_boundary_counts`, of many.

    Attributes:
        truth_pixels: Number of boundary pixels of the truth.
        predicted_pixels: Number of boundary pixels of the prediction.
        truth_near: Number of true boundary pixels within 1, 2 and 3 px of a predicted one, `(3,)`.
        predicted_near: Number of predicted boundary pixels within 1, 2 and 3 px of a true one, `(3,)`.
        band_intersection: Number of pixels in both boundary bands of 1, 2 and 3 px, `(3,)`.
        band_union: Number of pixels in at least one of the bands, `(3,)`.
    """

    truth_pixels: int
    predicted_pixels: int
    truth_near: NDArray[np.int64]
    predicted_near: NDArray[np.int64]
    band_intersection: NDArray[np.int64]
    band_union: NDArray[np.int64]


def boundary_counts(truth: Mask, predicted: Mask, *, is_labelled: Mask) -> BoundaryCounts:
    """Counts the boundary pixels from which boundary F1 and boundary IoU are computed.

    A boundary pixel of a region is a labelled pixel of it with a labelled 4-neighbour outside the region, so that
    neither the edge of the mask nor that of an unlabelled area is a boundary. The band of width d contains the
    labelled pixels of the region within d - 1 of its boundary; for d = 1 it is the boundary itself.

    Args:
        truth: True burned mask, `(H, W)` bool.
        predicted: Predicted burned mask, `(H, W)` bool.
        is_labelled: Mask of labelled pixels, `(H, W)` bool; other pixels are not counted.

    Raises:
        ValueError: If the three are not boolean masks of one shape.
    """
    regions, boundaries = _crop_and_outline(truth, predicted, is_labelled)
    near = [[_dilate(boundary, distance) for distance in (0, *BOUNDARY_DISTANCES)] for boundary in boundaries]
    bands = [[region & close for close in closes[:-1]] for region, closes in zip(regions, near, strict=True)]
    return BoundaryCounts(
        int(boundaries[0].sum()),
        int(boundaries[1].sum()),
        _count(boundaries[0] & close for close in near[1][1:]),
        _count(boundaries[1] & close for close in near[0][1:]),
        _count(ours & theirs for ours, theirs in zip(*bands, strict=True)),
        _count(ours | theirs for ours, theirs in zip(*bands, strict=True)),
    )


def sum_boundary_counts(counts: Iterable[BoundaryCounts]) -> BoundaryCounts:
    """Adds the counts of many masks (`+` would concatenate the tuples)."""
    none = np.zeros(len(BOUNDARY_DISTANCES), np.int64)
    columns = zip(BoundaryCounts(0, 0, none, none, none, none), *counts, strict=True)
    return BoundaryCounts._make(sum(column) for column in columns)


def boundary_scores(counts: BoundaryCounts) -> dict[str, float]:
    """Computes boundary F1 and boundary IoU at 1, 2 and 3 pixels; NaN if neither mask has a boundary.

    F1 at d is the harmonic mean of precision, the share of predicted boundary pixels within d of a true one, and
    recall, the share of true ones within d of a predicted one; 0 if only one mask has a boundary. IoU at d is
    that of the two boundary bands of width d.

    Args:
        counts: From `boundary_counts` or `sum_boundary_counts`.

    Returns:
        `boundary_f1_{1,2,3}px`, `boundary_iou_{1,2,3}px`, each 0 to 1 or NaN.

    References:
        Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013 (F1).
        Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021 (IoU).
    """
    f1 = [
        _f1(int(predicted_near), counts.predicted_pixels, int(truth_near), counts.truth_pixels)
        for predicted_near, truth_near in zip(counts.predicted_near, counts.truth_near, strict=True)
    ]
    bands = zip(counts.band_intersection.tolist(), counts.band_union.tolist(), strict=True)
    iou = [both / either if either else math.nan for both, either in bands]
    return {f"boundary_f1_{distance}px": value for distance, value in zip(BOUNDARY_DISTANCES, f1, strict=True)} | {
        f"boundary_iou_{distance}px": value for distance, value in zip(BOUNDARY_DISTANCES, iou, strict=True)
    }


def hausdorff_95(truth: Mask, predicted: Mask, *, is_labelled: Mask) -> float:
    """Computes the 95 % Hausdorff distance between the boundaries of two masks.

    It is the larger of the two directed 95th percentiles, interpolated linearly between ranks; the full Hausdorff
    distance would depend on a single stray pixel.

    Args:
        truth: True burned mask, `(H, W)` bool.
        predicted: Predicted burned mask, `(H, W)` bool.
        is_labelled: Mask of labelled pixels, `(H, W)` bool; boundaries are those of `boundary_counts`.

    Returns:
        Distance in pixels, from 0; NaN if one of the masks has no boundary.

    Raises:
        ValueError: If the three are not boolean masks of one shape.

    References:
        Huttenlocher et al., Comparing Images Using the Hausdorff Distance, IEEE PAMI 15(9), 1993 (ranked distances).
    """
    from scipy import ndimage

    _, boundaries = _crop_and_outline(truth, predicted, is_labelled)
    if not all(boundary.any() for boundary in boundaries):
        return math.nan
    directed = []
    for boundary, other in (boundaries, boundaries[::-1]):
        distance = np.asarray(ndimage.distance_transform_edt(~other))
        directed.append(float(np.percentile(distance[boundary], 95)))
    return max(directed)


def _crop_and_outline(truth: Mask, predicted: Mask, is_labelled: Mask) -> tuple[tuple[Mask, Mask], tuple[Mask, Mask]]:
    """Returns the two regions and their boundaries, cropped to their bounding box."""
    masks = (truth, predicted, is_labelled)
    if truth.ndim != 2 or {(each.shape, each.dtype) for each in masks} != {(truth.shape, np.dtype(bool))}:
        given = ", ".join(f"{each.shape} {each.dtype}" for each in masks)
        raise ValueError(f"truth, predicted, is_labelled: {given}; all three must be (H, W) bool")
    box = _bounding_box((truth | predicted) & is_labelled)
    labelled = is_labelled[box]
    regions = truth[box] & labelled, predicted[box] & labelled
    return regions, (_outline(regions[0], labelled), _outline(regions[1], labelled))


def _bounding_box(mask: Mask) -> tuple[slice, slice]:
    """Bounding box of the set pixels, one pixel wider so that it contains their neighbours."""
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    if not len(spans[0]):
        return slice(0), slice(0)
    rows, cols = (slice(max(int(span[0]) - 1, 0), int(span[-1]) + 2) for span in spans)
    return rows, cols


def _outline(region: Mask, labelled: Mask) -> Mask:
    return region & _dilate(labelled & ~region, 1)


def _dilate(pixels: Mask, distance: int) -> Mask:
    """Dilates a mask by a disc with a radius of `distance` pixels."""
    dilated = np.zeros_like(pixels)
    offsets = range(-distance, distance + 1)
    for offset in ((down, right) for down in offsets for right in offsets if math.hypot(down, right) <= distance):
        _add_shifted(pixels, offset, dilated)
    return dilated


def _add_shifted(pixels: Mask, offset: tuple[int, int], target: Mask) -> None:
    """Sets in `target` the pixels shifted by (down, right); pixels beyond the edge are dropped."""
    pairs = list(zip(offset, pixels.shape, strict=True))
    to = tuple(slice(max(shift, 0), max(size + min(shift, 0), 0)) for shift, size in pairs)
    source = tuple(slice(max(-shift, 0), max(size - max(shift, 0), 0)) for shift, size in pairs)
    target[to] |= pixels[source]


def _count(masks: Iterable[Mask]) -> NDArray[np.int64]:
    return np.array([np.count_nonzero(each) for each in masks], np.int64)


def _f1(predicted_near: int, predicted: int, truth_near: int, truth: int) -> float:
    if not predicted + truth:
        return math.nan
    if not predicted_near * truth_near:
        return 0.0
    precision, recall = predicted_near / predicted, truth_near / truth
    return 2 * precision * recall / (precision + recall)
