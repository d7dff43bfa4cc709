"""Reads tiles and windows of scenes as reflectance."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
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
from fireseg.tiles.clouds import CloudMask, find_cloud_mask, is_scene_classification_file
from fireseg.tiles.folder import (
    RASTER_SUFFIXES,
    VECTOR_SUFFIXES,
    TileFiles,
    TileSearch,
    group_tile_files,
    report_orphan_masks,
)
from fireseg.tiles.masks import Mask, MaskKind, check_unknown_pixels, read_mask
from fireseg.tiles.metadata import (
    find_date,
    find_level,
    find_product_xml,
    flatten_metadata,
    read_metadata,
    read_product_xml,
)
from fireseg.tiles.options import DEFAULT_LABELS, DEFAULT_OPTIONS, LabelOptions, RasterOptions
from fireseg.tiles.products import Scene, find_product, get_scene_name, stack_product
from fireseg.tiles.vectors import read_vector_mask

_MASKS: dict[str, MaskKind] = {"delineation": "DEL", "grading": "GRA", "cloud": "CM"}


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
        level: Processing level, `1C` or `2A`; None if unknown.
        flags: Warnings about suspicious values, each prefixed with its file.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8] | None
    cloud: NDArray[np.uint8] | None
    grid: Grid
    date: str | None
    level: str | None
    flags: tuple[str, ...]


def find_tiles(root: Path, labels: LabelOptions = DEFAULT_LABELS) -> TileSearch:
    """Finds all tiles below a folder.

    Pictures for display (8 bits, at most four channels) under the name of an image, and png files of several channels
    under that of a CEMS mask, are skipped.

    Args:
        root: Folder of tiles, with or without the folders `train`, `val` and `test`.
        labels: Names of images and masks, if they are not those of CEMS.

    Raises:
        FiresegError: If the folder does not exist or has no tile, or a pattern of `labels` matches no raster.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; give the folder of the tiles, the one with train and val in it")
    search = group_tile_files(root, labels)
    tiles, faults = [], list(search.faults)
    for files in search.tiles:
        if not _is_quick_look_file(files.image):
            is_named = labels.images is not None  # such masks are wanted, so a picture among them is a fault
            pictures = [] if is_named else [name for name in _MASKS if _is_picture_of_mask(getattr(files, name))]
            tiles.append(replace(files, **dict.fromkeys(pictures)))
        else:
            faults += report_orphan_masks(files.name, (path for path in files.paths[1:] if path != files.metadata))
    faults.sort()
    if not tiles:
        raise FiresegError(
            f"{root}: no tile found, which is a <name>_S2L2A.tif (or {' '.join(RASTER_SUFFIXES[1:])}) with Sentinel-2 "
            "bands, at any depth; check the folder, and whether the archives are unpacked, or give the names of images "
            "and masks with --images and --masks",
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
        return _read_grid(raster, str(files.image)), _read_date(raster, metadata)


def read_tile(
    files: TileFiles,
    bands: Sequence[str],
    options: RasterOptions = DEFAULT_OPTIONS,
    labels: LabelOptions = DEFAULT_LABELS,
) -> Tile:
    """Reads a tile and checks that its files match.

    Args:
        files: Files of the tile.
        bands: Names of the requested bands, in the order of the channels.
        options: Options used where the metadata are silent.
        labels: Options for reading the masks.

    Raises:
        FiresegError: With all faults of all files: unreadable files, masks on another grid, invalid mask values,
            missing bands, no mask at all, a delineation in which 255 seems to mean burned.
    """
    faults: list[str] = []
    with _collect_errors(faults):
        if not (files.delineation or files.grading):
            raise FiresegError(
                f"{files.image}: no label mask {files.name}_DEL.tif or {files.name}_GRA.tif, nor one that --masks or "
                "--gradings matches; add one of them"
            )
    metadata: dict[str, Any] = {}
    with _collect_errors(faults):
        metadata = read_metadata(files.metadata) if files.metadata else {}
    flags: list[str] = []
    parts: dict[str, Any] = {}
    masks: dict[str, Mask] = {}
    with _collect_errors(faults), _open_raster(files.image) as raster:
        with _collect_errors(faults):
            parts["grid"] = _read_grid(raster, str(files.image))
        pairs = flatten_metadata(raster.tags(), metadata, {"name": raster.name})
        parts["date"], parts["level"] = find_date(pairs), find_level(pairs)
        for name, kind in _MASKS.items():
            if (path := getattr(files, name)) and not (name == "cloud" and is_scene_classification_file(path)):
                with _collect_errors(faults):
                    if path.suffix.lower() not in VECTOR_SUFFIXES:
                        with _open_raster(path) as mask:
                            masks[name] = read_mask(mask, kind, raster, labels)
                    elif "grid" in parts:
                        masks[name] = read_vector_mask(path, kind, parts["grid"], labels)
        with _collect_errors(faults):
            parts["image"], parts["unknown"], scl = _read_image(raster, bands, metadata, options, flags)
            if "cloud" not in masks and (files.cloud or scl):
                source = CloudMask(
                    files.cloud or files.image, parts["grid"], kind="SCL", channel=1 if files.cloud else scl
                )
                with source:
                    masks["cloud"] = Mask(values=source.read_codes(0, raster.height))
    flags[:0] = [flag for mask in masks.values() for flag in mask.flags]
    values = {name: masks[name].values if name in masks else None for name in _MASKS}
    if "unknown" in parts and "delineation" in masks and files.delineation:
        with _collect_errors(faults):
            has_grading = files.grading is not None
            check_unknown_pixels(
                files.delineation, masks["delineation"], parts["unknown"], values["cloud"], has_grading=has_grading
            )
    if faults:
        raise FiresegError(*faults)
    if values["delineation"] is None:
        values["delineation"] = np.full(parts["unknown"].shape, IGNORE_INDEX, np.uint8)
    return Tile(**parts, **values, flags=tuple(flags))  # pyright: ignore[reportArgumentType]


class BandReader:
    """Reads windows of selected bands of a raster; created by `open_bands`.

    Use it in a `with` statement. Inside, any number of threads may read at once, each with its own handle. Memory is
    that of the requested windows and of one row of the raster's blocks, independent of the height.

    Attributes:
        path: Raster file, product or address, as given.
        name: Name of the scene.
        bands: Band of each channel, as requested.
        grid: Pixel grid of the raster.
        date: Acquisition date, see `find_date`; None if unknown.
        level: Processing level, `1C` or `2A`; None if unknown.
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
        path: Scene,
        bands: tuple[str, ...],
        *,
        source: _Source,
        grid: Grid,
        date: str | None,
        level: str | None,
        channels: ChannelSelection,
        block: BlockShape,
        options: RasterOptions,
    ) -> None:
        self.path, self.name, self.bands, self.grid = path, get_scene_name(path), bands, grid
        self.date, self.level = date, level
        self.height, self.width, self.ignored = grid.height, grid.width, channels.ignored
        self._source = source
        self.block_rows, self._block, self._channels, self._options = block[0], block, channels, options
        self._thread_local = threading.local()
        self._handles, self._lock = ExitStack(), threading.Lock()
        self._flags: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        if self._source.memory is not None:
            self._handles.push(self._source.memory)  # first, so that it is closed last
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
            flags = sample.check(
                self.path,
                self._channels.scaling,
                offset_source=self._channels.offset_source,
                trust_values=self._options.trust_values,
            )
            self._flags = (*(f"{self.path}: {text}" for text in self._channels.unused), *flags)
        return self._flags

    def open_cloud_mask(self, path: Path | None = None) -> CloudMask | None:
        """Returns the cloud mask of the scene, to be used in a `with` statement; None if there is none.

        Args:
            path: Cloud mask to use. If None, that beside the scene is used, else the scene's own scene
                classification.
        """
        if path is None and isinstance(self.path, Path):
            path = find_cloud_mask(self.path)
        if path is not None:
            return CloudMask(path, self.grid)
        if (channel := self._channels.scl) is None:
            return None
        name = f"{self.path}, channel {channel}"
        return CloudMask(self._source.address, self.grid, kind="SCL", channel=channel, name=name)

    def _get_handle(self) -> DatasetReader:
        """Returns the handle of this thread: GDAL allows only one thread at a time per handle."""
        if (handle := getattr(self._thread_local, "handle", None)) is None:
            handle = rasterio.open(self._source.address)
            with self._lock:
                self._handles.callback(handle.close)  # not its context manager, which is bound to this thread
            self._thread_local.handle = handle
        return handle


class _Source(NamedTuple):
    """Address of a raster for GDAL, its metadata, and the memory that holds a virtual raster."""

    address: str
    metadata: dict[str, Any]
    memory: rasterio.MemoryFile | None = None


def open_bands(path: Scene, bands: Sequence[str], options: RasterOptions = DEFAULT_OPTIONS) -> BandReader:
    """Opens a Sentinel-2 raster of any size, reference system and data type, a SAFE product, or a STAC item.

    Metadata (date, radiometric offset) are read from the raster's tags, from a json of the same name beside it
    (`scene.json` for `scene.tif`) and from the MTD_MSIL2A.xml of its product, if there are any. Pixels are read only
    to check the order of channels that nothing names.

    Args:
        path: Raster file, SAFE folder or archive, STAC item, or an address that GDAL resolves.
        bands: Names of the requested bands, in the order of the channels.
        options: Options used where the metadata are silent.

    Raises:
        FiresegError: With all faults: not a readable raster, a picture for display, no georeference, missing or
            unidentified bands, invalid metadata.
    """
    faults: list[str] = []
    source = _find_source(path, faults)
    reader = None
    with _collect_errors(faults), _open_raster(path, source.address) as raster:
        grid, channels, name = None, None, str(path)
        with _collect_errors(faults):
            grid = _read_grid(raster, name)
        with _collect_errors(faults):
            _check_no_quick_look(raster, name)
            hint = "use a raster with the bands of the model"
            channels = select_channels(raster, bands, source.metadata, name=name, options=options, hint=hint)
        if grid and channels:
            pairs = flatten_metadata(raster.tags(), source.metadata, {"name": name})
            reader = BandReader(
                path,
                tuple(bands),
                source=source,
                grid=grid,
                date=find_date(pairs),
                level=find_level(pairs) or ("1C" if channels.has_cirrus else None),
                channels=channels,
                block=raster.block_shapes[0],
                options=options,
            )
    if faults or reader is None:
        raise FiresegError(*faults)
    return reader


def _find_source(path: Scene, faults: list[str]) -> _Source:
    """Finds the raster of a scene, or builds that of a product; faults of metadata are added to a list."""
    if product := find_product(path):
        memory = rasterio.MemoryFile(stack_product(product), ext=".vrt")
        return _Source(memory.name, dict(product.metadata), memory)
    if isinstance(path, str):
        return _Source(path, {})
    if not path.is_file():
        raise FiresegError(f"{path}: no such file{_suggest_names(path)}; give a raster with Sentinel-2 bands")
    with _collect_errors(faults):
        return _Source(str(path), _read_metadata_beside(path))
    return _Source(str(path), {})


@contextmanager
def _open_raster(path: Scene, address: str | None = None) -> Iterator[DatasetReader]:
    """Opens a raster; errors while it is read name the file.

    Args:
        path: Raster, with or without a georeference.
        address: Its address for GDAL; the path if None.

    Raises:
        FiresegError: If the raster cannot be opened or read.
    """
    with _convert_raster_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # reported by _read_grid
        with rasterio.open(address or path) as raster:
            yield raster


@contextmanager
def _convert_raster_errors(path: Scene) -> Iterator[None]:
    """Converts errors of GDAL and of the disk to errors that name the file.

    Raises:
        FiresegError: If such an error occurs in the context.
    """
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        if isinstance(path, str):
            reason = error.__cause__ or error
            raise FiresegError(f"{path}: cannot be read ({reason}); check the address and your access") from error
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


def _read_grid(raster: DatasetReader, name: str) -> Grid:
    """Reads the grid of a raster and checks that it can be located on earth."""
    if raster.crs is None or raster.transform.is_identity:
        raise FiresegError(
            f"{name}: no georeference, so overlaps with other tiles cannot be found; "
            "set it with gdal_edit.py -a_srs EPSG:… -a_ullr west north east south"
        )
    grid = Grid.of_raster(raster)
    try:
        _ = grid.bounds_lonlat, grid.outline_lonlat
    except FiresegError as error:
        raise FiresegError(f"{name}: {error}") from error
    return grid


def _read_date(raster: DatasetReader, metadata: dict[str, Any]) -> str | None:
    return find_date(flatten_metadata(raster.tags(), metadata, {"name": raster.name}))


def _is_quick_look_file(path: Path) -> bool:
    try:
        with _open_raster(path) as raster:
            return _is_quick_look(raster)
    except FiresegError:
        return False  # reported when the tile is read


def _is_picture_of_mask(path: Path | None) -> bool:
    if path is None or path.suffix.lower() != ".png":
        return False
    try:
        with _open_raster(path) as raster:
            return raster.count > 1
    except FiresegError:
        return False  # reported when the tile is read


def _read_image(
    raster: DatasetReader, bands: Sequence[str], metadata: dict[str, Any], options: RasterOptions, flags: list[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_], int | None]:
    """Reads the image, its gaps, and the number of its channel with a scene classification, None without one."""
    channels = select_channels(raster, bands, metadata, name=raster.name, options=options)
    sample = PixelSample(raster.height * raster.width)
    with set_gdal_cache(raster):
        image, unknown = read_window(raster, channels, Window(0, 0, raster.height, raster.width), sample)
    flags += (f"{raster.name}: {text}" for text in channels.unused)
    flags += sample.check(
        raster.name, channels.scaling, offset_source=channels.offset_source, trust_values=options.trust_values
    )
    return image, unknown, channels.scl


def _read_metadata_beside(path: Path) -> dict[str, Any]:
    """Reads the json of the same name, upper or lower case, and the metadata of the product beside or above it."""
    name = f"{path.stem}.json"
    exact = [path.with_name(name)] if path.with_name(name).is_file() else []
    files = exact or sorted(beside for beside in path.parent.iterdir() if beside.name.lower() == name.lower())
    metadata = read_metadata(files[0]) if files else {}
    product = find_product_xml(path)
    return {**metadata, "product": read_product_xml(product)} if product else metadata


def _check_no_quick_look(raster: DatasetReader, name: str) -> None:
    if _is_quick_look(raster):
        raise FiresegError(
            f"{name}: {raster.count} channels of 8 bits, which is a picture for display, but Sentinel-2 bands "
            "as reflectance are required; use the raster that the picture was made from"
        )


def _suggest_names(path: Path) -> str:
    return did_you_mean(path.name, [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else [])
