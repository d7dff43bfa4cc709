"""Windows cover a raster, fit it, and weigh 1 in sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import FiresegError
from fireseg.geo import Layout, Window, plan_sliding_windows

lengths = st.integers(1, 3000)
sizes = st.sampled_from([(544, 64), (256, 32), (256, 0), (128, 64), (64, 32), (640, 320), (32, 0)])


def sum_weights(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all windows on top of each other, along the rows and along the columns."""
    rows = (layout.height, layout.rows, layout.weights("rows"))
    cols = (layout.width, layout.cols, layout.weights("cols"))
    sums = []
    for length, starts, weights in (rows, cols):
        total = np.zeros(starts[-1] + weights.shape[1])
        for start, one in zip(starts, weights, strict=True):
            total[start : start + len(one)] += one
        sums.append(total[:length])
    return sums[0], sums[1]


@given(height=lengths, width=lengths, size=sizes)
def test_weights_sum_to_one_at_every_pixel(height: int, width: int, size: tuple[int, int]):
    layout = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    for total in sum_weights(layout):
        np.testing.assert_allclose(total, 1.0, atol=1e-6, rtol=0)


@given(height=lengths, width=lengths, size=sizes)
def test_windows_are_multiples_of_32_that_cover_the_raster_and_none_lies_beyond(
    height: int, width: int, size: tuple[int, int]
):
    layout = plan_sliding_windows(height, width, size=size[0], overlap=size[1])
    for length, starts, window_px in (
        (height, layout.rows, layout.size_rows),
        (width, layout.cols, layout.size_cols),
    ):
        assert window_px % 32 == 0
        assert starts[0] == 0
        assert starts[-1] + window_px >= length
        assert set(np.diff(starts)) <= {window_px - layout.overlap}
        # The last window has ground of its own, not only what its neighbour has as well.
        assert len(starts) == 1 or starts[-1] + layout.overlap < length
        assert window_px <= 1.3 * size[0] + 31


def test_at_most_1_35_times_the_pixels_are_processed_from_1024_to_10980_px():
    shares = []
    for length in range(1024, 10_981):
        layout = plan_sliding_windows(length, length)
        shares.append([len(layout.rows) * layout.size_rows / length, len(layout.cols) * layout.size_cols / length])
    # One axis does not depend on the other, so that the worst of each together is the worst of all rectangles.
    assert np.prod(np.max(shares, axis=0)) <= 1.35


def test_windows_are_no_higher_than_need_be_because_memory_grows_with_their_height():
    layout = plan_sliding_windows(10_980, 10_980)
    assert (len(layout.rows), len(layout.cols), layout.size_rows, layout.size_cols) == (23, 18, 544, 672)
    assert layout.num_windows == 23 * 18
    assert layout.num_pixels == 23 * 18 * 544 * 672
    assert layout.rows[:3] == (0, 480, 960)


@pytest.mark.parametrize(("length", "size"), [(1, 32), (32, 32), (33, 64), (544, 544), (600, 608), (704, 704)])
def test_a_raster_smaller_than_a_window_is_one_window_rounded_up(length: int, size: int):
    layout = plan_sliding_windows(length, length)
    assert (layout.rows, layout.cols) == ((0,), (0,))
    assert (layout.size_rows, layout.size_cols) == (size, size)
    assert (layout.weights("rows") == 1.0).all()


def test_the_outermost_eighth_of_the_overlap_weighs_nothing_and_the_rim_of_the_raster_everything():
    first, last = plan_sliding_windows(1000, 300).weights("rows")
    assert (first[:480] == 1.0).all()
    assert (first[-8:] == 0.0).all()
    assert (first[-64:-56] == 1.0).all()
    assert (last[:8] == 0.0).all()
    assert (last[56:] == 1.0).all()


def test_weights_fade_in_equal_steps():
    first, _ = plan_sliding_windows(1000, 300).weights("rows")
    np.testing.assert_allclose(np.diff(first[-56:-8]), -1 / 48, atol=1e-6)


def test_windows_come_from_left_to_right_then_from_top_to_bottom():
    layout = plan_sliding_windows(150, 140, size=96, overlap=32)
    assert list(layout.windows()) == [
        (0, 0, Window(0, 0, 96, 96)),
        (0, 1, Window(0, 64, 96, 96)),
        (1, 0, Window(64, 0, 96, 96)),
        (1, 1, Window(64, 64, 96, 96)),
    ]


def test_all_faults_of_a_plan_are_told_at_once():
    with pytest.raises(FiresegError) as raised:
        plan_sliding_windows(0, 5, size=100, overlap=33)
    raster, overlap, size = raised.value.faults
    assert raster.startswith("raster: 0 x 5 pixels")
    assert overlap.startswith("overlap: 33, but a multiple of 32")
    assert size.startswith("size: 100, but a multiple of 32 is wanted, at least twice the overlap")


def test_an_overlap_of_more_than_half_a_window_is_refused():
    with pytest.raises(FiresegError, match="size: 96"):
        plan_sliding_windows(500, 500, size=96, overlap=64)
