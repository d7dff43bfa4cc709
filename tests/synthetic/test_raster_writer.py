"""What is written as a GeoTIFF comes back to the bit, on the grid that it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.errors import FiresegError
from fireseg.synthetic.tiles import write_raster

BOUNDS = (-45.0, 19.995, -44.99, 20.0)


def test_values_come_back_to_the_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((50, 100, 12), np.float32)
    write_raster(tmp_path / "a.tif", values, bounds_lonlat=BOUNDS)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.dtypes == ("float32",) * 12
        assert np.array_equal(raster.read().transpose(1, 2, 0), values)


def test_it_lies_where_it_is_said_to_and_says_nothing_else(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.eye(50, 100, dtype=np.uint8), bounds_lonlat=BOUNDS)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert tuple(raster.bounds) == pytest.approx(BOUNDS, abs=1e-12)
        assert tuple(raster.transform)[:6] == pytest.approx((1e-4, 0.0, -45.0, 0.0, -1e-4, 20.0), abs=1e-12)
        assert raster.descriptions == (None,)
        assert raster.nodata is None


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"nowhere/a\.tif: cannot be written"):
        write_raster(tmp_path / "nowhere" / "a.tif", np.zeros((4, 4), np.uint8), bounds_lonlat=BOUNDS)
