"""Windows cover a tile, and each pixel counts as often as it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import SettingError
from fireseg.prepare.tiling import Window, cut_window, get_bounds, mark_repeats, plan_tile_windows

SIDES = st.integers(1, 70)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    size = draw(st.integers(1, 24))
    return draw(SIDES), draw(SIDES), size, draw(st.integers(1, size))


@given(layouts())
def test_every_pixel_lies_in_a_window_and_none_reaches_beyond_a_tile_that_holds_it(layout: tuple[int, int, int, int]):
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
def test_what_is_cut_is_what_lies_there_and_fill_beyond(layout: tuple[int, int, int, int]):
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


def test_a_tile_that_windows_fill_exactly_has_no_more_of_them() -> None:
    assert plan_tile_windows(8, 12, size=4, stride=4) == [Window(row, col) for row in (0, 4) for col in (0, 4, 8)]


def test_a_tile_smaller_than_a_window_gives_one() -> None:
    assert plan_tile_windows(100, 30, size=256, stride=224) == [Window(0, 0)]


def test_an_edge_window_repeats_what_the_window_before_it_showed() -> None:
    windows = plan_tile_windows(4, 6, size=4, stride=4)
    assert windows == [(0, 0), (0, 2)]
    first, second = mark_repeats(windows, size=4)
    assert not first.any()
    np.testing.assert_array_equal(second, np.tile([True, True, False, False], (4, 1)))


def test_bands_are_cut_and_padded_together() -> None:
    part = cut_window(np.ones((2, 3, 7), np.uint16), Window(0, 0), 4, 0)
    assert (part.shape, part.dtype, int(part.sum())) == ((4, 4, 7), np.uint16, 2 * 3 * 7)


def test_a_cut_leaves_the_tile_alone() -> None:
    tile = np.zeros((4, 4), np.uint8)
    cut_window(tile, Window(0, 0), 4, 0)[:] = 9
    assert not tile.any()


@pytest.mark.parametrize("stride", [0, -3, 5])
def test_a_stride_that_leaves_gaps_is_refused(stride: int) -> None:
    with pytest.raises(SettingError, match=f"stride: {stride}, but 1 to the size of a window"):
        plan_tile_windows(10, 10, size=4, stride=stride)


def test_a_window_without_size_is_refused() -> None:
    with pytest.raises(SettingError, match="size: 0"):
        plan_tile_windows(10, 10, size=0, stride=1)


def test_bounds_of_a_turned_grid_hold_all_four_corners() -> None:
    # Rows run east, columns run north.
    assert get_bounds((0.0, 2.0, 100.0, 2.0, 0.0, 50.0), Window(1, 2), 3) == (102.0, 54.0, 108.0, 60.0)
