"""Selects the channels of a raster and reads them as reflectance, block by block; samples values to check them."""

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

from fireseg.data.bands import RASTER_BAND_ORDERS, SCALE
from fireseg.errors import FiresegError
from fireseg.geo.windows import MAX_COLS, Window, split_window
from fireseg.tiles.channels import describe_wrong_order, find_channels, identify_channels
from fireseg.tiles.metadata import Pairs, check_radiometry, find_offset, flatten_metadata
from fireseg.tiles.options import RasterOptions
from fireseg.tiles.radiometry import (
    LOWEST_REFLECTANCE,
    OffsetSource,
    Scaling,
    check_values,
    find_nodata,
    get_scaling,
    quantize_reflectance,
)

BlockShape = tuple[int, int]
"""Height and width in pixels of the blocks in which a raster is stored."""

_READ_ROWS, _MAX_BLOCK_ROWS = 256, 1024

_MAX_READ_BYTES = 32 * 2**20

_MAX_WHOLE_PX = 1024 * 1024

_SAMPLES_PER_AXIS = 8

_MIN_SAMPLE_PX = 32

_CACHE_BYTES = 32 * 2**20

_SAMPLE_PX = 200_000

_MAX_IMPOSSIBLE_PX = 100

_ORDER_SAMPLE_PX = 20_000
"""Pixels of each block in the sample that shows the order of the channels."""


@dataclass(frozen=True, kw_only=True)
class ChannelSelection:
    """Channels of a raster to read, and the conversion of their values.

    Attributes:
        indexes: Channel numbers from 1, in the order requested.
        nodata: Nodata values of each channel: its tag, and that of the options.
        has_mask: True if the raster has a mask band.
        masks: Numbers from 1 of the channels that are 0 where nothing was measured.
        ignored: Names of the channels that are neither bands nor masks.
        has_cirrus: True if the raster has B10, which only level 1C has.
        scl: Number from 1 of the channel with the scene classification, None without one.
        scaling: Conversion to reflectance.
        offset_source: Source of the radiometric offset.
        unused: A remark on each option that had no effect.
        pixel_bytes: Bytes of one pixel in all selected channels.
        lowest: Raw value of each channel below which no measurement lies; None if the values are trusted.
        name: Name of the raster in messages.
        bands: Band of each channel.
    """

    indexes: tuple[int, ...]
    nodata: tuple[tuple[float, ...], ...]
    has_mask: bool
    masks: tuple[int, ...]
    ignored: tuple[str, ...]
    has_cirrus: bool
    scl: int | None
    scaling: Scaling
    offset_source: OffsetSource
    unused: tuple[str, ...]
    pixel_bytes: int
    lowest: NDArray[np.float64] | None
    name: str
    bands: tuple[str, ...]

    def find_gaps(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Finds the pixels of `(C, H, W)` raster values without a measurement in at least one channel."""
        # Where the offset is known, also as 0, the values are those of a product, which reserves the number 0.
        is_product = values.dtype.kind in "iu" and self.offset_source != "none"
        has_offset = is_product or bool((self.scaling.biases < 0).any())
        return find_nodata(values, self.nodata, has_offset=has_offset)

    def find_impossible(self, values: NDArray[Any], gaps: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Finds pixels of `(C, H, W)` values, outside of the gaps, that are too low; None if there cannot be any."""
        if self.lowest is None or values.dtype.kind == "u":
            return None
        return (values < self.lowest[:, None, None]).any(axis=0) & ~gaps


def select_channels(
    raster: DatasetReader,
    bands: Sequence[str],
    metadata: dict[str, Any],
    *,
    name: str,
    origin: str,
    options: RasterOptions,
    hint: str = "choose from these with --bands",
) -> ChannelSelection:
    """Selects the channels of the requested bands and determines their scaling.

    Args:
        raster: Open raster.
        bands: Names of the requested bands, in order.
        metadata: Metadata beside the raster; may be empty.
        name: Name of the raster in messages.
        origin: Absolute path of the raster, in which the name of a product tells the processing baseline.
        options: Band of each channel and radiometric offset, used if neither json nor tags give them. Without them,
            the offset of the processing baseline in the name of the file or of its folders is used.
        hint: Remedy of the error for a missing band.

    Raises:
        FiresegError: If a band is missing or cannot be identified, the values contradict the order assumed, or the
            data type cannot hold reflectance.
    """
    try:
        names = identify_channels(raster, options.channels)
        channels = find_channels(names, bands, hint)
        if names.is_assumed:
            _check_assumed_order(raster)
        tags = (raster.tags(), *(raster.tags(n + 1) for n in channels))
        check_radiometry(flatten_metadata(*tags), "tags")
        dtype = np.result_type(*(np.dtype(raster.dtypes[n]) for n in channels))
        scales, shifts = ([tags[n] for n in channels] for tags in (raster.scales, raster.offsets))
        choice = _choose_offset(
            flatten_metadata(*tags, metadata), options, origin, is_reflectance=_is_reflectance(dtype, scales, options)
        )
        scaling = get_scaling(dtype, offset=choice.offset, scales=scales, shifts=shifts, scale=options.scale)
        unused = tuple(_list_unused(options, choice, dtype=dtype, scales=scales, shifts=shifts))
        is_offset_unused = any(text.startswith("--offset") for text in unused)
    except FiresegError as error:
        raise FiresegError(*(f"{name}: {fault}" for fault in error.faults)) from error
    return ChannelSelection(
        indexes=tuple(n + 1 for n in channels),
        nodata=tuple(_list_nodata(raster.nodatavals[n], options.nodata) for n in channels),
        has_mask=any(MaskFlags.per_dataset in raster.mask_flag_enums[n] for n in channels),
        masks=names.masks,
        ignored=names.ignored,
        has_cirrus="B10" in names.bands,
        scl=names.scl,
        scaling=scaling,
        offset_source="none" if is_offset_unused else choice.source,
        unused=unused,
        pixel_bytes=(len(channels) + len(names.masks)) * dtype.itemsize,
        lowest=None if options.trust_values else (LOWEST_REFLECTANCE * SCALE - scaling.biases) / scaling.gains,
        name=name,
        bands=tuple(bands),
    )


class _Offset(NamedTuple):
    """A radiometric offset and its source."""

    offset: float
    source: OffsetSource


def _is_reflectance(dtype: np.dtype[Any], scales: Sequence[float], options: RasterOptions) -> bool:
    """Returns True if the values are no digital numbers, to which the offsets of metadata apply."""
    if any(scale != 1 for scale in scales):
        return any(not math.isclose(scale, 1 / SCALE) for scale in scales)
    return dtype.kind == "f" if options.scale is None else not math.isclose(options.scale, 1 / SCALE)


def _choose_offset(pairs: Pairs, options: RasterOptions, origin: str, *, is_reflectance: bool) -> _Offset:
    """Chooses the offset of the metadata, else that of the options, else that of the product's name."""
    if not is_reflectance and (offset := find_offset(pairs)) is not None:
        return _Offset(offset, "metadata")
    if options.offset is not None:
        return _Offset(options.offset, "option")
    if not is_reflectance and (offset := find_offset(flatten_metadata({"name": origin}))) is not None:
        return _Offset(offset, "name")
    return _Offset(0.0, "none")


def _list_unused(
    options: RasterOptions,
    choice: _Offset,
    *,
    dtype: np.dtype[Any],
    scales: Sequence[float],
    shifts: Sequence[float],
) -> Iterator[str]:
    """Yields a remark on each option that has no effect."""
    if options.scale is not None and set(scales) - {1.0, options.scale}:
        yield f"--scale {options.scale:g} has no effect: the scale tag of the raster is {scales[0]:g}"
    if options.offset is None:
        return
    if any(shifts):
        yield f"--offset {options.offset:g} has no effect: the raster has an offset tag"
    elif dtype.kind == "f" and options.scale is None and options.offset and all(scale == 1 for scale in scales):
        yield f"--offset {options.offset:g} has no effect on float values without --scale"
    elif choice.source == "metadata" and options.offset != choice.offset:
        yield f"--offset {options.offset:g} has no effect: the metadata give {choice.offset:g}"


def _list_nodata(tag: float | None, given: float | None) -> tuple[float, ...]:
    return tuple(dict.fromkeys(number for number in (tag, given) if number is not None))


def set_gdal_cache(raster: DatasetReader) -> rasterio.Env:
    """Returns a context that limits GDAL's block cache to 32 MB and the blocks of one row that are read together.

    The limit holds for the whole process: GDAL has one cache for all rasters and threads.
    """
    block_rows, block_cols = raster.block_shapes[0]
    cols = min(raster.width, MAX_COLS + 2 * block_cols)
    row_bytes = sum(cols * np.dtype(dtype).itemsize for dtype in raster.dtypes)
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES + row_bytes * block_rows)


def read_window(
    raster: DatasetReader, channels: ChannelSelection, window: Window, sample: PixelSample | None = None
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Reads reflectance and unknown pixels block by block, because a whole tile as float32 takes 200 MB.

    Args:
        raster: Open raster, in the context of `set_gdal_cache`.
        channels: Channels to read.
        window: Window within the raster.
        sample: Sample to which pixels are added, if any.

    Returns:
        `(H, W, C)` uint16, reflectance x 10000; and `(H, W)`, True where a channel has no value.
    """
    image = np.empty((window.height, window.width, len(channels.indexes)), np.uint16)
    unknown = np.empty((window.height, window.width), np.bool_)
    for part in split_into_blocks(window, raster.block_shapes[0], channels.pixel_bytes):
        values = raster.read(channels.indexes, window=part.to_rasterio())
        gaps = channels.find_gaps(values)
        if channels.masks:
            masks = raster.read(channels.masks, window=part.to_rasterio())
            gaps |= ((masks == 0) | (masks != masks)).any(axis=0)
        if channels.has_mask:
            gaps |= (raster.read_masks(channels.indexes, window=part.to_rasterio()) == 0).any(axis=0)
        top, left = part.top - window.top, part.left - window.left
        region = slice(top, top + part.height), slice(left, left + part.width)
        unknown[region] = gaps
        if gaps.all():  # common in mosaics, and five times as fast
            image[region] = 0
            impossible = None
        else:
            image[region] = quantize_reflectance(values, gaps, channels.scaling)
            impossible = channels.find_impossible(values, gaps)
        if sample is not None:
            sample.add(part.top, part.left, values, gaps, impossible)
        elif impossible is not None and impossible.any():
            lowest = float(values[:, impossible].min())
            raise FiresegError(
                f"{channels.name}: values of {lowest:.9g}, which are no reflectance; if it is a nodata value, use "
                f"--nodata {lowest:.9g}, or accept them with --trust-values (in Python trust_values=True)"
            )
    return image, unknown


class PixelSample:
    """A regular sample of raster values at pixels that are known in every band.

    Args:
        num_pixels: Number of pixels that will be read; about 200,000 of them are sampled.
    """

    def __init__(self, num_pixels: int) -> None:
        self._step = max(1, round((num_pixels / _SAMPLE_PX) ** 0.5))
        self._parts: list[NDArray[Any]] = []

    def add(
        self,
        top: int,
        left: int,
        values: NDArray[Any],
        gaps: NDArray[np.bool_],
        impossible: NDArray[np.bool_] | None = None,
    ) -> None:
        """Samples values `(C, H, W)` whose first pixel is at (top, left), with gaps `(H, W)`.

        Some of the pixels that cannot be a measurement are added to the regular sample, which may lack them.
        """
        grid = slice(-top % self._step, None, self._step), slice(-left % self._step, None, self._step)
        self._parts.append(values[:, *grid][:, ~gaps[grid]])
        if impossible is not None and impossible.any():
            self._parts.append(values[:, impossible][:, :_MAX_IMPOSSIBLE_PX])

    def check(
        self,
        name: object,
        scaling: Scaling,
        *,
        offset_source: OffsetSource = "none",
        bands: Sequence[str] = (),
        trust_values: bool = False,
    ) -> list[str]:
        """Checks that the values are reflectance, and returns flags about odd ones, prefixed with the raster's name.

        Args:
            name: Name of the raster in messages.
            scaling: Conversion to reflectance x 10000.
            offset_source: Source of the radiometric offset.
            bands: Names of the bands, for messages.
            trust_values: Accept values that cannot be reflectance; they are flagged.

        Raises:
            FiresegError: If they cannot be reflectance and are not trusted.
        """
        sample = np.concatenate(self._parts, axis=1)
        faults, flags = check_values(sample, scaling, offset_source=offset_source, bands=bands)
        if faults and not trust_values:
            remedy = "or accept them with --trust-values (in Python trust_values=True)"
            raise FiresegError(*(f"{name}: {fault}; {remedy}" for fault in faults))
        return [f"{name}: {text}" for text in (*faults, *flags)]


def split_into_blocks(window: Window, block: BlockShape, pixel_bytes: int) -> Iterator[Window]:
    """Splits a window into parts of about 32 MB along block edges, so that no block is decompressed twice.

    Args:
        window: Window to split.
        block: Block shape of the raster.
        pixel_bytes: Bytes of one pixel in all channels read.

    Yields:
        Windows that cover the window, row by row.
    """
    rows, cols = _read_shape(block, window.width, pixel_bytes)
    yield from split_window(window, rows, cols)


def select_sample_blocks(height: int, width: int, block: BlockShape) -> list[Window]:
    """Selects windows that sample a raster: the whole raster up to a million pixels, else evenly spread blocks.

    Args:
        height: Height of the raster in pixels.
        width: Width of the raster in pixels.
        block: Block shape of the raster.

    Returns:
        At most 8 x 8 windows that do not overlap.
    """
    if height * width <= _MAX_WHOLE_PX:
        return [Window(0, 0, height, width)]
    tops, lefts = _sample_axis(height, block[0]), _sample_axis(width, block[1])
    return [Window(top, left, rows, cols) for top, rows in tops for left, cols in lefts]


def _check_assumed_order(raster: DatasetReader) -> None:
    """Checks on a sample of the pixels that the values agree with the order assumed for channels without names."""
    indexes = tuple(range(1, raster.count + 1))
    parts = []
    for block in select_sample_blocks(raster.height, raster.width, raster.block_shapes[0]):
        values = raster.read(indexes, window=block.to_rasterio())
        known = ~find_nodata(values, [_list_nodata(tag, None) for tag in raster.nodatavals])
        step = max(1, round((block.height * block.width / _ORDER_SAMPLE_PX) ** 0.5))
        parts.append(values[:, ::step, ::step][:, known[::step, ::step]])
    sample = np.concatenate(parts, axis=1)
    reason = describe_wrong_order(sample) if sample.size else "no pixel has a value in every channel"
    if reason:
        raise FiresegError(
            f"{raster.count} channels without band descriptions, and their values do not confirm the order of the "
            f"product: {reason}; name the channels in their order with --channels, such as --channels "
            f"{' '.join(RASTER_BAND_ORDERS[raster.count])}"
        )


def _read_shape(block: BlockShape, width: int, pixel_bytes: int) -> tuple[int, int]:
    """Returns the rows and columns to read at once: whole blocks, unless the blocks are too large."""
    block_rows, block_cols = block
    rows = block_rows * max(1, _READ_ROWS // block_rows) if block_rows <= _MAX_BLOCK_ROWS else _READ_ROWS
    max_pixels = _MAX_READ_BYTES // pixel_bytes
    if rows * width <= max_pixels:
        return rows, width
    cols = min(width, max(block_cols, max_pixels // rows // block_cols * block_cols))
    if rows * cols > max_pixels:
        fewer = max(1, max_pixels // cols)
        rows = max(block_rows, fewer // block_rows * block_rows) if block_rows <= _MAX_BLOCK_ROWS else fewer
    return rows, cols


def _sample_axis(length: int, block: int) -> list[tuple[int, int]]:
    """Returns starts and lengths of evenly spread parts along one axis, aligned to blocks."""
    if block >= length:  # each row of the raster is one block
        return [(0, length)]
    part = block * -(-_MIN_SAMPLE_PX // block)
    num_parts = -(-length // part)
    starts = {round(n * (num_parts - 1) / (_SAMPLES_PER_AXIS - 1)) * part for n in range(_SAMPLES_PER_AXIS)}
    return [(start, min(part, length - start)) for start in sorted(starts)]
