"""A raster as strips, read ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fireseg.errors import FiresegError
from fireseg.geo import plan_sliding_windows
from fireseg.predict.inference import read_row_blocks
from fireseg.predict.quicklook import ImageSource


def make_source(height: int, width: int) -> ImageSource:
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 10_000, (height, width, 2)).astype(np.uint16)
    return ImageSource(steps, rng.random((height, width)) < 0.1, ("B08", "B12"))


class Watched:
    """A source that notes which rows were read, and when a strip is read at all."""

    def __init__(self, source: ImageSource, *, block_rows: int = 16, broken_row: int | None = None) -> None:
        self.source, self.block_rows, self.broken_row = source, block_rows, broken_row
        self.height, self.width, self.bands = source.height, source.width, source.bands
        self.rows: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            self.rows.append((top, top + height))
        if self.broken_row is not None and top <= self.broken_row < top + height:
            raise FiresegError("scene.tif: cut short")
        return self.source.read(top, left, height, width)


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 40), (33, 20), (700, 130), (1000, 33), (1500, 70)])
def test_strips_are_the_raster_with_its_mirror_image_beyond(height: int, width: int, readers: int) -> None:
    source = make_source(height, width)
    layout = plan_sliding_windows(height, width)
    bottom, right = layout.rows[-1] + layout.size_rows, layout.cols[-1] + layout.size_cols
    whole = np.pad(source.steps, ((0, bottom - height), (0, right - width), (0, 0)), mode="reflect")
    row = -1
    for row, strip in enumerate(read_row_blocks(source, layout, readers=readers)):
        rows = slice(layout.rows[row], layout.rows[row] + layout.size_rows)
        np.testing.assert_array_equal(strip.image, whole[rows])
        np.testing.assert_array_equal(strip.unknown, source.unknown[rows])
    assert row == len(layout.rows) - 1


def test_every_row_is_read_once_and_at_the_edges_of_blocks() -> None:
    source = Watched(make_source(1500, 40), block_rows=100)
    layout = plan_sliding_windows(1500, 40)
    assert len(list(read_row_blocks(source, layout, readers=2))) == len(layout.rows) > 1
    edges = sorted(source.rows)
    assert [first for first, _ in edges] == [0, *(last for _, last in edges[:-1])]
    assert edges[-1][1] == 1500
    starts = {0, *(top + layout.size_rows for top in layout.rows)}
    assert all(first % 100 == 0 or first in starts for first, _ in edges)


def test_only_two_strips_are_in_memory() -> None:
    layout = plan_sliding_windows(3000, 40)
    seen = {strip.image.__array_interface__["data"][0] for strip in read_row_blocks(make_source(3000, 40), layout)}
    assert len(layout.rows) > 4
    assert len(seen) == 2


def test_the_next_strip_is_read_while_one_is_worked_on_and_no_further() -> None:
    source = Watched(make_source(3000, 40), block_rows=3000)
    layout = plan_sliding_windows(3000, 40)
    strips = read_row_blocks(source, layout)
    next(strips)
    for _ in range(200):
        if len(source.rows) > 1:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert len(source.rows) == 2
    strips.close()


def test_what_goes_wrong_in_a_reader_is_said() -> None:
    source = Watched(make_source(1500, 40), broken_row=1200)
    with pytest.raises(FiresegError, match="cut short"):
        list(read_row_blocks(source, plan_sliding_windows(1500, 40), readers=2))


def test_readers_end_when_nobody_asks_on() -> None:
    before = threading.active_count()
    strips = read_row_blocks(make_source(3000, 40), plan_sliding_windows(3000, 40), readers=2)
    next(strips)
    strips.close()
    assert threading.active_count() == before
