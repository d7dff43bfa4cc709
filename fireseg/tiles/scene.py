"""Reads windows of a scene as reflectance: a raster of any size, a product as it is delivered, or a STAC item."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from fireseg.console import is_plain_name
from fireseg.errors import FiresegError, did_you_mean
from fireseg.files import check_regular_file
from fireseg.geo.grid import Grid
from fireseg.geo.windows import Window
from fireseg.tiles.blocks import (
    BlockShape,
    ChannelSelection,
    PixelSample,
    read_window,
    select_channels,
    select_sample_blocks,
    set_gdal_cache,
)
from fireseg.tiles.clouds import CloudMask
from fireseg.tiles.folder import find_cloud_mask
from fireseg.tiles.metadata import find_date, find_level, flatten_metadata, read_metadata_beside
from fireseg.tiles.options import DEFAULT_OPTIONS, RasterOptions
from fireseg.tiles.products import Scene, find_product, get_scene_name, stack_product
from fireseg.tiles.raster_file import (
    check_no_quick_look,
    collect_errors,
    convert_raster_errors,
    measure_coverage,
    open_dataset,
    open_raster,
    read_grid,
)


class BandReader:
    """Reads windows of selected bands of a raster; created by `open_bands`.

    Use it in a `with` statement. Inside, any number of threads may read at once, each with its own handle. Memory is
    that of the requested windows and of one row of the raster's blocks, independent of the height.

    Attributes:
        path: Raster file, product or address, as given.
        name: Name of the scene.
        bands: Band of each channel, as requested.
        grid: Pixel grid of the raster, or that on which it is read.
        coverage: Share of the extent of that grid that the raster covers, 0 to 1.
        is_resampled: True if the raster has another grid.
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

    pre: BandReader | None = None
    """The scene before the fire, which only a `PairReader` has."""

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
        warp: _Warp | None = None,
    ) -> None:
        self.path, self.name, self.bands, self.grid = path, get_scene_name(path), bands, grid
        self.date, self.level = date, level
        self.height, self.width, self.ignored = grid.height, grid.width, channels.ignored
        self.is_resampled, self.coverage = warp is not None, warp.coverage if warp else 1.0
        self._source, self._warp = source, warp
        self.block_rows, self._block, self._channels, self._options = block[0], block, channels, options
        self._thread_local = threading.local()
        self._handles, self._lock = ExitStack(), threading.Lock()
        self._flags: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        for file in self._source.memory:
            self._handles.push(file)  # first, so that they are closed last
        with convert_raster_errors(self.path):
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
        with convert_raster_errors(self.path):
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
            with convert_raster_errors(self.path):
                for block in blocks:
                    read_window(self._get_handle(), self._channels, block, sample)
            flags = sample.check(
                self.path,
                self._channels.scaling,
                offset_source=self._channels.offset_source,
                bands=self.bands,
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
            handle = open_dataset(self._source.address)
            with self._lock:
                self._handles.callback(handle.close)  # not its context manager, which is bound to this thread
                if self._warp is not None:
                    handle = self._warp.open(handle)
                    self._handles.callback(handle.close)
            self._thread_local.handle = handle
        return handle


class _Source(NamedTuple):
    """Address of a raster for GDAL, its metadata, and the virtual rasters in memory that it consists of."""

    address: str
    metadata: dict[str, Any]
    memory: tuple[rasterio.MemoryFile, ...] = ()


class _Warp(NamedTuple):
    """Resampling of a raster to another grid: linear, or nearest if channels tell which pixels are valid."""

    grid: Grid
    nodata: float
    resampling: Resampling
    scale: float
    coverage: float

    @classmethod
    def plan(cls, raster: DatasetReader, grid: Grid, channels: ChannelSelection) -> _Warp:
        """Plans the resampling.

        Raises:
            FiresegError: If the raster lies elsewhere, or has a mask that resampling would lose.
        """
        if channels.has_mask:
            raise FiresegError(
                f"{channels.name}: has another grid than the scene, and a mask band that would be lost when resampled; "
                "warp it to the grid of the scene with gdalwarp"
            )
        if not (coverage := measure_coverage(raster, grid)):
            raise FiresegError(f"{channels.name}: lies outside of the scene; give a raster of the same area")
        dtype = np.result_type(*raster.dtypes)
        limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        tags = (number for numbers in channels.nodata for number in numbers)
        # 0 is what marks gaps where no tag does, see `find_nodata`.
        nodata = next((tag for tag in tags if tag != tag or limits.min <= tag <= limits.max), 0.0)
        resampling = Resampling.nearest if channels.masks else Resampling.bilinear
        return cls(grid, nodata, resampling, Grid.of_raster(raster).pixel_m / grid.pixel_m, coverage)

    def open(self, raster: DatasetReader) -> Any:
        """Opens a view of the raster on the grid."""
        return WarpedVRT(
            raster,
            crs=self.grid.rasterio_crs,
            transform=self.grid.affine,
            width=self.grid.width,
            height=self.grid.height,
            resampling=self.resampling,
            # What GDAL derives from the window, so that values would depend on it: an approximate transform, and the
            # number of pixels on the grid per pixel of the raster, by which it smooths finer rasters.
            tolerance=1e-6,
            XSCALE=self.scale,
            YSCALE=self.scale,
            src_nodata=self.nodata,
            nodata=self.nodata,
        )


def open_bands(
    path: Scene, bands: Sequence[str], options: RasterOptions = DEFAULT_OPTIONS, *, grid: Grid | None = None
) -> BandReader:
    """Opens a Sentinel-2 raster of any size, reference system and data type, a SAFE product, or a STAC item.

    Metadata (date, radiometric offset) are read from the raster's tags, from a json of the same name beside it
    (`scene.json` for `scene.tif`) and from the MTD_MSIL2A.xml of its product, if there are any. Pixels are read only
    to check the order of channels that nothing names.

    Args:
        path: Raster file, SAFE folder or archive, STAC item, or an address that GDAL resolves.
        bands: Names of the requested bands, in the order of the channels.
        options: Options used where the metadata are silent.
        grid: Grid to read it on, if not its own: values are resampled, and unknown beyond its edge.

    Raises:
        FiresegError: With all faults: not a readable raster, a picture for display, no georeference, missing or
            unidentified bands, invalid metadata.
    """
    faults: list[str] = []
    source = _find_source(path, faults)
    reader = None
    with collect_errors(faults), open_raster(path, source.address) as raster:
        own_grid, channels, name = None, None, str(path)
        origin = str(path.absolute()) if isinstance(path, Path) else path
        with collect_errors(faults):
            own_grid = read_grid(raster, name)
        with collect_errors(faults):
            check_no_quick_look(raster, name)
            hint = "use a raster with the bands of the model"
            channels = select_channels(
                raster, bands, source.metadata, name=name, origin=origin, options=options, hint=hint
            )
        if own_grid and channels:
            warp = None if grid is None or own_grid == grid else _Warp.plan(raster, grid, channels)
            pairs = flatten_metadata(raster.tags(), source.metadata, {"name": origin})
            reader = BandReader(
                path,
                tuple(bands),
                source=source,
                grid=grid or own_grid,
                date=find_date(pairs),
                level=find_level(pairs) or ("1C" if channels.has_cirrus else None),
                channels=channels,
                block=_read_block_shape(raster, warp),
                options=options,
                warp=warp,
            )
    if faults or reader is None:
        raise FiresegError(*faults)
    return reader


def _read_block_shape(raster: DatasetReader, warp: _Warp | None) -> BlockShape:
    if warp is None:
        return raster.block_shapes[0]
    with warp.open(raster) as warped:
        return warped.block_shapes[0]


def _find_source(path: Scene, faults: list[str]) -> _Source:
    """Finds the raster of a scene, or builds that of a product; faults of metadata are added to a list."""
    if not is_plain_name(path):
        raise FiresegError(f"{path}: its name is not UTF-8 or holds control characters; rename it")
    if product := find_product(path):
        files = stack_product(product)
        return _Source(files[-1].name, dict(product.metadata), tuple(files))
    if isinstance(path, str):
        return _Source(path, {})
    if not path.is_dir():
        check_regular_file(path)
    if not path.is_file():
        raise FiresegError(f"{path}: no such file{_suggest_names(path)}; give a raster with Sentinel-2 bands")
    with collect_errors(faults):
        return _Source(str(path), read_metadata_beside(path))
    return _Source(str(path), {})


def _suggest_names(path: Path) -> str:
    return did_you_mean(path.name, [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else [])
