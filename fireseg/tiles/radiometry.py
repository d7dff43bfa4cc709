"""Converts raster values to reflectance, and checks that they look like it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import MAX_REFLECTANCE, MIN_DIGITAL_NUMBER, MIN_REFLECTANCE, SCALE
from fireseg.errors import FiresegError
from fireseg.tiles.metadata import BASELINE_OFFSET

_MIN_DARKNESS_PX = 5000
"""Pixels below which the darkest ones do not show that the offset is wrong."""

_OFFSET_TEXT = f"the offset of {BASELINE_OFFSET:g} that digital numbers have since processing baseline 04.00"


class Scaling(NamedTuple):
    """Linear conversion of raster values to reflectance x 10000: `gain * value + bias` per band.

    Attributes:
        gains: Gain of each band.
        biases: Bias of each band.
    """

    gains: NDArray[np.floating]
    biases: NDArray[np.floating]


def get_scaling(
    dtype: np.dtype[Any], *, offset: float = 0.0, scales: Sequence[float], shifts: Sequence[float]
) -> Scaling:
    """Determines the conversion of raster values to reflectance.

    Floats are reflectance. Integers are digital numbers: reflectance x 10000 plus an offset. Scale and offset tags of
    the raster have priority.

    Args:
        dtype: Data type of the values.
        offset: Radiometric offset of digital numbers, 0 or more.
        scales: Scale tag of each band, 1 without one.
        shifts: Offset tag of each band, 0 without one; in reflectance if there is a scale.

    Returns:
        The scaling in float32, or in float64 if values or tags need its precision.

    Raises:
        FiresegError: If the data type cannot hold reflectance.

    Example:
        >>> get_scaling(np.dtype("uint16"), offset=1000, scales=[1.0], shifts=[0.0]).biases.tolist()
        [-1000.0]
    """
    if dtype.kind not in "iuf":
        raise FiresegError(f"values of type {dtype}, but reflectance must be float or integer; convert the raster")
    is_integer = dtype.kind in "iu"
    scale, shift = np.asarray(scales, np.float64), np.asarray(shifts, np.float64)
    if (scale != 1).any():
        return Scaling(scale * SCALE, shift * SCALE)
    gains = np.full(len(scale), 1.0 if is_integer else SCALE)
    # An offset tag and an offset in the metadata describe the same offset: it is subtracted once.
    biases = gains * shift - (offset if is_integer and not shift.any() else 0.0)
    needs_float64 = shift.any() or dtype.itemsize > (2 if is_integer else 4)
    working = np.float64 if needs_float64 else np.float32
    return Scaling(gains.astype(working), biases.astype(working))


def find_nodata(values: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Finds pixels without a value in at least one band: not finite, or equal to the nodata tag.

    Args:
        values: `(C, H, W)`.
        nodata: Nodata tag of each band.

    Returns:
        `(H, W)`, True where at least one band has no value.
    """
    is_integer = values.dtype.kind in "iu"
    # Level 2A reserves the digital number 0 for "no data"; measured values begin at 1.
    unknown = (values == 0).all(axis=0) if is_integer else np.zeros(values.shape[1:], np.bool_)
    for band, tag in zip(values, nodata, strict=True):
        if not is_integer:
            unknown |= ~np.isfinite(band)
        if tag is not None and math.isfinite(tag):
            # The tag is stored as text: that of a float32 band is read as the nearest float64.
            with np.errstate(over="ignore"):
                unknown |= band == (tag if is_integer else values.dtype.type(tag))
    return unknown


def quantize_reflectance(values: NDArray[Any], unknown: NDArray[np.bool_], scaling: Scaling) -> NDArray[np.uint16]:
    """Converts raster values to reflectance x 10000, rounded, clipped to reflectance 0 to 1.

    Args:
        values: `(C, H, W)`.
        unknown: `(H, W)`, True where a band has no value.
        scaling: Scaling from `get_scaling`.

    Returns:
        `(H, W, C)` uint16, 0 to 10000; 0 in all bands where unknown.
    """
    image = np.empty((*values.shape[1:], len(values)), np.uint16)
    steps = np.empty(values.shape[1:], scaling.gains.dtype)  # one band at a time fits the processor's cache
    has_gaps = bool(unknown.any())
    for channel, (gain, bias) in enumerate(zip(*scaling, strict=True)):
        np.copyto(steps, values[channel])
        if has_gaps:
            steps[unknown] = 0
        if gain != 1:
            with np.errstate(over="ignore"):  # an overflow is clipped to reflectance 1 as well
                steps *= gain
        if bias != 0:
            steps += bias
        np.clip(steps, 0, SCALE, out=steps)
        np.rint(steps, out=steps)
        np.copyto(image[..., channel], steps, casting="unsafe")
    if has_gaps:
        image[unknown] = 0
    return image


def check_values(
    sample: NDArray[Any], scaling: Scaling, *, is_offset_given: bool = False
) -> tuple[list[str], list[str]]:
    """Describes sampled values that cannot be reflectance, and values that are only odd.

    The values are not changed, because a sign is no proof: a whole scene can be a bright desert or a lake.

    Args:
        sample: Raster values `(C, N)` of pixels known in every band.
        scaling: Conversion to reflectance x 10000.
        is_offset_given: True if the user gave the offset: values that seem to contain or lack it are only odd then.

    Returns:
        Faults and flags.
    """
    if sample.shape[1] == 0:
        return [], ["no pixel has a value in every requested band"]
    faults: list[str] = []
    is_integer = sample.dtype.kind in "iu"
    blank = (sample == 0).all(axis=0)
    flags = [_describe_blank(float(blank.mean()))] if blank.any() and not is_integer else []
    raw = sample[:, ~blank].astype(np.float64)
    values = (raw * scaling.gains.astype(np.float64)[:, None] + scaling.biases[:, None]) / SCALE
    if float(values.min(initial=0.0)) < -1:
        flags.append(
            f"values down to {raw.min():.6g}: looks like a nodata value without its tag; "
            "set the tag with gdal_edit.py -a_nodata"
        )
        values = values[:, (values >= -1).all(axis=0)]
    if values.shape[1]:
        faults += _find_scale_faults(raw, values, is_integer)
    if values.shape[1] and not faults:
        if text := _describe_offset_left(values, is_integer) or _describe_offset_missing(values, is_integer):
            # In a small image, cloud or haze may cover every dark pixel.
            is_proof = values.shape[1] >= _MIN_DARKNESS_PX and not is_offset_given
            (faults if is_proof else flags).append(text)
        else:
            flags += _flag_range(raw, values, is_integer)
    return faults, flags


def _describe_blank(share: float) -> str:
    return (
        f"{100 * share:.2g} % of the pixels are 0 in every band: looks like area outside the satellite's swath; "
        "set it to NaN, so that it is not learnt as unburned"
    )


def _find_scale_faults(raw: NDArray[np.float64], values: NDArray[np.float64], is_integer: bool) -> list[str]:
    """Returns a fault if the range of the values cannot be that of reflectance."""
    top, low = float(np.percentile(values, 99, axis=1).max()), float(np.percentile(values, 1, axis=1).min())
    highest = float(raw.max())
    span = f"values from {raw.min():.4g} to {highest:.4g}"
    if is_integer:
        if highest <= 255:
            return [f"{span}: look like an 8-bit picture, or percent, not like digital numbers of Sentinel-2"]
        if top > MAX_REFLECTANCE:
            return [f"{span}: look stretched to 16 bits, not like digital numbers of Sentinel-2, reflectance x 10000"]
        return []
    expected = "reflectance is expected, mostly 0 to 1"
    if top > MIN_DIGITAL_NUMBER:
        return [f"{span}: look like digital numbers; divide by 10000 (after subtracting the offset), {expected}"]
    if top > MAX_REFLECTANCE:
        is_whole = bool((raw == np.rint(raw)).all())
        what = "an 8-bit picture" if is_whole or top > 120 else "percent; divide by 100"
        return [f"{span}: look like {what}, but {expected}"]
    if low < MIN_REFLECTANCE:
        return [f"{span}: look normalised by mean and standard deviation, but {expected}; undo the normalisation"]
    return []


def _flag_range(raw: NDArray[np.float64], values: NDArray[np.float64], is_integer: bool) -> list[str]:
    """Returns a flag if the range of the values is odd for reflectance."""
    if is_integer:
        return []
    top, bottom = (float(np.percentile(values, share, axis=1).max()) for share in (99, 0.1))
    span, expected = f"values from {raw.min():.4g} to {raw.max():.4g}", "reflectance is expected, mostly 0 to 1"
    if top < 0.01:
        return [f"{span}: almost black; check whether they were divided by 10000 twice, {expected}"]
    brightest = np.percentile(values, 99.9, axis=1)
    if len(values) > 2 and bottom <= 0 and (brightest == 1).all():
        return [f"{span} in every band: look stretched for display, but {expected}"]
    return []


def _describe_offset_missing(values: NDArray[np.float64], is_integer: bool) -> str:
    """Describes negative values that seem to lack the offset of digital numbers; empty if they do not."""
    if float(np.percentile(values, 1, axis=1).min()) >= -0.02:
        return ""
    cure = "use --offset 0" if is_integer else "add 0.1"
    return f"reflectance down to {values.min():.2f}: looks like {_OFFSET_TEXT} subtracted twice; {cure}"


def _describe_offset_left(values: NDArray[np.float64], is_integer: bool) -> str:
    """Describes darkest pixels that seem to contain the offset of digital numbers; empty if they do not.

    Shadow and water are near 0 in every band. If the offset was not subtracted they are near 0.1, and vegetation and
    soil slightly above; a desert is far above in the infrared.
    """
    dark = np.percentile(values, 0.1, axis=1)
    low, high = float(dark.min()), float(dark.max())
    if not (0.085 <= low <= 0.17 and high <= 0.30):
        return ""
    cure = f"use --offset {BASELINE_OFFSET:g}" if is_integer else "subtract 0.1"
    return f"the darkest pixels are {low:.2f} to {high:.2f} in every band: looks like {_OFFSET_TEXT} left on; {cure}"
