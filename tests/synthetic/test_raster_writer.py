"""GeoTIFFs written for synthetic tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.errors import FiresegError
from fireseg.synthetic.tiles import write_raster

BOUNDS = (-45.0, 19.995, -44.99, 20.0)


def test_values_round_trip_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((50, 100, 12), np.float32)
    write_raster(tmp_path / "a.tif", values, bounds_lonlat=BOUNDS)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.dtypes == ("float32",) * 12
        assert np.array_equal(raster.read().transpose(1, 2, 0), values)


def test_grid_is_kept_without_further_metadata(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.eye(50, 100, dtype=np.uint8), bounds_lonlat=BOUNDS)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert tuple(raster.bounds) == pytest.approx(BOUNDS, abs=1e-12)
        assert tuple(raster.transform)[:6] == pytest.approx((1e-4, 0.0, -45.0, 0.0, -1e-4, 20.0), abs=1e-12)
        assert raster.descriptions == (None,)
        assert raster.nodata is None


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"nowhere/a\.tif: cannot be written"):
        write_raster(tmp_path / "nowhere" / "a.tif", np.zeros((4, 4), np.uint8), bounds_lonlat=BOUNDS)
