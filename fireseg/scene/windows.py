"""How overlapping windows lie over a raster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError

STEP = 32
"""Sizes and strides are multiples of this, because an encoder halves its input five times."""

WINDOW_PX = 512 + 32
OVERLAP_PX = 64

_MOST_STRETCH = 1.3
"""How much larger than asked a window may be, where that leaves less to process beyond the rim and twice."""

_LEAN_SHARE = 1.16
"""Pixels processed along an axis, by its length, that low windows may cost: its square is 1.35."""


class Window(NamedTuple):
    """A part of a raster, in pixels. It may reach beyond the bottom and the right rim."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Layout:
    """Windows of one size on a regular grid, neighbours sharing `overlap` pixels.

    Args:
        height: Rows of the raster.
        width: Columns of the raster.
        size_rows: Rows of a window, a multiple of 32.
        size_cols: Columns of a window, a multiple of 32.
        overlap: Pixels that two neighbours share, a multiple of 32, or 0.
        rows: Top of each row of windows, ascending from 0.
        cols: Left of each column of windows, ascending from 0.
    """

    height: int
    width: int
    size_rows: int
    size_cols: int
    overlap: int
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def window(self, row: int, col: int) -> Window:
        """The window at a place in the grid of windows."""
        return Window(self.rows[row], self.cols[col], self.size_rows, self.size_cols)

    def windows(self) -> Iterator[tuple[int, int, Window]]:
        """Every window with its row and column in the grid, from left to right, then from top to bottom."""
        for row in range(len(self.rows)):
            for col in range(len(self.cols)):
                yield row, col, self.window(row, col)

    @property
    def num_windows(self) -> int:
        """How many windows there are."""
        return len(self.rows) * len(self.cols)

    @property
    def num_pixels(self) -> int:
        """Pixels of all windows together: what a model has to process."""
        return self.num_windows * self.size_rows * self.size_cols

    def weights(self, axis: Literal["rows", "cols"]) -> NDArray[np.float32]:
        """How much each window counts along an axis; over all windows the weights of a pixel sum to 1.

        A window fades linearly into its neighbour. The outermost eighth of the overlap counts for nothing, because
        there a model sees least of what surrounds a pixel. At the rim of the raster nothing fades.

        Args:
            axis: `rows` for the weights from top to bottom, `cols` from left to right.

        Returns:
            `(number of windows along the axis, pixels of a window along the axis)`, in [0, 1]. The weight of a pixel
            in a window is the product of its two.
        """
        return self._row_weights if axis == "rows" else self._col_weights

    @cached_property
    def _row_weights(self) -> NDArray[np.float32]:
        return _fade(len(self.rows), self.size_rows, self.overlap)

    @cached_property
    def _col_weights(self) -> NDArray[np.float32]:
        return _fade(len(self.cols), self.size_cols, self.overlap)


def plan_windows(height: int, width: int, *, size: int = WINDOW_PX, overlap: int = OVERLAP_PX) -> Layout:
    """Lays windows over a raster so that as little as can be is processed twice or beyond the rim.

    Along each axis the windows have one size, fitted to the raster: at most 1.3 times as large as asked, smaller where
    that processes less; and no higher than need be, because memory grows with their height. A raster
    smaller than a window is one window, rounded up to a multiple of 32.

    Args:
        height: Rows of the raster, at least 1.
        width: Columns of the raster, at least 1.
        size: Rows and columns of a window, about; a multiple of 32, at least twice the overlap.
        overlap: Pixels that neighbours share, a multiple of 32, or 0.

    Returns:
        The layout. With the defaults it has at most 1.35 times the pixels of a raster of 1024 to 10,980 px a side.

    Raises:
        FiresegError: If the raster has no pixel, or size and overlap do not fit together.

    Example:
        >>> layout = plan_windows(1000, 300)
        >>> layout.rows, layout.cols, layout.size_rows, layout.size_cols
        ((0, 480), (0,), 544, 320)
    """
    _check_plan(height, width, size, overlap)
    rows, size_rows = _plan_axis(height, size, overlap, is_lean=True)
    cols, size_cols = _plan_axis(width, size, overlap)
    return Layout(height, width, size_rows, size_cols, overlap, rows, cols)


def _check_plan(height: int, width: int, size: int, overlap: int) -> None:
    faults = []
    if height < 1 or width < 1:
        faults.append(f"raster: {height} x {width} pixels, but at least one is wanted; is it the right file?")
    if overlap < 0 or overlap % STEP:
        faults.append(f"overlap: {overlap}, but a multiple of {STEP} is wanted, or 0; take {OVERLAP_PX}")
    if size < max(STEP, 2 * overlap) or size % STEP:
        faults.append(
            f"size: {size}, but a multiple of {STEP} is wanted, at least twice the overlap of {overlap}; "
            f"take {WINDOW_PX}"
        )
    if faults:
        raise FiresegError(*faults)


def _plan_axis(length: int, size: int, overlap: int, *, is_lean: bool = False) -> tuple[tuple[int, ...], int]:
    """Tops or lefts, and the size: of all strides the one with the fewest pixels, of equals the smallest.

    Lean is the smallest, from the one asked for on, that stays within `_LEAN_SHARE` of the length, where there is one:
    memory grows with the height of a window.
    """
    most = int(size * _MOST_STRETCH)
    if length <= most:
        return (0,), _round_up(length)
    strides = range(max(overlap, STEP), most - overlap + 1, STEP)
    plans = [(num * (stride + overlap), stride) for stride in strides for num in [-(-(length - overlap) // stride)]]
    pixels, stride = min(plans)
    if is_lean:
        low = (plan for plan in plans if plan[1] + overlap >= size and plan[0] <= _LEAN_SHARE * length)
        pixels, stride = next(low, (pixels, stride))
    return tuple(range(0, pixels // (stride + overlap) * stride, stride)), stride + overlap


def _round_up(length: int) -> int:
    return -(-length // STEP) * STEP


def _fade(num: int, size: int, overlap: int) -> NDArray[np.float32]:
    weights = np.ones((num, size))
    if num > 1 and overlap:
        unused = overlap // 8
        rise = np.clip((np.arange(overlap) + 0.5 - unused) / (overlap - 2 * unused), 0.0, 1.0)
        weights[1:, :overlap] = rise
        weights[:-1, size - overlap :] = 1.0 - rise
    return weights.astype(np.float32)
