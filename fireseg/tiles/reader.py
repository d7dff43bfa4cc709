"""Reads tiles and windows of scenes as reflectance."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError, did_you_mean
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.geo.windows import Window
from fireseg.task import IGNORE_INDEX
from fireseg.tiles.blocks import (
    BlockShape,
    ChannelSelection,
    PixelSample,
    read_window,
    select_channels,
    select_sample_blocks,
    set_gdal_cache,
)
from fireseg.tiles.folder import TileFiles, TileSearch, group_tile_files, report_orphan_masks
from fireseg.tiles.masks import MaskKind, normalize_mask
from fireseg.tiles.metadata import find_date, flatten_metadata, read_metadata
from fireseg.tiles.options import DEFAULT_OPTIONS, RasterOptions

_MAX_SHIFT_PX = 0.1
"""Largest shift of a mask against its image: less than the accuracy of labels, more than rounding of coordinates."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Image, masks and location of a tile.

    Attributes:
        image: `(H, W, C)` uint16, reflectance x 10000, rounded, clipped to 0..1; 0 where unknown.
        unknown: `(H, W)`, True where a requested band has no value.
        delineation: `(H, W)` uint8, 0, 1, 255; all 255 if the tile has none.
        grading: `(H, W)` uint8, 0 to 4, 255; None if the tile has none.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 unknown; None if the tile has none.
        grid: Pixel grid of the image.
        date: Acquisition date, see `find_date`; None if unknown.
        flags: Warnings about suspicious values, each prefixed with its file.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8] | None
    cloud: NDArray[np.uint8] | None
    grid: Grid
    date: str | None
    flags: tuple[str, ...]


def find_tiles(root: Path) -> TileSearch:
    """Finds all tiles below a folder.

    Pictures for display (8 bits, at most four channels) under the name of an image are skipped.

    Args:
        root: Folder of tiles, with or without the folders `train`, `val` and `test`.

    Raises:
        FiresegError: If the folder does not exist or has no tile.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; give the folder of the tiles, the one with train and val in it")
    search = group_tile_files(root)
    tiles, faults = [], list(search.faults)
    for files in search.tiles:
        if not _is_quick_look_file(files.image):
            tiles.append(files)
        else:
            faults += report_orphan_masks(files.name, (path for path in files.paths[1:] if path != files.metadata))
    faults.sort()
    if not tiles:
        raise FiresegError(
            f"{root}: no tile found, which is a <name>_S2L2A.tif with Sentinel-2 bands, at any depth; "
            "check the folder, and whether the archives are unpacked",
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
    with _open_raster(files.image) as raster:
        return _read_grid(raster), _read_date(raster, metadata)


def read_tile(files: TileFiles, bands: Sequence[str], options: RasterOptions = DEFAULT_OPTIONS) -> Tile:
    """Reads a tile and checks that its files match.

    Args:
        files: Files of the tile.
        bands: Names of the requested bands, in the order of the channels.
        options: Options used where the metadata are silent.

    Raises:
        FiresegError: With all faults of all files: unreadable files, masks on another grid, invalid mask values,
            missing bands, no mask at all.
    """
    faults: list[str] = []
    with _collect_errors(faults):
        if not (files.delineation or files.grading):
            raise FiresegError(
                f"{files.image}: no label mask {files.name}_DEL.tif or {files.name}_GRA.tif; add one of them"
            )
    metadata: dict[str, Any] = {}
    with _collect_errors(faults):
        metadata = read_metadata(files.metadata) if files.metadata else {}
    flags: list[str] = []
    parts: dict[str, Any] = {"delineation": None, "grading": None, "cloud": None}
    with _collect_errors(faults), _open_raster(files.image) as raster:
        with _collect_errors(faults):
            parts["grid"] = _read_grid(raster)
        parts["date"] = _read_date(raster, metadata)
        kinds: list[tuple[str, MaskKind]] = [("delineation", "DEL"), ("grading", "GRA"), ("cloud", "CM")]
        for name, kind in kinds:
            if path := getattr(files, name):
                with _collect_errors(faults):
                    parts[name] = _read_mask(path, kind, raster, flags)
        with _collect_errors(faults):
            parts["image"], parts["unknown"] = _read_image(raster, bands, metadata, options, flags)
    if faults:
        raise FiresegError(*faults)
    if parts["delineation"] is None:
        parts["delineation"] = np.full(parts["unknown"].shape, IGNORE_INDEX, np.uint8)
    return Tile(**parts, flags=tuple(flags))


def count_burned(files: TileFiles) -> int:
    """Counts the burned pixels of a tile; only its delineation, or else its grading, is read.

    Args:
        files: Files of the tile.

    Raises:
        FiresegError: If the tile has no mask, or it cannot be read or does not match the image.
    """
    kinds: list[tuple[Path | None, MaskKind]] = [(files.delineation, "DEL"), (files.grading, "GRA")]
    for path, kind in kinds:
        if path is not None:
            with _open_raster(files.image) as raster:
                mask = _read_mask(path, kind, raster, [])
            return int(((mask > 0) & (mask != IGNORE_INDEX)).sum())
    raise FiresegError(f"{files.image}: no label mask; add {files.name}_DEL.tif or {files.name}_GRA.tif")


class BandReader:
    """Reads windows of selected bands of a raster; created by `open_bands`.

    Use it in a `with` statement. Inside, any number of threads may read at once, each with its own handle. Memory is
    that of the requested windows and of one row of the raster's blocks, independent of the height.

    Attributes:
        path: Raster file.
        bands: Band of each channel, as requested.
        grid: Pixel grid of the raster.
        date: Acquisition date, see `find_date`; None if unknown.
        height: Height of the raster in pixels.
        width: Width of the raster in pixels.
        block_rows: Height of the raster's blocks; windows aligned to it are read fastest.
        ignored: Names of the channels that are neither bands nor validity masks.

    Example:
        >>> with open_bands(Path("scene.tif"), ("B08", "B12")) as reader:  # doctest: +SKIP
        ...     image, unknown = reader.read(0, 0, 512, reader.width)
    """

    def __init__(
        self,
        path: Path,
        bands: tuple[str, ...],
        *,
        grid: Grid,
        date: str | None,
        channels: ChannelSelection,
        block: BlockShape,
        options: RasterOptions,
    ) -> None:
        self.path, self.bands, self.grid, self.date = path, bands, grid, date
        self.height, self.width, self.ignored = grid.height, grid.width, channels.ignored
        self.block_rows, self._block, self._channels, self._options = block[0], block, channels, options
        self._thread_local = threading.local()
        self._handles, self._lock = ExitStack(), threading.Lock()
        self._flags: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        with _convert_raster_errors(self.path):
            self._handles.enter_context(set_gdal_cache(self._get_handle()))
        return self

    def __exit__(self, *reason: object) -> None:
        """Closes the raster in all threads."""
        self._thread_local = threading.local()
        self._handles.close()

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Reads a window; the values are bit-equal to those of `read_tile`.

        Args:
            top: First row, 0 or more.
            left: First column, 0 or more.
            height: Number of rows, 1 or more, within the raster.
            width: Number of columns, 1 or more, within the raster.

        Returns:
            `(height, width, C)` uint16, reflectance x 10000, 0 where unknown; and `(height, width)`, True where a
            requested band has no value.

        Raises:
            FiresegError: If the raster is truncated there, or was removed.
        """
        is_inside = 0 <= top < top + height <= self.height and 0 <= left < left + width <= self.width
        assert is_inside, f"window {top, left, height, width} of {self.height} x {self.width} pixels"
        with _convert_raster_errors(self.path):
            return read_window(self._get_handle(), self._channels, Window(top, left, height, width))

    def check_values(self) -> tuple[str, ...]:
        """Checks that the values are reflectance, and returns flags about odd ones, like the `flags` of a `Tile`.

        They are based on a sample: of the whole raster if it is small, else of evenly spread blocks. The sample is
        read at the first call only.

        Raises:
            FiresegError: If the raster cannot be read, or the values cannot be reflectance and the options do not say
                to trust them.
        """
        if self._flags is None:
            blocks = select_sample_blocks(self.height, self.width, self._block)
            sample = PixelSample(sum(block.height * block.width for block in blocks))
            with _convert_raster_errors(self.path):
                for block in blocks:
                    read_window(self._get_handle(), self._channels, block, sample)
            self._flags = tuple(sample.check(self.path, self._channels.scaling, self._options))
        return self._flags

    def _get_handle(self) -> DatasetReader:
        """Returns the handle of this thread: GDAL allows only one thread at a time per handle."""
        if (handle := getattr(self._thread_local, "handle", None)) is None:
            handle = rasterio.open(self.path)
            with self._lock:
                self._handles.callback(handle.close)  # not its context manager, which is bound to this thread
            self._thread_local.handle = handle
        return handle


def open_bands(path: Path, bands: Sequence[str], options: RasterOptions = DEFAULT_OPTIONS) -> BandReader:
    """Opens a Sentinel-2 raster of any size, reference system and data type.

    Metadata (date, radiometric offset) are read from the raster's tags and from a json of the same name beside it
    (`scene.json` for `scene.tif`), if there is one. Pixels are read only to check the
    order of channels that nothing names.

    Args:
        path: Raster file; masks are not needed.
        bands: Names of the requested bands, in the order of the channels.
        options: Options used where the metadata are silent.

    Raises:
        FiresegError: With all faults: not a readable raster, a picture for display, no georeference, missing or
            unidentified bands, invalid metadata.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else f"no such file{_suggest_names(path)}"
        raise FiresegError(f"{path}: {what}; give a raster with Sentinel-2 bands")
    faults: list[str] = []
    metadata: dict[str, Any] = {}
    with _collect_errors(faults):
        metadata = _read_metadata_beside(path)
    reader = None
    with _collect_errors(faults), _open_raster(path) as raster:
        grid, channels = None, None
        with _collect_errors(faults):
            grid = _read_grid(raster)
        with _collect_errors(faults):
            _check_no_quick_look(raster)
            hint = "use a raster with the bands of the model"
            channels = select_channels(raster, bands, metadata, options=options, hint=hint)
        if grid and channels:
            date, block = _read_date(raster, metadata), raster.block_shapes[0]
            reader = BandReader(
                path, tuple(bands), grid=grid, date=date, channels=channels, block=block, options=options
            )
    if faults or reader is None:
        raise FiresegError(*faults)
    return reader


@contextmanager
def _open_raster(path: Path) -> Iterator[DatasetReader]:
    """Opens a raster; errors while it is read name the file.

    Args:
        path: Raster, with or without a georeference.

    Raises:
        FiresegError: If the raster cannot be opened or read.
    """
    with _convert_raster_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # reported by _read_grid
        with rasterio.open(path) as raster:
            yield raster


@contextmanager
def _convert_raster_errors(path: Path) -> Iterator[None]:
    """Converts errors of GDAL and of the disk to errors that name the file.

    Raises:
        FiresegError: If such an error occurs in the context.
    """
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        if not path.exists():
            raise FiresegError(f"{path}: no such file; was it moved while fireseg was running?") from error
        what = "empty" if path.stat().st_size == 0 else f"truncated or not a raster ({error.__cause__ or error})"
        raise FiresegError(f"{path}: {what}; download or unpack it again") from error


@contextmanager
def _collect_errors(faults: list[str]) -> Iterator[None]:
    """Collects errors and continues, so that later files are checked as well."""
    try:
        yield
    except FiresegError as error:
        faults += error.faults


def _is_quick_look(raster: DatasetReader) -> bool:
    """Returns True if the raster is a picture for display: 8 bits, at most four channels."""
    return raster.count <= 4 and set(raster.dtypes) == {"uint8"}


def _read_grid(raster: DatasetReader) -> Grid:
    """Reads the grid of a raster and checks that it can be located on earth."""
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


def _read_date(raster: DatasetReader, metadata: dict[str, Any]) -> str | None:
    return find_date(flatten_metadata(raster.tags(), metadata, {"name": raster.name}))


def _is_quick_look_file(path: Path) -> bool:
    try:
        with _open_raster(path) as raster:
            return _is_quick_look(raster)
    except FiresegError:
        return False  # reported when the tile is read


def _read_mask(path: Path, kind: MaskKind, image: DatasetReader, flags: list[str]) -> NDArray[np.uint8]:
    with _open_raster(path) as raster:
        if raster.count != 1:
            raise FiresegError(f"{path}: {raster.count} channels, but a mask has one; check that it is no picture")
        if differences := _describe_grid_difference(raster, image):
            raise FiresegError(f"{path}: {differences} {Path(image.name).name}; use one grid for both")
        values = raster.read(1)
        try:
            mask, mask_flags = normalize_mask(values, kind, raster.nodata)
        except FiresegError as error:
            raise FiresegError(f"{path}: {error}") from error
    flags += [f"{path}: {flag}" for flag in mask_flags]
    return mask


def _describe_grid_difference(mask: DatasetReader, image: DatasetReader) -> str:
    """Describes how two grids differ, as text before the name of the image; empty if they match."""
    if mask.shape != image.shape:
        return f"{mask.height} x {mask.width} pixels, but {image.height} x {image.width} in"
    if mask.crs != image.crs:
        names = [raster.crs.to_string() if raster.crs else "no reference system" for raster in (mask, image)]
        return f"{names[0]}, but {names[1]} in"
    corners = [(col, row) for col in (0, image.width) for row in (0, image.height)]
    moved = [_apply(~image.transform, _apply(mask.transform, corner)) for corner in corners]
    shift = max(abs(was - now) for pair in zip(corners, moved, strict=True) for was, now in zip(*pair, strict=True))
    return f"shifted by {shift:.2g} pixels against" if shift > _MAX_SHIFT_PX else ""


def _apply(transform: Affine, point: tuple[float, float]) -> tuple[float, float]:
    # Written out, because the operator for it changes between versions of affine.
    x, y = point
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def _read_image(
    raster: DatasetReader, bands: Sequence[str], metadata: dict[str, Any], options: RasterOptions, flags: list[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    channels = select_channels(raster, bands, metadata, options=options)
    sample = PixelSample(raster.height * raster.width)
    with set_gdal_cache(raster):
        image, unknown = read_window(raster, channels, Window(0, 0, raster.height, raster.width), sample)
    flags += sample.check(raster.name, channels.scaling, options)
    return image, unknown


def _read_metadata_beside(path: Path) -> dict[str, Any]:
    """Reads the json of the same name, upper or lower case."""
    name = f"{path.stem}.json"
    exact = [path.with_name(name)] if path.with_name(name).is_file() else []
    files = exact or sorted(beside for beside in path.parent.iterdir() if beside.name.lower() == name.lower())
    return read_metadata(files[0]) if files else {}


def _check_no_quick_look(raster: DatasetReader) -> None:
    if _is_quick_look(raster):
        raise FiresegError(
            f"{raster.name}: {raster.count} channels of 8 bits, which is a picture for display, but Sentinel-2 bands "
            "as reflectance are required; use the raster that the picture was made from"
        )


def _suggest_names(path: Path) -> str:
    return did_you_mean(path.name, [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else [])
