"""Cloud masks of scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.geo.grid import Grid
from fireseg.tiles import open_bands
from fireseg.tiles.clouds import CloudMask, convert_scene_classification, is_cloudy
from fireseg.tiles.folder import find_cloud_mask
from tests.tiles.builders import make_reflectance, utm_grid, write_raster

GRID = Grid(height=40, width=50, crs="EPSG:32631", transform=(10.0, 0.0, 300_000.0, 0.0, -10.0, 4_900_020.0))


def write_mask(path: Path, values: np.ndarray, pixel_m: float = 10) -> Path:
    return write_raster(path, values.astype(np.uint8), crs="EPSG:32631", transform=utm_grid(pixel_m))


def test_classes_that_hide_the_ground_are_cloudy() -> None:
    codes = convert_scene_classification(np.arange(12))
    assert codes.tolist() == [255, 0, 0, 3, 0, 0, 0, 0, 1, 1, 1, 0]
    assert np.flatnonzero(is_cloudy(codes)).tolist() == [0, 3, 8, 9, 10]


def test_light_cloud_of_a_cloud_mask_is_seen_through() -> None:
    assert is_cloudy(np.array([0, 1, 2, 3, 255], np.uint8)).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize("values", [[0, 12], [-1, 4]])
def test_values_that_are_no_class_are_an_error(values: list[int]) -> None:
    with pytest.raises(FiresegError, match=r"a scene classification .* has 0 to 11"):
        convert_scene_classification(np.array(values))


@pytest.mark.parametrize(
    ("scene", "mask"),
    [
        ("a.tif", "a_CM.tif"),
        ("a.tif", "a_SCL.tif"),
        ("a_S2L2A.tif", "a_CM.tif"),
        ("a_S2L2A.tif", "a_S2L2A_scl.TIFF"),
        ("a.jp2", "a_SCL.jp2"),
    ],
)
def test_a_cloud_mask_is_found_beside_the_scene(tmp_path: Path, scene: str, mask: str) -> None:
    for name in (scene, mask, "other_CM.tif", "b_SCL.tif"):
        (tmp_path / name).touch()
    assert find_cloud_mask(tmp_path / scene) == tmp_path / mask


def test_a_scene_without_a_cloud_mask_has_none(tmp_path: Path) -> None:
    (tmp_path / "a_CM.tif").touch()
    assert find_cloud_mask(tmp_path / "a_CM.tif") is None
    assert find_cloud_mask(tmp_path / "ab.tif") is None


def test_a_classification_of_20_m_covers_the_pixels_of_10_m(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).choice([3, 4, 5, 9], (20, 25))
    expected = convert_scene_classification(classes.repeat(2, axis=0).repeat(2, axis=1))
    with CloudMask(write_mask(tmp_path / "a_SCL.tif", classes, 20), GRID) as mask:
        np.testing.assert_array_equal(mask.read_codes(0, 40), expected)
        np.testing.assert_array_equal(mask.read_codes(13, 9), expected[13:22])


def test_beyond_the_edge_of_a_mask_nothing_is_known(tmp_path: Path) -> None:
    with CloudMask(write_mask(tmp_path / "a_CM.tif", np.zeros((40, 30))), GRID) as mask:
        codes = mask.read_codes(0, 40)
    assert (codes[:, :30] == 0).all()
    assert (codes[:, 30:] == 255).all()


def test_a_classification_under_the_name_of_a_cloud_mask_is_an_error(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "clouds.tif", np.full((40, 50), 4))
    with CloudMask(path, GRID) as mask, pytest.raises(FiresegError, match=r"clouds\.tif: value 4.*_SCL\.tif"):
        mask.read_codes(0, 40)


def test_a_file_that_is_no_raster_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a_CM.tif").write_text("cloud")
    with pytest.raises(FiresegError, match=r"a_CM\.tif: truncated or not a raster .*; download"):
        CloudMask(tmp_path / "a_CM.tif", GRID).__enter__()


def test_a_channel_named_scl_is_the_cloud_mask_of_the_scene(tmp_path: Path) -> None:
    numbers = np.rint(make_reflectance(channels=7) * 10_000).astype(np.uint16)
    classes = np.full((1, 40, 50), 4, np.uint16)
    classes[0, :, :5] = 8
    path = write_raster(tmp_path / "a.tif", np.concatenate([numbers, classes]), descriptions=(*BAND_NAMES, "SCL"))
    with open_bands(path, BAND_NAMES) as reader:
        mask = reader.open_cloud_mask()
        assert mask is not None
        with mask:
            assert np.flatnonzero(is_cloudy(mask.read_codes(0, 40))[7]).tolist() == [0, 1, 2, 3, 4]
    assert reader.ignored == ()


def test_json_of_the_scene_is_no_cloud_mask(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance(), transform=Affine(1e-4, 0, -15, 0, -1e-4, 28))
    (tmp_path / "a_SCL.json").write_text(json.dumps({}))
    assert open_bands(path, BAND_NAMES).open_cloud_mask() is None
