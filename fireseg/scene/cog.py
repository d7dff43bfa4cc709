"""GeoTIFFs made cloud-optimized."""

from __future__ import annotations

from pathlib import Path
from shutil import disk_usage
from typing import Literal

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # pyright: ignore[reportMissingImports]  # what GDAL says has no public name
from rasterio.errors import RasterioError
from rasterio.shutil import copy
from rasterio.windows import Window

from fireseg.errors import FiresegError

GDAL_VERSION: str = rasterio.__gdal_version__

BLOCK_PX = 512

GDAL_ERRORS = (RasterioError, CPLE_BaseError, SystemError)
"""The last is what rasterio gives where GDAL fails twice."""

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
