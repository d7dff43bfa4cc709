"""Patches, and what they hold in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.prepare.tiling import Labels, WindowStatistics, cut_patches, mask_labels


def make_labels(height: int, width: int, *, seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    return mask_labels(
        rng.choice(np.array([0, 1, 255], np.uint8), (height, width)),
        rng.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (height, width)),
        rng.integers(0, 4, (height, width)).astype(np.uint8),
        rng.random((height, width)) < 0.1,
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.integers(0, 99))
def test_labelled_pixels_of_all_windows_are_those_of_the_tile_where_each_counts_once(
    height: int, width: int, size: int, seed: int
):
    labels = make_labels(height, width, seed=seed)
    image = np.zeros((height, width, 1), np.uint16)
    patches = list(cut_patches(image, labels, size=size, stride=size, is_once=True))
    for mask, counts in (
        (labels.delineation, [patch.facts.delineated for patch in patches]),
        (labels.grading, [patch.facts.graded for patch in patches]),
    ):
        expected = [int((mask == value).sum()) for value in range(len(counts[0]))]
        np.testing.assert_array_equal(np.sum(counts, axis=0), expected)


def test_the_facts_of_a_window_worked_out_by_hand() -> None:
    # Two columns of four: one cloud, one unknown, a burned share of 1 in 5.
    labels = mask_labels(
        np.array([[1, 0], [0, 0], [0, 1], [1, 255]], np.uint8),
        np.array([[4, 0], [0, 0], [0, 1], [3, 255]], np.uint8),
        np.array([[0, 0], [0, 0], [0, 1], [0, 0]], np.uint8),
        np.array([[0, 0], [0, 0], [0, 0], [1, 0]], np.bool_),
    )
    (patch,) = cut_patches(np.full((4, 2, 1), 7, np.uint16), labels, size=4, stride=4, is_once=False)
    facts = patch.facts
    assert (facts.delineated, facts.graded) == ((4, 1), (4, 0, 0, 0, 1))
    assert facts.burn_fraction == pytest.approx(1 / 5)
    assert facts.unknown_fraction == pytest.approx((8 + 1) / 16)
    assert facts.cloud_fraction == pytest.approx(1 / 7)


def test_beyond_the_tile_the_image_is_0_and_both_masks_255() -> None:
    labels = mask_labels(np.ones((2, 3), np.uint8), np.ones((2, 3), np.uint8), None, np.zeros((2, 3), np.bool_))
    (patch,) = cut_patches(np.full((2, 3, 2), 7, np.uint16), labels, size=4, stride=4, is_once=True)
    assert patch.image.shape == (4, 4, 2)
    assert int(patch.image.sum()) == 7 * 12
    assert patch.delineation.tolist() == [[1, 1, 1, 255]] * 2 + [[255] * 4] * 2
    assert patch.grading.tolist() == patch.delineation.tolist()


def test_training_windows_keep_what_they_share() -> None:
    labels = mask_labels(np.ones((4, 6), np.uint8), None, None, np.zeros((4, 6), np.bool_))
    patches = list(cut_patches(np.zeros((4, 6, 1), np.uint16), labels, size=4, stride=4, is_once=False))
    assert [patch.facts.delineated for patch in patches] == [(0, 16), (0, 16)]


def test_windows_with_too_much_cloud_or_nothing_labelled_are_left_out() -> None:
    def facts(cloud: float, delineated: tuple[int, ...], graded: tuple[int, ...]) -> WindowStatistics:
        return WindowStatistics(cloud_fraction=cloud, unknown_fraction=0.0, delineated=delineated, graded=graded)

    assert facts(0.6, (9, 1), (0,) * 5).why_left_out(0.5) == "cloud"
    assert facts(0.5, (9, 1), (0,) * 5).why_left_out(0.5) is None
    assert facts(0.0, (0, 0), (0, 0, 0, 3, 0)).why_left_out(0.5) is None
    assert facts(0.0, (0, 0), (0,) * 5).why_left_out(0.5) == "unlabelled"


def test_a_window_that_only_a_grading_labels_burns_by_its_grades() -> None:
    facts = WindowStatistics(cloud_fraction=0.0, unknown_fraction=0.0, delineated=(0, 0), graded=(6, 0, 1, 1, 0))
    assert facts.burn_fraction == pytest.approx(0.25)
