"""A scene and the one before the fire, read as one raster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio import Affine

from fireseg.errors import FiresegError, SettingError
from fireseg.tiles import open_bands, open_scene
from fireseg.tiles.folder import find_pre_scene
from tests.tiles.builders import GRID, PIXEL, make_reflectance, write_raster

BANDS = ("B08", "B12", "B08_PRE", "B12_PRE")
NAMES: dict[str, Any] = {"descriptions": ("B08", "B12")}


def write_pair(folder: Path, before: NDArray[Any] | None = None, **pre: Any) -> tuple[Path, NDArray[Any], NDArray[Any]]:
    """Writes two scenes and returns the path of the one after the fire, and the values of both."""
    after = make_reflectance(channels=2, seed=0)
    before = make_reflectance(channels=2, seed=1) if before is None else before
    path = write_raster(folder / "a.tif", after, **NAMES)
    write_raster(folder / "a_PRE.tif", before, **{**NAMES, **pre})
    return path, after, before


def read(path: Path, **options: Any) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    with open_scene(path, BANDS, **options) as reader:
        return reader.read(0, 0, reader.height, reader.width)


@pytest.mark.parametrize(
    ("scene", "before"),
    [
        ("a.tif", "a_PRE.tif"),
        ("a_S2L2A.tif", "a_PRE.tif"),
        ("a_s2l2a.jp2", "a_s2l2a_pre.tiff"),
        ("fire.tif", "fire_before.tif"),
    ],
)
def test_the_scene_before_the_fire_is_found_beside_the_other(tmp_path: Path, scene: str, before: str) -> None:
    for name in (scene, before, "b_PRE.tif"):
        (tmp_path / name).touch()
    assert find_pre_scene(tmp_path / scene) == tmp_path / before
    assert find_pre_scene(tmp_path / before) is None


def test_the_bands_of_both_scenes_are_those_of_each_alone(tmp_path: Path) -> None:
    path, after, before = write_pair(tmp_path)
    with open_scene(path, BANDS) as reader:
        assert reader.bands == BANDS
        image, unknown = reader.read(3, 4, 20, 30)
        assert reader.check_values() == ()
    expected = np.concatenate([after, before])[:, 3:23, 4:34].transpose(1, 2, 0)
    np.testing.assert_array_equal(image, np.rint(expected * 10_000))
    assert not unknown.any()
    assert image.shape == (20, 30, 4)


def test_a_pixel_unknown_in_either_scene_is_unknown_in_both(tmp_path: Path) -> None:
    before = make_reflectance(channels=2, seed=1)
    before[:, :5] = 0
    before[1, 10, 10] = np.nan
    path, _, _ = write_pair(tmp_path, before)
    image, unknown = read(path)
    expected = np.zeros((40, 50), bool)
    expected[:5] = expected[10, 10] = True
    np.testing.assert_array_equal(unknown, expected)
    assert not image[unknown].any()


def test_clouds_of_the_scene_before_the_fire_are_unknown_unless_kept(tmp_path: Path) -> None:
    path, _, _ = write_pair(tmp_path)
    clouds = np.zeros((40, 50), np.uint8)
    clouds[:, 45:] = 1
    write_raster(tmp_path / "a_PRE_CM.tif", clouds)
    assert np.array_equal(read(path)[1], clouds == 1)
    assert not read(path, ignores_clouds=False)[1].any()


def test_a_scene_on_a_shifted_grid_is_read_on_that_of_the_other_and_flagged(tmp_path: Path) -> None:
    # Two pixels further south and three further west, so that the first two rows are beyond its edge.
    shifted = GRID @ Affine.translation(-3, 2)
    path, _, before = write_pair(tmp_path, make_reflectance(60, 70, channels=2, seed=1), transform=shifted)
    with open_scene(path, BANDS) as reader:
        image, unknown = reader.read(0, 0, 40, 50)
        flags = reader.check_values()
    assert unknown[:2].all()
    assert not unknown[2:].any()
    np.testing.assert_array_equal(image[2:, :, 2:], np.rint(before[:, :38, 3:53].transpose(1, 2, 0) * 10_000))
    assert [flag.partition(": ")[2] for flag in flags] == [
        "has another grid than the scene after the fire, and was resampled to it",
        "covers 95 % of the scene; the rest is unknown",
    ]


def test_a_finer_scene_in_digital_numbers_of_another_system_is_resampled_linearly(tmp_path: Path) -> None:
    # 0.2 everywhere, with an offset of 1000, as pixels of half the size in another reference system.
    numbers = np.full((2, 160, 160), 3000, np.uint16)
    grid = Affine(PIXEL / 2, 0, -15.001, 0, -PIXEL / 2, 28.001)
    tags = {"BOA_ADD_OFFSET": "-1000"}
    path, _, _ = write_pair(tmp_path, numbers, transform=grid, crs="EPSG:4258", tags=tags)
    image, unknown = read(path)
    assert not unknown.any()
    assert (image[..., 2:] == 2000).all()


def test_windows_of_a_resampled_scene_are_those_of_the_whole_in_any_thread(tmp_path: Path) -> None:
    grid = GRID @ Affine.translation(-20.3, -10.7) @ Affine.rotation(2)
    path, _, _ = write_pair(tmp_path, make_reflectance(120, 120, channels=2, seed=1), transform=grid)
    whole, gaps = read(path)
    with open_scene(path, BANDS) as reader, ThreadPoolExecutor(4) as pool:
        windows = [(top, left, 10, 25) for top in range(0, 40, 10) for left in (0, 25)]
        for (top, left, height, width), (image, unknown) in zip(
            windows, pool.map(lambda window: reader.read(*window), windows), strict=True
        ):
            np.testing.assert_array_equal(image, whole[top : top + height, left : left + width])
            np.testing.assert_array_equal(unknown, gaps[top : top + height, left : left + width])


def test_a_single_scene_is_read_as_ever_and_takes_no_other(tmp_path: Path) -> None:
    path, _, _ = write_pair(tmp_path)
    with open_scene(path, BANDS[:2]) as reader, open_bands(path, BANDS[:2]) as single:
        np.testing.assert_array_equal(reader.read(0, 0, 40, 50)[0], single.read(0, 0, 40, 50)[0])
        assert reader.pre is None
    with pytest.raises(SettingError, match=r"maps a single scene .*; leave --pre out"):
        open_scene(path, BANDS[:2], pre=tmp_path / "a_PRE.tif")


def test_what_is_wrong_with_either_scene_is_one_error(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance(channels=2), descriptions=("B08", "B11"))
    with pytest.raises(FiresegError) as caught:
        open_scene(path, BANDS)
    missing, alone = caught.value.faults
    assert "band B12 not found" in missing
    assert "name it with --pre, or put it beside the scene as a_PRE.tif" in alone


def test_scenes_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path, _, _ = write_pair(tmp_path, transform=Affine(PIXEL, 0, 8, 0, -PIXEL, 40))
    with pytest.raises(FiresegError, match=r"a_PRE.tif: lies outside of the scene"):
        open_scene(path, BANDS)
    with pytest.raises(FiresegError, match="is the scene itself; give one before the fire"):
        open_scene(path, BANDS, pre=path)
    swapped = tmp_path / "swapped"
    path, _, _ = write_pair(swapped, tags={"acquisition_date": "2024-09-01"})
    (swapped / "a.json").write_text('{"acquisition_date": "2024-07-01T10:00:00Z"}')
    with open_scene(path, BANDS) as reader, pytest.raises(FiresegError, match=r"of 2024-09-01, .*; exchange the two"):
        reader.check_values()
