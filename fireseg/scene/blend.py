"""Windows blended into rows of one raster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fireseg.scene.windows import Layout


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
