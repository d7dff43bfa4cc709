"""A copy that is whole, or an error."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from fireseg.errors import FiresegError
from fireseg.geo import raster as cog
from fireseg.geo.raster import convert_to_cog
from tests.geo.builders import NORTH_UP, UTM


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A raster of noise, which cannot be made small."""
    values = np.random.default_rng(0).integers(0, 255, (1100, 700), np.uint8)
    path = tmp_path / "source.tif"
    options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 1100, "width": 700}
    with rasterio.open(path, "w", crs=UTM, transform=NORTH_UP, **options) as raster:
        raster.write(values, 1)
    return path


def test_the_copy_is_tiled_compressed_and_has_overviews(source: Path, tmp_path: Path):
    convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")
    with rasterio.open(tmp_path / "target.tif") as raster:
        assert raster.block_shapes == [(512, 512)]
        assert raster.compression is not None
        assert raster.compression.value == "DEFLATE"
        assert raster.overviews(1) == [2, 4]
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize("most", [20_000, 300_000, 770_000])
def test_a_full_disk_is_told(source: Path, tmp_path: Path, limit_file_bytes: Callable[[int], None], most: int):
    limit_file_bytes(most)
    with pytest.raises(FiresegError, match=r"target\.tif: .* is the disk full"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="average")


def test_a_disk_without_room_is_told_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cog, "disk_usage", lambda folder: SimpleNamespace(free=2_500_000))
    with pytest.raises(FiresegError, match=r"target\.tif: 2 MB are free on the disk, but 3 MB are wanted; make room"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")
    assert not (tmp_path / "target.tif").exists()


def test_a_copy_that_differs_is_told_though_gdal_saw_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def copy_badly(source: Path, target: Path, **options) -> None:
        copy(source, target, driver="GTiff")
        with rasterio.open(target, "r+") as raster:
            values = raster.read(1)
            values[1099, 699] += 1
            raster.write(values, 1)

    monkeypatch.setattr(cog, "copy", copy_badly)
    with pytest.raises(FiresegError, match=r"target\.tif: does not hold what was written"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")


def test_a_copy_that_is_cut_short_is_told_though_gdal_saw_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def copy_badly(source: Path, target: Path, **options) -> None:
        target.write_bytes(source.read_bytes()[:700_000])

    monkeypatch.setattr(cog, "copy", copy_badly)
    with pytest.raises(FiresegError, match=r"target\.tif: cannot be written"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")
