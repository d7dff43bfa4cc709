"""Copies of a picture, found by what it looks like."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fireseg.task import IGNORE_INDEX

CELLS = 16
"""A thumbnail has this many rows and columns whatever the size of its tile."""

LEAST_CORRELATION = 0.99
"""Thumbnails at least this alike are of one picture.

Measured on twelve real fires: a copy saved with 8 bits, darkened by a forgotten offset, brightened by 20 %, shifted by
a pixel or halved in size keeps 0.992 or more; pictures of two different fires reach 0.65 at most.
"""

LEAST_CONTRAST = 30.0
"""Thumbnails flatter than this (root mean square, reflectance x 10000) are noise: open water, a closed cloud deck."""

_LEAST_KNOWN = CELLS * CELLS // 4
_UNKNOWN = -1
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is kept of a tile's pixels: enough to know a copy of it again.

    Args:
        digest: SHA-256 of all pixels and of which are unknown; empty if all are unknown.
        cells: 16 x 16 mean brightnesses, int16, reflectance x 10000; -1 where nothing is known. Empty for a
            tile under 16 pixels.
        burned: 16 x 16 burned shares in 200ths, uint8; empty without a mask.
    """

    digest: str
    cells: bytes = b""
    burned: bytes = b""


def look_at(
    image: NDArray[np.uint16], unknown: NDArray[np.bool_] | None = None, mask: NDArray[np.uint8] | None = None
) -> Look:
    """Takes down what a tile looks like.

    Args:
        image: Reflectance x 10000, `(H, W, C)`.
        unknown: Pixels without a measurement, `(H, W)`; none if left out.
        mask: Delineation `(H, W)`: 0 unburned, 255 unknown, anything else burned.
    """
    known = None
    if unknown is not None and unknown.any():
        image = np.where(unknown[..., None], np.uint16(0), image)  # what hides under unknown pixels is no measurement
        known = ~unknown
    if known is not None and not known.any():
        return Look(digest="")
    digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).data)
    if known is not None:
        digest.update(np.packbits(known).data)
    if min(image.shape[:2]) < CELLS:
        return Look(digest=digest.hexdigest())
    sizes = _cell_sums(np.ones(image.shape[:2], np.uint8) if known is None else known.view(np.uint8))
    sums = _cell_sums(image).sum(axis=-1) / image.shape[-1]
    cells = np.where(sizes > 0, np.rint(sums / np.maximum(sizes, 1)), _UNKNOWN).astype(np.int16)
    burned = b"" if mask is None else _burned_cells(mask).tobytes()
    return Look(digest=digest.hexdigest(), cells=cells.tobytes(), burned=burned)


def find_copies(looks: Sequence[Look | None], groups: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Pairs of tiles of two groups with exactly the same pixels, the lower position first.

    Args:
        looks: One a tile; None where nobody looked.
        groups: What a copy must not cross, one number a tile.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for place, look in enumerate(looks):
        if look is not None and look.digest:
            alike[look.digest].append(place)
    for places in alike.values():
        yield from ((one, other) for one, other in combinations(places, 2) if groups[one] != groups[other])


def find_alike(looks: Sequence[Look | None], groups: NDArray[np.intp]) -> list[tuple[int, int, float]]:
    r"""Pairs of tiles of two groups whose thumbnails are of one picture, with their correlation.

    The thumbnails :math:`t` are brought to mean 0 and length 1 over their known cells, so that
    :math:`r = t_a \cdot t_b` does not see a gain, an offset, a change of format or of size. A copy that was
    turned, mirrored or cut elsewhere is not found: its footprint overlaps.

    Args:
        looks: One a tile; None where nobody looked.
        groups: What a copy must not cross, one number a tile.

    Returns:
        Position, higher position, correlation, for r of at least 0.99.
    """
    places, vectors = _vectors(looks)
    found = []
    for start in range(0, len(places), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        likeness = vectors[rows] @ vectors[start:].T
        first, second = np.nonzero(likeness >= LEAST_CORRELATION)
        one, other = places[start + first], places[start + second]
        wanted = (one < other) & (groups[one] != groups[other])
        close = likeness[first[wanted], second[wanted]]
        found += zip(one[wanted].tolist(), other[wanted].tolist(), close.clip(max=1.0).tolist(), strict=True)
    return found


def have_like_masks(one: Look | None, other: Look | None) -> bool | None:
    """Whether the burned ground of two tiles is alike: shares of a cell differ by 1 % on average at most.

    Returns:
        None if one of them has no mask.
    """
    if one is None or other is None or not one.burned or not other.burned:
        return None
    shares = [np.frombuffer(look.burned, np.uint8).astype(np.int16) for look in (one, other)]
    return bool(np.abs(shares[0] - shares[1]).mean() <= 2.0)


def _vectors(looks: Sequence[Look | None]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Thumbnails that say something, as rows of mean 0 and length 1, with the positions of their tiles."""
    places = np.array([place for place, look in enumerate(looks) if look is not None and look.cells], np.intp)
    if not len(places):
        return places, np.zeros((0, CELLS * CELLS), np.float32)
    cells = np.stack([np.frombuffer(look.cells, np.int16) for look in looks if look is not None and look.cells])
    known = cells != _UNKNOWN
    counts = known.sum(axis=1)
    values = np.where(known, cells, 0).astype(np.float32)
    values = np.where(known, values - values.sum(axis=1, keepdims=True) / np.maximum(counts, 1)[:, None], 0)
    lengths = np.sqrt((values**2).sum(axis=1))
    telling = (counts >= _LEAST_KNOWN) & (lengths >= LEAST_CONTRAST * np.sqrt(counts))
    return places[telling], (values[telling] / lengths[telling, None]).astype(np.float32)


def _burned_cells(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    labelled = mask != IGNORE_INDEX
    burned = _cell_sums((labelled & (mask > 0)).view(np.uint8))
    return np.rint(200 * burned / np.maximum(_cell_sums(labelled.view(np.uint8)), 1)).astype(np.uint8)


def _cell_sums(values: NDArray) -> NDArray[np.uint64]:
    """Sums over the cells of the first two axes."""
    rows, columns = (np.arange(CELLS) * size // CELLS for size in values.shape[:2])
    return np.add.reduceat(np.add.reduceat(values, rows, axis=0, dtype=np.uint64), columns, axis=1)
