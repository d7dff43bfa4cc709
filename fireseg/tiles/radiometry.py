"""Values of some channels of a raster as reflectance in steps of 0.0001."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fireseg.data.bands import SCALE
from fireseg.errors import FiresegError
from fireseg.geo.windows import Block, split_into_blocks
from fireseg.tiles.metadata import find_offset, list_pairs, pick_channels


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


def to_stored(values: NDArray[Any], unknown: NDArray[np.bool_], scaling: Scaling) -> NDArray[np.uint16]:
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


_OFFSET = "the offset of 1000 that digital numbers have since processing baseline 04.00"


def list_flags(sample: NDArray[Any], scaling: Scaling) -> list[str]:
    """Says what some pixels of a tile look like, if not like reflectance.

    Nothing here is proof, so nothing is changed: a desert may be bright throughout, a lake dark.

    Args:
        sample: `(C, N)` values as the raster holds them, of pixels known in every band.
        scaling: How they become levels.
    """
    if sample.shape[1] == 0:
        return ["no pixel has a value in every band wanted"]
    is_number = sample.dtype.kind in "iu"
    blank = (sample == 0).all(axis=0)
    flags = [_describe_blank(float(blank.mean()))] if blank.any() and not is_number else []
    raw = sample[:, ~blank].astype(np.float64)
    values = (raw * scaling.gains.astype(np.float64)[:, None] + scaling.biases[:, None]) / SCALE
    if (low := float(values.min(initial=0.0))) < -1:
        flags.append(
            f"values down to {raw.min():.6g}: looks like a nodata value without its tag; "
            "set it with gdal_edit.py -a_nodata"
        )
        values = values[:, (values >= -1).all(axis=0)] if low < -1 else values
    if values.shape[1]:
        flags += list(_judge_scale(raw, values, is_number) or _judge_darkness(values, is_number))
    return flags


def _describe_blank(share: float) -> str:
    return (
        f"{100 * share:.2g} % of the pixels are 0 in every band: looks like the ground beyond the satellite's swath; "
        "write NaN there, so that it is not learnt as unburned"
    )


def _judge_scale(raw: NDArray[np.float64], values: NDArray[np.float64], is_number: bool) -> list[str]:
    """A flag if the brightest or the darkest values are out of all proportion."""
    top, bottom = (float(np.percentile(values, share, axis=1).max()) for share in (99, 0.1))
    low, highest = float(np.percentile(values, 1, axis=1).min()), float(raw.max())
    span = f"values from {raw.min():.4g} to {highest:.4g}"
    if is_number:
        if highest <= 255:
            return [f"{span}: look like 8 bits of a picture, or percent, not like digital numbers of Sentinel-2"]
        if top > 2:
            return [f"{span}: look stretched over 16 bits, not like digital numbers of Sentinel-2, reflectance x 10000"]
        return []
    cure = "reflectance is wanted, mostly 0 to 1"
    if top > 255:
        return [f"{span}: look like digital numbers; divide by 10000 (after subtracting the offset), {cure}"]
    if top > 2:
        is_whole = bool((raw == np.rint(raw)).all())
        what = "8 bits of a picture" if is_whole or top > 120 else "percent; divide by 100"
        return [f"{span}: look like {what}, but {cure}"]
    if low < -0.2:
        return [f"{span}: look normalised by mean and standard deviation, but {cure}; undo that"]
    if top < 0.01:
        return [f"{span}: all but black; divided by 10000 once too often? {cure}"]
    brightest = np.percentile(values, 99.9, axis=1)
    if len(values) > 2 and bottom <= 0 and (brightest == 1).all():
        return [f"{span} in every band: look stretched for display, but {cure}"]
    return []


def _judge_darkness(values: NDArray[np.float64], is_number: bool) -> Iterator[str]:
    """A flag if the darkest pixels are brighter or darker than any shadow is."""
    dark = np.percentile(values, 0.1, axis=1)
    low, high = float(dark.min()), float(dark.max())
    # Shadow and water are near 0 in every band. With the offset left on, they are near 0.1, and what
    # a scene has of leaves or soil instead is a little above; a desert is far above in the infrared.
    if low >= 0.085 and low <= 0.17 and high <= 0.30:
        cure = "give --offset 1000" if is_number else "subtract 0.1"
        yield f"the darkest pixels are {low:.2f} to {high:.2f} in every band: looks like {_OFFSET} left on; {cure}"
    elif float(np.percentile(values, 1, axis=1).min()) < -0.02:
        cure = "give --offset 0" if is_number else "add 0.1"
        yield f"reflectance down to {values.min():.2f}: looks like {_OFFSET} taken away twice; {cure}"


_CACHE_BYTES = 32 * 2**20

_SAMPLE_PX = 200_000


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Which channels of a raster to read, and what their values mean.

    Attributes:
        indexes: Counted from 1, in the order wanted.
        nodata: Tag of each, None where there is none.
        has_mask: Whether the raster has a mask of its own.
        scaling: How values become levels.
        pixel_bytes: Of one pixel of all of them.
    """

    indexes: tuple[int, ...]
    nodata: tuple[float | None, ...]
    has_mask: bool
    scaling: Scaling
    pixel_bytes: int


class Sample:
    """Every so many-th pixel in rows and columns, of those known in every band.

    Args:
        num_pixels: How many will be read; some 200,000 of them are kept.
    """

    def __init__(self, num_pixels: int) -> None:
        self._step = max(1, round((num_pixels / _SAMPLE_PX) ** 0.5))
        self._parts: list[NDArray[Any]] = []

    def add(self, top: int, left: int, values: NDArray[Any], gaps: NDArray[np.bool_]) -> None:
        """Takes from values `(C, H, W)` whose first pixel is at (top, left), with gaps `(H, W)`."""
        places = slice(-top % self._step, None, self._step), slice(-left % self._step, None, self._step)
        self._parts.append(values[:, *places][:, ~gaps[places]])

    def list_flags(self, name: object, scaling: Scaling) -> list[str]:
        """What looks strange, each with the name of the raster in front."""
        return [f"{name}: {what}" for what in list_flags(np.concatenate(self._parts, axis=1), scaling)]


def choose_channels(
    raster: DatasetReader,
    bands: Sequence[str],
    metadata: dict[str, Any],
    *,
    offset: float | None,
    **wording: str,
) -> Channels:
    """Which channels the bands are, and what their values mean.

    Args:
        raster: An open raster.
        bands: Names of the bands wanted, in the order wanted.
        metadata: What the json beside it says; may be nothing.
        offset: What integer digital numbers have on top where neither json nor tags say so; by default 0.
        **wording: For `pick_channels`.

    Raises:
        FiresegError: If a band is not there or cannot be told, or such values cannot be reflectance.
    """
    try:
        channels = pick_channels(raster.descriptions, bands, **wording)
        stated = find_offset(list_pairs(raster.tags(), *(raster.tags(n + 1) for n in channels), metadata))
        dtype = np.result_type(*(np.dtype(raster.dtypes[n]) for n in channels))
        scaling = get_scaling(
            dtype,
            offset=(offset or 0.0) if stated is None else stated,
            scales=[raster.scales[n] for n in channels],
            shifts=[raster.offsets[n] for n in channels],
        )
    except FiresegError as error:
        raise FiresegError(f"{raster.name}: {error}") from error
    return Channels(
        indexes=tuple(n + 1 for n in channels),
        nodata=tuple(raster.nodatavals[n] for n in channels),
        has_mask=any(MaskFlags.per_dataset in raster.mask_flag_enums[n] for n in channels),
        scaling=scaling,
        pixel_bytes=len(channels) * dtype.itemsize,
    )


def set_gdal_cache(raster: DatasetReader) -> rasterio.Env:
    """A context in which GDAL keeps one row of a raster's blocks and little more, not the whole file.

    It holds for the whole process: GDAL has one cache for all rasters and threads.
    """
    row_bytes = sum(raster.width * np.dtype(dtype).itemsize for dtype in raster.dtypes)
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES + row_bytes * raster.block_shapes[0][0])


def read_window(
    raster: DatasetReader, channels: Channels, window: Block, sample: Sample | None = None
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Reflectance and unknown pixels, piece by piece: float values of a whole tile are 200 MB.

    Args:
        raster: An open raster, in `set_gdal_cache`.
        channels: What to read.
        window: Where, within the raster.
        sample: Takes its share of the values, where there is one.

    Returns:
        `(H, W, C)` uint16, reflectance x 10000, and `(H, W)`, True where a channel has no value.
    """
    top, left, height, width = window
    image = np.empty((height, width, len(channels.indexes)), np.uint16)
    unknown = np.empty((height, width), np.bool_)
    for row, col, num_rows, num_cols in split_into_blocks(window, raster.block_shapes[0], channels.pixel_bytes):
        part = Window(col, row, num_cols, num_rows)  # pyright: ignore[reportCallIssue]
        values = raster.read(channels.indexes, window=part)
        gaps = find_unknown(values, channels.nodata)
        if channels.has_mask:
            gaps |= (raster.read_masks(channels.indexes, window=part) == 0).any(axis=0)
        place = slice(row - top, row - top + num_rows), slice(col - left, col - left + num_cols)
        unknown[place] = gaps
        image[place] = to_stored(values, gaps, channels.scaling)
        if sample is not None:
            sample.add(row, col, values, gaps)
    return image, unknown
