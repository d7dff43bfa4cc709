"""Footprints laid out on a flat map on which every area is the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import atan2, pi

import numpy as np
from numpy.typing import NDArray

from fireseg.data.audit.footprints import Footprint, check_footprints, width_of

_EQUATOR_M = 6_378_137.0
_FLATTENING = 1 / 298.257223563
_ECCENTRICITY = (_FLATTENING * (2 - _FLATTENING)) ** 0.5
_ROUND_M = 2 * pi * _EQUATOR_M

Corners = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A flat map of footprints, in metres. One across the antimeridian lies on it twice, a turn apart.

    Args:
        boxes: West, south, east, north, `(N, 4)`.
        owners: Position of the footprint that a box belongs to, `(N,)`.
        areas_m2: Area of that footprint, `(N,)`.
        outlines: Corners, counterclockwise, of what is no box, by position of the box.
    """

    boxes: NDArray[np.float64]
    owners: NDArray[np.intp]
    areas_m2: NDArray[np.float64]
    outlines: Mapping[int, Corners]

    def shared_m2(self, one: NDArray[np.intp], other: NDArray[np.intp], least: NDArray[np.float64]) -> NDArray:
        """Ground that pairs of boxes share. Outlines are only looked at where the boxes share more than the least.

        Args:
            one: Positions of boxes, `(P,)`.
            other: Positions of the boxes to compare them with, `(P,)`.
            least: What counts as nothing, `(P,)`.
        """
        low = np.maximum(self.boxes[one, :2], self.boxes[other, :2])
        high = np.minimum(self.boxes[one, 2:], self.boxes[other, 2:])
        shared = np.prod(np.clip(high - low, 0.0, None), axis=1)
        if self.outlines:
            slanted = np.isin(np.stack([one, other]), list(self.outlines)).any(axis=0)
            for pair in np.flatnonzero(slanted & (shared > least)).tolist():
                shared[pair] = polygon_area(clip(self._corners(int(one[pair])), self._corners(int(other[pair]))))
        return shared

    def _corners(self, place: int) -> Corners:
        if (outline := self.outlines.get(place)) is not None:
            return outline
        west, south, east, north = self.boxes[place].tolist()
        return [(west, south), (east, south), (east, north), (west, north)]


def lay_out(footprints: Sequence[Footprint]) -> Ground:
    """The flat map of footprints.

    Raises:
        FiresegError: If there are bounds that no ground can have.
    """
    check_footprints(footprints)
    boxes = _boxes(footprints)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    outlines = {}
    for place, one in enumerate(footprints):
        if one.outline is not None:
            outlines[place] = _outline(one.outline, boxes[place])
            areas[place] = polygon_area(outlines[place])
    beyond = np.flatnonzero(boxes[:, 2] > _ROUND_M / 2)
    owners = np.concatenate([np.arange(len(boxes)), beyond])
    for copy, place in enumerate(beyond.tolist(), len(boxes)):
        if place in outlines:
            outlines[copy] = [(x - _ROUND_M, y) for x, y in outlines[place]]
    boxes = np.concatenate([boxes, boxes[beyond] - np.array([_ROUND_M, 0.0, _ROUND_M, 0.0])])
    return Ground(boxes=boxes, owners=owners, areas_m2=areas[owners], outlines=outlines)


def project(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    r"""Degrees to metres in the equal-area cylindrical projection of the WGS 84 ellipsoid.

    .. math:: x = a\lambda,\quad y = \frac{a}{2}(1 - e^2)
        \left(\frac{\sin\varphi}{1 - e^2\sin^2\varphi} + \frac{\operatorname{artanh}(e\sin\varphi)}{e}\right)

    A box in degrees stays a box, poles and all.

    Args:
        longitude: Degrees, any shape.
        latitude: Degrees, -90 to 90, the same shape.

    References:
        Snyder, Map Projections: A Working Manual, USGS Professional Paper 1395, 1987, equations 3-12 and 10-15.
    """
    e, sine = _ECCENTRICITY, np.sin(np.radians(latitude))
    y = _EQUATOR_M / 2 * (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return _EQUATOR_M * np.radians(longitude), y


def clip(subject: Corners, window: Corners) -> Corners:
    """What of a convex polygon lies in another, both counterclockwise (Sutherland and Hodgman, 1974)."""
    for (x1, y1), (x2, y2) in zip(window, window[1:] + window[:1], strict=True):
        sides = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in subject]
        inside: Corners = []
        for place, (corner, side) in enumerate(zip(subject, sides, strict=True)):
            before, side_before = subject[place - 1], sides[place - 1]
            if (side < 0) != (side_before < 0):
                part = side_before / (side_before - side)
                x, y = (start + part * (end - start) for start, end in zip(before, corner, strict=True))
                inside.append((x, y))
            if side >= 0:
                inside.append(corner)
        subject = inside
    return subject


def polygon_area(corners: Corners) -> float:
    """Area of a polygon, counterclockwise; nothing for no corner."""
    if not corners:
        return 0.0
    x0, y0 = corners[0]  # near the corners themselves: coordinates of millions of metres would cost digits
    x, y = [x - x0 for x, _ in corners], [y - y0 for _, y in corners]
    return 0.5 * sum(x[place - 1] * y[place] - x[place] * y[place - 1] for place in range(len(corners)))


def _boxes(footprints: Sequence[Footprint]) -> NDArray[np.float64]:
    """West, south, east, north in metres, west within the map, east perhaps beyond its edge."""
    bounds = np.array([one.bounds for one in footprints], np.float64).reshape(-1, 4)
    west, east = bounds[:, 0], bounds[:, 2]
    plain = (np.abs(west) <= 180.0) & (east > west)  # left as it is: a remainder would cost the last bits
    widths = np.array([width_of(one.bounds[0], one.bounds[2]) for one in footprints])
    west = np.where(plain, west, (west + 180.0) % 360.0 - 180.0)
    east = np.where(plain, east, west + widths)
    x_west, y_south = project(west, bounds[:, 1])
    x_east, y_north = project(east, bounds[:, 3])
    return np.stack([x_west, y_south, x_east, y_north], axis=1)


def _outline(outline: Sequence[tuple[float, float]], box: NDArray[np.float64]) -> Corners:
    """Corners in metres, counterclockwise, on the side of the antimeridian where the box lies."""
    x, y = project(*np.array(outline, np.float64).T)
    left = (box[0] + box[2] - _ROUND_M) / 2
    x = left + (x - left) % _ROUND_M
    middle = (float(x.mean()), float(y.mean()))
    corners = list(zip(x.tolist(), y.tolist(), strict=True))
    return sorted(corners, key=lambda corner: atan2(corner[1] - middle[1], corner[0] - middle[0]))
