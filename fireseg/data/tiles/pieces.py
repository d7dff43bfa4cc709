"""A raster in pieces that fit its blocks: all of it, or some that stand for it."""

from __future__ import annotations

from collections.abc import Iterator

Piece = tuple[int, int, int, int]
"""First row, first column, rows, columns."""

Block = tuple[int, int]
"""Rows and columns that a raster stores together."""

_ROWS, _MAX_BLOCK_ROWS = 256, 1024
_MAX_BYTES = 32 * 2**20

_ALL_PX = 1024 * 1024
_NUM_SPREAD = 8
_SPREAD_PX = 32


def cut(window: Piece, block: Block, pixel_bytes: int) -> Iterator[Piece]:
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


def spread(height: int, width: int, block: Block) -> list[Piece]:
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


def _fit(block: Block, width: int, pixel_bytes: int) -> tuple[int, int]:
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
