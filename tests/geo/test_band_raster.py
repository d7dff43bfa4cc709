"""Rasters of named bands, written some rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.errors import FiresegError
from fireseg.geo import BandWriter, Grid

GRID = Grid(height=600, width=40, crs="EPSG:32610", transform=(10.0, 0.0, 6e5, 0.0, -10.0, 4.8e6))


def test_rows_names_tags_and_grid_are_those_that_were_given(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 10_000, (2, 600, 40)).astype(np.uint16)
    path = tmp_path / "scene.tif"
    with BandWriter(path, GRID, bands=["B04", "B12"], dtype=np.uint16, tags={"BOA_ADD_OFFSET": "-1000"}) as writer:
        writer.write(0, values[:, :512])
        writer.write(512, values[:, 512:])
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), values)
        assert raster.descriptions == ("B04", "B12")
        assert raster.nodata == 0
        assert raster.tags()["BOA_ADD_OFFSET"] == "-1000"
        assert Grid.of_raster(raster) == GRID


def test_a_file_that_changed_on_the_way_to_the_disk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    values = np.ones((1, 600, 40), np.uint8)
    writer = BandWriter(path, GRID, bands=["SCL"], dtype=np.uint8)
    writer.__enter__()
    writer.write(0, values)
    writer._checksums[0] = (writer._checksums[0][0], 0)
    with pytest.raises(FiresegError, match=r"scene.tif: differs from what was written; check that the disk"):
        writer.__exit__(None, None, None)


def test_too_little_space_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("fireseg.geo.band_raster.disk_usage", lambda folder: usage)
    with (
        pytest.raises(FiresegError, match=r"scene.tif: 0 MB of disk space are free, .*free some space"),
        BandWriter(tmp_path / "scene.tif", GRID, bands=["SCL"], dtype=np.uint8),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
