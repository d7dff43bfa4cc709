"""Windows blended give back what they were cut from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.geo import Blend, Layout, plan_sliding_windows

lengths = st.integers(1, 400)
sizes = st.sampled_from([(128, 64), (96, 32), (64, 0), (64, 32)])


def cut(field: np.ndarray, layout: Layout, row: int, col: int) -> np.ndarray:
    top, left, height, width = layout.window(row, col)
    inside = field[:, top : top + height, left : left + width]
    beyond = [(0, 0), (0, height - inside.shape[1]), (0, width - inside.shape[2])]
    return np.pad(inside, beyond, mode="symmetric")


def blend_all(layout: Layout, channels: int, make, order=lambda cols: cols) -> tuple[np.ndarray, list[int]]:
    """The whole raster, and the first rows of what was handed out."""
    blend, parts, tops = Blend(layout, channels), [], []
    for row in range(len(layout.rows)):
        for col in order(range(len(layout.cols))):
            blend.add(row, col, make(row, col))
        top, values = blend.finish_row(row)
        parts.append(values)
        tops.append(top)
    return np.concatenate(parts, axis=1), tops


@given(height=lengths, width=lengths, size=sizes, channels=st.integers(1, 3))
def test_a_field_that_all_windows_share_comes_out_as_it_was(
    height: int, width: int, size: tuple[int, int], channels: int
):
    layout = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    field = np.random.default_rng(height * 1000 + width).random((channels, height, width), dtype=np.float32)
    blended, _ = blend_all(layout, channels, lambda row, col: cut(field, layout, row, col))
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, field, atol=1e-6, rtol=0)


@given(height=lengths, width=lengths, size=sizes)
def test_a_constant_field_comes_out_constant(height: int, width: int, size: tuple[int, int]):
    layout = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    window = np.full((1, layout.size_rows, layout.size_cols), 0.7, np.float32)
    blended, _ = blend_all(layout, 1, lambda row, col: window)
    np.testing.assert_allclose(blended, 0.7, atol=1e-6, rtol=0)


def test_every_row_is_handed_out_once_from_top_to_bottom():
    layout = plan_sliding_windows(1500, 40)
    blended, tops = blend_all(layout, 1, lambda row, col: np.ones((1, layout.size_rows, layout.size_cols)))
    assert blended.shape == (1, 1500, 40)
    assert tuple(tops) == layout.rows


def test_two_windows_meet_half_way():
    layout = plan_sliding_windows(32, 140, size=96, overlap=32)
    levels = (0.0, 1.0)
    blended, _ = blend_all(layout, 1, lambda row, col: np.full((1, 32, 96), levels[col], np.float32))
    row = blended[0, 0]
    assert (row[:68] == 0.0).all()  # 64 px of its own and 4 of the overlap, an eighth of it
    assert (row[92:] == 1.0).all()
    np.testing.assert_allclose(row[79:81], [23 / 48, 25 / 48], atol=1e-6)


def test_the_order_of_the_windows_in_a_row_does_not_matter():
    layout = plan_sliding_windows(100, 400, size=128, overlap=64)
    windows = np.random.default_rng(0).random((8, 8, 1, layout.size_rows, layout.size_cols), dtype=np.float32)
    forth, _ = blend_all(layout, 1, lambda row, col: windows[row, col])
    back, _ = blend_all(layout, 1, lambda row, col: windows[row, col], order=lambda cols: reversed(list(cols)))
    np.testing.assert_allclose(forth, back, atol=1e-6)


def test_memory_does_not_grow_with_the_height():
    def num_bytes(height: int) -> int:
        blend = Blend(plan_sliding_windows(height, 5000), 2)
        return sum(value.nbytes for value in vars(blend).values() if isinstance(value, np.ndarray))

    low, high = (plan_sliding_windows(height, 5000).size_rows for height in (10_980, 109_800))
    assert num_bytes(109_800) * low == num_bytes(10_980) * high
    assert num_bytes(109_800) <= 2 * 704 * 5000 * 4


def test_rows_handed_out_are_not_changed_by_later_windows():
    layout = plan_sliding_windows(150, 32, size=96, overlap=32)
    blend = Blend(layout, 1)
    blend.add(0, 0, np.ones((1, 96, 32), np.float32))
    _, values = blend.finish_row(0)
    kept = values.copy()
    blend.add(1, 0, np.full((1, 96, 32), 9.0, np.float32))
    np.testing.assert_array_equal(values, kept)


def test_a_window_twice_is_noticed():
    blend = Blend(plan_sliding_windows(32, 140, size=96, overlap=32), 1)
    blend.add(0, 1, np.zeros((1, 32, 96), np.float32))
    with pytest.raises(AssertionError, match=r"window \(0, 1\) was added before"):
        blend.add(0, 1, np.zeros((1, 32, 96), np.float32))


def test_a_row_that_lacks_a_window_is_not_handed_out():
    blend = Blend(plan_sliding_windows(32, 140, size=96, overlap=32), 1)
    blend.add(0, 1, np.zeros((1, 32, 96), np.float32))
    with pytest.raises(AssertionError, match=r"lacks the windows of the columns \[0\]"):
        blend.finish_row(0)
