"""Duplicate images: exact copies by SHA-256, near-duplicates by a difference hash of a thumbnail."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from fireseg.task import IGNORE_INDEX

CELLS = 16
"""Rows and columns of a thumbnail, whatever the size of the tile."""

MAX_DISTANCE = 0.25
"""Share of different hash bits up to which two tiles are near-duplicates, if all bits can be compared.

Measured on real fires of about 225 pixels a side: of twelve, a copy with 8 bits, an offset of 0.1, a gain of 0.5 or 2,
noise of 0.02 or half the size differs in at most 0.03 of the bits, one shifted by 2 pixels in 0.09, one with 20 %
scattered no-data in 0.14. Two of 25 different fires differ in at least 0.41, two different quarters of fires in 0.40,
simulated closed clouds with the same brightness gradient in 0.38. Simulated open water has too few comparable bits.
"""

MIN_CONTRAST = 5.0
"""Detail of a thumbnail (root mean square, reflectance x 10000), or step between two cells, that is more than noise.

The twelve fires have a detail of 75 to 270, simulated open water without a gradient 0.6.
"""

_UNKNOWN = -1

_NUM_BITS = 2 * CELLS * (CELLS - 1)

_ROWS_PER_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A compact description of the pixels of a tile.

    Attributes:
        digest: SHA-256 of all pixels and of the mask of unknown pixels; empty if all pixels are unknown.
        cells: Thumbnail of 16 x 16 mean brightnesses, int16, reflectance x 10000; -1 without data. Empty for a
            tile under 16 pixels.
        burned: 16 x 16 burned shares in 200ths, uint8; empty without a mask.
    """

    digest: str
    cells: bytes = b""
    burned: bytes = b""


def fingerprint_image(
    image: NDArray[np.uint16], unknown: NDArray[np.bool_] | None = None, mask: NDArray[np.uint8] | None = None
) -> Fingerprint:
    """Computes the fingerprint of a tile.

    Args:
        image: Reflectance x 10000, `(H, W, C)`.
        unknown: Pixels without data, `(H, W)`; none if omitted.
        mask: Delineation `(H, W)`: 0 unburned, 255 unknown, anything else burned.
    """
    known = None
    if unknown is not None and unknown.any():
        image = image.copy()
        image[unknown] = 0  # values of unknown pixels are arbitrary
        known = ~unknown
    if known is not None and not known.any():
        return Fingerprint(digest="")
    digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).data)
    if known is not None:
        digest.update(np.packbits(known).data)
    if min(image.shape[:2]) < CELLS:
        return Fingerprint(digest=digest.hexdigest())
    counts = _sum_cells(np.ones(image.shape[:2], np.uint8) if known is None else known.view(np.uint8))
    sums = _sum_cells(image).sum(axis=-1) / image.shape[-1]
    cells = np.where(counts > 0, np.rint(sums / np.maximum(counts, 1)), _UNKNOWN).astype(np.int16)
    burned = b"" if mask is None else _burned_shares(mask).tobytes()
    return Fingerprint(digest=digest.hexdigest(), cells=cells.tobytes(), burned=burned)


def find_copies(fingerprints: Sequence[Fingerprint | None], groups: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Finds pairs of tiles of different groups with exactly the same pixels.

    Args:
        fingerprints: One per tile; None if its pixels were not read.
        groups: Number of the group (such as a split) of each tile.

    Yields:
        Indices of both tiles, the lower first.
    """
    indices_by_digest: dict[str, list[int]] = defaultdict(list)
    for index, fingerprint in enumerate(fingerprints):
        if fingerprint is not None and fingerprint.digest:
            indices_by_digest[fingerprint.digest].append(index)
    for indices in indices_by_digest.values():
        yield from ((one, other) for one, other in combinations(indices, 2) if groups[one] != groups[other])


def find_near_duplicates(
    fingerprints: Sequence[Fingerprint | None], groups: NDArray[np.intp]
) -> list[tuple[int, int, float]]:
    r"""Finds pairs of tiles of different groups that show the same image.

    The hash is a difference hash (dHash): the signs of the differences between horizontal and vertical neighbours
    of the thumbnail, 480 bits, after the mean of the 3 x 3 cells around it was subtracted from each cell. It does
    not change with gain, offset, data type or size, nor with a brightness gradient across the tile. Bits next to
    cells without data, and of steps too small to be more than noise, are not compared. With fewer bits n the distance
    must be smaller, :math:`d \le 0.5 - (0.5 - 0.25) \sqrt{480 / n}`, so that different images are as unlikely to
    match. Rotated, mirrored or shifted copies are not found by their pixels, but by their overlapping footprints.

    Args:
        fingerprints: One per tile; None if its pixels were not read.
        groups: Number of the group (such as a split) of each tile.

    Returns:
        Lower index, higher index, and share of different hash bits.
    """
    indices, bits = _hash_bits(fingerprints)
    comparable = np.abs(bits)
    pairs = []
    for start in range(0, len(indices), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        counts = np.maximum(comparable[rows] @ comparable[start:].T, 1)
        distances = 0.5 - bits[rows] @ bits[start:].T / (2 * counts)
        limits = 0.5 - (0.5 - MAX_DISTANCE) * np.sqrt(_NUM_BITS / counts)
        first, second = np.nonzero(distances <= limits)
        one, other = indices[start + first], indices[start + second]
        is_pair = (one < other) & (groups[one] != groups[other])
        close = distances[first[is_pair], second[is_pair]]
        pairs += zip(one[is_pair].tolist(), other[is_pair].tolist(), close.tolist(), strict=True)
    return pairs


def have_similar_masks(one: Fingerprint | None, other: Fingerprint | None) -> bool | None:
    """Returns True if the burned shares of the cells of two tiles differ by at most 1 % on average.

    Returns:
        None if one of them has no mask.
    """
    if one is None or other is None or not one.burned or not other.burned:
        return None
    shares = [np.frombuffer(fingerprint.burned, np.uint8).astype(np.int16) for fingerprint in (one, other)]
    return bool(np.abs(shares[0] - shares[1]).mean() <= 2.0)


def _hash_bits(fingerprints: Sequence[Fingerprint | None]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Returns the indices of tiles with enough contrast, and their hashes: 1, -1, or 0 if not comparable."""
    thumbnails = [(index, one.cells) for index, one in enumerate(fingerprints) if one is not None and one.cells]
    indices = np.array([index for index, _ in thumbnails], np.intp)
    cells = np.frombuffer(b"".join(cells for _, cells in thumbnails), np.int16).reshape(-1, CELLS, CELLS)
    known = (cells != _UNKNOWN).astype(np.float32)
    surroundings = _sum_neighbours(cells * known) / np.maximum(_sum_neighbours(known), 1)
    detail = known * (cells - surroundings)
    contrast = np.sqrt(np.square(detail).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1))
    bits: list[NDArray[np.float32]] = []
    for axis in (1, 2):
        upper, lower = range(1, CELLS), range(CELLS - 1)
        steps = detail.take(upper, axis) - detail.take(lower, axis)
        is_comparable = (np.abs(steps) >= MIN_CONTRAST) * known.take(upper, axis) * known.take(lower, axis)
        bits.append((np.sign(steps) * is_comparable).reshape(len(cells), _NUM_BITS // 2))
    is_clear = contrast >= MIN_CONTRAST
    return indices[is_clear], np.concatenate(bits, axis=1)[is_clear]


def _sum_neighbours(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums each cell and its eight neighbours; `(N, 16, 16)`."""
    padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    columns: NDArray[np.float32] = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    return columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]


def _burned_shares(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    labelled = mask != IGNORE_INDEX
    burned = _sum_cells((labelled & (mask > 0)).view(np.uint8))
    return np.rint(200 * burned / np.maximum(_sum_cells(labelled.view(np.uint8)), 1)).astype(np.uint8)


def _sum_cells(values: NDArray) -> NDArray[np.uint64]:
    """Sums the pixels of each cell; the first two axes become `(16, 16)`."""
    rows, columns = (np.arange(CELLS + 1) * size // CELLS for size in values.shape[:2])
    # Block by block: np.add.reduceat along the rows takes eight times as long.
    strips = [values[start:end].sum(axis=0, dtype=np.uint32) for start, end in pairwise(rows)]
    return np.add.reduceat(np.stack(strips), columns[:-1], axis=1, dtype=np.uint64)
