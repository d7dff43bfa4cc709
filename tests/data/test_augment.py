"""Augmentation: image and mask together, reflectance within its bounds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fireseg.data import FireAwareAugmentation, get_strong_augmentation, get_training_augmentation
from fireseg.data.augment import NOISE_LIMIT, Augmentation, RadiometricAugmentation

seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([(8, 8), (8, 12), (33, 20), (64, 64)])


def geometric(**settings: Any):
    """Returns an augmentation without radiometric changes."""
    options: dict[str, Any] = {"flip": 0.0, "turn": 0.0, "light": 0.0, "noise": 0.0} | settings
    return get_training_augmentation(**options)


def make_patch(size: tuple[int, int] = (8, 8), channels: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (*size, channels)).astype(np.float32)
    return image, rng.choice(np.array([0, 1, 4, 255], np.uint8), size)


def augment(augmentation: Augmentation, size=(8, 8), channels: int = 7, seed: int = 0, is_fire: bool = False):
    image, mask = make_patch(size, channels)
    return augmentation(image, mask, np.random.default_rng(seed), is_fire=is_fire)


@given(seeds, sizes, st.sampled_from([1, 2, 5, 7, 12]))
def test_types_and_sizes_are_preserved(seed: int, size: tuple[int, int], channels: int) -> None:
    image, mask = augment(get_strong_augmentation(elastic=1.0, light=1.0, noise=1.0), size, channels, seed)
    assert (image.dtype, image.shape) == (np.float32, (channels, *size))
    assert (mask.dtype, mask.shape) == (np.uint8, size)
    assert image.flags.c_contiguous
    assert mask.flags.c_contiguous
    assert np.isfinite(image).all()


@given(seeds, sizes)
def test_no_new_class_appears(seed: int, size: tuple[int, int]) -> None:
    _, mask = augment(get_strong_augmentation(elastic=1.0), size, seed=seed)
    assert set(np.unique(mask)) <= {0, 1, 4, 255}


@given(seeds, sizes, st.sampled_from([1, 7]))
def test_inputs_are_not_modified(seed: int, size: tuple[int, int], channels: int) -> None:
    image, mask = make_patch(size, channels)
    image_before, mask_before = image.copy(), mask.copy()
    new_image, new_mask = geometric(light=1.0, noise=1.0)(image, mask, np.random.default_rng(seed), is_fire=True)
    new_image += 1
    new_mask += 1
    np.testing.assert_array_equal(image, image_before)
    np.testing.assert_array_equal(mask, mask_before)


@given(seeds)
def test_image_and_mask_get_the_same_geometry(seed: int) -> None:
    mask = np.random.default_rng(1).integers(0, 5, (32, 32)).astype(np.uint8)
    image = mask[..., None].astype(np.float32)
    image, mask = geometric(flip=0.5, turn=0.7)(image, mask, np.random.default_rng(seed), is_fire=False)
    np.testing.assert_array_equal(image[0], mask)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_flips_and_rotations_give_the_eight_orientations_of_numpy(channels: int) -> None:
    image, mask = make_patch(channels=channels)
    augmentation = geometric(flip=0.5, turn=0.5)
    results = [augmentation(image, mask, np.random.default_rng(seed), is_fire=False) for seed in range(200)]
    flipped = [(image, mask), (image[:, ::-1], mask[:, ::-1])]
    expected = {
        (np.rot90(one, turns).transpose(2, 0, 1).tobytes(), np.rot90(other, turns).tobytes())
        for one, other in flipped
        for turns in range(4)
    }
    assert {(image.tobytes(), mask.tobytes()) for image, mask in results} == expected


def test_a_patch_that_is_not_square_has_four_orientations() -> None:
    image, mask = make_patch((8, 12))
    augmentation = geometric(flip=0.5, turn=0.5)
    seen = {augmentation(image, mask, np.random.default_rng(seed), is_fire=False)[0].tobytes() for seed in range(200)}
    assert len(seen) == 4


def test_a_warp_shifts_by_at_most_max_shift_px_and_adds_no_border() -> None:
    size = 96
    cols = np.tile(np.arange(size, dtype=np.float32), (size, 1))
    image, mask = np.stack([cols, cols.T], axis=2), np.zeros((size, size), np.uint8)
    shifts = []
    for seed in range(20):
        warped, _ = geometric(elastic=1.0, max_shift_px=4.0)(image, mask, np.random.default_rng(seed), is_fire=True)
        inside = np.abs(warped[0] - cols)[:, 8:-8]
        assert inside.max() < 1.6 * 4.0  # cubic interpolation of the grid overshoots a little
        assert warped.min() >= 0
        assert warped.max() <= size - 1
        shifts.append(inside.mean())
    assert np.mean(shifts) > 0.5


def test_a_warp_moves_mask_and_image_together() -> None:
    rows, cols = np.mgrid[:96, :96]
    mask = (np.hypot(rows - 50, cols - 40) < 25).astype(np.uint8)
    image = mask[..., None].astype(np.float32)
    for seed in range(10):
        new_image, new_mask = geometric(elastic=1.0, max_shift_px=8.0)(
            image, mask, np.random.default_rng(seed), is_fire=True
        )
        assert not np.array_equal(new_mask, mask)
        assert np.mean((new_image[0] > 0.5) != new_mask) < 0.01


def test_the_largest_warp_does_not_fold_the_image() -> None:
    cols = np.tile(np.arange(128, dtype=np.float32), (128, 1))
    image, mask = np.stack([cols, cols.T], axis=2), np.zeros((128, 128), np.uint8)
    for seed in range(30):
        warped, _ = geometric(elastic=1.0, max_shift_px=8.0)(image, mask, np.random.default_rng(seed), is_fire=True)
        assert np.diff(warped[0], axis=1)[:, 20:-20].min() > -0.5


def test_the_strong_augmentation_is_used_only_for_patches_with_fire() -> None:
    augmentation = FireAwareAugmentation(geometric(), geometric(light=1.0))
    unchanged = make_patch()[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(augment(augmentation, is_fire=False)[0], unchanged)
    assert not np.array_equal(augment(augmentation, is_fire=True)[0], unchanged)


def test_the_strong_augmentation_is_more_probable_than_the_standard_one() -> None:
    standard, strong = get_training_augmentation(), get_strong_augmentation()
    for name in ("flip", "turn", "elastic"):
        assert getattr(strong, name) > getattr(standard, name)
    assert strong.radiometric.light > standard.radiometric.light
    assert strong.radiometric.noise > standard.radiometric.noise


def test_the_result_depends_on_the_seed() -> None:
    strong = get_strong_augmentation()
    np.testing.assert_array_equal(augment(strong, seed=4)[0], augment(strong, seed=4)[0])
    assert not np.array_equal(augment(strong, seed=4)[0], augment(strong, seed=5)[0])


@pytest.mark.parametrize("make", [get_training_augmentation, get_strong_augmentation])
def test_an_unknown_argument_is_an_error(make) -> None:
    with pytest.raises(TypeError, match="var_limit"):
        make(var_limit=0.1)


@pytest.mark.parametrize("make", [get_training_augmentation, get_strong_augmentation])
@pytest.mark.parametrize("setting", [{"flip": 1.5}, {"elastic": -0.1}, {"max_shift_px": 100.0}, {"max_gain": 3.0}])
def test_a_number_outside_its_range_is_an_error(make, setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        make(**setting)


def test_pickled_augmentations_give_the_same_result() -> None:
    augmentation = FireAwareAugmentation(get_training_augmentation(), get_strong_augmentation(elastic=1.0))
    restored = pickle.loads(pickle.dumps(augmentation))
    assert restored == augmentation
    np.testing.assert_array_equal(augment(restored, is_fire=True)[0], augment(augmentation, is_fire=True)[0])


# B02 B03 B04 B08 B8A B11 B12, measured spectra (earthlib 1.1.0, MIT) resampled to the instrument.
BURNED = {
    "char": (0.023, 0.024, 0.027, 0.038, 0.040, 0.158, 0.207),
    "char soil": (0.044, 0.052, 0.064, 0.086, 0.090, 0.231, 0.302),
}
UNBURNED = {
    "canopy dense": (0.022, 0.040, 0.018, 0.442, 0.449, 0.144, 0.041),
    "canopy mid": (0.033, 0.071, 0.028, 0.460, 0.467, 0.168, 0.051),
    "canopy open": (0.057, 0.105, 0.065, 0.352, 0.359, 0.243, 0.124),
    "grass dry": (0.060, 0.090, 0.145, 0.235, 0.248, 0.295, 0.181),
    "litter dark": (0.047, 0.061, 0.093, 0.164, 0.177, 0.351, 0.231),
}
WIDEST = RadiometricAugmentation(light=1.0, noise=1.0, max_gain=0.3, max_band_gain=0.05, max_haze=0.03, max_noise=0.01)
WIDEST_LIGHT = RadiometricAugmentation(light=1.0, noise=0.0, max_gain=0.3, max_band_gain=0.05, max_haze=0.03)


def fill(*spectra: tuple[float, ...]) -> np.ndarray:
    """Returns one row of 64 pixels per spectrum, bands first."""
    rows = np.asarray(spectra, np.float32)
    return np.repeat(rows.T[:, :, None], 64, axis=2)


def burn_ratio(image: np.ndarray) -> np.ndarray:
    return (image[3] - image[6]) / (image[3] + image[6])


@given(seeds)
def test_char_and_canopy_keep_their_burn_ratio_under_the_widest_bounds(seed: int) -> None:
    image = fill(BURNED["char"], UNBURNED["canopy dense"], UNBURNED["canopy mid"])
    WIDEST(image, np.random.default_rng(seed))
    ratio = burn_ratio(image)
    assert ratio[0].max() < -0.1
    assert ratio[1:].min() > 0.4


@given(seeds)
def test_gain_and_haze_keep_the_order_of_burned_and_unburned_spectra(seed: int) -> None:
    image = fill(*BURNED.values(), *UNBURNED.values())
    WIDEST_LIGHT(image, np.random.default_rng(seed))
    ratio = burn_ratio(image)
    assert ratio[: len(BURNED)].max() < ratio[len(BURNED) :].min()


@given(seeds)
def test_no_value_changes_more_than_the_bounds_allow(seed: int) -> None:
    before = np.random.default_rng(seed).uniform(0, 1.2, (7, 8, 8)).astype(np.float32)
    after = before.copy()
    WIDEST(after, np.random.default_rng(seed))
    limit = before * (1.3 * 1.05 - 1) + 0.03 + NOISE_LIMIT * 0.01
    assert np.all(np.abs(after - before) <= limit + 1e-6)


def test_light_is_one_gain_and_one_offset_per_band() -> None:
    image = np.linspace(0, 1, 7 * 100, dtype=np.float32).reshape(7, 10, 10)
    after = image.copy()
    WIDEST_LIGHT(after, np.random.default_rng(3))
    for before_band, after_band in zip(image, after, strict=True):
        gain, offset = np.polyfit(before_band.ravel(), after_band.ravel(), 1)
        np.testing.assert_allclose(after_band, gain * before_band + offset, atol=1e-5)


def test_haze_is_four_times_larger_in_the_first_band_than_in_the_last() -> None:
    image = np.zeros((7, 4, 4), np.float32)
    WIDEST_LIGHT(image, np.random.default_rng(0))
    assert image[0, 0, 0] == pytest.approx(4 * image[6, 0, 0])
    assert 0 < abs(image[0, 0, 0]) <= 0.03


def test_noise_has_the_given_deviation_and_zero_mean() -> None:
    augmentation = RadiometricAugmentation(light=0.0, noise=1.0, max_noise=0.01)
    deviations = []
    for seed in range(40):
        image = np.zeros((7, 64, 64), np.float32)
        augmentation(image, np.random.default_rng(seed))
        assert abs(image.mean()) < 4 * image.std() / np.sqrt(image.size)
        deviations.append(image.std())
    assert max(deviations) < 0.0101
    assert np.mean(deviations) == pytest.approx(0.005, abs=0.0015)


def test_noise_of_two_samples_is_uncorrelated() -> None:
    augmentation = RadiometricAugmentation(light=0.0, noise=1.0)
    images = np.zeros((2, 7, 64, 64), np.float32)
    for seed, image in enumerate(images):
        augmentation(image, np.random.default_rng(seed))
    assert abs(np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1]) < 0.02


def test_a_patch_larger_than_the_noise_bank_gets_noise() -> None:
    image = np.zeros((13, 600, 600), np.float32)
    RadiometricAugmentation(light=0.0, noise=1.0)(image, np.random.default_rng(0))
    assert image.std() > 0


def test_values_above_1_and_below_0_are_not_clipped() -> None:
    image = np.array([-0.01, 1.4], np.float32).reshape(1, 1, 2).repeat(7, axis=0)
    after = image.copy()
    for seed in range(20):
        WIDEST(after, np.random.default_rng(seed))
    assert after.max() > 1.0
    assert len(np.unique(after[:, 0, 0])) > 1


def test_nothing_changes_if_all_probabilities_are_0() -> None:
    image = fill(*BURNED.values())
    before = image.copy()
    RadiometricAugmentation(light=0.0, noise=0.0)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("setting", [{"max_gain": 0.5}, {"light": 1.5}, {"max_noise": -0.1}, {"max_haze": 0.2}])
def test_a_radiometric_number_outside_its_range_is_an_error(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        RadiometricAugmentation(**setting)


def test_the_two_scenes_of_a_pair_have_a_gain_haze_and_noise_of_their_own() -> None:
    image, mask = make_patch(channels=2)
    pair = np.concatenate([image, image], axis=2)
    single, _ = get_training_augmentation(light=1)(image, mask, np.random.default_rng(3), is_fire=False)
    both, _ = get_training_augmentation(light=1, pre=True)(pair, mask, np.random.default_rng(3), is_fire=False)
    np.testing.assert_array_equal(both[:2], single)
    assert not np.allclose(both[2:], single, atol=0.002)
