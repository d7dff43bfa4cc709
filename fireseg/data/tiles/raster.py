"""The bands of a raster as reflectance, window by window."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from fireseg.data.tiles.channel_values import Channels, Sample, choose_channels, limited_cache, read_window
from fireseg.data.tiles.grid import locate
from fireseg.data.tiles.opening import gathering, is_quick_look, naming, opened
from fireseg.data.tiles.origin import MADE_BY, read_metadata
from fireseg.data.tiles.pieces import Block, spread
from fireseg.data.tiles.tile import Place
from fireseg.errors import FiresegError, did_you_mean

__all__ = ["MADE_BY", "BandReader", "open_bands"]


class BandReader:
    """Reads windows of some bands of a raster; `open_bands` makes one.

    Used in a `with`: inside, any number of threads may read at once, each with a handle of its own; at the end all
    are closed. Memory is that of the windows asked for and of one row of the raster's blocks, whatever its height.

    Attributes:
        path: The raster.
        bands: The band of each channel, as asked for.
        place: Where and when: reference system, transform, bounds, date.
        height: Rows.
        width: Columns.
        block_rows: Rows that are stored together: windows whose edges are multiples of it are read fastest.

    Example:
        >>> with open_bands(Path("scene.tif"), ("B08", "B12")) as reader:  # doctest: +SKIP
        ...     image, unknown = reader.read(0, 0, 512, reader.width)
    """

    def __init__(self, path: Path, bands: tuple[str, ...], *, place: Place, channels: Channels, block: Block) -> None:
        self.path, self.bands, self.place = path, bands, place
        self.height, self.width = place.height, place.width
        self.block_rows, self._block, self._channels = block[0], block, channels
        self._own = threading.local()
        self._opened, self._opening = ExitStack(), threading.Lock()
        self._flags: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        """Begins reading."""
        with naming(self.path):
            self._opened.enter_context(limited_cache(self._get_handle()))
        return self

    def __exit__(self, *reason: object) -> None:
        """Closes the raster in all threads."""
        self._own = threading.local()
        self._opened.close()

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """One window, to the bit what `read_tile` gives there.

        Args:
            top: First row, 0 or more.
            left: First column, 0 or more.
            height: Rows, 1 or more, within the raster.
            width: Columns, 1 or more, within the raster.

        Returns:
            `(height, width, C)` uint16, reflectance x 10000, 0 where unknown; and `(height, width)`, True where a
            band wanted has no value.

        Raises:
            FiresegError: If the raster is cut short there, or went away.
        """
        is_inside = 0 <= top < top + height <= self.height and 0 <= left < left + width <= self.width
        assert is_inside, f"window {top, left, height, width} of {self.height} x {self.width} pixels"
        with naming(self.path):
            return read_window(self._get_handle(), self._channels, (top, left, height, width))

    def look(self) -> tuple[str, ...]:
        """What looks strange about the values, each with the file in front, as the `flags` of a `Tile`.

        Asked of a thin sample: of the whole raster where it is small, else of pieces spread over it. The first
        call reads them, later ones do not.

        Raises:
            FiresegError: If the raster cannot be read.
        """
        if self._flags is None:
            pieces = spread(self.height, self.width, self._block)
            sample = Sample(sum(height * width for _, _, height, width in pieces))
            with naming(self.path):
                for piece in pieces:
                    read_window(self._get_handle(), self._channels, piece, sample)
            self._flags = tuple(sample.list_flags(self.path, self._channels.scaling))
        return self._flags

    def _get_handle(self) -> DatasetReader:
        """The handle of this thread: GDAL allows one thread at a time each."""
        if (handle := getattr(self._own, "handle", None)) is None:
            handle = rasterio.open(self.path)
            with self._opening:
                self._opened.callback(handle.close)  # not its own context, which belongs to this thread
            self._own.handle = handle
        return handle


def open_bands(path: Path, bands: Sequence[str], *, offset: float | None = None) -> BandReader:
    """Opens any raster of Sentinel-2 that prepare can read: any size, reference system and type of numbers.

    What metadata tell (date, offset of the digital numbers) is taken from the raster's tags and from the json of
    the same name beside it (`scene.json` for `scene.tif`), if there is one. No pixel is read yet.

    Args:
        path: The raster. It needs no masks beside it.
        bands: Names of the bands wanted, in the order of the channels.
        offset: What integer digital numbers have on top where neither json nor tags say so; by default 0.

    Raises:
        FiresegError: With all faults: no readable raster, a quick-look, nowhere on earth, bands that are not there
            or cannot be told, metadata that nobody understands.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else f"no such file{_find_near(path)}"
        raise FiresegError(f"{path}: {what}; name a raster with the bands of Sentinel-2")
    faults: list[str] = []
    metadata: dict[str, Any] = {}
    with gathering(faults):
        metadata = _read_metadata_beside(path)
    reader = None
    with gathering(faults), opened(path) as raster:
        place, channels = None, None
        with gathering(faults):
            place = locate(raster, metadata)
        with gathering(faults):
            _refuse_quick_look(raster)
            channels = choose_channels(
                raster, bands, metadata, offset=offset, cure="take a raster that has what the model needs"
            )
        if place and channels:
            reader = BandReader(path, tuple(bands), place=place, channels=channels, block=raster.block_shapes[0])
    if faults or reader is None:
        raise FiresegError(*faults)
    return reader


def _read_metadata_beside(path: Path) -> dict[str, Any]:
    """The json of the same name, capital letters aside."""
    wanted = f"{path.stem}.json"
    exact = [path.with_name(wanted)] if path.with_name(wanted).is_file() else []
    found = exact or sorted(beside for beside in path.parent.iterdir() if beside.name.lower() == wanted.lower())
    return read_metadata(found[0]) if found else {}


def _refuse_quick_look(raster: DatasetReader) -> None:
    if is_quick_look(raster):
        raise FiresegError(
            f"{raster.name}: {raster.count} channels of 8 bits, a picture for the eye, but the bands of Sentinel-2 are "
            "wanted as reflectance; take the raster that it was drawn from"
        )


def _find_near(path: Path) -> str:
    return did_you_mean(path.name, [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else [])
