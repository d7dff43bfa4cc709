"""Tiles from disk into arrays, and everything that can be wrong with their files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.errors import FiresegError
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import read_tile, read_tile_grid, search_tiles
from tests.data.look_alike_tiles import GRID, PIXEL, make_reflectance, write_raster, write_tile


def find_one(root: Path) -> TileFiles:
    (files,) = search_tiles(root).tiles
    return files


def faults_of(root: Path, bands: tuple[str, ...] = BAND_NAMES) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        read_tile(find_one(root), bands)
    return caught.value.faults


def test_the_bands_wanted_come_in_their_order_as_steps_of_reflectance(tmp_path: Path) -> None:
    image = make_reflectance()
    write_tile(tmp_path, image=image)
    tile = read_tile(find_one(tmp_path), ("B12", "B02"))
    np.testing.assert_array_equal(tile.image, np.rint(image[[11, 1]].transpose(1, 2, 0) * 10_000))
    assert tile.image.dtype == np.uint16
    assert tile.flags == ()


@pytest.mark.parametrize("interleave", [Interleaving.pixel, Interleaving.band])
@pytest.mark.parametrize(
    "layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 600}, {"blockysize": 7}]
)
def test_the_way_a_raster_is_stored_changes_nothing(
    tmp_path: Path, interleave: Interleaving, layout: dict[str, Any]
) -> None:
    image = make_reflectance(600, 30)  # more rows than one strip
    image[3, 300] = np.nan
    write_tile(tmp_path, image=image, compress="deflate", interleave=interleave.value, **layout)
    tile = read_tile(find_one(tmp_path), CEMS_BANDS)
    known = np.arange(600) != 300
    np.testing.assert_array_equal(tile.image[known], np.rint(image.transpose(1, 2, 0)[known] * 10_000))
    np.testing.assert_array_equal(tile.unknown, np.broadcast_to(~known[:, None], (600, 30)))
    assert not tile.image[300].any()


def test_a_gap_in_a_band_that_nobody_wants_is_none(tmp_path: Path) -> None:
    image = make_reflectance()
    image[0, 0, 0] = np.nan
    write_tile(tmp_path, image=image)
    assert not read_tile(find_one(tmp_path), BAND_NAMES).unknown.any()
    assert read_tile(find_one(tmp_path), CEMS_BANDS).unknown.sum() == 1


def test_masks_come_as_they_are_and_missing_ones_are_normal(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("DEL",))
    tile = read_tile(find_one(tmp_path), BAND_NAMES)
    assert (tile.grading, tile.cloud) == (None, None)
    assert (int(tile.delineation.sum()), tile.delineation.shape) == (40 * 25, (40, 50))


def test_a_tile_with_a_grading_only_is_delineated_nowhere(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("GRA",))
    tile = read_tile(find_one(tmp_path), BAND_NAMES)
    assert (tile.delineation == 255).all()
    assert tile.grading is not None
    assert set(np.unique(tile.grading)) == {0, 2}


def test_a_tile_without_any_mask_cannot_be_learnt_from(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("CM",))
    (fault,) = faults_of(tmp_path)
    assert "neither EMSR999_AOI01_01_DEL.tif nor EMSR999_AOI01_01_GRA.tif" in fault


def test_where_a_tile_lies_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = write_tile(tmp_path)
    path.with_suffix(".json").write_text(json.dumps({"acquisition_date": "2019-08-28"}))
    place = read_tile_grid(find_one(tmp_path))
    west, north = -15.0, 28.0
    assert (place.height, place.width, place.crs) == (40, 50, "EPSG:4326")
    assert place.transform == (PIXEL, 0.0, west, 0.0, -PIXEL, north)
    assert place.bounds_lonlat == pytest.approx((west, north - 40 * PIXEL, west + 50 * PIXEL, north))
    assert place.date == "2019-08-28"
    assert read_tile(find_one(tmp_path), BAND_NAMES).place == place


def test_a_tile_in_metres_is_bounded_in_degrees(tmp_path: Path) -> None:
    options = {"crs": "EPSG:32628", "transform": Affine(10, 0.0, 500_000, 0.0, -10, 3_100_000)}
    write_raster(tmp_path / "a_S2L2A.tif", make_reflectance(), **options)
    west, south, east, north = read_tile_grid(find_one(tmp_path)).bounds_lonlat
    # Its left edge lies on the central meridian of zone 28; 500 m are some 18 seconds there.
    assert west == pytest.approx(-15.0, abs=1e-6)
    assert east - west == pytest.approx(500 / (111_320 * np.cos(np.radians(28.02))), rel=0.01)
    assert north - south == pytest.approx(400 / 110_800, rel=0.01)


def test_digital_numbers_lose_the_offset_that_tags_or_json_tell_of(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance() * 10_000).astype(np.uint16) + 1000
    expected = np.rint(make_reflectance()[1] * 10_000)
    write_tile(tmp_path / "tags", image=numbers, tags={"PROCESSING_BASELINE": "04.00"})
    path = write_tile(tmp_path / "json", image=numbers)
    path.with_suffix(".json").write_text(json.dumps({"properties": {"s2:processing_baseline": "05.09"}}))
    for kind in ("tags", "json"):
        tile = read_tile(find_one(tmp_path / kind), ("B02",))
        np.testing.assert_array_equal(tile.image[..., 0], expected)
        assert tile.flags == ()


def test_the_offset_given_holds_only_where_the_tile_says_nothing(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance() * 10_000).astype(np.uint16)
    write_tile(tmp_path / "silent", image=numbers + 1000)
    write_tile(tmp_path / "old", image=numbers, tags={"PROCESSING_BASELINE": "02.14"})
    for kind in ("silent", "old"):
        tile = read_tile(find_one(tmp_path / kind), BAND_NAMES, offset=1000)
        np.testing.assert_array_equal(tile.image[..., 0], numbers[1])


def test_an_offset_that_nobody_tells_of_is_flagged(tmp_path: Path) -> None:
    path = write_tile(tmp_path, image=np.rint(make_reflectance() * 10_000).astype(np.uint16) + 1000)
    (flag,) = read_tile(find_one(tmp_path), BAND_NAMES).flags
    assert flag.startswith(f"{path}: the darkest pixels are 0.1")
    assert flag.endswith("give --offset 1000")


def test_a_mask_inside_the_raster_makes_gaps(tmp_path: Path) -> None:
    path = write_tile(tmp_path)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        valid = np.ones(raster.shape, np.bool_)
        valid[:, 0] = False
        raster.write_mask(valid)
    assert read_tile(find_one(tmp_path), BAND_NAMES).unknown.sum() == 40


def test_a_quick_look_is_no_tile(tmp_path: Path) -> None:
    write_tile(tmp_path)
    picture = np.zeros((3, 40, 50), np.uint8)
    write_raster(tmp_path / "RGB_S2L2A.tif", picture)
    write_raster(tmp_path / "RGB_DEL.tif", picture[0])
    tiles, faults = search_tiles(tmp_path)
    assert [files.name for files in tiles] == ["EMSR999_AOI01_01"]
    assert [fault.path.name for fault in faults] == ["RGB_DEL.tif"]


def test_a_folder_without_tiles_is_refused_with_what_is_there_instead(tmp_path: Path) -> None:
    write_raster(tmp_path / "a_DEL.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(FiresegError) as caught:
        search_tiles(tmp_path)
    assert "no tile in it" in caught.value.faults[0]
    assert "a_DEL.tif: a mask without a_S2L2A.tif" in caught.value.faults[1]
    with pytest.raises(FiresegError, match="no such folder"):
        search_tiles(tmp_path / "elsewhere")


def test_a_band_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write_tile(tmp_path, image=make_reflectance(channels=2), descriptions=("B04", "B08"))
    (fault,) = faults_of(tmp_path, ("B04", "B12"))
    assert fault.endswith("_S2L2A.tif: no B12, only B04 B08; choose among these with --bands")


def test_a_raster_of_seven_nameless_channels_is_refused(tmp_path: Path) -> None:
    write_tile(tmp_path, image=make_reflectance(channels=7))
    assert "7 channels that no description names" in faults_of(tmp_path)[0]


def test_all_faults_of_a_tile_come_at_once_each_with_its_file(tmp_path: Path) -> None:
    path = write_tile(tmp_path, image=make_reflectance(channels=5), masks=())
    name = "EMSR999_AOI01_01"
    write_raster(tmp_path / f"{name}_DEL.tif", np.full((40, 50), 3, np.uint8))
    write_raster(tmp_path / f"{name}_GRA.tif", np.zeros((39, 50), np.uint8))
    (tmp_path / f"{name}_CM.tif").touch()
    path.with_suffix(".json").write_text("{")
    faults = faults_of(tmp_path)
    assert [fault.split(":")[0].rsplit("_", 1)[1] for fault in faults] == [
        "S2L2A.json",
        "DEL.tif",
        "GRA.tif",
        "CM.tif",
        "S2L2A.tif",
    ]
    assert "value 3, but DEL" in faults[1]
    assert "39 x 50 pixels, but 40 x 50 in EMSR999_AOI01_01_S2L2A.tif" in faults[2]
    assert "CM.tif: empty" in faults[3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transform": Affine(PIXEL, 0.0, -15.0 + 0.5 * PIXEL, 0.0, -PIXEL, 28.0)}, "shifted by 0.5 pixels against"),
        ({"transform": Affine(PIXEL * 1.01, 0.0, -15.0, 0.0, -PIXEL, 28.0)}, "shifted by 0.5 pixels against"),
        ({"crs": "EPSG:32628"}, "EPSG:32628, but EPSG:4326 in"),
        ({"crs": None}, "no reference system, but EPSG:4326 in"),
    ],
)
def test_a_mask_that_lies_elsewhere_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.zeros((40, 50), np.uint8), **change)
    assert words in faults_of(tmp_path)[0]


def test_a_mask_moved_by_rounding_fits(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    moved = Affine(PIXEL, 0.0, -15.0 + 0.01 * PIXEL, 0.0, -PIXEL, 28.0)
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.zeros((40, 50), np.uint8), transform=moved)
    assert read_tile(find_one(tmp_path), BAND_NAMES).delineation.shape == (40, 50)


def test_a_picture_of_a_mask_is_refused(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.zeros((3, 40, 50), np.uint8))
    assert "3 channels, but a mask has one" in faults_of(tmp_path)[0]


def test_an_image_that_lies_nowhere_is_refused(tmp_path: Path) -> None:
    name = "EMSR999_AOI01_01"
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(tmp_path / f"{name}_S2L2A.tif", make_reflectance(), crs=None, transform=None)
    write_raster(tmp_path / f"{name}_DEL.tif", np.zeros((40, 50), np.uint8))
    assert "no georeference" in faults_of(tmp_path)[0]


@pytest.mark.parametrize("compress", ["none", "deflate"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["S2L2A", "DEL"])
def test_a_file_cut_short_anywhere_is_named(tmp_path: Path, kind: str, share: float, compress: str) -> None:
    write_tile(tmp_path, image=make_reflectance(300, 200), compress=compress)
    path = tmp_path / f"EMSR999_AOI01_01_{kind}.tif"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    (fault,) = faults_of(tmp_path)
    assert fault.startswith(f"{path}: {'truncated or no raster' if share else 'empty'}")


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    write_tile(tmp_path)
    files = find_one(tmp_path)
    assert files.delineation is not None
    files.delineation.unlink()
    with pytest.raises(FiresegError, match=r"_DEL\.tif: no such file"):
        read_tile(files, BAND_NAMES)


_MEASURE = """
import sys, types
package = types.ModuleType("fireseg.data")  # without torch, which its __init__ brings
package.__path__ = [sys.argv[1]]
sys.modules["fireseg.data"] = package
from pathlib import Path
from fireseg.data.bands import CEMS_BANDS
from fireseg.data.cutting.cut import cut_patches
from fireseg.data.cutting.labels import settle_labels
from fireseg.data.tiles.reading import read_tile, search_tiles
tile = read_tile(search_tiles(Path(sys.argv[2])).tiles[0], CEMS_BANDS)
labels = settle_labels(tile.delineation, tile.grading, tile.cloud, tile.unknown)
print(sum(1 for _ in cut_patches(tile.image, labels, size=256, stride=224, ignore_repeats=False)))
# Not ru_maxrss: a child inherits that from whoever started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_largest_tile_is_read_and_cut_in_less_than_450_mb(tmp_path: Path) -> None:
    height, width = 2085, 2045
    path = tmp_path / "a_S2L2A.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:4326", "transform": GRID, "interleave": "pixel"}
    profile |= {"height": height, "width": width, "count": 12, "dtype": "float32"}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.broadcast_to(make_reflectance(1, width).reshape(12, 1, width), (12, height, width)))
    for kind in ("DEL", "GRA", "CM"):
        write_raster(tmp_path / f"a_{kind}.tif", np.ones((height, width), np.uint8))
    package = Path(sys.modules["fireseg"].__path__[0]) / "data"
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(package), str(tmp_path)], check=True, capture_output=True, text=True
    )
    num_patches, peak_mb = map(int, done.stdout.split())
    assert num_patches == 10 * 9
    assert peak_mb < 450
