"""Opens raster files of known formats, and checks that they can be located and hold bands."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds

from fireseg.errors import FiresegError
from fireseg.files import check_regular_file
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.memory import check_memory
from fireseg.tiles.vrt import list_sources

_SIGNATURES = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"EHFA_HEADER_TAG": "HFA",
}
"""Driver of GDAL by the first bytes of a file. It is chosen here, because GDAL tries all of its 150, of which some read
addresses and other files that the content of a file names."""

_GRID_WORDS = (b"ncols", b"nrows", b"xllcorner", b"xllcenter", b"yllcorner", b"yllcenter", b"cellsize")

_FORMATS = "GeoTIFF, JPEG 2000, PNG, ENVI, ERDAS Imagine, Esri grids, and VRT of such files"

_SOURCE_DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "VRT")
"""Formats of the sources of a virtual raster, which GDAL opens with any of its drivers: those that no other driver
takes for its own."""

_XML_CHARACTERS = frozenset('<>"')
"""Characters with which the name of a source is taken for the content of a virtual raster."""

_ADDRESS_DRIVERS = ["GTiff", "JP2OpenJPEG", "PNG"]

_REFERENCES = {"OVERVIEWS": {"OVERVIEW_FILE"}, "GEOLOCATION": {"X_DATASET", "Y_DATASET"}}
"""Items of metadata, by domain, with the name of a raster that GDAL opens, with any of its drivers."""

_MAX_NESTING = 8

_HEAD_BYTES = 4096

_HTTP_OPTIONS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
}
"""Time-outs in seconds of one request for a part of a file, and the lowest speed in bytes per second."""


@contextmanager
def open_raster(path: Path | str, address: str | None = None) -> Iterator[DatasetReader]:
    """Opens a raster; errors while it is read name the file.

    Args:
        path: Raster, with or without a georeference.
        address: Its address for GDAL; the path if None. See `open_dataset`.

    Raises:
        FiresegError: If the raster cannot be opened or read, or one of its blocks does not fit in memory.
    """
    if isinstance(path, Path) and not path.is_dir():  # a folder is a product
        check_regular_file(path)
    with convert_raster_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # reported by read_grid
        with open_dataset(address or path) as raster:
            _check_blocks(raster, path)
            yield raster


def _check_blocks(raster: DatasetReader, path: Path | str) -> None:
    """Checks that a block fits in memory: GDAL decompresses whole blocks, and one may be the whole raster."""
    channels = raster.dtypes if raster.interleaving == Interleaving.pixel else raster.dtypes[:1]
    pixel_bytes = sum(np.dtype(dtype).itemsize for dtype in channels)
    height, width = max(raster.block_shapes, default=(0, 0))
    check_memory(
        2 * height * width * pixel_bytes,
        f"{path}: stored in blocks of {height:,} x {width:,} pixels",
        "store it in tiles, on a larger machine, with gdal_translate -co TILED=YES -co COMPRESS=DEFLATE",
    )


def is_address(text: str) -> bool:
    """Returns True for what GDAL resolves as an address: `https://…`, `s3://…`, `/vsi…`."""
    return "://" in text or text.startswith("/vsi")


def open_dataset(address: Path | str, *, is_source: bool = False) -> DatasetReader:
    """Opens a raster with the driver of its format; nothing but the file, and files beside or below it, is read.

    Args:
        address: File. Only as a string and as the user typed it, or made by `stack_product`, also an address that GDAL
            resolves; there, files beside the raster are not read, and a virtual raster is refused.
        is_source: True if the file will be a source of a virtual raster, which limits its formats.

    Raises:
        FiresegError: If a file has none of the known formats, or names an address or another file.
        RasterioIOError: If GDAL cannot open it.
    """
    if is_source and (special := sorted(set(str(address)) & _XML_CHARACTERS)):
        raise FiresegError(f"{address}: {special[0]} in its path has a meaning for GDAL; rename the folder or file")
    if isinstance(address, str) and is_address(address):
        return _open_address(address)
    path = Path(address)
    driver = _check_file(path, _SOURCE_DRIVERS if is_source else ())
    if driver == "VRT" and path.is_symlink():
        path = path.resolve()  # names of sources are relative to the folder of the file that the link leads to
    return rasterio.open(path, driver=driver)


def _open_address(address: str) -> DatasetReader:
    if address.startswith("/vsimem/") and address.endswith(".vrt"):
        return rasterio.open(address, driver="VRT")
    for option, value in _HTTP_OPTIONS.items():
        # GDAL looks here in every thread, but for options of rasterio.Env only in the one that sets them.
        os.environ.setdefault(option, value)
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        raster = DatasetReader(address, driver=_ADDRESS_DRIVERS)
    return _check_tags(raster, address.partition("?")[0])  # without a token


def _check_file(path: Path, drivers: Sequence[str] = (), nesting: int = 0) -> str:
    """Returns the driver of a file, after checking the files that GDAL reads with it.

    Args:
        path: File.
        drivers: Allowed drivers; all that are known if empty.
        nesting: Number of files that led to this one.
    """
    driver = find_driver(path)
    if drivers and driver not in drivers:
        raise FiresegError(
            f"{path}: has the format {driver}, but it is read with another raster; convert it to GeoTIFF"
        )
    if nesting > _MAX_NESTING:
        raise FiresegError(f"{path}: virtual rasters are nested too deeply; copy it with gdal_translate to a GeoTIFF")
    for ending in (".ovr", ".OVR", ".msk", ".MSK"):
        if (beside := path.with_name(path.name + ending)).exists():
            _check_file(beside, ("GTiff",), nesting + 1)
    if driver == "VRT":
        for source in list_sources(path):
            if not source.is_raw:
                _check_file(source.path, _SOURCE_DRIVERS, nesting + 1)
    with rasterio.open(path, driver=driver) as raster:
        _check_tags(raster, path)
    return driver


def find_driver(path: Path) -> str:
    """Finds the driver of GDAL for a file by its content.

    Raises:
        FiresegError: If it is no regular file, or has none of the known formats.
    """
    check_regular_file(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for signature, driver in _SIGNATURES.items():
        if head.startswith(signature):
            return driver
    if b"<VRTDataset" in head:
        return "VRT"
    if head.lower().lstrip().startswith(_GRID_WORDS):
        return "AAIGrid"
    for ending in (".hdr", ".HDR"):
        for header in (path.with_suffix(ending), path.with_name(path.name + ending)):
            if header.is_file():
                with header.open("rb") as file:
                    return "ENVI" if file.read(4) == b"ENVI" else "EHdr"
    what = f"truncated or not a raster of a known format ({_FORMATS})" if head else "empty"
    raise FiresegError(f"{path}: {what}; download or unpack it again, or convert it with gdal_translate")


def _check_tags(raster: DatasetReader, name: object) -> DatasetReader:
    """Returns the raster if its metadata name no other raster, which GDAL would open for overviews or coordinates."""
    for domain, keys in _REFERENCES.items():
        if found := sorted(keys & raster.tags(ns=domain).keys()):
            raster.close()
            raise FiresegError(
                f"{name}: its metadata name another raster ({found[0]}), but only the file itself is read; remove that "
                f"from the file, and its {Path(str(name)).name}.aux.xml if there is one"
            )
    return raster


@contextmanager
def convert_raster_errors(path: Path | str) -> Iterator[None]:
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
def collect_errors(faults: list[str]) -> Iterator[None]:
    """Collects errors and continues, so that later files are checked as well."""
    try:
        yield
    except FiresegError as error:
        faults += error.faults


def is_quick_look(raster: DatasetReader) -> bool:
    """Returns True if the raster is a picture for display: 8 bits, at most four channels."""
    return raster.count <= 4 and set(raster.dtypes) == {"uint8"}


def read_grid(raster: DatasetReader, name: str) -> Grid:
    """Reads the grid of a raster and checks that it can be located on earth."""
    if raster.crs is None or raster.transform.is_identity:
        raise FiresegError(
            f"{name}: no georeference, so it cannot be located on earth; "
            "set it with gdal_edit.py -a_srs EPSG:… -a_ullr west north east south"
        )
    grid = Grid.of_raster(raster)
    try:
        _ = grid.bounds_lonlat, grid.outline_lonlat
    except FiresegError as error:
        raise FiresegError(f"{name}: {error}") from error
    return grid


def measure_coverage(raster: DatasetReader, grid: Grid) -> float:
    """Returns the share of the extent of a grid that a georeferenced raster covers, 0 to 1."""
    given = transform_bounds(raster.crs, grid.rasterio_crs, *Grid.of_raster(raster).bounds)
    share = 1.0
    for axis in (0, 1):  # the rows of a raster may go north
        (low, high), (first, last) = (sorted((bounds[axis], bounds[axis + 2])) for bounds in (grid.bounds, given))
        share *= max(0.0, min(high, last) - max(low, first)) / (high - low)
    return share


def check_no_quick_look(raster: DatasetReader, name: str) -> None:
    """Checks that a raster is no picture for display.

    Raises:
        FiresegError: If it is.
    """
    if is_quick_look(raster):
        raise FiresegError(
            f"{name}: {raster.count} channels of 8 bits, which is a picture for display, but Sentinel-2 bands "
            "as reflectance are required; use the raster that the picture was made from"
        )
