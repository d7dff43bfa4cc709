"""Arrays into GeoTIFFs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rasterio import Affine
from rasterio.io import MemoryFile

from fireseg.disk import replacing


def write_raster(path: Path, values: NDArray[Any], *, bounds_lonlat: tuple[float, float, float, float]) -> None:
    """Writes a raster on the grid of CEMS tiles: EPSG:4326, north up, nothing said of bands or nodata.

    The values come back to the bit; the bytes around them are GDAL's, and change with its version.

    Args:
        path: The file. Its folder must exist.
        values: `(H, W)` or `(H, W, C)`.
        bounds_lonlat: West, south, east, north in degrees.

    Raises:
        FiresegError: If the disk is full or the folder cannot be written.
    """
    bands = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    count, height, width = bands.shape
    west, south, east, north = bounds_lonlat
    # In memory first: GDAL finds out about a full disk when it closes the file, and then tells nobody.
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype=bands.dtype,
            count=count,
            height=height,
            width=width,
            crs="EPSG:4326",
            transform=Affine((east - west) / width, 0.0, west, 0.0, (south - north) / height, north),
            compress="deflate",
            zlevel=1,
            predictor=3 if bands.dtype.kind == "f" else 1,
        ) as raster:
            raster.write(bands)
        with replacing(path) as part:
            part.write_bytes(memory.getbuffer())
