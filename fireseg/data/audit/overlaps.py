"""Which footprints share ground, and how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.data.audit.footprints import Footprint
from fireseg.data.audit.ground import lay_out

_CANDIDATES_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Pairs of footprints that share ground, sorted by position.

    Args:
        first: Positions of the one, `(P,)`, each below that of the other.
        second: Positions of the other, `(P,)`.
        shared_m2: Ground that both cover, `(P,)`.
        areas_m2: Area of every footprint, `(number of footprints,)`.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    shared_m2: NDArray[np.float64]
    areas_m2: NDArray[np.float64]


def find_overlaps(footprints: Sequence[Footprint], groups: NDArray[np.intp], least_share: float) -> Overlaps:
    """Pairs of two groups that share more than a part of the smaller one's ground.

    Args:
        footprints: Less than half the earth wide each; across the antimeridian west > east.
        groups: What ground must not be shared across, one number a footprint.
        least_share: Shared ground by the area of the smaller, above which a pair counts, 0 to 1.

    Raises:
        FiresegError: If there are bounds that no ground can have.
    """
    ground = lay_out(footprints)
    num = len(footprints)
    keys, shared = [np.zeros(0, np.int64)], [np.zeros(0)]
    for one, other in _meeting(ground.boxes, groups[ground.owners]):
        least = least_share * np.minimum(ground.areas_m2[one], ground.areas_m2[other])
        area = ground.shared_m2(one, other, least)
        kept = area > least
        places = np.sort(ground.owners[np.stack([one[kept], other[kept]])], axis=0)
        keys.append(places[0] * num + places[1])
        shared.append(area[kept])
    # Two tiles across the antimeridian meet on either side of the map: once is enough.
    pairs, once = np.unique(np.concatenate(keys), return_index=True)
    first, second = np.divmod(pairs, max(num, 1))
    return Overlaps(first=first, second=second, shared_m2=np.concatenate(shared)[once], areas_m2=ground.areas_m2[:num])


def _meeting(boxes: NDArray[np.float64], groups: NDArray[np.intp]) -> Iterator[tuple[NDArray, NDArray]]:
    """Positions of boxes of two groups that share more than an edge, about a million candidates at a time.

    A sweep along the axis that tells the boxes apart better: n log n, plus the pairs that meet on that axis.
    """
    sweeps = []
    for axis in (0, 1):
        order = np.argsort(boxes[:, axis], kind="stable")
        ends = np.searchsorted(boxes[order, axis], boxes[order, axis + 2])
        sweeps.append((order, np.maximum(ends - np.arange(len(order)) - 1, 0), 1 - axis))
    order, counts, across = min(sweeps, key=lambda sweep: int(sweep[1].sum()))
    low, high, groups = boxes[order, across], boxes[order, across + 2], groups[order]
    ends = np.concatenate([[0], np.cumsum(counts)])
    start = 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + _CANDIDATES_AT_ONCE, "right")) - 1)
        first = np.repeat(np.arange(start, stop), counts[start:stop])
        second = first + 1 + np.arange(len(first)) - (ends[first] - ends[start])
        meets = (low[first] < high[second]) & (low[second] < high[first]) & (groups[first] != groups[second])
        yield order[first[meets]], order[second[meets]]
        start = stop
