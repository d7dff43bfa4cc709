"""Values of a raster into reflectance in steps of 0.0001."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.reflectance import SCALE
from fireseg.errors import FiresegError


class Scaling(NamedTuple):
    """Steps of 0.0001 that a value stands for: `gain * value + bias`, one of each a band.

    Attributes:
        gains: Steps per unit.
        biases: Steps of the value 0.
    """

    gains: NDArray[np.floating]
    biases: NDArray[np.floating]


def get_scaling(
    dtype: np.dtype[Any], *, offset: float = 0.0, scales: Sequence[float], shifts: Sequence[float]
) -> Scaling:
    """How values of a raster become reflectance.

    Floats are reflectance. Integers are digital numbers: reflectance times 10000, plus an offset. A
    raster that tags its bands with scale and offset is taken at its word.

    Args:
        dtype: Of the values.
        offset: What digital numbers have on top, 0 or more.
        scales: Scale tag of each band wanted, 1 where there is none.
        shifts: Offset tag of each band wanted, 0 where there is none; in reflectance if there is a scale.

    Returns:
        In float32, or in float64 where values or tags are finer than that.

    Raises:
        FiresegError: If such values cannot be reflectance at all.

    Example:
        >>> get_scaling(np.dtype("uint16"), offset=1000, scales=[1.0], shifts=[0.0]).biases.tolist()
        [-1000.0]
    """
    if dtype.kind not in "iuf":
        raise FiresegError(f"values of type {dtype}, but reflectance is float or integer; convert it")
    is_number = dtype.kind in "iu"
    scale, shift = np.asarray(scales, np.float64), np.asarray(shifts, np.float64)
    if (scale != 1).any():
        return Scaling(scale * SCALE, shift * SCALE)
    gains = np.full(len(scale), 1.0 if is_number else SCALE)
    # A tagged offset and a stated one are two words for the same.
    biases = gains * shift - (offset if is_number and not shift.any() else 0.0)
    is_fine = shift.any() or dtype.itemsize > (2 if is_number else 4)
    working = np.float64 if is_fine else np.float32
    return Scaling(gains.astype(working), biases.astype(working))


def find_unknown(values: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Where a band has no value: not finite, or the value of its nodata tag.

    Args:
        values: `(C, H, W)`.
        nodata: Tag of each band.

    Returns:
        `(H, W)`, True where at least one band has none.
    """
    is_number = values.dtype.kind in "iu"
    # Level 2A keeps the number 0 for "no data"; what was measured begins at 1.
    unknown = (values == 0).all(axis=0) if is_number else np.zeros(values.shape[1:], np.bool_)
    for band, tag in zip(values, nodata, strict=True):
        if not is_number:
            unknown |= ~np.isfinite(band)
        if tag is not None and math.isfinite(tag):
            # Written as text in the file, the tag of a float32 band comes back as the nearest float64.
            with np.errstate(over="ignore"):
                unknown |= band == (tag if is_number else values.dtype.type(tag))
    return unknown


def to_steps(values: NDArray[Any], unknown: NDArray[np.bool_], scaling: Scaling) -> NDArray[np.uint16]:
    """Rounds to steps of 0.0001, clipped to reflectance 0 to 1.

    Args:
        values: `(C, H, W)`.
        unknown: `(H, W)`, True where a band has no value.
        scaling: As `get_scaling` gives it.

    Returns:
        `(H, W, C)` uint16, 0 to 10000; 0 in all bands where unknown.
    """
    image = np.empty((*values.shape[1:], len(values)), np.uint16)
    steps = np.empty(values.shape[1:], scaling.gains.dtype)  # one band at a time stays in the processor's cache
    has_gaps = bool(unknown.any())
    for channel, (gain, bias) in enumerate(zip(*scaling, strict=True)):
        np.copyto(steps, values[channel])
        if has_gaps:
            steps[unknown] = 0
        if gain != 1:
            with np.errstate(over="ignore"):  # beyond the largest float is beyond reflectance 1, too
                steps *= gain
        if bias != 0:
            steps += bias
        np.clip(steps, 0, SCALE, out=steps)
        np.rint(steps, out=steps)
        np.copyto(image[..., channel], steps, casting="unsafe")
    if has_gaps:
        image[unknown] = 0
    return image
