"""Baselines that need no training: thresholds on the normalised burn ratio (NBR), and on its change in a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.indices import compute_index, find_missing_bands
from fireseg.task import IGNORE_INDEX

NUM_BINS = 400
"""Bins of the burn ratio from -1 to 1, 0.005 wide."""

CHANGE_INDICES = ("dNBR", "RdNBR", "RBR")
"""Indices of `fireseg.indices` that compare a scene with the one before the fire."""

FIXED_MAX_NBR = -0.1

FIXED_MAX_NDWI = 0.0

_EDGES = np.linspace(-1.0, 1.0, NUM_BINS + 1)


def missing_for_nbr(bands: Sequence[str]) -> str:
    """Names the bands that the burn ratio lacks, as a sentence; empty if it lacks none."""
    return "" if {"B8A", "B08"} & set(bands) and "B12" in bands else "the burn ratio needs B8A or B08, and B12"


def missing_for_fixed_rule(bands: Sequence[str]) -> str:
    """Names all bands that the fixed rule lacks, as a sentence; empty if it lacks none."""
    near = () if {"B08", "B8A"} & set(bands) else ("B08 or B8A",)
    missing = [*(band for band in ("B03", "B12") if band not in bands), *near]
    return f"the fixed rule also needs {', '.join(missing)}" if missing else ""


def has_change(bands: Sequence[str]) -> bool:
    """Returns True if the bands are those of a pair from which the indices of change can be computed."""
    return not find_missing_bands(CHANGE_INDICES, bands)


def compute_change(name: str, image: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.float32]:
    """Computes an index of change; burned land has high values.

    Args:
        name: One of `CHANGE_INDICES`.
        image: Reflectance, `(C, H, W)` float32.
        bands: Names of the C bands, for which `has_change` is true.

    Returns:
        `(H, W)` float32.
    """
    return compute_index(name, torch.from_numpy(np.ascontiguousarray(image))[None], bands)[0].numpy()


def normalised_burn_ratio(image: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.float32]:
    """Computes the normalised burn ratio (NIR - SWIR) / (NIR + SWIR).

    Healthy vegetation reflects near infrared, char reflects short-wave infrared.

    Args:
        image: Reflectance, `(C, ...)` float32.
        bands: Names of the C bands. NIR is B8A, or B08 if there is no B8A; SWIR is B12.

    Returns:
        -1 (burned) to 1 (vegetation), `(...)` float32; 0 where both bands are 0.

    Raises:
        FiresegError: If a band is missing.

    References:
        Key and Benson, Landscape Assessment, USDA RMRS-GTR-164, 2006.
    """
    if missing := missing_for_nbr(bands):
        raise FiresegError(f"data.bands: {' '.join(bands)}, but {missing}")
    near = "B8A" if "B8A" in bands else "B08"
    infrared, short_wave = image[list(bands).index(near)], image[list(bands).index("B12")]
    total = infrared + short_wave
    return np.divide(infrared - short_wave, total, out=np.zeros_like(total), where=total > 0)


def normalised_difference_water_index(image: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.float32]:
    """Computes the normalised difference water index (green - NIR) / (green + NIR).

    Open water reflects green, vegetation and soil reflect near infrared.

    Args:
        image: Reflectance, `(C, ...)` float32.
        bands: Names of the C bands. Green is B03; NIR is B08, which has the 10 m resolution of B03, or B8A if there
            is no B08.

    Returns:
        -1 (land) to 1 (water), `(...)` float32; 0 where both bands are 0.

    Raises:
        FiresegError: If a band is missing.

    References:
        McFeeters, The use of the Normalized Difference Water Index (NDWI) in the delineation of open water features,
        International Journal of Remote Sensing 17(7), 1996.
    """
    near = next((band for band in ("B08", "B8A") if band in bands), None)
    if near is None or "B03" not in bands:
        raise FiresegError(f"data.bands: {' '.join(bands)}, but the water index needs B03, and B08 or B8A")
    green, infrared = image[list(bands).index("B03")], image[list(bands).index(near)]
    total = green + infrared
    return np.divide(green - infrared, total, out=np.zeros_like(total), where=total > 0)


def fixed_rule(image: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.bool_]:
    """Classifies pixels as burned where NBR < -0.1 and NDWI <= 0 (dark in the near infrared, and no water).

    Args:
        image: Reflectance, `(C, ...)` float32.
        bands: Names of the C bands; B03, B12, and B08 or B8A must be among them.

    Returns:
        `(...)` bool.

    Raises:
        FiresegError: If bands are missing; it lists them all.
    """
    if missing := missing_for_fixed_rule(bands):
        raise FiresegError(f"data.bands: {' '.join(bands)}, but {missing}")
    is_dry = normalised_difference_water_index(image, bands) <= FIXED_MAX_NDWI
    return (normalised_burn_ratio(image, bands) < FIXED_MAX_NBR) & is_dry


def count_ratios(
    ratio: NDArray[np.float32], mask: NDArray[np.uint8], *, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.int64]:
    """Counts unburned and burned labelled pixels by ratio; counts of several images can be added.

    Args:
        ratio: Burn ratio of any shape, -1 to 1.
        mask: Classes, of the same shape.
        ignore_index: Mask value of unlabelled pixels.

    Returns:
        `(2, NUM_BINS)`: unburned and burned pixels in each bin.
    """
    bins = np.clip(((ratio + 1.0) * (NUM_BINS / 2)).astype(np.int64), 0, NUM_BINS - 1)
    is_labelled = mask != ignore_index
    flat = bins[is_labelled] + NUM_BINS * (mask[is_labelled] > 0)
    return np.bincount(flat, minlength=2 * NUM_BINS).reshape(2, NUM_BINS)


def iou_below(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Computes the fire IoU of each of the `NUM_BINS + 1` bin edges as a threshold.

    Args:
        counts: Counts from `count_ratios`.

    Returns:
        `(NUM_BINS + 1,)`; NaN if neither prediction nor truth has a burned pixel.
    """
    below = np.concatenate([np.zeros((2, 1), np.int64), counts.cumsum(axis=1)], axis=1)
    hits, false_alarms = below[1], below[0]
    union = counts[1].sum() + false_alarms
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def tune_threshold(counts: NDArray[np.int64]) -> float:
    """Finds the threshold with the best fire IoU; pixels below it count as burned.

    Args:
        counts: Counts of a training split from `count_ratios`.

    Raises:
        FiresegError: If no pixel is burned.
    """
    scores = iou_below(counts)
    if not counts[1].any():
        raise FiresegError("burn ratio: no burned pixel to tune the threshold on; use a split with fire")
    return float(_EDGES[int(np.nanargmax(scores))])


def iou_at(counts: NDArray[np.int64], threshold: float) -> float:
    """Computes the fire IoU of a threshold from `tune_threshold`.

    Args:
        counts: Counts of the split to evaluate from `count_ratios`.
        threshold: Burn ratio below which pixels count as burned.

    Returns:
        0 to 1; NaN if neither prediction nor truth has a burned pixel.
    """
    return float(iou_below(counts)[int(np.abs(_EDGES - threshold).argmin())])
