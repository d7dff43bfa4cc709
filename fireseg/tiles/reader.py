"""Raw tiles into arrays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError, did_you_mean
from fireseg.geo.grid import Grid
from fireseg.geo.windows import BlockShape, select_sample_blocks
from fireseg.task import IGNORE_INDEX
from fireseg.tiles.folder import (
    TileFiles,
    TileSearch,
    gathering,
    group_files,
    is_quick_look,
    naming,
    opened,
    report_orphans,
)
from fireseg.tiles.masks import MaskKind, normalize_mask
from fireseg.tiles.metadata import SOFTWARE_TAG, find_date, list_pairs, read_metadata
from fireseg.tiles.radiometry import Channels, Sample, choose_channels, read_window, set_gdal_cache


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What a tile holds.

    Attributes:
        image: `(H, W, C)` uint16, reflectance x 10000, rounded, clipped to 0..1; 0 where unknown.
        unknown: `(H, W)`, True where a band wanted has no value.
        delineation: `(H, W)` uint8, 0, 1, 255; all 255 without one.
        grading: `(H, W)` uint8, 0 to 4, 255; None without one.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 not known; None without one.
        grid: Pixel grid of the image.
        date: Acquisition date, see `find_date`; None if unknown.
        flags: What looks strange about it, each with its file in front.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8] | None
    cloud: NDArray[np.uint8] | None
    grid: Grid
    date: str | None
    flags: tuple[str, ...]


_MAX_SHIFT_PX = 0.1
"""How far a mask may lie beside its image: less than labels are exact to, more than rounding moves a corner."""


def read_grid(raster: DatasetReader) -> Grid:
    """Reads the grid of a raster and checks that it can be located on earth.

    Raises:
        FiresegError: If it has no georeference, or none that leads to longitude and latitude.
    """
    if raster.crs is None or raster.transform.is_identity:
        raise FiresegError(
            f"{raster.name}: no georeference, so overlaps with other tiles cannot be found; "
            "set it with gdal_edit.py -a_srs EPSG:… -a_ullr west north east south"
        )
    grid = Grid.of_raster(raster)
    try:
        _ = grid.bounds_lonlat, grid.outline_lonlat
    except FiresegError as error:
        raise FiresegError(f"{raster.name}: {error}") from error
    return grid


def compare_grids(mask: DatasetReader, image: DatasetReader) -> str:
    """What differs, worded to stand before the name of the image; nothing if they lie on one another.

    Args:
        mask: An open raster.
        image: Another one, with a georeference.
    """
    if mask.shape != image.shape:
        return f"{mask.height} x {mask.width} pixels, but {image.height} x {image.width} in"
    if mask.crs != image.crs:
        names = [raster.crs.to_string() if raster.crs else "no reference system" for raster in (mask, image)]
        return f"{names[0]}, but {names[1]} in"
    corners = [(col, row) for col in (0, image.width) for row in (0, image.height)]
    moved = [_apply(~image.transform, _apply(mask.transform, corner)) for corner in corners]
    shift = max(abs(was - now) for pair in zip(corners, moved, strict=True) for was, now in zip(*pair, strict=True))
    return f"shifted by {shift:.2g} pixels against" if shift > _MAX_SHIFT_PX else ""


def _apply(transform: Affine, place: tuple[float, float]) -> tuple[float, float]:
    # Written out, because the operator for it changes between versions of affine.
    return (
        transform.a * place[0] + transform.b * place[1] + transform.c,
        transform.d * place[0] + transform.e * place[1] + transform.f,
    )


def search_tiles(root: Path) -> TileSearch:
    """Finds every tile under a folder, and what is in the way.

    A quick-look (8 bits, at most four channels) under the name of an image is none.

    Args:
        root: The folder, with `train`, `val` and `test` in it or without.

    Raises:
        FiresegError: If there is no such folder, or no tile in it.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; name the one that holds the tiles, with train and val in it")
    search = group_files(root)
    tiles, faults = [], list(search.faults)
    for files in search.tiles:
        if not _is_quick_look(files.image):
            tiles.append(files)
        else:
            faults += report_orphans(files.name, (path for path in files.paths[1:] if path != files.metadata))
    faults.sort()
    if not tiles:
        raise FiresegError(
            f"{root}: no tile in it, that is no <name>_S2L2A.tif with the bands of Sentinel-2, at any depth; "
            "is it the right folder, and are the archives unpacked?",
            *map(str, faults),
        )
    return TileSearch(tuple(tiles), tuple(faults))


def read_grid_and_date(files: TileFiles) -> tuple[Grid, str | None]:
    """Reads the grid and the acquisition date of a tile, but no pixels.

    Args:
        files: Files of the tile.

    Raises:
        FiresegError: If the image or the json cannot be read, or the image has no valid georeference.
    """
    metadata = read_metadata(files.metadata) if files.metadata else {}
    with opened(files.image) as raster:
        return read_grid(raster), find_date(list_pairs(raster.tags(), metadata))


def read_tile(files: TileFiles, bands: Sequence[str], *, offset: float | None = None) -> Tile:
    """Reads a tile and checks that its files fit together.

    Args:
        files: Its files.
        bands: Names of the bands wanted, in the order of the channels.
        offset: What integer digital numbers have on top where neither json nor tags say so; by default 0.

    Raises:
        FiresegError: With all faults of all its files: unreadable ones, masks of another size or place,
            values that mean nothing, bands that are not there, no mask at all.
    """
    faults: list[str] = []
    with gathering(faults):
        if not (files.delineation or files.grading):
            missing = f"neither {files.name}_DEL.tif nor {files.name}_GRA.tif beside it"
            raise FiresegError(f"{files.image}: {missing}, so that nothing can be learnt from it; add one")
    metadata: dict[str, Any] = {}
    with gathering(faults):
        metadata = read_metadata(files.metadata) if files.metadata else {}
    flags: list[str] = []
    parts: dict[str, Any] = {"delineation": None, "grading": None, "cloud": None}
    with gathering(faults), opened(files.image) as raster:
        with gathering(faults):
            parts["grid"] = read_grid(raster)
        parts["date"] = find_date(list_pairs(raster.tags(), metadata))
        kinds: list[tuple[str, MaskKind]] = [("delineation", "DEL"), ("grading", "GRA"), ("cloud", "CM")]
        for name, kind in kinds:
            if path := getattr(files, name):
                with gathering(faults):
                    parts[name] = _read_mask(path, kind, raster, flags)
        with gathering(faults):
            parts["image"], parts["unknown"] = _read_image(raster, bands, metadata, offset, flags)
    if faults:
        raise FiresegError(*faults)
    if parts["delineation"] is None:
        parts["delineation"] = np.full(parts["unknown"].shape, IGNORE_INDEX, np.uint8)
    return Tile(**parts, flags=tuple(flags))


def _is_quick_look(path: Path) -> bool:
    try:
        with opened(path) as raster:
            return is_quick_look(raster)
    except FiresegError:
        return False  # named when it is read


def _read_mask(path: Path, kind: MaskKind, image: DatasetReader, flags: list[str]) -> NDArray[np.uint8]:
    with opened(path) as raster:
        if raster.count != 1:
            raise FiresegError(f"{path}: {raster.count} channels, but a mask has one; is it a picture of the mask?")
        if differences := compare_grids(raster, image):
            raise FiresegError(f"{path}: {differences} {Path(image.name).name}; cut both from one grid")
        values = raster.read(1)
        try:
            mask, strange = normalize_mask(values, kind, raster.nodata)
        except FiresegError as error:
            raise FiresegError(f"{path}: {error}") from error
    flags += [f"{path}: {what}" for what in strange]
    return mask


def _read_image(
    raster: DatasetReader, bands: Sequence[str], metadata: dict[str, Any], offset: float | None, flags: list[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    channels = choose_channels(raster, bands, metadata, offset=offset)
    sample = Sample(raster.height * raster.width)
    with set_gdal_cache(raster):
        image, unknown = read_window(raster, channels, (0, 0, raster.height, raster.width), sample)
    flags += sample.list_flags(raster.name, channels.scaling)
    return image, unknown


__all__ = ["SOFTWARE_TAG", "BandReader", "open_bands"]


class BandReader:
    """Reads windows of some bands of a raster; `open_bands` makes one.

    Used in a `with`: inside, any number of threads may read at once, each with a handle of its own; at the end all
    are closed. Memory is that of the windows asked for and of one row of the raster's blocks, whatever its height.

    Attributes:
        path: The raster.
        bands: The band of each channel, as asked for.
        grid: Pixel grid of the raster.
        date: Acquisition date, see `find_date`; None if unknown.
        height: Rows.
        width: Columns.
        block_rows: Rows that are stored together: windows whose edges are multiples of it are read fastest.

    Example:
        >>> with open_bands(Path("scene.tif"), ("B08", "B12")) as reader:  # doctest: +SKIP
        ...     image, unknown = reader.read(0, 0, 512, reader.width)
    """

    def __init__(
        self, path: Path, bands: tuple[str, ...], *, grid: Grid, date: str | None, channels: Channels, block: BlockShape
    ) -> None:
        self.path, self.bands, self.grid, self.date = path, bands, grid, date
        self.height, self.width = grid.height, grid.width
        self.block_rows, self._block, self._channels = block[0], block, channels
        self._own = threading.local()
        self._opened, self._opening = ExitStack(), threading.Lock()
        self._flags: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        """Begins reading."""
        with naming(self.path):
            self._opened.enter_context(set_gdal_cache(self._get_handle()))
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
            pieces = select_sample_blocks(self.height, self.width, self._block)
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
        grid, channels = None, None
        with gathering(faults):
            grid = read_grid(raster)
        with gathering(faults):
            _refuse_quick_look(raster)
            channels = choose_channels(
                raster, bands, metadata, offset=offset, cure="take a raster that has what the model needs"
            )
        if grid and channels:
            date = find_date(list_pairs(raster.tags(), metadata))
            block = raster.block_shapes[0]
            reader = BandReader(path, tuple(bands), grid=grid, date=date, channels=channels, block=block)
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
