"""Flips, turns and warps: image and mask together, nothing invented."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fireseg.data import FireAwareAugmentation, get_strong_augmentation, get_training_augmentation
from fireseg.data.augment import Augmentation, _flip_and_turn

seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([(8, 8), (8, 12), (33, 20), (64, 64)])


def still(**settings: float):
    """No change of light; geometry as asked."""
    return get_training_augmentation(**{"flip": 0.0, "turn": 0.0, "light": 0.0, "noise": 0.0} | settings)


def draw(size: tuple[int, int] = (8, 8), channels: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (*size, channels)).astype(np.float32)
    return image, rng.choice(np.array([0, 1, 4, 255], np.uint8), size)


def change(augmentation: Augmentation, size=(8, 8), channels: int = 7, seed: int = 0, is_fire: bool = False):
    image, mask = draw(size, channels)
    return augmentation(image, mask, np.random.default_rng(seed), is_fire=is_fire)


@given(seeds, sizes, st.sampled_from([1, 2, 5, 7, 12]))
def test_types_and_sizes_come_through_everything(seed: int, size: tuple[int, int], channels: int) -> None:
    image, mask = change(get_strong_augmentation(elastic=1.0, light=1.0, noise=1.0), size, channels, seed)
    assert (image.dtype, image.shape) == (np.float32, (channels, *size))
    assert (mask.dtype, mask.shape) == (np.uint8, size)
    assert image.flags.c_contiguous
    assert mask.flags.c_contiguous
    assert np.isfinite(image).all()


@given(seeds, sizes)
def test_no_class_appears_that_was_not_there(seed: int, size: tuple[int, int]) -> None:
    _, mask = change(get_strong_augmentation(elastic=1.0), size, seed=seed)
    assert set(np.unique(mask)) <= {0, 1, 4, 255}


@given(seeds, sizes, st.sampled_from([1, 7]))
def test_the_patch_that_was_read_is_left_as_it_was(seed: int, size: tuple[int, int], channels: int) -> None:
    image, mask = draw(size, channels)
    image_before, mask_before = image.copy(), mask.copy()
    new_image, new_mask = still(light=1.0, noise=1.0)(image, mask, np.random.default_rng(seed), is_fire=True)
    new_image += 1
    new_mask += 1
    np.testing.assert_array_equal(image, image_before)
    np.testing.assert_array_equal(mask, mask_before)


@pytest.mark.parametrize("flips", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_flips_and_turns_are_numpys(flips: tuple[bool, bool], turns: int, channels: int) -> None:
    image, mask = draw(channels=channels)
    new_image, new_mask = _flip_and_turn(image, mask, np.array(flips), turns)
    for new, old in ((new_image, image), (new_mask, mask)):
        wanted = old[::-1] if flips[0] else old
        wanted = wanted[:, ::-1] if flips[1] else wanted
        np.testing.assert_array_equal(new, np.rot90(wanted, turns))


@given(seeds)
def test_image_and_mask_go_the_same_way(seed: int) -> None:
    mask = np.random.default_rng(1).integers(0, 5, (32, 32)).astype(np.uint8)
    image = mask[..., None].astype(np.float32)
    image, mask = still(flip=0.5, turn=0.7)(image, mask, np.random.default_rng(seed), is_fire=False)
    np.testing.assert_array_equal(image[0], mask)


def test_all_eight_ways_to_lay_a_square_are_drawn() -> None:
    image, mask = draw()
    augmentation = still(flip=0.5, turn=0.5)
    seen = {augmentation(image, mask, np.random.default_rng(seed), is_fire=False)[0].tobytes() for seed in range(200)}
    assert len(seen) == 8


def test_a_patch_that_is_not_square_keeps_its_shape_in_four_ways() -> None:
    image, mask = draw((8, 12))
    augmentation = still(flip=0.5, turn=0.5)
    seen = {augmentation(image, mask, np.random.default_rng(seed), is_fire=False)[0].tobytes() for seed in range(200)}
    assert len(seen) == 4


def test_a_warp_shifts_a_slope_by_at_most_its_largest_shift_and_invents_no_border() -> None:
    size = 96
    cols = np.tile(np.arange(size, dtype=np.float32), (size, 1))
    image, mask = np.stack([cols, cols.T], axis=2), np.zeros((size, size), np.uint8)
    shifts = []
    for seed in range(20):
        warped, _ = still(elastic=1.0, max_shift_px=4.0)(image, mask, np.random.default_rng(seed), is_fire=True)
        inside = np.abs(warped[0] - cols)[:, 8:-8]
        assert inside.max() < 1.6 * 4.0  # cubic interpolation between the knots overshoots a little
        assert warped.min() >= 0
        assert warped.max() <= size - 1
        shifts.append(inside.mean())
    assert np.mean(shifts) > 0.5


def test_a_warp_takes_the_mask_with_the_image() -> None:
    rows, cols = np.mgrid[:96, :96]
    mask = (np.hypot(rows - 50, cols - 40) < 25).astype(np.uint8)
    image = mask[..., None].astype(np.float32)
    for seed in range(10):
        new_image, new_mask = still(elastic=1.0, max_shift_px=8.0)(
            image, mask, np.random.default_rng(seed), is_fire=True
        )
        assert not np.array_equal(new_mask, mask)
        assert np.mean((new_image[0] > 0.5) != new_mask) < 0.01


def test_the_largest_warp_folds_nothing_over() -> None:
    cols = np.tile(np.arange(128, dtype=np.float32), (128, 1))
    image, mask = np.stack([cols, cols.T], axis=2), np.zeros((128, 128), np.uint8)
    for seed in range(30):
        warped, _ = still(elastic=1.0, max_shift_px=8.0)(image, mask, np.random.default_rng(seed), is_fire=True)
        assert np.diff(warped[0], axis=1)[:, 20:-20].min() > -0.5


def test_strong_is_for_patches_with_fire_alone() -> None:
    augmentation = FireAwareAugmentation(still(), still(light=1.0))
    as_it_is = draw()[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(change(augmentation, is_fire=False)[0], as_it_is)
    assert not np.array_equal(change(augmentation, is_fire=True)[0], as_it_is)


def test_strong_is_never_less_probable_than_standard() -> None:
    standard, strong = get_training_augmentation(), get_strong_augmentation()
    for name in ("flip", "turn", "elastic"):
        assert getattr(strong, name) > getattr(standard, name)
    assert strong.photometry.light > standard.photometry.light
    assert strong.photometry.noise > standard.photometry.noise


def test_the_same_draw_gives_the_same_patch_and_another_another() -> None:
    strong = get_strong_augmentation()
    np.testing.assert_array_equal(change(strong, seed=4)[0], change(strong, seed=4)[0])
    assert not np.array_equal(change(strong, seed=4)[0], change(strong, seed=5)[0])


@pytest.mark.parametrize("make", [get_training_augmentation, get_strong_augmentation])
def test_an_unknown_argument_is_an_error(make) -> None:
    with pytest.raises(TypeError, match="var_limit"):
        make(var_limit=0.1)


@pytest.mark.parametrize("make", [get_training_augmentation, get_strong_augmentation])
@pytest.mark.parametrize("setting", [{"flip": 1.5}, {"elastic": -0.1}, {"max_shift_px": 100.0}, {"max_gain": 3.0}])
def test_a_number_outside_its_range_is_an_error(make, setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        make(**setting)


def test_augmentations_go_to_spawned_processes_and_do_the_same_there() -> None:
    augmentation = FireAwareAugmentation(get_training_augmentation(), get_strong_augmentation(elastic=1.0))
    again = pickle.loads(pickle.dumps(augmentation))
    assert again == augmentation
    np.testing.assert_array_equal(change(again, is_fire=True)[0], change(augmentation, is_fire=True)[0])
