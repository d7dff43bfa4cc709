"""A made scene looks like a real tile: bands, masks, spectra of burned and unburned ground."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireseg.data.bands import CEMS_BANDS
from fireseg.evaluate.baseline import normalised_burn_ratio
from fireseg.synthetic import Scene, get_footprint, get_tile_name, make_scene
from fireseg.synthetic.landscape import make_land, make_sun
from fireseg.synthetic.noise import RandomFields
from fireseg.task import CLEAR, CLOUD, SHADOW

# Of make_scene(7, 3, height=96, width=80), under NumPy 2. Random numbers of another major version of NumPy may differ.
RECORDED = "c5ab2a03397c0303b3ae11596cf5fc43134936569f21e4cc6a221e5745b6460e"


def get_sha256(scene: Scene) -> str:
    digest = hashlib.sha256()
    for array in (scene.reflectance, scene.delineation, scene.grading, scene.cloud):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(0, number, height=160, width=160) for number in range(16)]


def test_a_scene_is_the_same_to_the_byte_as_when_it_was_recorded() -> None:
    assert get_sha256(make_scene(7, 3, height=96, width=80)) == RECORDED


def test_a_scene_is_the_same_to_the_byte_without_the_vector_units_of_the_processor() -> None:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    switched_off = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    if not switched_off:
        pytest.skip("this NumPy has no code for the vector units of this processor")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_scene as t; "
        "print(t.get_sha256(t.make_scene(7, 3, height=96, width=80)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, os.path.dirname(__file__)],  # noqa: PTH120
        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(switched_off)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == RECORDED


@settings(max_examples=8)
@given(st.integers(32, 90), st.integers(32, 90), st.integers(0, 2999))
def test_a_scene_of_any_size_has_the_arrays_of_a_tile(height: int, width: int, number: int) -> None:
    scene = make_scene(1, number, height=height, width=width)
    assert scene.reflectance.shape == (height, width, 12)
    assert scene.reflectance.dtype == np.float32
    assert np.isfinite(scene.reflectance).all()
    assert scene.reflectance.min() > 0
    for mask, highest in ((scene.delineation, 1), (scene.grading, 4), (scene.cloud, 3)):
        assert mask.shape == (height, width)
        assert mask.dtype == np.uint8
        assert mask.max() <= highest


def test_reflectance_comes_in_steps_that_the_packed_form_keeps() -> None:
    reflectance = make_scene(0, 1, height=64, width=64).reflectance
    steps = np.rint(reflectance * 10_000).astype(np.uint16)
    np.testing.assert_array_equal(steps.astype(np.float32) / np.float32(10_000), reflectance)


def test_a_scene_can_be_kept_free_of_fire() -> None:
    scene = make_scene(0, 0, height=64, width=64, fire_share=0.0)
    assert not scene.delineation.any()
    assert not scene.grading.any()


def test_some_scenes_have_fire_and_some_have_none(scenes: list[Scene]) -> None:
    shares = [scene.delineation.mean() for scene in scenes]
    assert 0.05 < np.mean(shares) < 0.35
    assert min(shares) == 0
    assert max(shares) > 0.2


def test_all_grades_occur(scenes: list[Scene]) -> None:
    counts = np.bincount(np.concatenate([scene.grading.ravel() for scene in scenes]), minlength=5)
    assert (counts / counts.sum() > 0.01).all()


def test_grading_and_delineation_agree_but_for_a_few_pixels_of_the_rim(scenes: list[Scene]) -> None:
    delineated = np.stack([scene.delineation == 1 for scene in scenes])
    graded = np.stack([scene.grading > 0 for scene in scenes])
    assert 0 < (delineated != graded).sum() / delineated.sum() < 0.10


def test_grades_lie_in_patches_not_in_speckles(scenes: list[Scene]) -> None:
    grading = np.stack([scene.grading for scene in scenes])
    both_burned = (grading[:, :, 1:] > 0) & (grading[:, :, :-1] > 0)
    assert (grading[:, :, 1:] != grading[:, :, :-1])[both_burned].mean() < 0.10


def test_burned_ground_has_a_lower_burn_ratio_but_not_everywhere(scenes: list[Scene]) -> None:
    image = np.stack([scene.reflectance for scene in scenes])
    is_burned = np.stack([scene.delineation == 1 for scene in scenes])
    is_clear = np.stack([scene.cloud == CLEAR for scene in scenes])
    ratio = normalised_burn_ratio(np.moveaxis(image, -1, 0), CEMS_BANDS)
    burned, unburned = ratio[is_burned & is_clear], ratio[~is_burned & is_clear]
    assert np.median(burned) < -0.1 < 0.0 < np.median(unburned)
    # What makes a threshold fail: a good share of each side lies on the other.
    assert np.mean(burned > -0.1) > 0.05
    assert np.mean(unburned < -0.1) > 0.02


def test_clouds_are_bright_and_their_shadows_dark() -> None:
    scenes = [make_scene(0, number, height=128, width=128) for number in range(12)]
    blue = np.stack([scene.reflectance[..., CEMS_BANDS.index("B02")] for scene in scenes])
    near = np.stack([scene.reflectance[..., CEMS_BANDS.index("B08")] for scene in scenes])
    cloud = np.stack([scene.cloud for scene in scenes])
    assert (cloud == CLOUD).any()
    assert np.median(blue[cloud == CLOUD]) > 3 * np.median(blue[cloud == CLEAR])
    assert np.median(near[cloud == SHADOW]) < 0.7 * np.median(near[cloud == CLEAR])


def test_no_line_of_blocks_or_tiles_shows_in_a_scene(scenes: list[Scene]) -> None:
    # Steps between neighbouring columns, by column: a seam would stand out from all others.
    red = np.stack([scene.reflectance[..., CEMS_BANDS.index("B04")] for scene in scenes])
    steps = np.abs(np.diff(red, axis=2)).mean(axis=(0, 1))
    assert steps.max() < 1.5 * np.median(steps)


def test_the_materials_of_a_pixel_add_up_to_one() -> None:
    for number in range(6):
        land = make_land(RandomFields((0, number), 64, 64), make_sun(RandomFields((1, number), 64, 64)))
        np.testing.assert_allclose(sum(land.shares.values()), 1.0)
        assert all(share.min() > -1e-9 for share in land.shares.values())


def test_footprints_are_apart_and_on_the_map() -> None:
    boxes = [get_footprint(number, height=2085, width=2085) for number in range(0, 3000, 7)]
    for west, south, east, north in boxes:
        assert -45 <= west < east < -19
        assert 19 < south < north < 28
    for index, (west, south, east, north) in enumerate(boxes):
        assert not any(
            west < other[2] and other[0] < east and south < other[3] and other[1] < north
            for other in boxes[index + 1 :]
        )


def test_a_window_lies_inside_the_footprint_of_its_scene() -> None:
    west, south, east, north = get_footprint(0, height=256, width=256)
    assert (west, north) == (-45.0, 20.0)
    # 256 pixels of 0.00009 degrees
    assert (east, south) == (-44.97696, 19.97696)
    assert get_footprint(0, top=128, left=128, height=128, width=128) == (-44.98848, 19.97696, -44.97696, 19.98848)


def test_tiles_are_named_as_samples() -> None:
    assert get_tile_name(12) == "SAMPLE0012_AOI01_01"
