"""Copies of a picture, found by what it looks like."""

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
"""A thumbnail has this many rows and columns whatever the size of its tile."""

LEAST_CORRELATION = 0.9
"""Tiles whose thumbnails' details correlate at least this much are of one picture.

Measured on twelve real fires of about 225 pixels a side: a copy with 8 bits, a forgotten offset of 0.1, a gain of 0.5
to 2, noise of 0.02 or half the size keeps 0.988 or more, one that is cut a pixel or two elsewhere 0.943; two different
fires reach 0.27, and two different quarters of fires 0.38.
"""

LEAST_CONTRAST = 5.0
"""Thumbnails with less detail (root mean square, reflectance x 10000) are noise: open water, a closed cloud deck."""

_LEAST_KNOWN = CELLS * CELLS // 4

_UNKNOWN = -1

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
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


def fingerprint_image(
    image: NDArray[np.uint16], unknown: NDArray[np.bool_] | None = None, mask: NDArray[np.uint8] | None = None
) -> Fingerprint:
    """Takes down what a tile looks like.

    Args:
        image: Reflectance x 10000, `(H, W, C)`.
        unknown: Pixels without a measurement, `(H, W)`; none if left out.
        mask: Delineation `(H, W)`: 0 unburned, 255 unknown, anything else burned.
    """
    known = None
    if unknown is not None and unknown.any():
        image = image.copy()
        image[unknown] = 0  # what hides under unknown pixels is no measurement
        known = ~unknown
    if known is not None and not known.any():
        return Fingerprint(digest="")
    digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).data)
    if known is not None:
        digest.update(np.packbits(known).data)
    if min(image.shape[:2]) < CELLS:
        return Fingerprint(digest=digest.hexdigest())
    sizes = _cell_sums(np.ones(image.shape[:2], np.uint8) if known is None else known.view(np.uint8))
    sums = _cell_sums(image).sum(axis=-1) / image.shape[-1]
    cells = np.where(sizes > 0, np.rint(sums / np.maximum(sizes, 1)), _UNKNOWN).astype(np.int16)
    burned = b"" if mask is None else _burned_cells(mask).tobytes()
    return Fingerprint(digest=digest.hexdigest(), cells=cells.tobytes(), burned=burned)


def find_copies(looks: Sequence[Fingerprint | None], groups: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
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


def find_near_duplicates(looks: Sequence[Fingerprint | None], groups: NDArray[np.intp]) -> list[tuple[int, int, float]]:
    r"""Pairs of tiles of two groups whose thumbnails are of one picture, with their correlation.

    What is compared is detail, each cell less the mean of the known ones among it and its neighbours, brought to
    length 1: :math:`r = t_a \cdot t_b` does not see a gain, an offset, a change of format or of size, nor what
    different ground has in common, such as land to the left and sea to the right. A copy that was turned,
    mirrored or cut elsewhere is not found: its footprint overlaps.

    Args:
        looks: One a tile; None where nobody looked.
        groups: What a copy must not cross, one number a tile.

    Returns:
        Position, higher position, correlation, for correlations of at least 0.9.
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


def have_similar_masks(one: Fingerprint | None, other: Fingerprint | None) -> bool | None:
    """Whether the burned ground of two tiles is alike: shares of a cell differ by 1 % on average at most.

    Returns:
        None if one of them has no mask.
    """
    if one is None or other is None or not one.burned or not other.burned:
        return None
    shares = [np.frombuffer(look.burned, np.uint8).astype(np.int16) for look in (one, other)]
    return bool(np.abs(shares[0] - shares[1]).mean() <= 2.0)


def _vectors(looks: Sequence[Fingerprint | None]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Details that say something, as rows of length 1, with the positions of their tiles."""
    taken = [(place, look.cells) for place, look in enumerate(looks) if look is not None and look.cells]
    places = np.array([place for place, _ in taken], np.intp)
    cells = np.frombuffer(b"".join(cells for _, cells in taken), np.int16).reshape(-1, CELLS, CELLS)
    known = (cells != _UNKNOWN).astype(np.float32)
    values = cells * known
    detail = known * (values - _around(values) / np.maximum(_around(known), 1))
    detail = detail.reshape(-1, CELLS * CELLS)
    counts, lengths = known.sum(axis=(1, 2)), np.linalg.norm(detail, axis=1)
    telling = (counts >= _LEAST_KNOWN) & (lengths >= LEAST_CONTRAST * np.sqrt(counts))
    return places[telling], detail[telling] / lengths[telling, None]


def _around(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over each cell and its neighbours."""
    for axis in (1, 2):
        edge = np.zeros_like(cells.take([0], axis))
        before = np.concatenate([edge, cells.take(range(CELLS - 1), axis)], axis)
        after = np.concatenate([cells.take(range(1, CELLS), axis), edge], axis)
        cells = before + cells + after
    return cells


def _burned_cells(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    labelled = mask != IGNORE_INDEX
    burned = _cell_sums((labelled & (mask > 0)).view(np.uint8))
    return np.rint(200 * burned / np.maximum(_cell_sums(labelled.view(np.uint8)), 1)).astype(np.uint8)


def _cell_sums(values: NDArray) -> NDArray[np.uint64]:
    """Sums over the cells of the first two axes."""
    rows, columns = (np.arange(CELLS + 1) * size // CELLS for size in values.shape[:2])
    # Block by block: reduceat along the rows would take eight times as long.
    bands = [values[start:end].sum(axis=0, dtype=np.uint32) for start, end in pairwise(rows)]
    return np.add.reduceat(np.stack(bands), columns[:-1], axis=1, dtype=np.uint64)
