"""Augmentation that imitates other acquisitions: values by hand, bounds, unknown pixels."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fireseg.data import (
    AcquisitionAugmentation,
    FireAwareAugmentation,
    get_strong_augmentation,
    get_training_augmentation,
)
from fireseg.errors import FiresegError

BANDS = ("B02", "B08", "B12")
FIRE_AWARE = FireAwareAugmentation(get_training_augmentation(), get_strong_augmentation(elastic=1.0, noise=1.0))
NOTHING = {"max_gain": 0, "max_band_gain": 0, "max_offset": 0, "max_band_offset": 0, "max_haze": 0, "max_sun_deg": 0}

seeds = st.integers(0, 2**32 - 1)


def keep(image: np.ndarray, mask: np.ndarray, rng: Any, *, is_fire: bool) -> tuple[np.ndarray, np.ndarray]:
    return image.transpose(2, 0, 1).copy(), mask.copy()


class Largest:
    """Draws what makes every change as large as possible, and drops the second band."""

    def random(self, size: int | None = None) -> Any:
        return 0.999 if size is None else np.zeros(size)

    def uniform(self, low: float, high: float, size: Any) -> Any:
        return np.full(size, high)

    def integers(self, num: int) -> int:
        return min(1, num - 1)


def make_patch(*, unknown: bool = False, bands: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (64, 64, bands)).astype(np.float32)
    image[:8, :8] = 0.0005  # as dark as water
    mask = rng.choice(np.array([0, 1, 4, 255], np.uint8), (64, 64))
    if unknown:
        image[20:40, 30:] = 0
        mask[20:40, 30:] = 255
    return image, mask


def augment(values: list[list[float]], bands: tuple[str, ...] = BANDS, **settings: Any) -> np.ndarray:
    """Returns one row of pixels after the largest change, `(C, n)`, of values with a row per pixel."""
    options: dict[str, Any] = {**NOTHING, "probability": 1, "drop": 0} | settings
    augmentation = AcquisitionAugmentation(base=keep, bands=bands, **options)
    image = np.array([values], np.float32)
    rng: Any = Largest()
    return augmentation(image, np.zeros(image.shape[:2], np.uint8), rng, is_fire=False)[0][:, 0]


def test_gain_has_a_common_part_and_one_of_each_band() -> None:
    changed = augment([[0.1, 0.2, 0.4]], max_gain=0.2, max_band_gain=0.1)
    np.testing.assert_allclose(changed[:, 0], [0.1 * 1.32, 0.2 * 1.32, 0.4 * 1.32], rtol=1e-6)


def test_offset_has_a_common_part_and_one_of_each_band() -> None:
    changed = augment([[0.1, 0.2, 0.4]], max_offset=0.02, max_band_offset=0.01)
    np.testing.assert_allclose(changed[:, 0], [0.13, 0.23, 0.43], rtol=1e-6)


def test_haze_decreases_with_the_wavelength() -> None:
    changed = augment([[0.1, 0.2, 0.4]], max_haze=0.1)
    added = 0.0999 * np.array([1, (492 / 833) ** 1.3, (492 / 2202) ** 1.3])
    np.testing.assert_allclose(changed[:, 0] - [0.1, 0.2, 0.4], added, rtol=1e-4)
    assert added[2] < 0.15 * added[0]


def test_a_lower_sun_makes_all_bands_darker_by_the_same_factor() -> None:
    changed = augment([[0.1, 0.2, 0.4]], max_sun_deg=15)
    factor = 0.5 / 0.5**0.5  # cos 60° / cos 45°
    np.testing.assert_allclose(changed[:, 0], [0.1 * factor, 0.2 * factor, 0.4 * factor], rtol=1e-6)


def test_a_dropped_band_has_the_mean_of_its_known_pixels() -> None:
    changed = augment([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0], [0.1, 0.6, 0.3]], drop=1)
    np.testing.assert_allclose(changed, np.array([[0.1, 0, 0.1], [0.4, 0, 0.4], [0.4, 0, 0.3]]), rtol=1e-6)


def test_a_single_band_is_never_dropped() -> None:
    np.testing.assert_allclose(augment([[0.1], [0.3]], ("B12",), drop=1), [[0.1, 0.3]], rtol=1e-6)


def test_strength_scales_every_maximum() -> None:
    np.testing.assert_allclose(augment([[0.1, 0.1, 0.1]], max_gain=0.2, strength=2)[:, 0], 0.14, rtol=1e-6)
    np.testing.assert_allclose(augment([[0.1, 0.1, 0.1]], max_haze=0.2, strength=0)[:, 0], 0.1, rtol=1e-6)


def test_without_probability_the_first_augmentation_alone_is_applied() -> None:
    image, mask = make_patch(bands=7)
    augmentation = AcquisitionAugmentation(base=FIRE_AWARE, probability=0)
    for seed in range(5):
        changed, moved = augmentation(image, mask, np.random.default_rng(seed), is_fire=True)
        expected, expected_mask = FIRE_AWARE(image, mask, np.random.default_rng(seed), is_fire=True)
        np.testing.assert_array_equal(changed, expected.clip(1e-4, 1))
        np.testing.assert_array_equal(moved, expected_mask)


@given(seeds, st.booleans(), st.booleans())
def test_known_pixels_stay_within_0_and_1_and_unknown_ones_unknown(seed: int, unknown: bool, is_fire: bool) -> None:
    image, mask = make_patch(unknown=unknown)
    before = image.copy()
    augmentation = AcquisitionAugmentation(base=FIRE_AWARE, bands=BANDS, probability=1, strength=2, drop=0.5)
    changed, moved = augmentation(image, mask, np.random.default_rng(seed), is_fire=is_fire)
    np.testing.assert_array_equal(image, before)
    assert (changed.dtype, changed.shape, moved.dtype) == (np.float32, (3, 64, 64), np.uint8)
    is_known = changed.any(axis=0)
    assert changed[:, is_known].min() >= np.float32(1e-4)
    assert changed.max() <= 1
    # A warp shows more or less of the 20 x 34 pixels, and leaves pixels beside them unknown.
    assert (~is_known).sum() == (0 if not unknown else pytest.approx(680, rel=0.6))
    if not is_fire and unknown:
        assert (~is_known).sum() == 680
        assert (moved[~is_known] == 255).all()


@given(seeds)
def test_a_lost_band_leaves_every_other_band_and_no_two_dark_bands(seed: int) -> None:
    image, mask = make_patch()
    augmentation = AcquisitionAugmentation(base=keep, bands=BANDS, probability=1, drop=1)
    changed, _ = augmentation(image, mask, np.random.default_rng(seed), is_fire=False)
    assert sorted(len(np.unique(band)) == 1 for band in changed) == [False, False, True]
    assert changed.min() > 0


def test_a_patch_without_a_known_pixel_stays_0() -> None:
    assert not augment([[0, 0, 0], [0, 0, 0]], max_haze=0.1, drop=1).any()


def test_the_result_depends_on_the_seed_alone() -> None:
    image, mask = make_patch()
    augmentation = AcquisitionAugmentation(base=FIRE_AWARE, bands=BANDS, probability=1)
    restored = pickle.loads(pickle.dumps(augmentation))
    results = [one(image, mask, np.random.default_rng(4), is_fire=True)[0] for one in (augmentation, restored)]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], augmentation(image, mask, np.random.default_rng(5), is_fire=True)[0])


def test_the_bands_of_a_patch_are_checked() -> None:
    with pytest.raises(FiresegError, match=r"data.augment.bands: 7 bands .* 3; name the bands"):
        AcquisitionAugmentation(base=keep)(*make_patch(), np.random.default_rng(0), is_fire=False)


@pytest.mark.parametrize(
    "setting",
    [{"max_gain": 0.5}, {"strength": 3}, {"drop": 1.5}, {"bands": ("B2",)}, {"base": None}, {"max_sun_deg": 40}],
)
def test_a_value_outside_its_range_is_an_error(setting: dict[str, Any]) -> None:
    options: dict[str, Any] = {"base": keep} | setting
    with pytest.raises(ValidationError):
        AcquisitionAugmentation(**options)


def test_the_two_scenes_of_a_pair_change_by_themselves_but_turn_together() -> None:
    image, mask = make_patch(unknown=True, bands=2)
    pair = np.concatenate([image, image], axis=2)
    augmentation = AcquisitionAugmentation(
        base=get_training_augmentation(light=0, noise=0), bands=("B08", "B12", "B08_PRE", "B12_PRE"), probability=1
    )
    after, before = np.split(augmentation(pair, mask, np.random.default_rng(1), is_fire=True)[0], 2)
    is_known = after.any(axis=0)
    assert np.array_equal(is_known, before.any(axis=0))
    assert not np.allclose(after, before, atol=0.01)
    for one, other in zip(after, before, strict=True):  # the same pixels, as a gain and an offset keep their order
        is_inside = is_known & (one > 0.001) & (one < 0.999) & (other > 0.001) & (other < 0.999)
        assert np.corrcoef(one[is_inside], other[is_inside])[0, 1] == pytest.approx(1, abs=1e-4)
