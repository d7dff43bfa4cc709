"""Sliding windows over rasters, and blending of overlapping windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError

STEP = 32
"""Window sizes and strides are multiples of this, because an encoder halves its input five times."""

WINDOW_PX = 512 + 32

OVERLAP_PX = 64

MAX_COLS = 16_384
"""Columns of a raster that are processed at a time, so that memory does not grow with its width. A product has 10,980.

Each further block of columns costs one column of windows: 4 % of the time of a model."""

_MAX_STRETCH = 1.3
"""Largest window size relative to the requested one."""

_MAX_ROW_SHARE = 1.16
"""Rows of all windows relative to the height of the raster that the choice of a low window may cost.

Its square is 1.35, the promised bound for both axes."""


class Window(NamedTuple):
    """A window of a raster in pixels; a sliding window may extend beyond the bottom and right edges.

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.
    """

    top: int
    left: int
    height: int
    width: int

    def to_rasterio(self) -> Any:
        """Converts the window to a `rasterio.windows.Window`."""
        from rasterio import windows

        return windows.Window(self.left, self.top, self.width, self.height)  # pyright: ignore[reportCallIssue]


def split_window(window: Window, rows: int, cols: int) -> Iterator[Window]:
    """Splits a window at multiples of a number of rows and columns, and yields the parts row by row."""
    for top, height in split_axis(window.top, window.height, rows):
        for left, width in split_axis(window.left, window.width, cols):
            yield Window(top, left, height, width)


def split_axis(start: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """Yields starts and lengths of parts, split at the multiples of a step."""
    while length > 0:
        part = min(length, step - start % step)
        yield start, part
        start, length = start + part, length - part


@dataclass(frozen=True)
class SlidingWindows:
    """Overlapping windows of one size on a regular grid over a raster.

    Attributes:
        height: Height of the raster in pixels.
        width: Width of the raster in pixels.
        size_rows: Height of a window, a multiple of 32.
        size_cols: Width of a window, a multiple of 32.
        overlap: Pixels that neighbouring windows share, a multiple of 32, or 0.
        rows: First raster row of each row of windows, ascending from 0.
        cols: First raster column of each column of windows, ascending from 0.
    """

    height: int
    width: int
    size_rows: int
    size_cols: int
    overlap: int
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def window(self, row: int, col: int) -> Window:
        """Returns the window in a row and column of the window grid."""
        return Window(self.rows[row], self.cols[col], self.size_rows, self.size_cols)

    def windows(self) -> Iterator[tuple[int, int, Window]]:
        """Yields the row, the column and the window for all windows, row by row."""
        for row in range(len(self.rows)):
            for col in range(len(self.cols)):
                yield row, col, self.window(row, col)

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.cols)

    @property
    def num_pixels(self) -> int:
        """Number of pixels in all windows together, which is what a model processes."""
        return self.num_windows * self.size_rows * self.size_cols

    def split_columns(self, max_px: int) -> Iterator[ColumnBlock]:
        """Splits the raster into blocks of columns; the blended values at any pixel are those of the whole raster.

        Neighbouring blocks have one column of windows in common, which is therefore processed twice: each value is
        taken from the block that has all windows of its pixel.

        Args:
            max_px: Width up to which a raster is one block; wider ones are split into blocks of at most this width,
                or of two windows if these are wider.

        Yields:
            Blocks from left to right.
        """
        stride = self.size_cols - self.overlap
        num_cols = len(self.cols) if self.width <= max_px else max(2, (max_px - self.overlap) // stride)
        first = 0
        while True:
            cols = self.cols[first : first + num_cols]
            last, left = first + len(cols) - 1, cols[0]
            is_last = last + 1 == len(self.cols)
            right = self.width if is_last else cols[-1] + self.size_cols
            start = self.cols[first + 1] if first else 0
            stop = self.width if is_last else self.cols[last + 1]
            yield ColumnBlock(
                left,
                slice(start - left, stop - left),
                replace(self, width=right - left, cols=tuple(col - left for col in cols)),
            )
            if is_last:
                return
            first = last

    def weights(self, axis: Literal["rows", "cols"]) -> NDArray[np.float32]:
        """Returns the blending weights along one axis; the weights of all windows sum to 1 at every pixel.

        Weights fall linearly across the overlap. They are 0 in its outer eighth, where the model sees the least
        context. They are 1 at the edges of the raster.

        Args:
            axis: `rows` for the weights from top to bottom, `cols` from left to right.

        Returns:
            `(windows along the axis, window pixels along the axis)`, in [0, 1]. The weight of a pixel is the product
            of its weights along both axes.
        """
        return self._row_weights if axis == "rows" else self._col_weights

    @cached_property
    def _row_weights(self) -> NDArray[np.float32]:
        return _blend_weights(len(self.rows), self.size_rows, self.overlap)

    @cached_property
    def _col_weights(self) -> NDArray[np.float32]:
        return _blend_weights(len(self.cols), self.size_cols, self.overlap)


class ColumnBlock(NamedTuple):
    """Some neighbouring columns of windows.

    Attributes:
        left: First raster column of the block.
        final: Columns of the block all of whose windows are in it; those of all blocks cover the raster once.
        windows: Windows of the block, with columns counted from `left`.
    """

    left: int
    final: slice
    windows: SlidingWindows


def plan_sliding_windows(
    height: int, width: int, *, size: int = WINDOW_PX, overlap: int = OVERLAP_PX
) -> SlidingWindows:
    """Chooses window sizes that cover a raster with few pixels processed twice or beyond the edges.

    Along each axis the window size is fitted to the raster: at most 1.3 times the requested size, and smaller if that
    processes fewer pixels. Among similar plans the lowest window is chosen, because memory grows with its height. A
    raster smaller than a window gets one window, rounded up to a multiple of 32.

    Args:
        height: Height of the raster in pixels, at least 1.
        width: Width of the raster in pixels, at least 1.
        size: Approximate window size in pixels; a multiple of 32, at least twice the overlap.
        overlap: Pixels that neighbouring windows share, a multiple of 32, or 0.

    Returns:
        The windows. With the defaults they hold at most 1.35 times the pixels of a raster of 1024 to 10,980 px a side.

    Raises:
        FiresegError: If the raster has no pixel, or size or overlap are invalid.

    Example:
        >>> windows = plan_sliding_windows(1000, 300)
        >>> windows.rows, windows.cols, windows.size_rows, windows.size_cols
        ((0, 480), (0,), 544, 320)
    """
    _check_plan(height, width, size, overlap)
    rows, size_rows = _plan_axis(height, size, overlap, prefer_small=True)
    cols, size_cols = _plan_axis(width, size, overlap)
    return SlidingWindows(height, width, size_rows, size_cols, overlap, rows, cols)


def _check_plan(height: int, width: int, size: int, overlap: int) -> None:
    faults = []
    if height < 1 or width < 1:
        faults.append(f"raster: {height} x {width} pixels, but at least one is required; check the file")
    if overlap < 0 or overlap % STEP:
        faults.append(f"overlap: {overlap}, but it must be 0 or a multiple of {STEP}; try {OVERLAP_PX}")
    if size < max(STEP, 2 * overlap) or size % STEP:
        faults.append(
            f"size: {size}, but it must be a multiple of {STEP} and at least twice the overlap of {overlap}; "
            f"try {WINDOW_PX}"
        )
    if faults:
        raise FiresegError(*faults)


def _plan_axis(length: int, size: int, overlap: int, *, prefer_small: bool = False) -> tuple[tuple[int, ...], int]:
    """Returns the window starts and the window size along one axis.

    The stride with the fewest pixels is chosen, and the smallest of equal ones. `prefer_small` chooses the smallest
    window of at least the requested size that stays within `_MAX_ROW_SHARE`, if there is one.
    """
    max_size = int(size * _MAX_STRETCH)
    if length <= max_size:
        return (0,), -(-length // STEP) * STEP
    strides = range(max(overlap, STEP), max_size - overlap + 1, STEP)
    plans = [(num * (stride + overlap), stride) for stride in strides for num in [-(-(length - overlap) // stride)]]
    num_pixels, stride = min(plans)
    if prefer_small:
        small = (plan for plan in plans if plan[1] + overlap >= size and plan[0] <= _MAX_ROW_SHARE * length)
        num_pixels, stride = next(small, (num_pixels, stride))
    return tuple(range(0, num_pixels // (stride + overlap) * stride, stride)), stride + overlap


def _blend_weights(num: int, size: int, overlap: int) -> NDArray[np.float32]:
    weights = np.ones((num, size))
    if num > 1 and overlap:
        unused = overlap // 8
        ramp = np.clip((np.arange(overlap) + 0.5 - unused) / (overlap - 2 * unused), 0.0, 1.0)
        weights[1:, :overlap] = ramp
        weights[:-1, size - overlap :] = 1.0 - ramp
    return weights.astype(np.float32)


class Blend:
    """Sums weighted windows one row of windows at a time; memory grows with the raster's width only.

    The windows of a row may be added in any order, each once. Rows are added from top to bottom, and a row must be
    finished before a window of the next row is added.

    Args:
        windows: Windows that will be added.
        channels: Number of channels.

    Example:
        >>> windows = plan_sliding_windows(height, width)  # doctest: +SKIP
        >>> blend = Blend(windows, 1)
        >>> for row in range(len(windows.rows)):
        ...     for col in range(len(windows.cols)):
        ...         blend.add(row, col, predict(windows.window(row, col)))
        ...     top, values = blend.finish_row(row)
    """

    def __init__(self, windows: SlidingWindows, channels: int) -> None:
        self._windows = windows
        self._sums = np.zeros((channels, windows.size_rows, windows.width), np.float32)
        self._row = 0
        self._missing = set(range(len(windows.cols)))

    def add(self, row: int, col: int, values: NDArray[np.floating]) -> None:
        """Adds a window.

        Args:
            row: Row in the window grid; the one that is not finished yet.
            col: Column in the window grid.
            values: `(channels, size_rows, size_cols)`, finite. Values beyond the edges of the raster are ignored.
        """
        windows = self._windows
        assert row == self._row, f"window of row {row}, but row {self._row} is not finished"
        assert col in self._missing, f"window ({row}, {col}) was already added"
        assert values.shape == (len(self._sums), windows.size_rows, windows.size_cols), values.shape
        self._missing.remove(col)
        left = windows.cols[col]
        inside = min(windows.size_cols, windows.width - left)
        weights = windows.weights("rows")[row][:, None] * windows.weights("cols")[col][None, :inside]
        self._sums[:, :, left : left + inside] += values[:, :, :inside] * weights

    def finish_row(self, row: int) -> tuple[int, NDArray[np.float32]]:
        """Returns the raster rows to which no later window contributes.

        Args:
            row: Row in the window grid whose windows were all added.

        Returns:
            The first of these raster rows, and a new array of the blended values `(channels, rows, width)`. Every
            raster row is returned exactly once.
        """
        windows = self._windows
        assert row == self._row, f"row {row} cannot be finished, row {self._row} is next"
        assert not self._missing, f"row {row} is missing the windows of columns {sorted(self._missing)}"
        top = windows.rows[row]
        is_last = row + 1 == len(windows.rows)
        num_final = (windows.height if is_last else windows.rows[row + 1]) - top
        rows = self._sums[:, :num_final].copy()
        if not is_last:
            self._sums[:, : windows.overlap] = self._sums[:, num_final:]
            self._sums[:, windows.overlap :] = 0.0
            self._missing = set(range(len(windows.cols)))
        self._row += 1
        return top, rows
