"""Light, haze and noise within their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fireseg.data.augment import NOISE_LIMIT, Photometry

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
WIDEST = Photometry(light=1.0, noise=1.0, max_gain=0.3, max_band_gain=0.05, max_haze=0.03, max_noise=0.01)
WIDEST_LIGHT = Photometry(light=1.0, noise=0.0, max_gain=0.3, max_band_gain=0.05, max_haze=0.03)

seeds = st.integers(0, 2**32 - 1)


def paint(*spectra: tuple[float, ...]) -> np.ndarray:
    """One row of 64 pixels a spectrum, bands first."""
    rows = np.asarray(spectra, np.float32)
    return np.repeat(rows.T[:, :, None], 64, axis=2)


def burn_ratio(image: np.ndarray) -> np.ndarray:
    return (image[3] - image[6]) / (image[3] + image[6])


@given(seeds)
def test_char_stays_char_and_canopy_canopy_under_the_widest_bounds(seed: int) -> None:
    image = paint(BURNED["char"], UNBURNED["canopy dense"], UNBURNED["canopy mid"])
    WIDEST(image, np.random.default_rng(seed))
    ratio = burn_ratio(image)
    assert ratio[0].max() < -0.1
    assert ratio[1:].min() > 0.4


@given(seeds)
def test_light_never_makes_a_burned_spectrum_look_less_burned_than_an_unburned_one(seed: int) -> None:
    image = paint(*BURNED.values(), *UNBURNED.values())
    WIDEST_LIGHT(image, np.random.default_rng(seed))
    ratio = burn_ratio(image)
    assert ratio[: len(BURNED)].max() < ratio[len(BURNED) :].min()


@given(seeds)
def test_no_value_moves_further_than_the_bounds_allow(seed: int) -> None:
    before = np.random.default_rng(seed).uniform(0, 1.2, (7, 8, 8)).astype(np.float32)
    after = before.copy()
    WIDEST(after, np.random.default_rng(seed))
    limit = before * (1.3 * 1.05 - 1) + 0.03 + NOISE_LIMIT * 0.01
    assert np.all(np.abs(after - before) <= limit + 1e-6)


def test_light_is_one_gain_and_one_offset_a_band() -> None:
    image = np.linspace(0, 1, 7 * 100, dtype=np.float32).reshape(7, 10, 10)
    after = image.copy()
    WIDEST_LIGHT(after, np.random.default_rng(3))
    for before_band, after_band in zip(image, after, strict=True):
        gain, offset = np.polyfit(before_band.ravel(), after_band.ravel(), 1)
        np.testing.assert_allclose(after_band, gain * before_band + offset, atol=1e-5)


def test_haze_is_four_times_as_thick_in_the_first_band_as_in_the_last() -> None:
    image = np.zeros((7, 4, 4), np.float32)
    WIDEST_LIGHT(image, np.random.default_rng(0))
    assert image[0, 0, 0] == pytest.approx(4 * image[6, 0, 0])
    assert 0 < abs(image[0, 0, 0]) <= 0.03


def test_noise_has_the_deviation_that_it_says_and_no_mean() -> None:
    photometry = Photometry(light=0.0, noise=1.0, max_noise=0.01)
    deviations = []
    for seed in range(40):
        image = np.zeros((7, 64, 64), np.float32)
        photometry(image, np.random.default_rng(seed))
        assert abs(image.mean()) < 4 * image.std() / np.sqrt(image.size)
        deviations.append(image.std())
    assert max(deviations) < 0.0101
    assert np.mean(deviations) == pytest.approx(0.005, abs=0.0015)


def test_noise_of_two_samples_has_nothing_in_common() -> None:
    photometry = Photometry(light=0.0, noise=1.0)
    images = np.zeros((2, 7, 64, 64), np.float32)
    for seed, image in enumerate(images):
        photometry(image, np.random.default_rng(seed))
    assert abs(np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1]) < 0.02


def test_a_patch_larger_than_the_stock_of_noise_gets_its_noise() -> None:
    image = np.zeros((13, 600, 600), np.float32)
    Photometry(light=0.0, noise=1.0)(image, np.random.default_rng(0))
    assert image.std() > 0


def test_bright_cloud_and_shadow_below_0_are_not_clipped() -> None:
    image = np.array([-0.01, 1.4], np.float32).reshape(1, 1, 2).repeat(7, axis=0)
    after = image.copy()
    for seed in range(20):
        WIDEST(after, np.random.default_rng(seed))
    assert after.max() > 1.0
    assert len(np.unique(after[:, 0, 0])) > 1


def test_with_all_probabilities_0_nothing_changes() -> None:
    image = paint(*BURNED.values())
    before = image.copy()
    Photometry(light=0.0, noise=0.0)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("setting", [{"max_gain": 0.5}, {"light": 1.5}, {"max_noise": -0.1}, {"max_haze": 0.2}])
def test_a_number_outside_its_range_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Photometry(**setting)
