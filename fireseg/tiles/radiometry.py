"""Converts raster values to reflectance, and checks that they look like it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import MAX_REFLECTANCE, MIN_DIGITAL_NUMBER, MIN_REFLECTANCE, SCALE
from fireseg.errors import FiresegError
from fireseg.tiles.metadata import BASELINE_OFFSET, check_scaling

_MIN_DARKNESS_PX = 5000
"""Pixels below which the darkest ones do not show that the offset is wrong."""

_MIN_MEASURED_SHARE = 0.01
"""Share of the pixels that must lie between reflectance 0 and 1 in some band."""

_MAX_NODATA_VALUES = 2
"""Distinct values far below 0 that are nodata values; normalised reflectance has many."""

LOWEST_REFLECTANCE = -0.3
"""Values below are no measurement: atmospheric correction gives values a little below 0, and an offset that was
subtracted twice -0.1."""

OffsetSource = Literal["metadata", "option", "name", "none"]
"""Source of a radiometric offset: the metadata, the user, or the product's name; `none` if nothing gives it."""

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
    dtype: np.dtype[Any],
    *,
    offset: float = 0.0,
    scales: Sequence[float],
    shifts: Sequence[float],
    scale: float | None = None,
) -> Scaling:
    """Determines the conversion of raster values to reflectance.

    Floats are reflectance. Integers are digital numbers: reflectance x 10000 plus an offset. Scale and offset tags of
    the raster have priority; an offset is subtracted once, by its tag or by `offset`.

    Args:
        dtype: Data type of the values.
        offset: Radiometric offset in units of the values, 0 or more; does not apply to floats without `scale`.
        scales: Scale tag of each band, 1 without one.
        shifts: Offset tag of each band, 0 without one; in reflectance if there is a scale tag.
        scale: Reflectance per unit of the values if there is no scale tag; 1 for floats and 0.0001 for integers if
            None.

    Returns:
        The scaling in float32, or in float64 if values or tags need its precision.

    Raises:
        FiresegError: If the data type cannot hold reflectance, or a tag is not finite or out of range.

    Example:
        >>> get_scaling(np.dtype("uint16"), offset=1000, scales=[1.0], shifts=[0.0]).biases.tolist()
        [-1000.0]
    """
    if dtype.kind not in "iuf":
        raise FiresegError(f"values of type {dtype}, but reflectance must be float or integer; convert the raster")
    is_integer = dtype.kind in "iu"
    tagged, shift = np.asarray(scales, np.float64), np.asarray(shifts, np.float64)
    _check_tags(tagged, shift, 1 / SCALE if is_integer and scale is None else scale or 1.0)
    if (tagged != 1).any():
        return Scaling(tagged * SCALE, shift * SCALE if shift.any() else -offset * tagged * SCALE)
    has_offset = (is_integer or scale is not None) and not shift.any()
    if scale is None:
        scale = 1 / SCALE if is_integer else 1.0
    gains = np.full(len(tagged), scale * SCALE)
    # An offset tag and an offset in the metadata describe the same offset: it is subtracted once.
    biases = gains * shift - (offset * gains if has_offset else 0.0)
    needs_float64 = shift.any() or dtype.itemsize > (2 if is_integer else 4)
    working = np.float64 if needs_float64 else np.float32
    return Scaling(gains.astype(working), biases.astype(working))


def _check_tags(scales: NDArray[np.float64], shifts: NDArray[np.float64], default_scale: float) -> None:
    """Checks the scale and offset tags of all bands."""
    has_scale = bool((scales != 1).any())
    for tag, shift in sorted(set(zip(scales.tolist(), shifts.tolist(), strict=True)), key=str):
        try:
            check_scaling(tag, shift if has_scale else shift * default_scale)
        except FiresegError as error:
            cure = "set the tags with gdal_edit.py -scale 0.0001 -offset 0, or unset them with -scale 1 -offset 0"
            raise FiresegError(f"scale and offset tags {tag:g} and {shift:g}: {error}; {cure}") from error


def find_nodata(
    values: NDArray[Any], nodata: Sequence[Collection[float]], *, has_offset: bool = False
) -> NDArray[np.bool_]:
    """Finds pixels without a measurement in at least one band.

    These are not finite, equal to a nodata value, or 0: in all bands, or in any of them if the values have an offset,
    because level 2A reserves the digital number 0 for "no data", and with an offset no measurement comes near it.

    Args:
        values: `(C, H, W)`.
        nodata: Nodata values of each band.
        has_offset: True if an offset is subtracted from the values.

    Returns:
        `(H, W)`, True where at least one band has no value.
    """
    is_integer = values.dtype.kind in "iu"
    unknown = (values == 0).any(axis=0) if has_offset else (values == 0).all(axis=0)
    for band, numbers in zip(values, nodata, strict=True):
        if not is_integer:
            unknown |= ~np.isfinite(band)
        for number in numbers:
            if math.isfinite(number):
                # A tag is stored as text: that of a float32 band is read as the nearest float64.
                with np.errstate(over="ignore"):
                    unknown |= band == (number if is_integer else values.dtype.type(number))
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
    sample: NDArray[Any], scaling: Scaling, *, offset_source: OffsetSource = "none", bands: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Describes sampled values that cannot be reflectance, and values that are only odd.

    The values are not changed, because a sign is no proof: a whole scene can be a bright desert or a lake.

    Args:
        sample: Raster values `(C, N)` of pixels known in every band.
        scaling: Conversion to reflectance x 10000.
        offset_source: Source of the offset. If it is the user, values that seem to contain or lack it are only odd.
        bands: Names of the bands, for messages.

    Returns:
        Faults and flags.
    """
    if sample.shape[1] == 0:
        return [], ["no pixel has a value in every requested band"]
    raw = sample.astype(np.float64)
    values = (raw * scaling.gains.astype(np.float64)[:, None] + scaling.biases[:, None]) / SCALE
    faults, flags = [], []
    below = np.unique(raw[values < LOWEST_REFLECTANCE])
    if 0 < len(below) <= _MAX_NODATA_VALUES:
        shown = " ".join(f"{number:.9g}" for number in below)
        faults.append(f"values of {shown}: look like a nodata value without its tag; use --nodata {below[0]:.9g}")
        is_valid = (values >= LOWEST_REFLECTANCE).all(axis=0)
        raw, values = raw[:, is_valid], values[:, is_valid]
    if not values.shape[1]:
        return faults, flags
    is_number = bool((scaling.gains == 1).all())
    scale_faults = _find_scale_faults(raw, values, scaling.gains)
    if len(below) > _MAX_NODATA_VALUES and not scale_faults:
        scale_faults.append(f"reflectance down to {values.min():.4g} in some pixels; set these to the nodata value")
    faults += scale_faults
    if blank := [name for name, plane in zip(bands, raw, strict=False) if not plane.any()]:
        faults.append(f"{' '.join(blank)} 0 everywhere, which is no measurement; use a raster with all bands")
    if not faults and (text := _describe_no_measurement(raw, values)):
        return [text], flags
    if not scale_faults:
        # In a raster of integers, 0 in one band may be the edge of the swath, which is darker than any shadow.
        votes = values[:, (raw != 0).all(axis=0)]
        text = _describe_offset_left(votes, is_number) or _describe_offset_missing(votes, is_number, offset_source)
        if text:
            # In a small image, cloud or haze may cover every dark pixel.
            is_proof = votes.shape[1] >= _MIN_DARKNESS_PX and offset_source != "option"
            (faults if is_proof else flags).append(text)
        elif (scaling.gains == SCALE).all():
            flags += _flag_range(raw, values)
    return faults, flags


def _describe_no_measurement(raw: NDArray[np.float64], values: NDArray[np.float64]) -> str:
    """Describes values that are 0 or 1 in every band once clipped; empty if they are not.

    Of the pixels of 25 real fires, 99.99 % lie between 0 and 1 in some band, and all of 30 synthetic scenes.
    """
    share = float(((values > 0) & (values < 1)).any(axis=0).mean())
    if share >= _MIN_MEASURED_SHARE:
        return ""
    return (
        f"values from {raw.min():.4g} to {raw.max():.4g}: scaled to 0 or 1 in every band in {1 - share:.1%} of the "
        "pixels, which is no measurement; correct offset and scale of the metadata, --offset and --scale, or use "
        "another raster"
    )


def _find_scale_faults(raw: NDArray[np.float64], values: NDArray[np.float64], gains: NDArray[np.floating]) -> list[str]:
    """Returns a fault if the range of the values cannot be that of reflectance."""
    top, low = float(np.percentile(values, 99, axis=1).max()), float(np.percentile(values, 1, axis=1).min())
    highest = float(raw.max())
    span = f"values from {raw.min():.4g} to {highest:.4g}"
    if (gains == 1).all():
        if highest <= 255:
            return [
                f"{span}: look like an 8-bit picture, or percent, not like digital numbers of Sentinel-2; for percent "
                "use --scale 0.01, else the raster that the picture was made from"
            ]
        if top > MAX_REFLECTANCE:
            return [f"{span}: look stretched to 16 bits, not like digital numbers of Sentinel-2, reflectance x 10000"]
        return []
    expected = "reflectance is expected, mostly 0 to 1"
    if (gains != SCALE).any():
        if top > MAX_REFLECTANCE or low < MIN_REFLECTANCE:
            return [
                f"{span}: scaled to {values.min():.4g} to {values.max():.4g}, but {expected}; correct --scale and "
                "--offset, or the scale tag"
            ]
        return []
    if low < MIN_REFLECTANCE:
        return [f"{span}: look normalised by mean and standard deviation, but {expected}; undo the normalisation"]
    if top > MIN_DIGITAL_NUMBER:
        return [
            f"{span}: look like digital numbers, but {expected}; use --scale 0.0001, and since processing baseline "
            f"04.00 --offset {BASELINE_OFFSET:g}"
        ]
    if top > MAX_REFLECTANCE:
        if bool((raw == np.rint(raw)).all()) or top > 120:
            return [f"{span}: look like an 8-bit picture, but {expected}; use the raster that it was made from"]
        return [f"{span}: look like percent, but {expected}; use --scale 0.01"]
    return []


def _flag_range(raw: NDArray[np.float64], values: NDArray[np.float64]) -> list[str]:
    """Returns a flag if the range of float values is odd for reflectance."""
    top, bottom = (float(np.percentile(values, share, axis=1).max()) for share in (99, 0.1))
    span, expected = f"values from {raw.min():.4g} to {raw.max():.4g}", "reflectance is expected, mostly 0 to 1"
    if top < 0.01:
        return [f"{span}: almost black; check whether they were divided by 10000 twice, {expected}"]
    brightest = np.percentile(values, 99.9, axis=1)
    if len(values) > 2 and bottom <= 0 and (brightest == 1).all():
        return [f"{span} in every band: look stretched for display, but {expected}"]
    return []


def _describe_offset_missing(values: NDArray[np.float64], is_number: bool, offset_source: OffsetSource) -> str:
    """Describes negative values that seem to lack the offset of digital numbers; empty if they do not."""
    if not values.shape[1] or float(np.percentile(values, 1, axis=1).min()) >= -0.02:
        return ""
    if not is_number:
        cure = "add 0.1"
    elif offset_source == "metadata":
        cure = 'if it is, write {"boa_offset_applied": true} to a json of the same name beside the raster'
    else:
        cure = "use --offset 0"
    return f"reflectance down to {values.min():.2f}: looks like {_OFFSET_TEXT} subtracted twice; {cure}"


def _describe_offset_left(values: NDArray[np.float64], is_number: bool) -> str:
    """Describes darkest pixels that seem to contain the offset of digital numbers; empty if they do not.

    Shadow and water are near 0 in every band. If the offset was not subtracted they are near 0.1, and vegetation and
    soil slightly above; a desert is far above in the infrared.
    """
    if not values.shape[1]:
        return ""
    dark = np.percentile(values, 0.1, axis=1)
    low, high = float(dark.min()), float(dark.max())
    if not (0.085 <= low <= 0.17 and high <= 0.30):
        return ""
    cure = f"use --offset {BASELINE_OFFSET:g}" if is_number else "use --scale 1 --offset 0.1"
    return f"the darkest pixels are {low:.2f} to {high:.2f} in every band: looks like {_OFFSET_TEXT} left on; {cure}"
