"""Pairs of tiles that know each other's ground or pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from math import atan2, pi
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fireseg.prepare.duplicates import find_copies, find_near_duplicates, have_similar_masks
from fireseg.prepare.footprints import Footprint, check_footprints, width_of

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


Kind = Literal["same acquisition", "near-identical", "overlap", "activation"]

KINDS: tuple[Kind, ...] = get_args(Kind)

LEAST_SHARE = 0.01
"""Shared ground by that of the smaller tile, above which an overlap counts."""

SAME_BOX = 0.999
"""Shared ground by that of both together, from which on two boxes are the same one."""

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Two tiles that should know nothing of each other, and do. The worst of what joins them is its kind.

    Args:
        kind: What they have in common.
        tiles: Both, in the order in which they came. Of an activation in two splits, the first tile in each.
        shares: Shared ground by that of the one and of the other, 0 to 1; none for an activation.
        note: What else there is to say.
    """

    kind: Kind
    tiles: tuple[Footprint, Footprint]
    shares: tuple[float, float] | None
    note: str = ""

    @property
    def share(self) -> float | None:
        """Shared ground by that of the smaller tile, 0 to 1."""
        return None if self.shares is None else max(self.shares)

    def as_dict(self) -> dict[str, Any]:
        """The finding in plain values."""
        tiles = [
            {"name": tile.name, "split": tile.split, "activation": tile.activation, "date": tile.moment}
            for tile in self.tiles
        ]
        shares = None if self.shares is None else [round(share, 6) for share in self.shares]
        return {"kind": self.kind, "tiles": tiles, "shares": shares, "note": self.note}


def number_groups(names: Sequence[str]) -> NDArray[np.intp]:
    """One number a name; a nameless one is a group of its own.

    Example:
        >>> number_groups(["EMSR1", "", "EMSR1", ""]).tolist()
        [0, -2, 0, -4]
    """
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(name, len(numbers)) if name else -place - 1 for place, name in enumerate(names)]
    return np.array(groups, np.intp)


def find_leaks(
    footprints: Sequence[Footprint], groups: NDArray[np.intp], *, least_share: float = LEAST_SHARE
) -> dict[Pair, Leak]:
    """Pairs of tiles of two groups that share ground or pixels, by position, lower first.

    Args:
        footprints: The tiles.
        groups: What must not be shared across, one number a tile.
        least_share: Shared ground by that of the smaller, above which an overlap counts, 0 to 1.

    Raises:
        FiresegError: If there are bounds that no ground can have.
    """
    overlaps = find_overlaps(footprints, groups, least_share)
    looks = [one.look for one in footprints]
    shares, same_box = _shares_of(overlaps)
    copies = set(find_copies(looks, groups))
    alike = {(one, other): likeness for one, other, likeness in find_near_duplicates(looks, groups)}
    moments = [one.moment for one in footprints]
    found = {}
    for pair in sorted(shares.keys() | copies | alike.keys()):
        first, second = moments[pair[0]], moments[pair[1]]
        tiles = footprints[pair[0]], footprints[pair[1]]
        kind, note = "overlap", _between(first, second)
        if pair in copies:
            kind, note = "same acquisition", f"same pixels{_sizes(*tiles)}"
        elif pair in same_box and _is_one_moment(first, second):
            kind, note = "same acquisition", f"same box, {note}{_sizes(*tiles)}"
        elif pair in alike:
            kind, note = "near-identical", f"correlation {alike[pair]:.4f}{_masks(*tiles)}"
        if pair not in shares:
            note += ", on other ground"
        found[pair] = Leak(kind=kind, tiles=tiles, shares=shares.get(pair, (0.0, 0.0)), note=note)
    return found


def _shares_of(overlaps: Overlaps) -> tuple[dict[Pair, tuple[float, float]], set[Pair]]:
    """Shared ground by that of either tile; and the pairs whose boxes are the same."""
    one, other = overlaps.areas_m2[overlaps.first], overlaps.areas_m2[overlaps.second]
    pairs: list[Pair] = list(zip(overlaps.first.tolist(), overlaps.second.tolist(), strict=True))
    # Corners that agree to the last bit may still leave a share a hair above 1.
    shares = np.minimum(overlaps.shared_m2[:, None] / np.stack([one, other], axis=1), 1.0).tolist()
    same = overlaps.shared_m2 >= SAME_BOX * (one + other - overlaps.shared_m2)
    return (
        {pair: (first, second) for pair, (first, second) in zip(pairs, shares, strict=True)},
        {pairs[place] for place in np.flatnonzero(same)},
    )


def _is_one_moment(first: str | None, second: str | None) -> bool:
    """Whether two dates are of one acquisition, as exactly as both are known."""
    if first is None or second is None or not (_is_read(first) and _is_read(second)):
        return False
    return first == second or min((first, second), key=len) == max((first, second), key=len)[:10]


def _is_read(moment: str) -> bool:
    """Whether it is a day or a second, and not an interval or whatever else somebody wrote."""
    try:
        datetime.fromisoformat(moment)
    except ValueError:
        return False
    return True


def _between(first: str | None, second: str | None) -> str:
    """The time between two dates in words."""
    if first is None or second is None:
        return "date unknown"
    if first == second:
        if not _is_read(first):
            return f"both dated {first}"
        return "same second" if "T" in first else "same day"
    try:
        days = abs((date.fromisoformat(first[:10]) - date.fromisoformat(second[:10])).days)
    except ValueError:
        return ""
    return "same day" if days == 0 else f"{days} day{'s' * (days > 1)} apart"


def _sizes(one: Footprint, other: Footprint) -> str:
    sizes = [f"{tile.height} x {tile.width} px" if tile.height and tile.width else "" for tile in (one, other)]
    burned = ["" if tile.burned is None else f"{tile.burned:,} burned" for tile in (one, other)]
    parts = [
        first if first == second else f"{first} and {second}" for first, second in (sizes, burned) if first and second
    ]
    return "".join(f", {part}" for part in parts)


def _masks(one: Footprint, other: Footprint) -> str:
    return {None: "", True: ", masks alike", False: ", masks differ"}[have_similar_masks(one.look, other.look)]
