"""Tiling: windows, labels that count, and patches with their statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import SettingError
from fireseg.prepare.tiling import (
    Labels,
    PatchPosition,
    WindowStatistics,
    cut_patches,
    cut_window,
    get_bounds,
    mark_repeats,
    mask_labels,
    plan_tile_windows,
)

SIDES = st.integers(1, 70)
DEL = np.array([[0, 0, 1, 1, 255, 1]], np.uint8)
GRA = np.array([[0, 3, 0, 4, 2, 255]], np.uint8)
KNOWN = np.zeros(DEL.shape, np.bool_)
CLOUDS = np.array([[0, 1, 2, 3, 0, 255]], np.uint8)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    size = draw(st.integers(1, 24))
    return draw(SIDES), draw(SIDES), size, draw(st.integers(1, size))


@given(layouts())
def test_every_pixel_is_in_a_window_and_no_window_extends_beyond_a_large_enough_tile(layout: tuple[int, int, int, int]):
    height, width, size, stride = layout
    seen = np.zeros((height, width), np.int64)
    windows = plan_tile_windows(height, width, size=size, stride=stride)
    for row, col in windows:
        seen[row : row + size, col : col + size] += 1
        assert row + size <= max(height, size)
        assert col + size <= max(width, size)
    assert seen.min() >= 1
    assert windows == sorted(set(windows))


@given(layouts())
def test_without_repeats_every_pixel_counts_exactly_once(layout: tuple[int, int, int, int]):
    height, width, size, stride = layout
    count = np.zeros((max(height, size), max(width, size)), np.int64)
    windows = plan_tile_windows(height, width, size=size, stride=stride)
    for window, repeated in zip(windows, mark_repeats(windows, size=size), strict=True):
        count[window.row : window.row + size, window.col : window.col + size] += ~repeated
    assert (count[:height, :width] == 1).all()


@given(layouts())
def test_a_cut_window_has_the_pixels_of_the_tile_and_fill_beyond(layout: tuple[int, int, int, int]):
    height, width, size, stride = layout
    tile = np.arange(height * width, dtype=np.int64).reshape(height, width)
    for window in plan_tile_windows(height, width, size=size, stride=stride):
        part = cut_window(tile, window, size, -1)
        assert part.shape == (size, size)
        rows, cols = min(size, height - window.row), min(size, width - window.col)
        expected = tile[window.row : window.row + rows, window.col : window.col + cols]
        np.testing.assert_array_equal(part[:rows, :cols], expected)
        assert (part[rows:] == -1).all()
        assert (part[:, cols:] == -1).all()


def test_the_last_window_of_a_row_is_shifted_inwards() -> None:
    assert [window.col for window in plan_tile_windows(256, 600, size=256, stride=224)] == [0, 224, 344]


def test_a_tile_that_windows_fill_exactly_has_no_additional_windows() -> None:
    assert plan_tile_windows(8, 12, size=4, stride=4) == [
        PatchPosition(row, col) for row in (0, 4) for col in (0, 4, 8)
    ]


def test_a_tile_smaller_than_a_window_gives_one() -> None:
    assert plan_tile_windows(100, 30, size=256, stride=224) == [PatchPosition(0, 0)]


def test_an_edge_window_repeats_pixels_of_the_previous_window() -> None:
    windows = plan_tile_windows(4, 6, size=4, stride=4)
    assert windows == [(0, 0), (0, 2)]
    first, second = mark_repeats(windows, size=4)
    assert not first.any()
    np.testing.assert_array_equal(second, np.tile([True, True, False, False], (4, 1)))


def test_bands_are_cut_and_padded_together() -> None:
    part = cut_window(np.ones((2, 3, 7), np.uint16), PatchPosition(0, 0), 4, 0)
    assert (part.shape, part.dtype, int(part.sum())) == ((4, 4, 7), np.uint16, 2 * 3 * 7)


def test_a_cut_window_is_a_copy() -> None:
    tile = np.zeros((4, 4), np.uint8)
    cut_window(tile, PatchPosition(0, 0), 4, 0)[:] = 9
    assert not tile.any()


@pytest.mark.parametrize("stride", [0, -3, 5])
def test_a_stride_that_leaves_gaps_raises(stride: int) -> None:
    with pytest.raises(SettingError, match=f"stride: {stride}.*gaps"):
        plan_tile_windows(10, 10, size=4, stride=stride)


def test_a_window_without_size_raises() -> None:
    with pytest.raises(SettingError, match="size: 0"):
        plan_tile_windows(10, 10, size=0, stride=1)


def test_bounds_of_a_rotated_grid_contain_all_four_corners() -> None:
    # Rows run east, columns run north.
    assert get_bounds((0.0, 2.0, 100.0, 2.0, 0.0, 50.0), PatchPosition(1, 2), 3) == (102.0, 54.0, 108.0, 60.0)


def lists(labels: Labels) -> tuple[list[int], list[int]]:
    return labels.delineation[0].tolist(), labels.grading[0].tolist()


def test_labels_under_opaque_cloud_shadow_and_unknown_clouds_are_ignored_but_not_under_haze() -> None:
    labels = mask_labels(DEL, GRA, CLOUDS, KNOWN)
    assert lists(labels) == ([0, 255, 1, 255, 255, 255], [0, 255, 0, 255, 2, 255])
    assert labels.cloudy[0].tolist() == [False, True, False, True, False, True]


def test_labels_under_light_cloud_can_be_ignored() -> None:
    assert lists(mask_labels(DEL, GRA, CLOUDS, KNOWN, light_clouds="ignore"))[0] == [0, 255, 255, 255, 255, 255]


def test_kept_clouds_ignore_no_labels_and_still_count_as_cloud() -> None:
    labels = mask_labels(DEL, GRA, CLOUDS, KNOWN, clouds="keep")
    assert lists(labels) == (DEL[0].tolist(), GRA[0].tolist())
    assert labels.cloudy.sum() == 3


def test_labels_without_image_data_are_ignored_even_if_clouds_are_kept() -> None:
    unknown = np.array([[True, False, True, False, False, False]])
    labels = mask_labels(DEL, GRA, None, unknown, clouds="keep")
    assert lists(labels) == ([255, 0, 255, 1, 255, 1], [255, 3, 255, 4, 2, 255])


def test_disagreements_are_counted_where_both_masks_have_labels() -> None:
    assert mask_labels(DEL, GRA, None, KNOWN).disagreements == (1, 1)


def test_disagreements_are_counted_under_clouds_too() -> None:
    assert mask_labels(DEL, GRA, np.ones_like(DEL), KNOWN).disagreements == (1, 1)


def test_disagreeing_labels_are_kept_or_ignored_in_both_masks() -> None:
    assert lists(mask_labels(DEL, GRA, None, KNOWN)) == (DEL[0].tolist(), GRA[0].tolist())
    ignored = mask_labels(DEL, GRA, None, KNOWN, disagreement="ignore")
    assert lists(ignored) == ([0, 255, 255, 1, 255, 1], [0, 255, 255, 4, 2, 255])


def test_without_a_grading_all_grades_are_ignored_and_nothing_disagrees() -> None:
    labels = mask_labels(DEL, None, None, KNOWN, disagreement="ignore")
    assert lists(labels) == (DEL[0].tolist(), [255] * 6)
    assert labels.disagreements == (0, 0)


@pytest.mark.parametrize("clouds", ["ignore", "keep"])
def test_the_input_masks_are_not_changed(clouds: str) -> None:
    delineation, grading = DEL.copy(), GRA.copy()
    unknown = ~KNOWN
    mask_labels(delineation, grading, CLOUDS, unknown, clouds=clouds, disagreement="ignore")  # type: ignore[arg-type]
    np.testing.assert_array_equal(delineation, DEL)
    np.testing.assert_array_equal(grading, GRA)
    assert unknown.all()


def make_labels(height: int, width: int, *, seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    return mask_labels(
        rng.choice(np.array([0, 1, 255], np.uint8), (height, width)),
        rng.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (height, width)),
        rng.integers(0, 4, (height, width)).astype(np.uint8),
        rng.random((height, width)) < 0.1,
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.integers(0, 99))
def test_labelled_pixels_of_all_windows_are_those_of_the_tile_without_repeats(
    height: int, width: int, size: int, seed: int
):
    labels = make_labels(height, width, seed=seed)
    image = np.zeros((height, width, 1), np.uint16)
    patches = list(cut_patches(image, labels, size=size, stride=size, ignore_repeats=True))
    for mask, counts in (
        (labels.delineation, [patch.statistics.delineated for patch in patches]),
        (labels.grading, [patch.statistics.graded for patch in patches]),
    ):
        expected = [int((mask == value).sum()) for value in range(len(counts[0]))]
        np.testing.assert_array_equal(np.sum(counts, axis=0), expected)


def test_statistics_of_a_window_worked_out_by_hand() -> None:
    # Two columns of four: one cloud, one unknown, a burned share of 1 in 5.
    labels = mask_labels(
        np.array([[1, 0], [0, 0], [0, 1], [1, 255]], np.uint8),
        np.array([[4, 0], [0, 0], [0, 1], [3, 255]], np.uint8),
        np.array([[0, 0], [0, 0], [0, 1], [0, 0]], np.uint8),
        np.array([[0, 0], [0, 0], [0, 0], [1, 0]], np.bool_),
    )
    (patch,) = cut_patches(np.full((4, 2, 1), 7, np.uint16), labels, size=4, stride=4, ignore_repeats=False)
    statistics = patch.statistics
    assert (statistics.delineated, statistics.graded) == ((4, 1), (4, 0, 0, 0, 1))
    assert statistics.burn_fraction == pytest.approx(1 / 5)
    assert statistics.unknown_fraction == pytest.approx((8 + 1) / 16)
    assert statistics.cloud_fraction == pytest.approx(1 / 7)


def test_beyond_the_tile_the_image_is_0_and_both_masks_255() -> None:
    labels = mask_labels(np.ones((2, 3), np.uint8), np.ones((2, 3), np.uint8), None, np.zeros((2, 3), np.bool_))
    (patch,) = cut_patches(np.full((2, 3, 2), 7, np.uint16), labels, size=4, stride=4, ignore_repeats=True)
    assert patch.image.shape == (4, 4, 2)
    assert int(patch.image.sum()) == 7 * 12
    assert patch.delineation.tolist() == [[1, 1, 1, 255]] * 2 + [[255] * 4] * 2
    assert patch.grading.tolist() == patch.delineation.tolist()


def test_training_windows_keep_repeated_pixels() -> None:
    labels = mask_labels(np.ones((4, 6), np.uint8), None, None, np.zeros((4, 6), np.bool_))
    patches = list(cut_patches(np.zeros((4, 6, 1), np.uint16), labels, size=4, stride=4, ignore_repeats=False))
    assert [patch.statistics.delineated for patch in patches] == [(0, 16), (0, 16)]


def test_windows_with_too_much_cloud_or_nothing_labelled_are_left_out() -> None:
    def facts(cloud: float, delineated: tuple[int, ...], graded: tuple[int, ...]) -> WindowStatistics:
        return WindowStatistics(cloud_fraction=cloud, unknown_fraction=0.0, delineated=delineated, graded=graded)

    assert facts(0.6, (9, 1), (0,) * 5).find_exclusion_reason(0.5) == "cloud"
    assert facts(0.5, (9, 1), (0,) * 5).find_exclusion_reason(0.5) is None
    assert facts(0.0, (0, 0), (0, 0, 0, 3, 0)).find_exclusion_reason(0.5) is None
    assert facts(0.0, (0, 0), (0,) * 5).find_exclusion_reason(0.5) == "unlabelled"


def test_the_burn_fraction_of_a_window_without_delineation_is_that_of_its_grades() -> None:
    facts = WindowStatistics(cloud_fraction=0.0, unknown_fraction=0.0, delineated=(0, 0), graded=(6, 0, 1, 1, 0))
    assert facts.burn_fraction == pytest.approx(0.25)
