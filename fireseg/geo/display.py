"""Prepares a map for interactive display: a picture of the scene as a raster, and areas by fire probability."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling

from fireseg.errors import FiresegError
from fireseg.geo.grid import GDAL_ERRORS, M2_PER_HA, Grid, PixelAreas
from fireseg.geo.raster import BLOCK_PX, CACHE_BYTES, FIRE_STEPS
from fireseg.geo.windows import Window

_ROWS = 256

_NODATA = 0


def write_picture(
    path: Path, grid: Grid, rows: Iterable[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]], *, step: int = 1
) -> None:
    """Writes a picture of a scene as a tiled GeoTIFF with overviews.

    Args:
        path: File to write.
        grid: Grid of the scene.
        rows: First row of the picture, tones `(n, W, 3)`, and unknown pixels `(n, W)`; from top to bottom. The tone 0
            becomes 1, because 0 stands for unknown.
        step: Distance in pixels of the scene between pixels of the picture.

    Raises:
        FiresegError: If the file cannot be written.
    """
    height, width = -(-grid.height // step), -(-grid.width // step)
    a, b, c, d, e, f = grid.transform
    profile = {
        **{"driver": "GTiff", "dtype": "uint8", "count": 3, "height": height, "width": width, "nodata": _NODATA},
        **{
            "crs": grid.rasterio_crs,
            "transform": Affine(a * step, b * step, c, d * step, e * step, f),
            "photometric": "RGB",
        },
        **{"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "DEFLATE", "predictor": 2},
        **{"interleave": "pixel", "bigtiff": "IF_SAFER"},
    }
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(path, "w", **profile) as raster:
            for top, tones, unknown in rows:
                values = np.where(unknown[..., None], np.uint8(_NODATA), np.maximum(tones, 1))
                window = Window(top, 0, len(values), width).to_rasterio()
                raster.write(values.transpose(2, 0, 1), window=window)
            factors = [2**power for power in range(1, 12) if max(height, width) / 2**power >= BLOCK_PX / 2]
            if factors:
                raster.build_overviews(factors, Resampling.average)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{path}: cannot be written ({error}); if the disk is full, free some space") from error


def sum_area_by_probability(fire: Path) -> list[float]:
    """Sums the area of the known pixels by fire probability, so that areas above any threshold follow without the map.

    Args:
        fire: Fire probability of a map, as uint8 in steps of 0.004.

    Returns:
        Geodesic area in hectares for each of the 251 probabilities 0, 0.004, …, 1.

    Raises:
        FiresegError: If the file cannot be read.
    """
    area_m2 = np.zeros(256)
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(fire) as raster:
            areas = PixelAreas(Grid.of_raster(raster))
            for top in range(0, raster.height, _ROWS):
                num_rows = min(_ROWS, raster.height - top)
                window = Window(top, 0, num_rows, raster.width).to_rasterio()
                values = raster.read(1, window=window)
                weights = np.broadcast_to(areas.of_rows(top, num_rows), values.shape)
                area_m2 += np.bincount(values.ravel(), weights=weights.ravel(), minlength=256)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{fire}: cannot be read ({error}); map the scene again") from error
    return [float(area) / M2_PER_HA for area in area_m2[: FIRE_STEPS + 1]]
