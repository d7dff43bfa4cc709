"""Opens raster files, and checks that they can be located and hold bands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError
from fireseg.files import check_regular_file
from fireseg.geo.grid import GDAL_ERRORS, Grid


@contextmanager
def open_raster(path: Path | str, address: str | None = None) -> Iterator[DatasetReader]:
    """Opens a raster; errors while it is read name the file.

    Args:
        path: Raster, with or without a georeference.
        address: Its address for GDAL; the path if None.

    Raises:
        FiresegError: If the raster cannot be opened or read.
    """
    if isinstance(path, Path) and not path.is_dir():  # a folder is a product
        check_regular_file(path)
    with convert_raster_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # reported by read_grid
        with rasterio.open(address or path) as raster:
            yield raster


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
