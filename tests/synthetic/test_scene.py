"""Synthetic scenes: determinism, masks, spectra of burned and unburned ground, clouds, footprints."""

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
from fireseg.synthetic.scene import CLEAR, CLOUD, SHADOW, read_spectra, vary_spectra

# SHA-256 of make_scene(7, 3, height=96, width=80) with NumPy 2; random numbers may differ in another major version.
RECORDED = "c5ab2a03397c0303b3ae11596cf5fc43134936569f21e4cc6a221e5745b6460e"


def get_sha256(scene: Scene) -> str:
    digest = hashlib.sha256()
    for array in (scene.reflectance, scene.delineation, scene.grading, scene.cloud):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(0, number, height=160, width=160) for number in range(16)]


def test_a_scene_equals_the_recorded_one_to_the_byte() -> None:
    assert get_sha256(make_scene(7, 3, height=96, width=80)) == RECORDED


def test_a_scene_is_the_same_without_the_vector_units_of_the_processor() -> None:
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
def test_a_scene_of_any_size_has_valid_arrays(height: int, width: int, number: int) -> None:
    scene = make_scene(1, number, height=height, width=width)
    assert scene.reflectance.shape == (height, width, 12)
    assert scene.reflectance.dtype == np.float32
    assert np.isfinite(scene.reflectance).all()
    assert scene.reflectance.min() > 0
    for mask, highest in ((scene.delineation, 1), (scene.grading, 4), (scene.cloud, 3)):
        assert mask.shape == (height, width)
        assert mask.dtype == np.uint8
        assert mask.max() <= highest


def test_reflectance_has_steps_that_packed_patches_keep_exactly() -> None:
    reflectance = make_scene(0, 1, height=64, width=64).reflectance
    steps = np.rint(reflectance * 10_000).astype(np.uint16)
    np.testing.assert_array_equal(steps.astype(np.float32) / np.float32(10_000), reflectance)


def test_fire_share_0_gives_a_scene_without_fire() -> None:
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


def test_grading_and_delineation_differ_only_at_the_edge(scenes: list[Scene]) -> None:
    delineated = np.stack([scene.delineation == 1 for scene in scenes])
    graded = np.stack([scene.grading > 0 for scene in scenes])
    assert 0 < (delineated != graded).sum() / delineated.sum() < 0.10


def test_grades_form_patches(scenes: list[Scene]) -> None:
    grading = np.stack([scene.grading for scene in scenes])
    both_burned = (grading[:, :, 1:] > 0) & (grading[:, :, :-1] > 0)
    assert (grading[:, :, 1:] != grading[:, :, :-1])[both_burned].mean() < 0.10


def test_burned_ground_mostly_has_a_lower_burn_ratio(scenes: list[Scene]) -> None:
    image = np.stack([scene.reflectance for scene in scenes])
    is_burned = np.stack([scene.delineation == 1 for scene in scenes])
    is_clear = np.stack([scene.cloud == CLEAR for scene in scenes])
    ratio = normalised_burn_ratio(np.moveaxis(image, -1, 0), CEMS_BANDS)
    burned, unburned = ratio[is_burned & is_clear], ratio[~is_burned & is_clear]
    assert np.median(burned) < -0.1 < 0.0 < np.median(unburned)
    # The distributions overlap, so that no threshold separates them.
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


def test_a_scene_has_no_visible_seams(scenes: list[Scene]) -> None:
    # Steps between neighbouring columns, by column: a seam would stand out from all others.
    red = np.stack([scene.reflectance[..., CEMS_BANDS.index("B04")] for scene in scenes])
    steps = np.abs(np.diff(red, axis=2)).mean(axis=(0, 1))
    assert steps.max() < 1.5 * np.median(steps)


def test_footprints_do_not_overlap() -> None:
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


def test_tile_names_start_with_sample() -> None:
    assert get_tile_name(12) == "SAMPLE0012_AOI01_01"


def spectral_burn_ratio(spectrum: np.ndarray) -> float:
    near, short_wave = (spectrum[CEMS_BANDS.index(band)] for band in ("B08", "B12"))
    return (near - short_wave) / (near + short_wave)


def test_every_material_has_a_reflectance_in_every_band() -> None:
    for spectrum in read_spectra().values():
        assert spectrum.shape == (12,)
        assert spectrum.min() >= 0
        assert spectrum.max() < 1


def test_char_has_the_reflectance_of_the_spectral_library() -> None:
    np.testing.assert_allclose(
        read_spectra()["char"], [0.022, 0.023, 0.024, 0.027, 0.029, 0.032, 0.035, 0.038, 0.040, 0.049, 0.158, 0.207]
    )


@pytest.mark.parametrize("name", ["char", "char_soil", "ash"])
def test_burned_materials_have_a_negative_burn_ratio(name: str) -> None:
    assert spectral_burn_ratio(read_spectra()[name]) < -0.3


@pytest.mark.parametrize("name", ["canopy_dense", "canopy_mid", "canopy_open"])
def test_vegetation_has_a_red_edge(name: str) -> None:
    spectrum = read_spectra()[name]
    assert spectrum[CEMS_BANDS.index("B07")] > 3 * spectrum[CEMS_BANDS.index("B04")]
    assert spectral_burn_ratio(spectrum) > 0.4


def test_spectra_vary_by_about_14_percent() -> None:
    rng = np.random.default_rng(0)
    factors = [vary_spectra(rng)["soil_mid"] / read_spectra()["soil_mid"] for _ in range(300)]
    assert np.std(np.log(factors), axis=0).max() < 0.25
    assert np.std(np.log(factors), axis=0).min() > 0.10
