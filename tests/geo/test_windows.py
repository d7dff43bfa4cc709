"""Sliding windows cover a raster, and blended windows give back the field that they were cut from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import FiresegError
from fireseg.geo import Blend, SlidingWindows, Window, plan_sliding_windows

lengths = st.integers(1, 3000)
sizes = st.sampled_from([(544, 64), (256, 32), (256, 0), (128, 64), (64, 32), (640, 320), (32, 0)])


def sum_weights(windows: SlidingWindows) -> tuple[np.ndarray, np.ndarray]:
    """Sums the weights of all windows along the rows and along the columns."""
    rows = (windows.height, windows.rows, windows.weights("rows"))
    cols = (windows.width, windows.cols, windows.weights("cols"))
    sums = []
    for length, starts, weights in (rows, cols):
        total = np.zeros(starts[-1] + weights.shape[1])
        for start, one in zip(starts, weights, strict=True):
            total[start : start + len(one)] += one
        sums.append(total[:length])
    return sums[0], sums[1]


@given(height=lengths, width=lengths, size=sizes)
def test_weights_sum_to_1_at_every_pixel(height: int, width: int, size: tuple[int, int]):
    windows = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    for total in sum_weights(windows):
        np.testing.assert_allclose(total, 1.0, atol=1e-6, rtol=0)


@given(height=lengths, width=lengths, size=sizes)
def test_windows_are_multiples_of_32_and_cover_the_raster(height: int, width: int, size: tuple[int, int]):
    windows = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    for length, starts, window_px in (
        (height, windows.rows, windows.size_rows),
        (width, windows.cols, windows.size_cols),
    ):
        assert window_px % 32 == 0
        assert starts[0] == 0
        assert starts[-1] + window_px >= length
        assert set(np.diff(starts)) <= {window_px - windows.overlap}
        # The last window covers pixels that its neighbour does not.
        assert len(starts) == 1 or starts[-1] + windows.overlap < length
        assert window_px <= 1.3 * size[0] + 31


def test_at_most_1_35_times_the_pixels_are_processed():
    shares = []
    for length in range(1024, 10_981):
        windows = plan_sliding_windows(length, length)
        shares.append([len(windows.rows) * windows.size_rows / length, len(windows.cols) * windows.size_cols / length])
    # One axis does not depend on the other, so that the worst of each together is the worst of all rectangles.
    assert np.prod(np.max(shares, axis=0)) <= 1.35


def test_low_windows_are_preferred():
    windows = plan_sliding_windows(10_980, 10_980)
    assert (len(windows.rows), len(windows.cols), windows.size_rows, windows.size_cols) == (23, 18, 544, 672)
    assert windows.num_windows == 23 * 18
    assert windows.num_pixels == 23 * 18 * 544 * 672
    assert windows.rows[:3] == (0, 480, 960)


@pytest.mark.parametrize(("length", "size"), [(1, 32), (32, 32), (33, 64), (544, 544), (600, 608), (704, 704)])
def test_small_raster_is_one_window_rounded_up(length: int, size: int):
    windows = plan_sliding_windows(length, length)
    assert (windows.rows, windows.cols) == ((0,), (0,))
    assert (windows.size_rows, windows.size_cols) == (size, size)
    assert (windows.weights("rows") == 1.0).all()


def test_weights_are_0_in_the_outer_eighth_of_the_overlap_and_1_at_the_raster_edge():
    first, last = plan_sliding_windows(1000, 300).weights("rows")
    assert (first[:480] == 1.0).all()
    assert (first[-8:] == 0.0).all()
    assert (first[-64:-56] == 1.0).all()
    assert (last[:8] == 0.0).all()
    assert (last[56:] == 1.0).all()


def test_weights_fall_linearly():
    first, _ = plan_sliding_windows(1000, 300).weights("rows")
    np.testing.assert_allclose(np.diff(first[-56:-8]), -1 / 48, atol=1e-6)


def test_windows_are_listed_row_by_row():
    windows = plan_sliding_windows(150, 140, size=96, overlap=32)
    assert list(windows.windows()) == [
        (0, 0, Window(0, 0, 96, 96)),
        (0, 1, Window(0, 64, 96, 96)),
        (1, 0, Window(64, 0, 96, 96)),
        (1, 1, Window(64, 64, 96, 96)),
    ]


def test_all_faults_of_a_plan_are_reported():
    with pytest.raises(FiresegError) as raised:
        plan_sliding_windows(0, 5, size=100, overlap=33)
    raster, overlap, size = raised.value.faults
    assert raster.startswith("raster: 0 x 5 pixels")
    assert overlap.startswith("overlap: 33, but it must be 0 or a multiple of 32")
    assert size.startswith("size: 100, but it must be a multiple of 32 and at least twice the overlap")


def test_overlap_of_more_than_half_a_window_is_an_error():
    with pytest.raises(FiresegError, match="size: 96"):
        plan_sliding_windows(500, 500, size=96, overlap=64)


small_lengths = st.integers(1, 400)
small_sizes = st.sampled_from([(128, 64), (96, 32), (64, 0), (64, 32)])


def cut(field: np.ndarray, windows: SlidingWindows, row: int, col: int) -> np.ndarray:
    top, left, height, width = windows.window(row, col)
    inside = field[:, top : top + height, left : left + width]
    beyond = [(0, 0), (0, height - inside.shape[1]), (0, width - inside.shape[2])]
    return np.pad(inside, beyond, mode="symmetric")


def blend_all(windows: SlidingWindows, channels: int, make, order=lambda cols: cols) -> tuple[np.ndarray, list[int]]:
    """Blends all windows; returns the raster, and the first row of each finished part."""
    blend, parts, tops = Blend(windows, channels), [], []
    for row in range(len(windows.rows)):
        for col in order(range(len(windows.cols))):
            blend.add(row, col, make(row, col))
        top, values = blend.finish_row(row)
        parts.append(values)
        tops.append(top)
    return np.concatenate(parts, axis=1), tops


@given(height=small_lengths, width=small_lengths, size=small_sizes, channels=st.integers(1, 3))
def test_blend_restores_a_field(height: int, width: int, size: tuple[int, int], channels: int):
    windows = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    field = np.random.default_rng(height * 1000 + width).random((channels, height, width), dtype=np.float32)
    blended, _ = blend_all(windows, channels, lambda row, col: cut(field, windows, row, col))
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, field, atol=1e-6, rtol=0)


@given(height=small_lengths, width=small_lengths, size=small_sizes)
def test_blend_of_a_constant_is_constant(height: int, width: int, size: tuple[int, int]):
    windows = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    window = np.full((1, windows.size_rows, windows.size_cols), 0.7, np.float32)
    blended, _ = blend_all(windows, 1, lambda row, col: window)
    np.testing.assert_allclose(blended, 0.7, atol=1e-6, rtol=0)


def test_every_row_is_returned_once():
    windows = plan_sliding_windows(1500, 40)
    blended, tops = blend_all(windows, 1, lambda row, col: np.ones((1, windows.size_rows, windows.size_cols)))
    assert blended.shape == (1, 1500, 40)
    assert tuple(tops) == windows.rows


def test_two_windows_have_equal_weight_in_the_middle_of_the_overlap():
    windows = plan_sliding_windows(32, 140, size=96, overlap=32)
    levels = (0.0, 1.0)
    blended, _ = blend_all(windows, 1, lambda row, col: np.full((1, 32, 96), levels[col], np.float32))
    row = blended[0, 0]
    assert (row[:68] == 0.0).all()  # 64 px outside the overlap and 4 of the overlap, an eighth of it
    assert (row[92:] == 1.0).all()
    np.testing.assert_allclose(row[79:81], [23 / 48, 25 / 48], atol=1e-6)


def test_order_of_windows_in_a_row_does_not_matter():
    windows = plan_sliding_windows(100, 400, size=128, overlap=64)
    values = np.random.default_rng(0).random((8, 8, 1, windows.size_rows, windows.size_cols), dtype=np.float32)
    forth, _ = blend_all(windows, 1, lambda row, col: values[row, col])
    back, _ = blend_all(windows, 1, lambda row, col: values[row, col], order=lambda cols: reversed(list(cols)))
    np.testing.assert_allclose(forth, back, atol=1e-6)


def test_blend_memory_does_not_grow_with_the_height():
    def num_bytes(height: int) -> int:
        blend = Blend(plan_sliding_windows(height, 5000), 2)
        return sum(value.nbytes for value in vars(blend).values() if isinstance(value, np.ndarray))

    low, high = (plan_sliding_windows(height, 5000).size_rows for height in (10_980, 109_800))
    assert num_bytes(109_800) * low == num_bytes(10_980) * high
    assert num_bytes(109_800) <= 2 * 704 * 5000 * 4


def test_finished_rows_are_not_changed_by_later_windows():
    windows = plan_sliding_windows(150, 32, size=96, overlap=32)
    blend = Blend(windows, 1)
    blend.add(0, 0, np.ones((1, 96, 32), np.float32))
    _, values = blend.finish_row(0)
    copied = values.copy()
    blend.add(1, 0, np.full((1, 96, 32), 9.0, np.float32))
    np.testing.assert_array_equal(values, copied)


def test_adding_a_window_twice_is_an_error():
    blend = Blend(plan_sliding_windows(32, 140, size=96, overlap=32), 1)
    blend.add(0, 1, np.zeros((1, 32, 96), np.float32))
    with pytest.raises(AssertionError, match=r"window \(0, 1\) was already added"):
        blend.add(0, 1, np.zeros((1, 32, 96), np.float32))


def test_finishing_an_incomplete_row_is_an_error():
    blend = Blend(plan_sliding_windows(32, 140, size=96, overlap=32), 1)
    blend.add(0, 1, np.zeros((1, 32, 96), np.float32))
    with pytest.raises(AssertionError, match=r"missing the windows of columns \[0\]"):
        blend.finish_row(0)


@given(height=small_lengths, width=small_lengths, size=small_sizes, max_px=st.integers(1, 400))
def test_blocks_of_columns_blend_to_the_bits_of_the_whole_raster(
    height: int, width: int, size: tuple[int, int], max_px: int
):
    windows = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    shape = len(windows.rows), len(windows.cols), 1, windows.size_rows, windows.size_cols
    values = np.random.default_rng(height * 1000 + width).random(shape, dtype=np.float32)
    whole, _ = blend_all(windows, 1, lambda row, col: values[row, col])
    joined, right = [], 0
    for block in windows.split_columns(max_px):
        assert block.left + block.final.start == right  # each column is final in one block
        right = block.left + block.final.stop
        first = windows.cols.index(block.left)
        blended, _ = blend_all(block.windows, 1, lambda row, col: values[row, first + col])  # noqa: B023
        joined.append(blended[:, :, block.final])
    np.testing.assert_array_equal(np.concatenate(joined, axis=2), whole)


def test_a_wide_raster_is_split_into_blocks_that_share_a_column_of_windows():
    windows = plan_sliding_windows(1000, 100_000)
    blocks = list(windows.split_columns(16_384))
    assert max(block.windows.width for block in blocks) <= 16_384
    assert [block.windows.cols[0] for block in blocks] == [0] * len(blocks)
    assert sum(len(block.windows.cols) for block in blocks) == len(windows.cols) + len(blocks) - 1
    assert len(list(windows.split_columns(100_000))) == 1
