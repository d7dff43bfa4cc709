"""How much ground two footprints share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import atan2, pi

import numpy as np
from numpy.typing import NDArray

from fireseg.data.footprints import Footprint, check_footprints, width_of

_EQUATOR_M = 6_378_137.0
_FLATTENING = 1 / 298.257223563
_ECCENTRICITY = (_FLATTENING * (2 - _FLATTENING)) ** 0.5
_ROUND_M = 2 * pi * _EQUATOR_M
_CANDIDATES_AT_ONCE = 1 << 21

Corners = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Pairs of footprints that share ground, by position.

    Args:
        first: Positions of the one, `(N,)`, each below that of the other.
        second: Positions of the other, `(N,)`.
        shared_m2: Ground that both cover.
        areas_m2: Area of every footprint, `(number of footprints,)`.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    shared_m2: NDArray[np.float64]
    areas_m2: NDArray[np.float64]


def find_overlaps(footprints: Sequence[Footprint], groups: NDArray[np.intp], least_share: float) -> Overlaps:
    r"""Pairs of two groups that share more than a part of the smaller one's ground.

    All lies in the equal-area cylindrical projection of the WGS 84 ellipsoid,

    .. math:: x = a\lambda,\quad
        y = \frac{a}{2}(1 - e^2)\left(\frac{\sin\varphi}{1 - e^2\sin^2\varphi} + \frac{\artanh(e\sin\varphi)}{e}\right)

    in which a box in degrees is a box and every area is the true one. A sweep along the axis that tells the
    boxes apart better finds the candidates: n log n, plus the pairs that meet on that axis.

    Args:
        footprints: At most half the earth wide each; across the antimeridian west > east.
        groups: What ground must not be shared across, one number a footprint.
        least_share: Shared ground by the area of the smaller, above which a pair counts, 0 to 1.

    Raises:
        FiresegError: If there are bounds that no ground can have.

    References:
        Snyder, Map Projections: A Working Manual, USGS 1987, equations 3-12, 10-14 and 10-15.
    """
    check_footprints(footprints)
    boxes = _boxes(footprints)
    outlines = {
        place: _outline(one.outline, boxes[place]) for place, one in enumerate(footprints) if one.outline is not None
    }
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for place, corners in outlines.items():
        areas[place] = _polygon_area(corners)
    boxes, places = _with_copies(boxes)
    pairs, ground = [np.zeros(0, np.int64)], [np.zeros(0)]
    for one, other in _meeting(boxes, groups[places]):
        least = least_share * np.minimum(areas[places[one]], areas[places[other]])
        shared = _shared_boxes(boxes[one], boxes[other])
        one, other, shared, least = (part[shared > least] for part in (one, other, shared, least))
        for pair in _slanted(places[one], places[other], outlines):
            corners = (_corners(boxes[place], places[place] != place, outlines.get(int(places[place]))) for place in (one[pair], other[pair]))
            shared[pair] = _polygon_area(_clip(*corners))
        kept = shared > least
        low, high = np.minimum(places[one], places[other]), np.maximum(places[one], places[other])
        pairs.append((low * len(footprints) + high)[kept])
        ground.append(shared[kept])
    # Two tiles across the antimeridian meet on either side of the map: once is enough.
    keys, once = np.unique(np.concatenate(pairs), return_index=True)
    first, second = np.divmod(keys, len(footprints) or 1)
    return Overlaps(first=first, second=second, shared_m2=np.concatenate(ground)[once], areas_m2=areas)


def project(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Degrees to metres in the equal-area cylindrical projection of the WGS 84 ellipsoid."""
    e, sine = _ECCENTRICITY, np.sin(np.radians(latitude))
    y = _EQUATOR_M / 2 * (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return _EQUATOR_M * np.radians(longitude), y


def _boxes(footprints: Sequence[Footprint]) -> NDArray[np.float64]:
    """West, south, east, north in metres, west within the map, east perhaps beyond its edge."""
    bounds = np.array([one.bounds for one in footprints], np.float64).reshape(-1, 4)
    west = (bounds[:, 0] + 180.0) % 360.0 - 180.0
    # Not west itself where it is within the map already: the remainder costs the last bits.
    west = np.where(np.abs(bounds[:, 0]) <= 180.0, bounds[:, 0], west)
    widths = np.array([width_of(one.bounds[0], one.bounds[2]) for one in footprints])
    kept = (np.abs(bounds[:, 0]) <= 180.0) & (bounds[:, 2] > bounds[:, 0])
    east = np.where(kept, bounds[:, 2], west + widths)
    x_west, y_south = project(west, bounds[:, 1])
    x_east, y_north = project(east, bounds[:, 3])
    return np.stack([x_west, y_south, x_east, y_north], axis=1)


def _with_copies(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Boxes that reach beyond the eastern edge once more, a turn to the west; and whose box each is."""
    beyond = np.flatnonzero(boxes[:, 2] > _ROUND_M / 2)
    turn = np.array([_ROUND_M, 0.0, _ROUND_M, 0.0])
    return np.concatenate([boxes, boxes[beyond] - turn]), np.concatenate([np.arange(len(boxes)), beyond])


def _meeting(boxes: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Positions of boxes that share more than an edge, some millions of candidates at a time."""
    sweeps = []
    for axis in (0, 1):
        order = np.argsort(boxes[:, axis], kind="stable")
        low, high = boxes[order, axis], boxes[order, axis + 2]
        sweeps.append((order, np.maximum(np.searchsorted(low, high) - np.arange(len(order)) - 1, 0), 1 - axis))
    order, counts, across = min(sweeps, key=lambda sweep: int(sweep[1].sum()))
    low, high = boxes[order, across], boxes[order, across + 2]
    ends = np.concatenate([[0], np.cumsum(counts)])
    start = 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + _CANDIDATES_AT_ONCE, "right")) - 1)
        first = np.repeat(np.arange(start, stop), counts[start:stop])
        second = first + 1 + np.arange(len(first)) - (ends[first] - ends[start])
        meets = (low[first] < high[second]) & (low[second] < high[first])
        yield order[first[meets]], order[second[meets]]
        start = stop


def _shared_boxes(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    return np.prod(np.clip(high - low, 0.0, None), axis=1)


def _shared_outlines(
    boxes: NDArray[np.float64],
    places: NDArray[np.intp],
    outlines: dict[int, Corners],
    one: NDArray[np.intp],
    other: NDArray[np.intp],
    shared: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The same, corrected where the boxes of a pair share enough but one of the two is no box."""

    def corners_of(place: int) -> Corners:
        west, south, east, north = boxes[place].tolist()
        if (outline := outlines.get(int(places[place]))) is None:
            return [(west, south), (east, south), (east, north), (west, north)]
        turn = 0.0 if place == places[place] else _ROUND_M
        return [(x - turn, y) for x, y in outline]

    slanted = np.isin(places, list(outlines))
    for pair in np.flatnonzero((shared > 0) & (slanted[one] | slanted[other])):
        shared[pair] = _polygon_area(_clip(corners_of(one[pair]), corners_of(other[pair])))
    return shared


def _outline(outline: Sequence[tuple[float, float]], box: NDArray[np.float64]) -> Corners:
    """Corners in metres, counterclockwise, on the side of the antimeridian where the box lies."""
    x, y = project(*np.array(outline, np.float64).T)
    left = (box[0] + box[2] - _ROUND_M) / 2
    x = left + (x - left) % _ROUND_M
    middle = (float(x.mean()), float(y.mean()))
    corners = list(zip(x.tolist(), y.tolist(), strict=True))
    return sorted(corners, key=lambda corner: atan2(corner[1] - middle[1], corner[0] - middle[0]))


def _clip(subject: Corners, window: Corners) -> Corners:
    """What of a convex polygon lies in another, both counterclockwise (Sutherland and Hodgman, 1974)."""
    for (x1, y1), (x2, y2) in zip(window, window[1:] + window[:1], strict=True):
        sides = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in subject]
        inside: Corners = []
        for place, (corner, side) in enumerate(zip(subject, sides, strict=True)):
            before, side_before = subject[place - 1], sides[place - 1]
            if (side < 0) != (side_before < 0):
                part = side_before / (side_before - side)
                inside.append((before[0] + part * (corner[0] - before[0]), before[1] + part * (corner[1] - before[1])))
            if side >= 0:
                inside.append(corner)
        subject = inside
    return subject


def _polygon_area(corners: Corners) -> float:
    if not corners:
        return 0.0
    x0, y0 = corners[0]  # near the corners themselves: coordinates of millions of metres would cost digits
    x, y = np.array([(x - x0, y - y0) for x, y in corners]).T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))
