"""Values of some channels of a raster as reflectance in steps of 0.0001."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fireseg.data.tiles.appearance import list_flags
from fireseg.data.tiles.channels import pick_channels
from fireseg.data.tiles.digital_numbers import Scaling, find_unknown, get_scaling, to_steps
from fireseg.data.tiles.origin import find_offset, list_pairs
from fireseg.data.tiles.pieces import Piece, cut
from fireseg.errors import FiresegError

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


def limited_cache(raster: DatasetReader) -> rasterio.Env:
    """A context in which GDAL keeps one row of a raster's blocks and little more, not the whole file.

    It holds for the whole process: GDAL has one cache for all rasters and threads.
    """
    row_bytes = sum(raster.width * np.dtype(dtype).itemsize for dtype in raster.dtypes)
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES + row_bytes * raster.block_shapes[0][0])


def read_window(
    raster: DatasetReader, channels: Channels, window: Piece, sample: Sample | None = None
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Reflectance and unknown pixels, piece by piece: float values of a whole tile are 200 MB.

    Args:
        raster: An open raster, in `limited_cache`.
        channels: What to read.
        window: Where, within the raster.
        sample: Takes its share of the values, where there is one.

    Returns:
        `(H, W, C)` uint16, reflectance x 10000, and `(H, W)`, True where a channel has no value.
    """
    top, left, height, width = window
    image = np.empty((height, width, len(channels.indexes)), np.uint16)
    unknown = np.empty((height, width), np.bool_)
    for row, col, num_rows, num_cols in cut(window, raster.block_shapes[0], channels.pixel_bytes):
        part = Window(col, row, num_cols, num_rows)  # pyright: ignore[reportCallIssue]
        values = raster.read(channels.indexes, window=part)
        gaps = find_unknown(values, channels.nodata)
        if channels.has_mask:
            gaps |= (raster.read_masks(channels.indexes, window=part) == 0).any(axis=0)
        place = slice(row - top, row - top + num_rows), slice(col - left, col - left + num_cols)
        unknown[place] = gaps
        image[place] = to_steps(values, gaps, channels.scaling)
        if sample is not None:
            sample.add(row, col, values, gaps)
    return image, unknown
