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


def plan_sliding_windows(height: int, width: int, *, size: int = WINDOW_PX, overlap: int = OVERLAP_PX) -> Layout:
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


class Blend:
    """Sums weighted windows, one row of windows after the other; its memory grows with the raster's width alone.

    Windows of a row come in any order, each once; rows come from top to bottom, and a row is finished before a window
    of the next one is added.

    Args:
        layout: Where the windows lie.
        channels: Channels of what is blended.

    Example:
        >>> layout = plan_windows(height, width)  # doctest: +SKIP
        >>> blend = Blend(layout, 1)
        >>> for row in range(len(layout.rows)):
        ...     for col in range(len(layout.cols)):
        ...         blend.add(row, col, predict(layout.window(row, col)))
        ...     top, values = blend.finish_row(row)
    """

    def __init__(self, layout: Layout, channels: int) -> None:
        self._layout = layout
        self._sums = np.zeros((channels, layout.size_rows, layout.width), np.float32)
        self._row = 0
        self._missing = set(range(len(layout.cols)))

    def add(self, row: int, col: int, values: NDArray[np.floating]) -> None:
        """Adds a window.

        Args:
            row: Its row in the grid of windows: the one that is not finished yet.
            col: Its column in the grid of windows.
            values: `(channels, size_rows, size_cols)`, finite; what lies beyond the rim is left out.
        """
        layout = self._layout
        assert row == self._row, f"window of row {row}, but row {self._row} is not finished"
        assert col in self._missing, f"window ({row}, {col}) was added before"
        assert values.shape == (len(self._sums), layout.size_rows, layout.size_cols), values.shape
        self._missing.remove(col)
        left = layout.cols[col]
        inside = min(layout.size_cols, layout.width - left)
        weights = layout.weights("rows")[row][:, None] * layout.weights("cols")[col][None, :inside]
        self._sums[:, :, left : left + inside] += values[:, :, :inside] * weights

    def finish_row(self, row: int) -> tuple[int, NDArray[np.float32]]:
        """Hands out the rows to which no later window will add.

        Args:
            row: The row of windows whose windows were all added.

        Returns:
            The first row of the raster that is final, and the values of the final rows `(channels, rows, width)`, an
            array of its own. Over all rows of windows every row of the raster comes exactly once.
        """
        layout = self._layout
        assert row == self._row, f"row {row} is to be finished, but it is the turn of row {self._row}"
        assert not self._missing, f"row {row} lacks the windows of the columns {sorted(self._missing)}"
        top = layout.rows[row]
        is_last = row + 1 == len(layout.rows)
        final = (layout.height if is_last else layout.rows[row + 1]) - top
        rows = self._sums[:, :final].copy()
        if not is_last:
            self._sums[:, : layout.overlap] = self._sums[:, final:]
            self._sums[:, layout.overlap :] = 0.0
            self._missing = set(range(len(layout.cols)))
        self._row += 1
        return top, rows


Block = tuple[int, int, int, int]
"""First row, first column, rows, columns."""

BlockShape = tuple[int, int]
"""Rows and columns that a raster stores together."""

_ROWS, _MAX_BLOCK_ROWS = 256, 1024

_MAX_BYTES = 32 * 2**20

_ALL_PX = 1024 * 1024

_NUM_SPREAD = 8

_SPREAD_PX = 32


def split_into_blocks(window: Block, block: BlockShape, pixel_bytes: int) -> Iterator[Block]:
    """Cuts a window into pieces of some 32 MB, so that no block is unpacked twice.

    Args:
        window: What is wanted.
        block: How the raster is stored.
        pixel_bytes: Of one pixel of all channels wanted.

    Yields:
        Pieces that cover the window, row by row.
    """
    top, left, height, width = window
    rows, cols = _fit(block, width, pixel_bytes)
    for first_row, num_rows in _split(top, height, rows):
        for first_col, num_cols in _split(left, width, cols):
            yield first_row, first_col, num_rows, num_cols


def select_sample_blocks(height: int, width: int, block: BlockShape) -> list[Block]:
    """Pieces that stand for a raster: the whole one up to a million pixels, else a few blocks here and there.

    Args:
        height: Of the raster.
        width: Of the raster.
        block: How it is stored.

    Returns:
        At most 8 x 8 pieces that do not overlap.
    """
    if height * width <= _ALL_PX:
        return [(0, 0, height, width)]
    tops, lefts = _scatter(height, block[0]), _scatter(width, block[1])
    return [(top, left, rows, cols) for top, rows in tops for left, cols in lefts]


def _fit(block: BlockShape, width: int, pixel_bytes: int) -> tuple[int, int]:
    """Rows and columns of a piece, whole blocks where they are of a size to be held."""
    block_rows, block_cols = block
    rows = block_rows * max(1, _ROWS // block_rows) if block_rows <= _MAX_BLOCK_ROWS else _ROWS
    room = _MAX_BYTES // pixel_bytes
    if rows * width <= room:
        return rows, width
    cols = min(width, max(block_cols, room // rows // block_cols * block_cols))
    if rows * cols > room:
        fewer = max(1, room // cols)
        rows = max(block_rows, fewer // block_rows * block_rows) if block_rows <= _MAX_BLOCK_ROWS else fewer
    return rows, cols


def _split(start: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """Starts and lengths, cut at the multiples of a step."""
    while length > 0:
        part = min(length, step - start % step)
        yield start, part
        start, length = start + part, length - part


def _scatter(length: int, block: int) -> list[tuple[int, int]]:
    """Starts and lengths along one axis, at the edges of blocks, evenly from one end to the other."""
    if block >= length:  # lines as long as the raster is wide
        return [(0, length)]
    part = block * -(-_SPREAD_PX // block)
    num_parts = -(-length // part)
    chosen = {round(place * (num_parts - 1) / (_NUM_SPREAD - 1)) * part for place in range(_NUM_SPREAD)}
    return [(start, min(part, length - start)) for start in sorted(chosen)]
