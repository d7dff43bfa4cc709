"""Real masks and fires, against counts made independently with Pillow and loops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.prepare.tiling import Patch, cut_patches, mask_labels
from fireseg.tiles import RasterOptions
from fireseg.tiles.landcover import read_landcover
from fireseg.tiles.reader import Tile, find_tiles, read_tile
from tests.tiles.builders import overlay_cems, write_raster

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("FIRESEG_REAL_DATA" not in os.environ, reason="FIRESEG_REAL_DATA names no folder of real fires"),
]

CALIFORNIA_BANDS = ("B02", "B03", "B04", "B08", "B12")


@pytest.fixture(scope="module")
def real() -> Path:
    return Path(os.environ["FIRESEG_REAL_DATA"])


@pytest.fixture(scope="module")
def cems(real: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tile]:
    root = tmp_path_factory.mktemp("cems")
    for name in ("EMSR382_AOI01_01", "EMSR382_AOI01_02"):
        overlay_cems(real / "cems" / name, root / "train" / "EMSR382" / "AOI01" / name)
    return {files.name: read_tile(files, BAND_NAMES) for files in find_tiles(root).tiles}


def cut_all(tile: Tile, *, stride: int, is_once: bool) -> list[Patch]:
    labels = mask_labels(tile.delineation, tile.grading, tile.cloud, tile.unknown)
    return list(cut_patches(tile.image, labels, size=256, stride=stride, ignore_repeats=is_once))


def total(patches: list[Patch]) -> tuple[list[int], list[int]]:
    delineated = np.sum([patch.statistics.delineated for patch in patches], axis=0)
    return delineated.tolist(), np.sum([patch.statistics.graded for patch in patches], axis=0).tolist()


def test_cems_tile_is_read(cems: dict[str, Tile]) -> None:
    tile = cems["EMSR382_AOI01_01"]
    assert tile.image.shape == (1380, 1129, 7)
    assert tile.grid.bounds_lonlat == pytest.approx((-15.763778601, 27.965664345, -15.64971128, 28.090828762))
    assert tile.date == "2019-08-17T00:00:00Z/2019-10-06T00:00:00Z"
    assert np.bincount(tile.delineation.ravel()).tolist() == [1_042_625, 515_395]
    assert tile.grading is not None
    assert np.bincount(tile.grading.ravel()).tolist() == [1_019_972, 0, 127_291, 335_771, 74_986]
    assert tile.cloud is not None
    assert np.bincount(tile.cloud.ravel()).tolist() == [1_346_789, 173_599, 0, 37_632]
    assert tile.flags == ()


def test_the_land_cover_of_the_cems_data_set_is_numbered_from_0(real: Path) -> None:
    folder = real / "cems" / "EMSR382_AOI01_01"
    path, image = (folder / f"EMSR382_AOI01_01_{kind}.tif" for kind in ("Esri10_LC", "DEL"))
    with rasterio.open(path) as raster, rasterio.open(image) as mask:
        classes = read_landcover(raster, mask, "esri-cems")
        burned = mask.read(1) == 1
        with pytest.raises(FiresegError, match=r"Esri10_LC.tif: 0 is no data .*--landcover esri-cems"):
            read_landcover(raster, mask, "esri")
    # An eighth of the tile is the sea around Gran Canaria, which did not burn.
    assert np.bincount(classes.ravel()).tolist() == [36375, 1293797, 31, 3168, 6378, 32073, 0, 186163, 35]
    assert burned[classes == 7].mean() < 0.01


@pytest.mark.parametrize(
    ("name", "graded_only", "delineated_only"), [("EMSR382_AOI01_01", 22_836, 183), ("EMSR382_AOI01_02", 42, 0)]
)
def test_disagreements_of_delineation_and_grading(
    cems: dict[str, Tile], name: str, graded_only: int, delineated_only: int
) -> None:
    tile = cems[name]
    labels = mask_labels(tile.delineation, tile.grading, tile.cloud, tile.unknown, disagreement="ignore")
    assert labels.disagreements == (graded_only, delineated_only)
    known = (labels.delineation != 255) & (labels.grading != 255)
    assert ((labels.delineation[known] > 0) == (labels.grading[known] > 0)).all()


@pytest.mark.parametrize(
    ("name", "delineated", "graded"),
    [
        ("EMSR382_AOI01_01", [870_758, 476_031], [864_655, 0, 111_361, 296_977, 73_796]),
        ("EMSR382_AOI01_02", [746_588, 428_545], [746_546, 0, 149_008, 193_917, 85_662]),
    ],
)
def test_every_clear_label_of_a_validation_tile_counts_once(
    cems: dict[str, Tile], name: str, delineated: list[int], graded: list[int]
) -> None:
    assert total(cut_all(cems[name], stride=256, is_once=True)) == (delineated, graded)


@pytest.mark.parametrize(
    ("name", "stride", "num_windows", "num_cloudy"),
    [
        ("EMSR382_AOI01_01", 224, 35, 3),
        ("EMSR382_AOI01_01", 256, 30, 2),
        ("EMSR382_AOI01_02", 224, 35, 8),
        ("EMSR382_AOI01_02", 256, 30, 8),
    ],
)
def test_windows_with_more_than_half_cloud_are_left_out(
    cems: dict[str, Tile], name: str, stride: int, num_windows: int, num_cloudy: int
) -> None:
    patches = cut_all(cems[name], stride=stride, is_once=False)
    reasons = [patch.statistics.find_exclusion_reason(0.5) for patch in patches]
    assert (len(reasons), reasons.count("cloud"), reasons.count("unlabelled")) == (num_windows, num_cloudy, 0)


def test_california_fires_are_read_by_band_name(real: Path) -> None:
    tiles = find_tiles(real / "california").tiles
    assert [files.split for files in tiles] == ["train"] * 9 + ["val"] * 3
    assert len({files.activation for files in tiles}) == 12
    burned = {}
    for files in tiles:
        tile = read_tile(files, CALIFORNIA_BANDS)
        assert tile.unknown.sum() == (225 if files.name == "RANCH_20240601" else 0)  # one line is NaN
        assert all("0 in every band" in flag for flag in tile.flags)
        burned[files.name] = int((tile.delineation == 1).sum())
    assert sum(burned.values()) == 111_713
    assert burned["LIDIA_20250108"] == 4_274


def test_every_label_of_the_california_validation_fires_counts_once(real: Path) -> None:
    counts = np.zeros(2, np.int64)
    for files in find_tiles(real / "california" / "val").tiles:
        tile = read_tile(files, CALIFORNIA_BANDS)
        labels = mask_labels(tile.delineation, tile.grading, tile.cloud, tile.unknown)
        for patch in cut_patches(tile.image, labels, size=128, stride=128, ignore_repeats=True):
            counts += patch.statistics.delineated
    assert counts.tolist() == [39_517 + 46_351 + 44_084, 11_108 + 4_274 + 6_541]


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_real_reflectance_is_flagged_only_with_the_offset_left_on(real: Path, tmp_path: Path, offset: float) -> None:
    for files in find_tiles(real / "california").tiles:
        with rasterio.open(files.image) as raster:
            values = raster.read() + np.float32(offset)
        values[:, (values == offset).all(axis=0)] = np.nan
        write_raster(tmp_path / f"{files.name}_S2L2A.tif", values, descriptions=CALIFORNIA_BANDS)
        write_raster(tmp_path / f"{files.name}_DEL.tif", np.zeros(values.shape[1:], np.uint8))
    options = RasterOptions(trust_values=bool(offset))
    flagged = [read_tile(files, CALIFORNIA_BANDS, options).flags for files in find_tiles(tmp_path).tiles]
    assert ["left on" in "".join(flags) for flags in flagged] == [bool(offset)] * 12
