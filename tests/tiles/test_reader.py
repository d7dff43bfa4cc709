"""Tiles and windows read as reflectance, and faults of their files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform
from rasterio.windows import Window

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.errors import FiresegError
from fireseg.synthetic.scene import make_scene
from fireseg.tiles import RasterOptions, Tile, TileFiles, find_tiles, open_bands, read_grid_and_date, read_tile
from fireseg.tiles.options import LabelOptions
from fireseg.tiles.reader import count_burned
from tests.conftest import CountingServer
from tests.tiles.builders import GRID, PIXEL, make_reflectance, write_raster, write_safe, write_tile


def find_tile(root: Path) -> TileFiles:
    (files,) = find_tiles(root).tiles
    return files


def tile_faults(root: Path, bands: tuple[str, ...] = BAND_NAMES) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        read_tile(find_tile(root), bands)
    return caught.value.faults


def write_huge_tile(root: Path, **stored: Any) -> None:
    """Writes a tile of 200,000 x 200,000 pixels, none of which is stored."""
    profile: dict[str, Any] = {"driver": "GTiff", "height": 200_000, "width": 200_000, "crs": "EPSG:4326"}
    profile |= {"transform": Affine(1e-5, 0, 8, 0, -1e-5, 40), "sparse_ok": True, "compress": "deflate", **stored}
    root.mkdir(exist_ok=True)
    with rasterio.open(root / "a_S2L2A.tif", "w", count=12, dtype="uint16", bigtiff="yes", **profile):
        pass
    with rasterio.open(root / "a_DEL.tif", "w", count=1, dtype="uint8", bigtiff="yes", **profile):
        pass


def test_a_tile_that_does_not_fit_in_memory_is_refused_with_its_cure(tmp_path: Path) -> None:
    write_huge_tile(tmp_path, tiled=True)
    (fault,) = tile_faults(tmp_path)
    assert re.search(r"a_S2L2A\.tif: 200,000 x 200,000 pixels.* GB are free; .*gdal_translate -srcwin", fault)
    with pytest.raises(FiresegError, match="gdal_translate -srcwin"):
        count_burned(find_tile(tmp_path))


def test_a_raster_whose_blocks_do_not_fit_in_memory_is_refused_with_its_cure(tmp_path: Path) -> None:
    write_huge_tile(tmp_path, blockysize=200_000, interleave="pixel")
    with pytest.raises(FiresegError, match=r"stored in blocks of 200,000 x 200,000 .*-co TILED=YES"):
        open_bands(tmp_path / "a_S2L2A.tif", BAND_NAMES)


def test_requested_bands_are_read_in_order_as_reflectance(tmp_path: Path) -> None:
    image = make_reflectance()
    write_tile(tmp_path, image=image)
    tile = read_tile(find_tile(tmp_path), ("B12", "B02"))
    np.testing.assert_array_equal(tile.image, np.rint(image[[11, 1]].transpose(1, 2, 0) * 10_000))
    assert tile.image.dtype == np.uint16
    assert tile.flags == ()


@pytest.mark.parametrize("interleave", [Interleaving.pixel, Interleaving.band])
@pytest.mark.parametrize(
    "layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 600}, {"blockysize": 7}]
)
def test_storage_layout_does_not_matter(tmp_path: Path, interleave: Interleaving, layout: dict[str, Any]) -> None:
    image = make_reflectance(600, 30)  # more rows than one strip
    image[3, 300] = np.nan
    write_tile(tmp_path, image=image, compress="deflate", interleave=interleave.value, **layout)
    tile = read_tile(find_tile(tmp_path), CEMS_BANDS)
    known = np.arange(600) != 300
    np.testing.assert_array_equal(tile.image[known], np.rint(image.transpose(1, 2, 0)[known] * 10_000))
    np.testing.assert_array_equal(tile.unknown, np.broadcast_to(~known[:, None], (600, 30)))
    assert not tile.image[300].any()


def test_gaps_count_only_in_requested_bands(tmp_path: Path) -> None:
    image = make_reflectance()
    image[0, 0, 0] = np.nan
    write_tile(tmp_path, image=image)
    assert not read_tile(find_tile(tmp_path), BAND_NAMES).unknown.any()
    assert read_tile(find_tile(tmp_path), CEMS_BANDS).unknown.sum() == 1


def test_masks_are_optional(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("DEL",))
    tile = read_tile(find_tile(tmp_path), BAND_NAMES)
    assert (tile.grading, tile.cloud) == (None, None)
    assert (int(tile.delineation.sum()), tile.delineation.shape) == (40 * 25, (40, 50))


def test_delineation_is_unknown_without_its_mask(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("GRA",))
    tile = read_tile(find_tile(tmp_path), BAND_NAMES)
    assert (tile.delineation == 255).all()
    assert tile.grading is not None
    assert set(np.unique(tile.grading)) == {0, 2}


def test_tile_without_label_masks_is_an_error(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("CM",))
    (fault,) = tile_faults(tmp_path)
    assert "EMSR999_AOI01_01_DEL.tif or EMSR999_AOI01_01_GRA.tif" in fault


def test_grid_and_date_are_read(tmp_path: Path) -> None:
    path = write_tile(tmp_path)
    path.with_suffix(".json").write_text(json.dumps({"acquisition_date": "2019-08-28"}))
    grid, date = read_grid_and_date(find_tile(tmp_path))
    west, north = -15.0, 28.0
    assert (grid.height, grid.width, grid.crs) == (40, 50, "EPSG:4326")
    assert grid.transform == (PIXEL, 0.0, west, 0.0, -PIXEL, north)
    assert grid.bounds_lonlat == pytest.approx((west, north - 40 * PIXEL, west + 50 * PIXEL, north))
    assert date == "2019-08-28"
    tile = read_tile(find_tile(tmp_path), BAND_NAMES)
    assert (tile.grid, tile.date) == (grid, date)


def test_bounds_are_in_degrees_for_a_projected_tile(tmp_path: Path) -> None:
    options = {"crs": "EPSG:32628", "transform": Affine(10, 0.0, 500_000, 0.0, -10, 3_100_000)}
    write_raster(tmp_path / "a_S2L2A.tif", make_reflectance(), **options)
    west, south, east, north = read_grid_and_date(find_tile(tmp_path))[0].bounds_lonlat
    # Its left edge lies on the central meridian of zone 28; 500 m are some 18 seconds there.
    assert west == pytest.approx(-15.0, abs=1e-6)
    assert east - west == pytest.approx(500 / (111_320 * np.cos(np.radians(28.02))), rel=0.01)
    assert north - south == pytest.approx(400 / 110_800, rel=0.01)


def test_offset_of_tags_or_json_is_subtracted(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance() * 10_000).astype(np.uint16) + 1000
    expected = np.rint(make_reflectance()[1] * 10_000)
    write_tile(tmp_path / "tags", image=numbers, tags={"PROCESSING_BASELINE": "04.00"})
    path = write_tile(tmp_path / "json", image=numbers)
    path.with_suffix(".json").write_text(json.dumps({"properties": {"s2:processing_baseline": "05.09"}}))
    for kind in ("tags", "json"):
        tile = read_tile(find_tile(tmp_path / kind), ("B02",))
        np.testing.assert_array_equal(tile.image[..., 0], expected)
        assert tile.flags == ()


def test_offset_argument_is_used_only_without_metadata(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance() * 10_000).astype(np.uint16)
    write_tile(tmp_path / "silent", image=numbers + 1000)
    write_tile(tmp_path / "old", image=numbers, tags={"PROCESSING_BASELINE": "02.14"})
    for kind in ("silent", "old"):
        tile = read_tile(find_tile(tmp_path / kind), BAND_NAMES, RasterOptions(offset=1000))
        np.testing.assert_array_equal(tile.image[..., 0], numbers[1])


def test_an_offset_left_on_is_a_fault_until_the_values_are_trusted(tmp_path: Path) -> None:
    path = write_tile(tmp_path, image=np.rint(make_reflectance(80, 90) * 10_000).astype(np.uint16) + 1000)
    (fault,) = tile_faults(tmp_path)
    assert fault.startswith(f"{path}: the darkest pixels are 0.1")
    assert fault.endswith("or accept them with --trust-values (in Python trust_values=True)")
    assert read_tile(find_tile(tmp_path), BAND_NAMES, RasterOptions(offset=1000)).flags == ()
    (flag,) = read_tile(find_tile(tmp_path), BAND_NAMES, RasterOptions(trust_values=True)).flags
    assert flag.startswith(f"{path}: the darkest pixels are 0.1")


def test_nameless_channels_in_an_order_that_the_values_deny_are_a_fault(tmp_path: Path) -> None:
    spectra = np.moveaxis(make_scene(1, 2, height=128, width=128).reflectance, -1, 0)
    path = write_tile(tmp_path / "right", image=spectra, descriptions=())
    image = read_tile(find_tile(tmp_path / "right"), BAND_NAMES).image
    order = sorted(CEMS_BANDS)  # as a shell lists files: B8A after B12
    shuffled = spectra[[CEMS_BANDS.index(band) for band in order]]
    path = write_tile(tmp_path / "sorted", image=shuffled, descriptions=())
    (fault,) = tile_faults(tmp_path / "sorted")
    assert fault.startswith(f"{path}: 12 channels without band descriptions")
    assert "--channels" in fault
    tile = read_tile(find_tile(tmp_path / "sorted"), BAND_NAMES, RasterOptions(channels=tuple(order)))
    np.testing.assert_array_equal(tile.image, image)


@pytest.mark.parametrize(("name", "empty"), [("dataMask", 0), ("SCL", 0), ("mask", 0)])
def test_a_validity_channel_makes_gaps(tmp_path: Path, name: str, empty: int) -> None:
    mask = np.full((1, 40, 50), 4, np.float32)
    mask[:, 3:5] = empty
    image = np.concatenate([make_reflectance(), mask])
    write_tile(tmp_path, image=image, descriptions=(*CEMS_BANDS, name))
    tile = read_tile(find_tile(tmp_path), BAND_NAMES)
    assert np.flatnonzero(tile.unknown.all(axis=1)).tolist() == [3, 4]
    assert tile.unknown.sum() == 100


def test_mask_band_makes_gaps(tmp_path: Path) -> None:
    path = write_tile(tmp_path)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        valid = np.ones(raster.shape, np.bool_)
        valid[:, 0] = False
        raster.write_mask(valid)
    assert read_tile(find_tile(tmp_path), BAND_NAMES).unknown.sum() == 40


def test_pictures_are_not_tiles(tmp_path: Path) -> None:
    write_tile(tmp_path)
    picture = np.zeros((3, 40, 50), np.uint8)
    write_raster(tmp_path / "RGB_S2L2A.tif", picture)
    write_raster(tmp_path / "RGB_DEL.tif", picture[0])
    tiles, faults = find_tiles(tmp_path)
    assert [files.name for files in tiles] == ["EMSR999_AOI01_01"]
    assert [fault.path.name for fault in faults] == ["RGB_DEL.tif"]


@pytest.mark.parametrize(
    ("image", "mask", "image_options"),
    [
        ("jp2", "png", {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}),
        ("img", "img", {"driver": "HFA"}),
        ("bil", "bil", {"driver": "ENVI", "INTERLEAVE": "BIL"}),
    ],
)
def test_rasters_of_other_formats_give_the_same_tile(
    tmp_path: Path, image: str, mask: str, image_options: dict[str, Any]
) -> None:
    values = np.rint(make_reflectance() * 10_000).astype(np.uint16)
    write_tile(tmp_path / "tif", image=values, masks=("DEL",))
    name = "other/EMSR999_AOI01_01"
    write_raster(tmp_path / f"{name}_S2L2A.{image}", values, descriptions=(), **image_options)
    drivers = {"png": "PNG", "img": "HFA", "bil": "ENVI"}
    burned = np.zeros((40, 50), np.uint8)
    burned[:, :25] = 1
    write_raster(tmp_path / f"{name}_DEL.{mask}", burned, driver=drivers[mask])
    (tmp_path / f"{name}_DEL.png.aux.xml").unlink(missing_ok=True)  # a png without a georeference
    options = RasterOptions(channels=CEMS_BANDS)
    expected, tile = (read_tile(find_tile(tmp_path / part), BAND_NAMES, options) for part in ("tif", "other"))
    np.testing.assert_array_equal(tile.image, expected.image)
    np.testing.assert_array_equal(tile.delineation, expected.delineation)
    np.testing.assert_array_equal(tile.unknown, expected.unknown)


def test_png_of_several_channels_is_no_mask(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=("GRA",))
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.png", np.zeros((3, 40, 50), np.uint8), driver="PNG")
    assert find_tile(tmp_path).delineation is None


def test_png_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.png", np.zeros((39, 50), np.uint8), driver="PNG")
    assert "39 x 50 pixels" in tile_faults(tmp_path)[0]


def test_folder_without_tiles_is_an_error(tmp_path: Path) -> None:
    write_raster(tmp_path / "a_DEL.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(FiresegError) as caught:
        find_tiles(tmp_path)
    assert "no tile found" in caught.value.faults[0]
    assert "a_DEL.tif: mask without" in caught.value.faults[1]
    with pytest.raises(FiresegError, match="no such folder"):
        find_tiles(tmp_path / "elsewhere")


def test_missing_band_is_an_error_that_lists_the_available_ones(tmp_path: Path) -> None:
    write_tile(tmp_path, image=make_reflectance(channels=2), descriptions=("B04", "B08"))
    (fault,) = tile_faults(tmp_path, ("B04", "B12"))
    assert "_S2L2A.tif: band B12 not found; available: B04 B08;" in fault


def test_7_channels_without_descriptions_are_an_error(tmp_path: Path) -> None:
    write_tile(tmp_path, image=make_reflectance(channels=7))
    assert "7 channels without band descriptions" in tile_faults(tmp_path)[0]


def test_all_faults_of_a_tile_are_reported_with_their_files(tmp_path: Path) -> None:
    path = write_tile(tmp_path, image=make_reflectance(channels=5), masks=())
    name = "EMSR999_AOI01_01"
    write_raster(tmp_path / f"{name}_DEL.tif", np.full((40, 50), 3, np.uint8))
    write_raster(tmp_path / f"{name}_GRA.tif", np.zeros((39, 50), np.uint8))
    (tmp_path / f"{name}_CM.tif").touch()
    path.with_suffix(".json").write_text("{")
    faults = tile_faults(tmp_path)
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
def test_mask_on_another_grid_is_an_error(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.zeros((40, 50), np.uint8), **change)
    assert words in tile_faults(tmp_path)[0]


def read_aligned(root: Path) -> NDArray[np.uint8]:
    return read_tile(find_tile(root), BAND_NAMES, labels=LabelOptions(align_masks=True)).delineation


def test_mask_on_another_grid_is_refused_with_the_option_that_aligns_it(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.ones((30, 50), np.uint8))
    assert "--align-masks" in tile_faults(tmp_path)[0]


def test_mask_of_a_part_is_aligned_and_unknown_beyond_it(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    mask = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (20, 30))
    moved = Affine(PIXEL, 0.0, -15.0 + 7 * PIXEL, 0.0, -PIXEL, 28.0 - 5 * PIXEL)
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", mask, transform=moved)
    expected = np.full((40, 50), 255, np.uint8)
    expected[5:25, 7:37] = mask
    np.testing.assert_array_equal(read_aligned(tmp_path), expected)


def test_mask_of_a_larger_area_and_finer_grid_is_aligned_by_the_nearest_pixel(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    mask = np.random.default_rng(0).integers(0, 2, (40, 50), dtype=np.uint8)
    fine = np.pad(mask, 30).repeat(3, axis=0).repeat(3, axis=1)
    moved = Affine(PIXEL / 3, 0.0, -15.0 - 30 * PIXEL, 0.0, -PIXEL / 3, 28.0 + 30 * PIXEL)
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", fine, transform=moved)
    np.testing.assert_array_equal(read_aligned(tmp_path), mask)


def test_mask_in_another_reference_system_is_aligned(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    # In EPSG:32628 the tile spans about 500 m; the western half of the mask's 2 km square is burned.
    east, north = (
        values[0] for values in transform("EPSG:4326", "EPSG:32628", [-15.0 + 25 * PIXEL], [28.0 - 20 * PIXEL])[:2]
    )
    mask = np.zeros((200, 200), np.uint8)
    mask[:, :100] = 1
    grid = Affine(10.0, 0.0, east - 1000.0, 0.0, -10.0, north + 1000.0)
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", mask, crs="EPSG:32628", transform=grid)
    # On the central meridian of the zone, the line between both halves is a meridian.
    np.testing.assert_array_equal(read_aligned(tmp_path), np.tile(np.arange(50) < 25, (40, 1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transform": Affine(PIXEL, 0.0, -14.0, 0.0, -PIXEL, 28.0)}, "lies wholly outside"),
        ({"transform": Affine(PIXEL, 0.0, -15.0 + 50 * PIXEL, 0.0, -PIXEL, 28.0)}, "lies wholly outside"),
        ({"crs": None}, "-a_srs"),
    ],
)
def test_mask_that_cannot_be_aligned_is_a_fault(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.ones((30, 50), np.uint8), **change)
    with pytest.raises(FiresegError, match=rf"_DEL\.tif: .*{words}"):
        read_aligned(tmp_path)


def test_mask_shifted_by_rounding_is_accepted(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    moved = Affine(PIXEL, 0.0, -15.0 + 0.01 * PIXEL, 0.0, -PIXEL, 28.0)
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.zeros((40, 50), np.uint8), transform=moved)
    assert read_tile(find_tile(tmp_path), BAND_NAMES).delineation.shape == (40, 50)


def test_mask_with_three_channels_is_an_error(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.zeros((3, 40, 50), np.uint8))
    assert "3 channels, but a mask has one" in tile_faults(tmp_path)[0]


def write_mask_of_255(root: Path, *, masks: tuple[str, ...] = (), **profile: Any) -> NDArray[np.uint8]:
    """Writes a tile whose delineation marks its left half with 255, and returns the mask as it is meant."""
    write_tile(root, masks=masks)
    mask = np.zeros((40, 50), np.uint8)
    mask[:, :25] = 255
    write_raster(root / "EMSR999_AOI01_01_DEL.tif", mask, **profile)
    return (mask == 255).astype(np.uint8)


@pytest.mark.parametrize(("masks", "rule"), [((), "255=1"), (("GRA",), "DEL:255=1")])
def test_delineation_that_marks_burned_land_with_255_is_a_fault_with_its_cure(
    tmp_path: Path, masks: tuple[str, ...], rule: str
) -> None:
    burned = write_mask_of_255(tmp_path, masks=masks)
    (fault,) = tile_faults(tmp_path)
    assert "_DEL.tif: no pixel is 1, but 1000 pixels are 255" in fault
    assert f"--classes {rule} says so" in fault
    tile = read_tile(find_tile(tmp_path), BAND_NAMES, labels=LabelOptions(classes=(rule,)))
    np.testing.assert_array_equal(tile.delineation, burned)
    assert tile.flags == ()


def test_255_that_is_declared_unknown_is_no_fault(tmp_path: Path) -> None:
    burned = write_mask_of_255(tmp_path)
    tile = read_tile(find_tile(tmp_path), BAND_NAMES, labels=LabelOptions(classes=("255=255",)))
    np.testing.assert_array_equal(tile.delineation, 255 * burned)
    write_mask_of_255(tmp_path / "tagged", nodata=255)
    tile = read_tile(find_tile(tmp_path / "tagged"), BAND_NAMES)
    np.testing.assert_array_equal(tile.delineation, 255 * burned)


@pytest.mark.parametrize(("clouded", "is_fault"), [(14, False), (12, True)])
def test_255_under_cloud_for_the_most_part_is_unknown(tmp_path: Path, clouded: int, is_fault: bool) -> None:
    write_mask_of_255(tmp_path)
    cloud = np.zeros((40, 50), np.uint8)
    cloud[:, :clouded] = 1
    write_raster(tmp_path / "EMSR999_AOI01_01_CM.tif", cloud)
    if is_fault:
        assert "--classes 255=1" in tile_faults(tmp_path)[0]
    else:
        (flag,) = read_tile(find_tile(tmp_path), BAND_NAMES).flags
        assert "no pixel is 1, but 1000 pixels are 255" in flag


def test_255_beyond_the_swath_is_unknown(tmp_path: Path) -> None:
    burned = write_mask_of_255(tmp_path)
    image = make_reflectance()
    image[:, :, :20] = np.nan
    write_raster(tmp_path / "EMSR999_AOI01_01_S2L2A.tif", image)
    np.testing.assert_array_equal(read_tile(find_tile(tmp_path), BAND_NAMES).delineation, 255 * burned)


def test_image_without_georeference_is_an_error(tmp_path: Path) -> None:
    name = "EMSR999_AOI01_01"
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(tmp_path / f"{name}_S2L2A.tif", make_reflectance(), crs=None, transform=None)
    write_raster(tmp_path / f"{name}_DEL.tif", np.zeros((40, 50), np.uint8))
    assert "no georeference" in tile_faults(tmp_path)[0]


@pytest.mark.parametrize("compress", ["none", "deflate"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["S2L2A", "DEL"])
def test_truncated_file_is_reported(tmp_path: Path, kind: str, share: float, compress: str) -> None:
    write_tile(tmp_path, image=make_reflectance(300, 200), compress=compress)
    path = tmp_path / f"EMSR999_AOI01_01_{kind}.tif"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    (fault,) = tile_faults(tmp_path)
    assert fault.startswith(f"{path}: {'truncated or not a raster' if share else 'empty'}")


def test_removed_file_is_reported(tmp_path: Path) -> None:
    write_tile(tmp_path)
    files = find_tile(tmp_path)
    assert files.delineation is not None
    files.delineation.unlink()
    with pytest.raises(FiresegError, match=r"_DEL\.tif: no such file"):
        read_tile(files, BAND_NAMES)


_CUT_TILE = """
import sys
from pathlib import Path
from fireseg.data.bands import CEMS_BANDS
from fireseg.prepare.tiling import cut_patches, mask_labels
from fireseg.tiles import find_tiles, read_tile
tile = read_tile(find_tiles(Path(sys.argv[1])).tiles[0], CEMS_BANDS)
labels = mask_labels(tile.delineation, tile.grading, tile.cloud, tile.unknown)
print(sum(1 for _ in cut_patches(tile.image, labels, size=256, stride=224, ignore_repeats=False)))
# Not ru_maxrss, which a child inherits from its parent.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_largest_tile_is_read_and_cut_in_less_than_450_mb(tmp_path: Path) -> None:
    height, width = 2085, 2045
    path = tmp_path / "a_S2L2A.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:4326", "transform": GRID, "interleave": "pixel"}
    profile |= {"height": height, "width": width, "count": 12, "dtype": "float32"}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.broadcast_to(make_reflectance(1, width).reshape(12, 1, width), (12, height, width)))
        raster.descriptions = CEMS_BANDS
    for kind in ("DEL", "GRA", "CM"):
        write_raster(tmp_path / f"a_{kind}.tif", np.ones((height, width), np.uint8))
    done = subprocess.run([sys.executable, "-c", _CUT_TILE, str(tmp_path)], check=True, capture_output=True, text=True)
    num_patches, peak_mb = map(int, done.stdout.split())
    assert num_patches == 10 * 9
    assert peak_mb < 450


HEIGHT, WIDTH = 600, 70
BANDS = ("B12", "B02", "B8A")
WINDOWS = [(0, 0, HEIGHT, WIDTH), (0, 0, 1, 1), (599, 69, 1, 1), (250, 13, 20, 41), (17, 3, 570, 60), (256, 0, 256, 70)]


def read_whole(root: Path, offset: float | None = None) -> Tile:
    (files,) = find_tiles(root).tiles
    return read_tile(files, BANDS, RasterOptions(offset=offset))


def make_numbers() -> NDArray[np.uint16]:
    return np.rint(make_reflectance(HEIGHT, WIDTH) * 10_000).astype(np.uint16)


def add_gaps(image: NDArray[Any], value: float) -> NDArray[Any]:
    image[11, 5:9, 20:30] = value
    image[:, 300, 3] = value
    return image


def write_float32(folder: Path) -> Path:
    return write_tile(folder, image=add_gaps(make_reflectance(HEIGHT, WIDTH), np.nan))


def write_float64(folder: Path) -> Path:
    return write_tile(folder, image=add_gaps(make_reflectance(HEIGHT, WIDTH).astype(np.float64) / 3, np.inf))


def write_numbers_with_offset(folder: Path) -> Path:
    path = write_tile(folder, image=make_numbers() + 1000, compress="deflate")
    path.with_suffix(".json").write_text(json.dumps({"processing_baseline": "05.09"}))
    return path


def write_scaled(folder: Path) -> Path:
    path = write_tile(folder, image=make_numbers())
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = [1 / 20_000] * 12, [-0.01] * 12
    return path


def write_with_nodata(folder: Path) -> Path:
    image = add_gaps(make_reflectance(HEIGHT, WIDTH), -9999.1)
    return write_tile(folder, image=image, nodata=-9999.1, blockysize=7)


def write_with_mask(folder: Path) -> Path:
    path = write_tile(folder, image=make_numbers(), tiled=True, blockxsize=32, blockysize=16)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        valid = np.ones(raster.shape, np.bool_)
        valid[250:270, 40:] = False
        raster.write_mask(valid)
    return path


KINDS = [
    write_float32,
    write_float64,
    write_numbers_with_offset,
    write_scaled,
    write_with_nodata,
    write_with_mask,
]


@pytest.mark.parametrize("write", KINDS)
def test_window_equals_that_part_of_the_tile(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    tile = read_whole(tmp_path)
    with open_bands(path, BANDS) as reader:
        for top, left, height, width in WINDOWS:
            image, unknown = reader.read(top, left, height, width)
            region = slice(top, top + height), slice(left, left + width)
            assert (image.dtype, unknown.dtype) == (np.uint16, np.bool_)
            np.testing.assert_array_equal(image, tile.image[region])
            np.testing.assert_array_equal(unknown, tile.unknown[region])
    assert (reader.grid, reader.check_values()) == (tile.grid, tile.flags)
    assert tile.unknown.any() == (write not in (write_numbers_with_offset, write_scaled))


def test_threads_read_concurrently(tmp_path: Path) -> None:
    path = write_float32(tmp_path)
    whole, gaps = open_bands(path, BANDS).read(0, 0, HEIGHT, WIDTH)
    tops = [*range(0, HEIGHT, 20)] * 4
    with open_bands(path, BANDS) as reader, ThreadPoolExecutor(8) as pool:
        windows = list(pool.map(lambda top: reader.read(top, 10, 20, 50), tops))
    for top, (image, unknown) in zip(tops, windows, strict=True):
        np.testing.assert_array_equal(image, whole[top : top + 20, 10:60])
        np.testing.assert_array_equal(unknown, gaps[top : top + 20, 10:60])


def test_all_handles_are_closed_at_the_end(tmp_path: Path) -> None:
    path = write_float32(tmp_path)

    def count_handles() -> int:
        return sum(link.resolve() == path for link in Path("/proc/self/fd").iterdir() if link.exists())

    with ThreadPoolExecutor(4) as pool:
        with open_bands(path, BANDS) as reader:
            list(pool.map(lambda top: reader.read(top, 0, 20, 70), range(0, HEIGHT, 20)))
            assert count_handles() >= 2
        assert count_handles() == 0


def test_gdal_cache_is_limited_while_a_reader_is_open(tmp_path: Path) -> None:
    from rasterio._env import get_gdal_config  # pyright: ignore[reportMissingModuleSource]

    path = write_float32(tmp_path)
    before = get_gdal_config("GDAL_CACHEMAX")
    with open_bands(path, BANDS) as reader, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda top: reader.read(top, 0, 20, 70), range(0, HEIGHT, 20)))
        assert get_gdal_config("GDAL_CACHEMAX") < 40 * 2**20
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_scene_is_opened_with_its_json_and_without_masks(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "my.scene.tiff",
        make_numbers() + 1000,
        crs="EPSG:32628",
        transform=Affine(10, 0.0, 5e5, 0.0, -10, 3e6),
    )
    (tmp_path / "my.scene.json").write_text(json.dumps({"processing_baseline": "04.00", "datetime": "2022-08-01"}))
    with open_bands(path, ("B02",)) as reader:
        image, _ = reader.read(0, 0, 10, 10)
    np.testing.assert_array_equal(image[..., 0], make_numbers()[1, :10, :10])
    assert (reader.grid.crs, reader.date) == ("EPSG:32628", "2022-08-01")
    assert (reader.path, reader.bands, reader.height, reader.width) == (path, ("B02",), HEIGHT, WIDTH)


def test_case_of_the_json_name_does_not_matter(tmp_path: Path) -> None:
    path = write_tile(tmp_path, image=make_numbers() + 1000)
    (tmp_path / path.name.replace("S2L2A.tif", "s2l2a.JSON")).write_text(json.dumps({"processing_baseline": "04.00"}))
    with open_bands(path, BANDS) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 600, 70)[0], read_whole(tmp_path).image)


PRODUCT = "S2B_MSIL2A_20230828T105439_N0509_R051_T31TCJ_20230828T131109"


@pytest.mark.parametrize("place", [f"{PRODUCT}.tif", f"{PRODUCT}.SAFE/stack.tif"])
def test_offset_and_date_are_read_from_the_name_of_the_product(tmp_path: Path, place: str) -> None:
    numbers = np.rint(make_reflectance() * 10_000).astype(np.uint16)
    path = write_raster(tmp_path / place, numbers + 1000)
    expected = write_raster(tmp_path / "scene.tif", numbers)
    with open_bands(path, BAND_NAMES) as reader, open_bands(expected, BAND_NAMES) as plain:
        assert reader.check_values() == ()
        assert reader.date == "2023-08-28T10:54:39Z"
        np.testing.assert_array_equal(reader.read(0, 0, 40, 50)[0], plain.read(0, 0, 40, 50)[0])


def test_the_offset_option_and_metadata_have_priority_over_the_name(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance(80, 90) * 10_000).astype(np.uint16)
    path = write_raster(tmp_path / f"{PRODUCT}.tif", numbers)  # harmonised, but still named like the product
    with pytest.raises(FiresegError, match=r"subtracted twice; use --offset 0"):
        open_bands(path, BAND_NAMES).check_values()
    assert open_bands(path, BAND_NAMES, RasterOptions(offset=0)).check_values() == ()
    path.with_suffix(".json").write_text(json.dumps({"earthsearch:boa_offset_applied": True}))
    assert open_bands(path, BAND_NAMES).check_values() == ()


def test_map_summary_beside_the_scene_is_ignored(tmp_path: Path) -> None:
    name = "S2B_MSIL2A_20220101T105439_N0400_R051_T31TCJ_20220101T131109"
    path = write_raster(tmp_path / f"{name}.tif", make_numbers())
    before = open_bands(path, BANDS).read(0, 0, 5, 5)[0]
    path.with_suffix(".json").write_text(json.dumps({"made_by": "fireseg", "scene": path.name}))
    np.testing.assert_array_equal(open_bands(path, BANDS).read(0, 0, 5, 5)[0], before)


def test_offset_argument_is_used_for_a_scene_without_metadata(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", make_numbers() + 1000)
    with open_bands(path, ("B01",), RasterOptions(offset=1000)) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 9, 9)[0][..., 0], make_numbers()[0, :9, :9])
    with pytest.raises(FiresegError, match=r"scene\.tif: the darkest pixels are 0\.1.*--offset 1000.*--trust-values"):
        open_bands(path, BAND_NAMES).check_values()
    (flag,) = open_bands(path, BAND_NAMES, RasterOptions(trust_values=True)).check_values()
    assert flag.startswith(f"{path}: the darkest pixels are 0.1")


def test_flags_of_a_large_raster_need_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4096
    profile: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    image = np.full((1, size, size), 0.3, np.float32)
    image[:, :, ::7] = 30.0
    path = write_raster(tmp_path / "scene.tif", image, descriptions=("B04",), **profile)
    num_read = []
    monkeypatch.setattr("fireseg.tiles.scene.read_window", _count(num_read))
    reader = open_bands(path, ("B04",), RasterOptions(trust_values=True))
    (flag,) = reader.check_values()
    assert "values from 0.3 to 30: look like percent" in flag
    assert sum(num_read) == 64 * 64 * 64
    assert (reader.check_values(), sum(num_read)) == ((flag,), 64 * 64 * 64)


def _count(num_read: list[int]) -> Callable[..., Any]:
    from fireseg.tiles.blocks import read_window

    def count_and_read(raster: Any, channels: Any, window: Any, sample: Any = None) -> Any:
        num_read.append(window[2] * window[3])
        return read_window(raster, channels, window, sample)

    return count_and_read


def open_faults(path: Path, bands: tuple[str, ...] = BANDS) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        open_bands(path, bands)
    return caught.value.faults


def test_opening_a_picture_is_an_error(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "rgb.tif", np.zeros((3, 9, 9), np.uint8), descriptions=("B04", "B03", "B02"))
    (fault,) = open_faults(path, ("B04", "B03", "B02"))
    assert fault.startswith(f"{path}: 3 channels of 8 bits")


def test_opening_channels_without_descriptions_is_an_error(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance(channels=7))
    (fault,) = open_faults(path)
    assert fault.startswith(f"{path}: 7 channels without band descriptions")


def test_opening_reports_missing_bands(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance(channels=2), descriptions=("B04", "B08"))
    (fault,) = open_faults(path, ("B04", "B12"))
    assert fault == f"{path}: band B12 not found; available: B04 B08; use a raster with the bands of the model"


def test_opening_reports_all_faults(tmp_path: Path) -> None:
    with pytest.warns(NotGeoreferencedWarning):
        path = write_raster(tmp_path / "a.tif", make_reflectance(channels=3), crs=None, transform=None)
    path.with_suffix(".json").write_text("{")
    faults = open_faults(path)
    assert [fault.partition(": ")[0] for fault in faults] == [str(path.with_suffix(".json")), str(path), str(path)]
    assert [word in fault for word, fault in zip(("json", "georeference", "3 channels"), faults, strict=True)] == [
        True
    ] * 3


def test_path_that_is_no_raster_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", make_reflectance())
    (tmp_path / "text.tif").write_text("fire")
    assert open_faults(tmp_path / "scene.tiff")[0].startswith(
        f"{tmp_path}/scene.tiff: no such file (did you mean 'scene.tif'?)"
    )
    assert open_faults(tmp_path / "nowhere" / "scene.tif")[0].startswith(f"{tmp_path}/nowhere/scene.tif: no such file;")
    assert open_faults(tmp_path)[0].startswith(f"{tmp_path}: a folder without MTD_MSIL2A.xml; give a raster")
    assert open_faults(tmp_path / "text.tif")[0].startswith(f"{tmp_path}/text.tif: truncated or not a raster")


def test_damaged_raster_is_reported_when_that_part_is_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", make_reflectance(HEIGHT, WIDTH), interleave="pixel", compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) * 9 // 10] = bytes(len(content) * 9 // 10 - len(content) // 2)
    path.write_bytes(content)
    with open_bands(path, BANDS) as reader:
        reader.read(0, 0, 100, WIDTH)
        with pytest.raises(FiresegError, match=r"scene\.tif: truncated or not a raster"):
            reader.read(350, 0, 100, WIDTH)


_MEASURE = """
import sys
from pathlib import Path
from fireseg.tiles import open_bands
with open_bands(Path(sys.argv[1]), ("B02", "B04", "B08", "B12")) as reader:
    reader.check_values()
    for top in range(0, reader.height, 256):
        reader.read(top, 0, min(256, reader.height - top), reader.width)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 512, "blockysize": 512}])
def test_memory_does_not_grow_with_the_height(tmp_path: Path, layout: dict[str, Any]) -> None:
    peaks = [measure_peak_mb(tmp_path / f"{height}.tif", height, layout) for height in (1024, 4096)]
    assert peaks[1] < 1.1 * peaks[0]


def measure_peak_mb(path: Path, height: int, layout: dict[str, Any]) -> int:
    width, rows = 2048, 512
    profile: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:32628", "transform": Affine(10, 0.0, 5e5, 0.0, -10, 3e6)}
    profile |= {"count": 12, "dtype": "uint16", "interleave": "pixel", "compress": "lzw"} | layout
    strip = np.broadcast_to(np.arange(1, width + 1, dtype=np.uint16), (12, rows, width))
    with rasterio.open(path, "w", height=height, width=width, **profile) as raster:
        raster.descriptions = CEMS_BANDS
        for top in range(0, height, rows):
            raster.write(strip, window=Window(0, top, width, rows))  # pyright: ignore[reportCallIssue]
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_import_needs_no_torch() -> None:
    code = "import sys; from fireseg.tiles import open_bands; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("is_channel", [False, True])
def test_clouds_of_a_tile_are_read_from_a_scene_classification(tmp_path: Path, is_channel: bool) -> None:
    classes = np.random.default_rng(0).choice([0, 3, 4, 8, 9, 10], (40, 50))
    image = make_reflectance(channels=7)
    names = BAND_NAMES
    if is_channel:
        image, names = np.concatenate([image, classes[None].astype(np.float32)]), (*BAND_NAMES, "SCL")
    write_tile(tmp_path, image=image, masks=("DEL",), descriptions=names)
    if not is_channel:
        write_raster(tmp_path / "EMSR999_AOI01_01_SCL.tif", classes.astype(np.uint8))
    (files,) = find_tiles(tmp_path).tiles
    tile = read_tile(files, BAND_NAMES)
    codes = {0: 255, 3: 3, 4: 0, 8: 1, 9: 1, 10: 1}
    np.testing.assert_array_equal(tile.cloud, np.vectorize(codes.__getitem__)(classes))
    assert (tile.unknown == (classes == 0)).all() == is_channel


def test_metadata_of_the_product_beside_a_tile_are_read(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance() * 10_000).astype(np.uint16)
    write_tile(tmp_path, image=numbers + 1000)
    write_safe(tmp_path, {})
    (tmp_path / f"{PRODUCT}.SAFE" / "MTD_MSIL2A.xml").rename(tmp_path / "MTD_MSIL2A.xml")
    (files,) = find_tiles(tmp_path).tiles
    tile = read_tile(files, ("B02",))
    np.testing.assert_array_equal(tile.image[..., 0], numbers[1])
    assert (tile.date, tile.level) == ("2023-08-28T10:54:39Z", "2A")


def test_clouds_beside_images_of_other_names_are_read(tmp_path: Path) -> None:
    write_raster(tmp_path / "images/a.tif", make_reflectance())
    write_raster(tmp_path / "images/a_CM.tif", np.eye(40, 50, dtype=np.uint8))
    write_raster(tmp_path / "masks/a.tif", np.zeros((40, 50), np.uint8))
    search = find_tiles(tmp_path, LabelOptions(images="images/*.tif", masks="masks/*.tif"))
    (files,) = search.tiles
    assert search.faults == ()
    np.testing.assert_array_equal(read_tile(files, BAND_NAMES).cloud, np.eye(40, 50))


def test_masked_pixels_of_a_mask_are_unknown(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    path = write_raster(tmp_path / "EMSR999_AOI01_01_DEL.tif", np.ones((40, 50), np.uint8))
    with rasterio.open(path, "r+") as raster:
        mask = np.full((40, 50), 255, np.uint8)
        mask[:, :20] = 0
        raster.write_mask(mask)
    (files,) = find_tiles(tmp_path).tiles
    delineation = read_tile(files, BAND_NAMES).delineation
    assert (delineation[:, :20] == 255).all()
    assert (delineation[:, 20:] == 1).all()


@pytest.mark.parametrize(
    ("text", "file"),
    [('{"BOA_ADD_OFFSET": NaN}', "json"), ('{"BOA_ADD_OFFSET": -60000}', "json"), ('{"BOA_ADD_OFFSET": -9000}', "tif")],
)
def test_a_tile_of_zeros_by_an_impossible_offset_is_a_fault(tmp_path: Path, text: str, file: str) -> None:
    path = write_tile(tmp_path, image=np.full((12, 40, 50), 3000, np.uint16))
    path.with_suffix(".json").write_text(text)
    assert any(f"_S2L2A.{file}: " in fault for fault in tile_faults(tmp_path))


def test_a_tile_and_masks_that_name_a_server_do_not_reach_it(tmp_path: Path, server: CountingServer) -> None:
    write_tile(tmp_path / "a", "a")
    content = (
        '<VRTDataset rasterXSize="50" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>/vsicurl/{server.url}/a.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for kind in ("S2L2A", "GRA", "CM"):
        (tmp_path / "a" / f"a_{kind}.tif").write_text(content)
    (tmp_path / "a" / "a_DEL.tif").unlink()
    link = {"type": "link", "properties": {"href": f"{server.url}/crs", "type": "proj4"}}
    (tmp_path / "a" / "a_DEL.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [], "crs": link})
    )
    tile_faults(tmp_path)
    write_raster(tmp_path / "a" / "a_S2L2A.tif", make_reflectance())
    faults = tile_faults(tmp_path)
    assert [fault.split(": ")[0].rpartition("_")[2] for fault in faults] == ["DEL.geojson", "GRA.tif", "CM.tif"]
    assert server.paths == []
