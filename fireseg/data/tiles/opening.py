"""Rasters opened, with one clear line for whatever is wrong with a file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError  # pyright: ignore[reportMissingImports]  # the errors of GDAL have no public name
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError


@contextmanager
def opened(path: Path) -> Iterator[DatasetReader]:
    """Opens a raster; what goes wrong while it is read names the file.

    Args:
        path: The raster; one without georeference will do.

    Raises:
        FiresegError: If it cannot be opened, or read to the end.
    """
    with naming(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by grid.locate, with a way out
        with rasterio.open(path) as raster:
            yield raster


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, what goes wrong with a raster is worded as its fault.

    Raises:
        FiresegError: In place of what GDAL and the disk raise.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        if not path.exists():
            raise FiresegError(f"{path}: no such file; was it moved while fireseg was running?") from error
        what = "empty" if path.stat().st_size == 0 else f"truncated or no raster ({error.__cause__ or error})"
        raise FiresegError(f"{path}: {what}; fetch or unpack it again") from error


@contextmanager
def gathering(faults: list[str]) -> Iterator[None]:
    """Takes down what cannot be, so that whatever comes after is looked at, too."""
    try:
        yield
    except FiresegError as error:
        faults += error.faults


def is_quick_look(raster: DatasetReader) -> bool:
    """Whether it is a picture for the eye: 8 bits, at most four channels."""
    return raster.count <= 4 and set(raster.dtypes) == {"uint8"}
