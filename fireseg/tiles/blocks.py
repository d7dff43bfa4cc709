"""Splits reading of rasters along their blocks, and selects blocks as a sample."""

from __future__ import annotations

from collections.abc import Iterator

from fireseg.geo.windows import Window

BlockShape = tuple[int, int]
"""Height and width in pixels of the blocks in which a raster is stored."""

_READ_ROWS, _MAX_BLOCK_ROWS = 256, 1024

_MAX_READ_BYTES = 32 * 2**20

_MAX_WHOLE_PX = 1024 * 1024

_SAMPLES_PER_AXIS = 8

_MIN_SAMPLE_PX = 32


def split_into_blocks(window: Window, block: BlockShape, pixel_bytes: int) -> Iterator[Window]:
    """Splits a window into parts of about 32 MB along block edges, so that no block is decompressed twice.

    Args:
        window: Window to split.
        block: Block shape of the raster.
        pixel_bytes: Bytes of one pixel in all channels read.

    Yields:
        Windows that cover the window, row by row.
    """
    rows, cols = _read_shape(block, window.width, pixel_bytes)
    for top, height in _split_axis(window.top, window.height, rows):
        for left, width in _split_axis(window.left, window.width, cols):
            yield Window(top, left, height, width)


def select_sample_blocks(height: int, width: int, block: BlockShape) -> list[Window]:
    """Selects windows that sample a raster: the whole raster up to a million pixels, else evenly spread blocks.

    Args:
        height: Height of the raster in pixels.
        width: Width of the raster in pixels.
        block: Block shape of the raster.

    Returns:
        At most 8 x 8 windows that do not overlap.
    """
    if height * width <= _MAX_WHOLE_PX:
        return [Window(0, 0, height, width)]
    tops, lefts = _sample_axis(height, block[0]), _sample_axis(width, block[1])
    return [Window(top, left, rows, cols) for top, rows in tops for left, cols in lefts]


def _read_shape(block: BlockShape, width: int, pixel_bytes: int) -> tuple[int, int]:
    """Returns the rows and columns to read at once: whole blocks, unless the blocks are too large."""
    block_rows, block_cols = block
    rows = block_rows * max(1, _READ_ROWS // block_rows) if block_rows <= _MAX_BLOCK_ROWS else _READ_ROWS
    max_pixels = _MAX_READ_BYTES // pixel_bytes
    if rows * width <= max_pixels:
        return rows, width
    cols = min(width, max(block_cols, max_pixels // rows // block_cols * block_cols))
    if rows * cols > max_pixels:
        fewer = max(1, max_pixels // cols)
        rows = max(block_rows, fewer // block_rows * block_rows) if block_rows <= _MAX_BLOCK_ROWS else fewer
    return rows, cols


def _split_axis(start: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """Yields starts and lengths, split at the multiples of a step."""
    while length > 0:
        part = min(length, step - start % step)
        yield start, part
        start, length = start + part, length - part


def _sample_axis(length: int, block: int) -> list[tuple[int, int]]:
    """Returns starts and lengths of evenly spread parts along one axis, aligned to blocks."""
    if block >= length:  # each row of the raster is one block
        return [(0, length)]
    part = block * -(-_MIN_SAMPLE_PX // block)
    num_parts = -(-length // part)
    starts = {round(n * (num_parts - 1) / (_SAMPLES_PER_AXIS - 1)) * part for n in range(_SAMPLES_PER_AXIS)}
    return [(start, min(part, length - start)) for start in sorted(starts)]
