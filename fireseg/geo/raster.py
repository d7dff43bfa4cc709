"""GeoTIFFs made cloud-optimized."""

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
from rasterio.windows import Window

from fireseg.errors import FiresegError
from fireseg.files import disk_error
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.task import IGNORE_INDEX

GDAL_VERSION: str = rasterio.__gdal_version__

BLOCK_PX = 512

CACHE_BYTES = 48 * 2**20
"""What GDAL may keep of what it read: a twentieth of the machine's memory otherwise."""


def convert_to_cog(source: Path, target: Path, *, overviews: Literal["nearest", "average"]) -> None:
    """Copies a raster into a Cloud-Optimized GeoTIFF: tiles, overviews, DEFLATE; by GDAL's own driver.

    The copy is read back and compared, because GDAL can miss that the disk is full at the end of a file.

    Args:
        source: Any raster of one band.
        target: The file to write.
        overviews: How pixels are brought together: `nearest` for classes, `average` for probabilities.

    Raises:
        FiresegError: If the target cannot be written whole.

    References:
        https://gdal.org/drivers/raster/cog.html
    """
    _check_room(source, target)
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
            is_whole = _are_equal(source, target)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{target}: cannot be written ({error}); is the disk full? make room") from error
    if not is_whole:
        raise FiresegError(f"{target}: does not hold what was written to it; is the disk full or broken?")


def _check_room(source: Path, target: Path) -> None:
    """Before, because GDAL does not survive a disk on which there is no room at all."""
    with rasterio.open(source) as raster:
        # Noise does not get smaller, and overviews, a third more, are there twice for a while.
        wanted = 2 * raster.height * raster.width * np.dtype(raster.dtypes[0]).itemsize + 2**20
    free = disk_usage(target.parent).free
    if free < wanted:
        raise FiresegError(
            f"{target}: {free / 1e6:.0f} MB are free on the disk, but {wanted / 1e6:.0f} MB are wanted; make room"
        )


def _are_equal(one: Path, other: Path) -> bool:
    with rasterio.open(one) as first, rasterio.open(other) as second:
        for top in range(0, first.height, BLOCK_PX):
            rows = Window(0, top, first.width, min(BLOCK_PX, first.height - top))  # pyright: ignore[reportCallIssue]
            ours, theirs = first.read(1, window=rows), second.read(1, window=rows)
            if not np.array_equal(ours.view(np.uint8), theirs.view(np.uint8)):  # by bytes: NaN is equal to itself
                return False
    return True


_GDAL_TYPES = {"uint8": ("Byte", 1), "float32": ("Float32", 4)}


@dataclass(frozen=True, kw_only=True)
class BandDescription:
    """What the values of a band are.

    Args:
        dtype: Their type, in the byte order of the machine.
        nodata: The value of what is not known.
        description: What the band is called.
        scale: What a value is to be multiplied with.
        categories: What the values from 0 on are called.
        colours: The `#rrggbb` of the values from 0 on.
    """

    dtype: Literal["uint8", "float32"]
    nodata: float
    description: str
    scale: float | None = None
    categories: Sequence[str] = field(default=())
    colours: Sequence[str] = field(default=())


def write_vrt(raw: Path, band: BandDescription, *, grid: Grid, tags: Mapping[str, str]) -> Path:
    """Writes a virtual raster (VRT) beside a file of bare values.

    Bare values go to disk without GDAL's cache, and a full disk is known at once.

    Args:
        raw: The values, row after row.
        band: What they are.
        grid: The grid of the raster.
        tags: Metadata of the raster.

    Returns:
        The virtual raster: `raw` with the suffix `.vrt`.

    References:
        https://gdal.org/drivers/raster/vrt.html
    """
    gdal_type, pixel_bytes = _GDAL_TYPES[band.dtype]
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    _add(root, "SRS", grid.rasterio_crs.to_wkt())
    _add(root, "GeoTransform", ", ".join(repr(float(number)) for number in grid.affine.to_gdal()))
    metadata = _add(root, "Metadata")
    for key, value in tags.items():
        _add(metadata, "MDI", value, key=key)
    values = _add(root, "VRTRasterBand", dataType=gdal_type, band="1", subClass="VRTRawRasterBand")
    _add(values, "Description", band.description)
    _add(values, "NoDataValue", str(band.nodata))
    if band.scale is not None:
        _add(values, "Scale", repr(band.scale))
    _add(values, "ColorInterp", "Palette" if band.colours else "Gray")
    _add_categories(values, band)
    _add(values, "SourceFilename", raw.name, relativeToVRT="1")
    _add(values, "PixelOffset", str(pixel_bytes))
    _add(values, "LineOffset", str(pixel_bytes * grid.width))
    path = raw.with_suffix(".vrt")
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8"))
    return path


def _add_categories(values: ElementTree.Element, band: BandDescription) -> None:
    if band.categories:
        names = _add(values, "CategoryNames")
        for name in band.categories:
            _add(names, "Category", name)
    if band.colours:
        table = _add(values, "ColorTable")
        for colour in band.colours:
            red, green, blue = (str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))
            _add(table, "Entry", c1=red, c2=green, c3=blue, c4="255")


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name, attributes)
    child.text = text
    return child


FIRE_STEPS = 250
"""Probabilities as bytes: two and a half steps a percent, and 255 left for what is not known."""


class MapPaths(NamedTuple):
    """The files of a map. `names` holds the class names for GDAL: it must stay beside `classes`, named after it."""

    classes: Path  # classes.tif
    fire: Path  # fire.tif
    names: Path  # classes.tif.aux.xml


class MapWriter:
    """Writes classes and probabilities of fire as Cloud-Optimized GeoTIFFs; its memory does not grow with the height.

    Args:
        folder: A scratch folder of the caller's own; the files are written there, under fixed names.
        grid: The grid of the raster, rotated or not.
        class_names: One name a class, the first for unburned.
        colours: One `#rrggbb` a class.
        fire_dtype: `uint8` for steps of 0.004 (0 to 250, 255 unknown), `float32` for the values themselves (NaN
            unknown).
        tags: What else the files are to say about themselves.

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
        colours: Sequence[str],
        fire_dtype: Literal["uint8", "float32"] = "uint8",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        assert len(class_names) == len(colours) >= 2, (class_names, colours)
        self._folder = folder
        self._grid = grid
        self._class_tags = {f"CLASS_{value}": name for value, name in enumerate(class_names)}
        self._tags = dict(tags or {})
        self._classes = BandDescription(
            dtype="uint8", nodata=IGNORE_INDEX, description="class", categories=class_names, colours=colours
        )
        self._fire = _describe_fire(fire_dtype)
        self._num_rows = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
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
        """Removes what was written temporarily; where `close` was not reached, nothing is left."""
        with suppress(OSError):  # what went wrong before is what counts
            self._stack.close()

    def write(self, top: int, classes: NDArray[np.uint8], fire: NDArray[np.floating]) -> None:
        """Writes the rows that follow on those written before.

        Args:
            top: The first row: as many as were written before.
            classes: `(rows, width)`, 0 to the number of classes - 1, 255 unknown.
            fire: `(rows, width)`, probability of fire in [0, 1], NaN unknown.

        Raises:
            FiresegError: If the disk is full or the folder cannot be written.
        """
        assert top == self._num_rows, f"row {top} is to be written, but row {self._num_rows} is next"
        assert classes.shape == fire.shape == (len(classes), self._grid.width), (classes.shape, fire.shape)
        assert classes.dtype == np.uint8, classes.dtype
        for file, values in zip(self._files, (classes, self._encode(fire)), strict=True):
            try:
                file.write(np.ascontiguousarray(values).data)
            except OSError as error:
                raise disk_error(self._folder, error) from error
        self._num_rows += len(classes)

    def close(self) -> MapPaths:
        """Turns what was written into Cloud-Optimized GeoTIFFs. Every row must have been written.

        Raises:
            FiresegError: If the disk is full or the folder cannot be written.
        """
        assert self._num_rows == self._grid.height, f"{self._num_rows} rows were written of {self._grid.height}"
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
        virtual = write_vrt(raw, band, tags={**self._tags, **tags}, grid=self._grid)
        convert_to_cog(virtual, self._work / f"{name}.tif", overviews=overviews)
        raw.unlink()


def _describe_fire(dtype: Literal["uint8", "float32"]) -> BandDescription:
    description = "probability of fire"
    if dtype == "float32":
        return BandDescription(dtype=dtype, nodata=np.nan, description=description)
    return BandDescription(dtype=dtype, nodata=IGNORE_INDEX, description=description, scale=1 / FIRE_STEPS)
