"""Writes maps as Cloud-Optimized GeoTIFFs (COG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple, Self
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy

from fireseg.errors import FiresegError
from fireseg.files import disk_error
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.geo.windows import MAX_COLS, Window, split_window
from fireseg.task import IGNORE_INDEX

GDAL_VERSION: str = rasterio.__gdal_version__

BLOCK_PX = 512

CACHE_BYTES = 48 * 2**20
"""Size of GDAL's block cache; its default is 5 % of the machine's memory."""

FIRE_STEPS = 250
"""Steps in which uint8 rasters store probabilities: 0.004 each, with 255 left for unknown."""

_GDAL_TYPES = {"uint8": ("Byte", 1), "float32": ("Float32", 4)}


class MapPaths(NamedTuple):
    """The files of a map.

    GDAL reads the labels of the classes from `names`, which must stay beside `classes` under a name derived from it.
    """

    classes: Path  # classes.tif
    fire: Path  # fire.tif
    names: Path  # classes.tif.aux.xml


class MapWriter:
    """Writes classes and fire probabilities as Cloud-Optimized GeoTIFFs; memory does not grow with their size.

    Args:
        folder: Scratch folder of the caller, to which the files are written under fixed names.
        grid: Grid of the map, rotated or not.
        class_names: One name per class, the first for unburned; metadata tags `CLASS_<value>` of the class raster.
        labels: One label per class, which GDAL calls categories and shows in legends.
        colours: One `#rrggbb` per class.
        fire_dtype: Data type of the probabilities: `uint8` stores steps of 0.004 (0 to 250, 255 unknown), `float32`
            the values themselves (NaN unknown).
        tags: Further metadata tags of both files.

    Example:
        >>> with MapWriter(scratch, grid, ...) as writer:  # doctest: +SKIP
        ...     for top, classes, fire in rows:
        ...         writer.write(top, classes, fire)
        ...     paths = writer.close()
    """

    def __init__(
        self,
        folder: Path,
        grid: Grid,
        *,
        class_names: Sequence[str],
        labels: Sequence[str],
        colours: Sequence[str],
        fire_dtype: Literal["uint8", "float32"] = "uint8",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        assert len(class_names) == len(labels) == len(colours) >= 2, (class_names, labels, colours)
        self._folder = folder
        self._grid = grid
        self._class_tags = {f"CLASS_{value}": name for value, name in enumerate(class_names)}
        self._tags = dict(tags or {})
        self._classes = BandDescription(
            dtype="uint8", nodata=IGNORE_INDEX, description="class", categories=labels, colours=colours
        )
        self._fire = _describe_fire(fire_dtype)
        self._num_pixels = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._check_free_space()
        try:
            self._work = Path(self._stack.enter_context(TemporaryDirectory(prefix=".map-", dir=self._folder)))
            self._files = [self._open("classes.raw"), self._open("fire.raw")]
        except OSError as error:
            self._stack.close()
            raise disk_error(self._folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the temporary files; without `close`, no file is left."""
        with suppress(OSError):  # an earlier error is the one to report
            self._stack.close()

    def write(self, top: int, classes: NDArray[np.uint8], fire: NDArray[np.floating], *, left: int = 0) -> None:
        """Writes a window. Windows may be written in any order, each pixel once.

        Args:
            top: First row.
            classes: `(rows, columns)`, 0 to the number of classes - 1, 255 unknown.
            fire: Fire probability in [0, 1], `(rows, columns)`, NaN unknown.
            left: First column.

        Raises:
            FiresegError: If the disk is full or the folder cannot be written.
        """
        height, width = classes.shape
        assert 0 <= top <= top + height <= self._grid.height, (top, height, self._grid.height)
        assert 0 <= left <= left + width <= self._grid.width, (left, width, self._grid.width)
        assert classes.shape == fire.shape, (classes.shape, fire.shape)
        assert classes.dtype == np.uint8, classes.dtype
        for file, values in zip(self._files, (classes, self._encode(fire)), strict=True):
            is_whole = width == self._grid.width
            try:
                for row, part in [(top, values)] if is_whole else enumerate(values, top):
                    file.seek((row * self._grid.width + left) * values.itemsize)
                    file.write(np.ascontiguousarray(part).data)
            except OSError as error:
                raise disk_error(self._folder, error) from error
        self._num_pixels += classes.size

    def close(self) -> MapPaths:
        """Converts the rows to Cloud-Optimized GeoTIFFs. All rows must have been written.

        Raises:
            FiresegError: If the disk is full or the folder cannot be written.
        """
        num_pixels = self._grid.height * self._grid.width
        assert self._num_pixels == num_pixels, f"{self._num_pixels} of {num_pixels} pixels were written"
        try:
            for file in self._files:
                file.close()
            self._convert("classes", self._classes, self._class_tags, "nearest")
            self._convert("fire", self._fire, {}, "average")
            paths = MapPaths(*(self._folder / name for name in ("classes.tif", "fire.tif", "classes.tif.aux.xml")))
            for path in paths:
                (self._work / path.name).replace(path)
        except OSError as error:
            raise disk_error(self._folder, error) from error
        return paths

    def _check_free_space(self) -> None:
        """Checks the free space before the hours that a large map takes."""
        classes, fire = (
            self._grid.height * self._grid.width * np.dtype(band.dtype).itemsize for band in (self._classes, self._fire)
        )
        # One file is converted after the other, and the values of the first are deleted before the second.
        _check_disk_space(self._folder, classes + fire + max(2 * classes, 2 * fire - classes))

    def _open(self, name: str) -> BinaryIO:
        return self._stack.enter_context((self._work / name).open("wb"))

    def _encode(self, fire: NDArray[np.floating]) -> NDArray[np.uint8] | NDArray[np.float32]:
        fire = np.clip(fire, 0.0, 1.0)
        if self._fire.dtype == "float32":
            return fire.astype(np.float32, copy=False)
        return np.where(np.isnan(fire), self._fire.nodata, np.rint(fire * FIRE_STEPS)).astype(np.uint8)

    def _convert(
        self, name: str, band: BandDescription, tags: Mapping[str, str], overviews: Literal["nearest", "average"]
    ) -> None:
        raw = self._work / f"{name}.raw"
        vrt = write_vrt(raw, band, tags={**self._tags, **tags}, grid=self._grid)
        convert_to_cog(vrt, self._work / f"{name}.tif", overviews=overviews)
        raw.unlink()


@dataclass(frozen=True, kw_only=True)
class BandDescription:
    """Metadata of a raster band.

    Attributes:
        dtype: Data type, in the byte order of the machine.
        nodata: Nodata value.
        description: Name of the band.
        scale: Factor from stored values to physical values.
        categories: Names of the values from 0.
        colours: Colours `#rrggbb` of the values from 0.
    """

    dtype: Literal["uint8", "float32"]
    nodata: float
    description: str
    scale: float | None = None
    categories: Sequence[str] = field(default=())
    colours: Sequence[str] = field(default=())


def _describe_fire(dtype: Literal["uint8", "float32"]) -> BandDescription:
    description = "probability of fire"
    if dtype == "float32":
        return BandDescription(dtype=dtype, nodata=np.nan, description=description)
    return BandDescription(dtype=dtype, nodata=IGNORE_INDEX, description=description, scale=1 / FIRE_STEPS)


def write_vrt(raw: Path, band: BandDescription, *, grid: Grid, tags: Mapping[str, str]) -> Path:
    """Writes a virtual raster (VRT) beside a file of raw values.

    Raw values are written to disk without GDAL's cache, so a full disk is detected at once.

    Args:
        raw: Values of the raster, row by row.
        band: Metadata of the band.
        grid: Grid of the raster.
        tags: Metadata tags of the raster.

    Returns:
        Path of the virtual raster: `raw` with the suffix `.vrt`.

    References:
        https://gdal.org/drivers/raster/vrt.html
    """
    gdal_type, pixel_bytes = _GDAL_TYPES[band.dtype]
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    _add_element(root, "SRS", grid.rasterio_crs.to_wkt())
    _add_element(root, "GeoTransform", ", ".join(repr(float(number)) for number in grid.affine.to_gdal()))
    metadata = _add_element(root, "Metadata")
    for key, value in tags.items():
        _add_element(metadata, "MDI", value, key=key)
    values = _add_element(root, "VRTRasterBand", dataType=gdal_type, band="1", subClass="VRTRawRasterBand")
    _add_element(values, "Description", band.description)
    _add_element(values, "NoDataValue", str(band.nodata))
    if band.scale is not None:
        _add_element(values, "Scale", repr(band.scale))
    _add_element(values, "ColorInterp", "Palette" if band.colours else "Gray")
    if band.categories:
        names = _add_element(values, "CategoryNames")
        for name in band.categories:
            _add_element(names, "Category", name)
    if band.colours:
        table = _add_element(values, "ColorTable")
        for colour in band.colours:
            red, green, blue = (str(int(colour[start : start + 2], 16)) for start in (1, 3, 5))
            _add_element(table, "Entry", c1=red, c2=green, c3=blue, c4="255")
    _add_element(values, "SourceFilename", raw.name, relativeToVRT="1")
    _add_element(values, "PixelOffset", str(pixel_bytes))
    _add_element(values, "LineOffset", str(pixel_bytes * grid.width))
    path = raw.with_suffix(".vrt")
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8"))
    return path


def _add_element(
    parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name, attributes)
    child.text = text
    return child


def convert_to_cog(source: Path, target: Path, *, overviews: Literal["nearest", "average"]) -> None:
    """Converts a raster to a Cloud-Optimized GeoTIFF (tiles, overviews, DEFLATE) with GDAL's COG driver.

    The copy is read back and compared, because GDAL can miss that the disk is full at the end of a file.

    Args:
        source: Raster with one band.
        target: File to write.
        overviews: Resampling of the overviews: `nearest` for classes, `average` for probabilities.

    Raises:
        FiresegError: If the target cannot be written completely.

    References:
        https://gdal.org/drivers/raster/cog.html
    """
    _check_free_space(source, target)
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            copy(
                source,
                target,
                driver="COG",
                blocksize=BLOCK_PX,
                compress="DEFLATE",
                predictor="YES" if overviews == "average" else "NO",
                overview_resampling=overviews.upper(),
                num_threads="ALL_CPUS",
                bigtiff="IF_SAFER",
            )
            is_complete = _are_equal(source, target)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{target}: cannot be written ({error}); if the disk is full, free some space") from error
    if not is_complete:
        raise FiresegError(f"{target}: differs from what was written; check that the disk is not full or damaged")


def _check_free_space(source: Path, target: Path) -> None:
    """Checks the free space before writing, because GDAL crashes on a disk that is completely full."""
    with rasterio.open(source) as raster:
        # Noise does not compress, and overviews, a third more, exist twice for a while.
        required = 2 * raster.height * raster.width * np.dtype(raster.dtypes[0]).itemsize + 2**20
    _check_disk_space(target, required)


def _check_disk_space(path: Path, required: int) -> None:
    free = disk_usage(path if path.is_dir() else path.parent).free
    if free < required:
        raise FiresegError(
            f"{path}: {free / 1e6:,.0f} MB of disk space are free, but {required / 1e6:,.0f} MB are required; "
            "free some space"
        )


def _are_equal(one: Path, other: Path) -> bool:
    with rasterio.open(one) as first, rasterio.open(other) as second:
        for window in split_window(Window(0, 0, first.height, first.width), BLOCK_PX, MAX_COLS):
            values, copied = (raster.read(1, window=window.to_rasterio()) for raster in (first, second))
            if not np.array_equal(values.view(np.uint8), copied.view(np.uint8)):  # as bytes: NaN equals itself
                return False
    return True
