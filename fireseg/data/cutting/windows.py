"""Where the windows of a tile lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import SettingError


class Window(NamedTuple):
    """A square of a tile.

    Attributes:
        row: First row.
        col: First column.
    """

    row: int
    col: int


def lay_windows(height: int, width: int, *, size: int, stride: int) -> list[Window]:
    """Covers a tile with windows, row by row.

    Every pixel lies in one at least: the last window of a row or column is shifted inwards to end with
    the tile. Where the tile is smaller than a window there is one, which reaches beyond it.

    Args:
        height: Rows of the tile.
        width: Columns of the tile.
        size: Side of a window.
        stride: Pixels from one to the next, 1 to `size`.

    Raises:
        SettingError: If windows of this stride would leave gaps.

    Example:
        >>> lay_windows(4, 10, size=4, stride=4)
        [Window(row=0, col=0), Window(row=0, col=4), Window(row=0, col=6)]
    """
    if size < 1:
        raise SettingError(f"size: {size}, but a window is 1 pixel wide at least")
    if not 1 <= stride <= size:
        raise SettingError(
            f"stride: {stride}, but 1 to the size of a window ({size}) leaves no gaps; choose among these"
        )
    return [Window(row, col) for row in _starts(height, size, stride) for col in _starts(width, size, stride)]


def mark_repeats(windows: Sequence[Window], *, size: int) -> list[NDArray[np.bool_]]:
    """What each window shows that one before it has shown already.

    Where these pixels are ignored, every pixel of the tile counts exactly once over all windows.

    Args:
        windows: All windows of a tile, as `lay_windows` gives them.
        size: Side of a window.

    Returns:
        One `(size, size)` mask a window, True where the pixel came before.
    """
    rows, cols = ({window[axis] for window in windows} for axis in (0, 1))
    seen_rows, seen_cols = _mark_seen(rows, size), _mark_seen(cols, size)
    return [seen_rows[window.row][:, None] | seen_cols[window.col][None, :] for window in windows]


def cut(array: NDArray[Any], window: Window, size: int, fill: float) -> NDArray[Any]:
    """The pixels of a window, in an array of their own.

    Args:
        array: `(H, W)` or `(H, W, C)`.
        window: Where.
        size: Side of the window.
        fill: Value of what lies beyond the tile.

    Returns:
        `(size, size)` or `(size, size, C)`, of the same type.
    """
    part = array[window.row : window.row + size, window.col : window.col + size]
    if part.shape[:2] == (size, size):
        return part.copy()
    padded = np.full((size, size, *array.shape[2:]), fill, array.dtype)
    padded[: part.shape[0], : part.shape[1]] = part
    return padded


def get_bounds(
    transform: tuple[float, float, float, float, float, float], window: Window, size: int
) -> tuple[float, float, float, float]:
    """Smallest x, smallest y, largest x and largest y of a window, in the units of the tile's reference system.

    Args:
        transform: Of the tile: x = a col + b row + c, y = d col + e row + f.
        window: Where.
        size: Side of the window.

    Example:
        >>> get_bounds((10.0, 0.0, 500.0, 0.0, -10.0, 900.0), Window(1, 2), 4)
        (520.0, 850.0, 560.0, 890.0)
    """
    a, b, c, d, e, f = transform
    corners = [(window.row + down, window.col + right) for down in (0, size) for right in (0, size)]
    xs = [a * col + b * row + c for row, col in corners]
    ys = [d * col + e * row + f for row, col in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _starts(length: int, size: int, stride: int) -> list[int]:
    last = max(length - size, 0)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def _mark_seen(starts: set[int], size: int) -> dict[int, NDArray[np.bool_]]:
    """For each start along one side, which of its pixels the start before reaches."""
    seen: dict[int, NDArray[np.bool_]] = {}
    end = 0
    for start in sorted(starts):
        seen[start] = np.arange(start, start + size) < end
        end = start + size
    return seen
