"""A raster as strips of its full width, as tall as a window, the next one read while one is worked on."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise, product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fireseg.scene.windows import Layout

_PIECE_ROWS, _PIECE_COLS = 64, 1024
"""What a thread reads at a time, about: whole blocks, of which the widest in use have 1024 columns."""


class Source(Protocol):
    """Reflectance by the window: a raster on disk, or an array."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the channels, in order."""
        ...

    @property
    def block_rows(self) -> int:
        """Rows that are stored together, so that one of them costs as much as all."""
        ...

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Reflectance x 10000 `(h, w, C)`, and where it is unknown `(h, w)`. Called by several threads at once."""
        ...


class Strip(NamedTuple):
    """Input of one row of windows.

    Attributes:
        image: `(size_rows, right end of the last window, C)` uint16; what is beyond the raster is mirrored.
        unknown: `(rows within the raster, W)`.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]


def read_strips(source: Source, layout: Layout, *, readers: int = 1) -> Generator[Strip]:
    """The strips of a raster, top to bottom; every row of it is read once.

    Two strips are in memory: the one that was handed out, and the next one, which threads read meanwhile.
    So a strip holds until the next one is asked for.

    Args:
        source: The raster.
        layout: Of the windows.
        readers: Threads that read.
    """
    shape = layout.size_rows, layout.cols[-1] + layout.size_cols, len(source.bands)
    beds = [(np.empty(shape, np.uint16), np.empty((shape[0], source.width), np.bool_)) for _ in layout.rows[:2]]
    strips = [_Filling(source, layout, row, *beds[row % 2]) for row in range(len(layout.rows))]
    pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
    try:
        jobs = strips[0].begin(pool, None)
        for strip, following in zip(strips, [*strips[1:], None], strict=True):
            done = strip.finish(jobs)
            jobs = following.begin(pool, strip) if following else []
            yield done
    finally:  # whoever stops half-way does not wait for what nobody will look at
        pool.shutdown(cancel_futures=True)


class _Filling:
    """One strip while it is read into its bed."""

    def __init__(
        self, source: Source, layout: Layout, row: int, image: NDArray[np.uint16], unknown: NDArray[np.bool_]
    ) -> None:
        self.source = source
        self.top = layout.rows[row]
        self.bottom = min(self.top + layout.size_rows, source.height)
        self.image, self.unknown = image, unknown

    def begin(self, pool: ThreadPoolExecutor, above: _Filling | None) -> list[Future[None]]:
        """Takes over the rows that the strip above has, too, and starts reading the others."""
        first = above.bottom if above else self.top
        if above is not None:
            kept = slice(self.top - above.top, above.bottom - above.top)
            self.image[: first - self.top] = above.image[kept]
            self.unknown[: first - self.top] = above.unknown[kept]
        if first == self.bottom:
            return []
        block_rows, width = self.source.block_rows, self.source.width
        rows = pairwise(_cut(first, self.bottom, block_rows * max(1, _PIECE_ROWS // block_rows)))
        # Blocks of a few rows are as wide as the raster: cut, each would be unpacked once a piece.
        cols = list(pairwise(_cut(0, width, _PIECE_COLS if block_rows > _PIECE_ROWS else width)))
        return [pool.submit(self._read, *piece) for piece in product(rows, cols)]

    def _read(self, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        place = slice(rows[0] - self.top, rows[1] - self.top), slice(*cols)
        image, unknown = self.source.read(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        self.image[place], self.unknown[place] = image, unknown

    def finish(self, jobs: list[Future[None]]) -> Strip:
        """Waits for the readers, and mirrors what is beyond the raster."""
        for job in jobs:
            job.result()
        height, width = self.bottom - self.top, self.source.width
        self.image[:height, width:] = self.image[:height, _mirror(width, self.image.shape[1])]
        self.image[height:] = self.image[_mirror(height, self.image.shape[0])]
        return Strip(self.image, self.unknown[:height])


def _cut(start: int, end: int, step: int) -> list[int]:
    """Edges of pieces from start to end, at the multiples of a step."""
    return [start, *range(start - start % step + step, end, step), end]


def _mirror(length: int, wanted: int) -> NDArray[np.intp]:
    """Which rows stand in for those beyond the last: back and forth, as often as it takes."""
    return np.pad(np.arange(length), (0, wanted - length), mode="reflect")[length:]
