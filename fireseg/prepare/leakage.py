"""Leakage: pairs of tiles that overlap, or show the same image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Proj

from fireseg.console import format_count
from fireseg.prepare.duplicates import find_copies, find_near_duplicates, have_similar_masks
from fireseg.prepare.footprints import Footprint, check_footprints, degrees_east

Kind = Literal["same acquisition", "near-identical", "overlap", "activation"]

KINDS: tuple[Kind, ...] = get_args(Kind)

MIN_OVERLAP = 0.01
"""Shared area over the area of the smaller tile, above which an overlap counts."""

SAME_BOX = 0.999
"""Shared area over the area of the union, from which two bounding boxes are considered the same."""

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Pairs of footprints that overlap, sorted by index.

    Attributes:
        first: Lower index of each pair, `(P,)`.
        second: Higher index of each pair, `(P,)`.
        shared_m2: Area of the intersection, `(P,)`.
        areas_m2: Area of every footprint, `(number of footprints,)`.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    shared_m2: NDArray[np.float64]
    areas_m2: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A pair of tiles in different splits (or activations) that leak into each other.

    Attributes:
        kind: The most severe cause.
        tiles: Both tiles in input order; for an activation in two splits, the first tile in each.
        shares: Shared area over the area of each tile, 0 to 1; None for an activation.
        note: Further details, such as the time between both.
    """

    kind: Kind
    tiles: tuple[Footprint, Footprint]
    shares: tuple[float, float] | None
    note: str = ""

    @property
    def share(self) -> float | None:
        """Shared area over the area of the smaller tile, 0 to 1."""
        return None if self.shares is None else max(self.shares)

    def as_dict(self) -> dict[str, Any]:
        """Returns the leak as plain values."""
        tiles = [
            {"name": tile.name, "split": tile.split, "activation": tile.activation, "date": tile.timestamp}
            for tile in self.tiles
        ]
        shares = None if self.shares is None else [round(share, 6) for share in self.shares]
        return {"kind": self.kind, "tiles": tiles, "shares": shares, "note": self.note}


def number_groups(names: Sequence[str]) -> NDArray[np.intp]:
    """Numbers groups by name; an item without a name is a group by itself.

    Example:
        >>> number_groups(["EMSR1", "", "EMSR1", ""]).tolist()
        [0, -2, 0, -4]
    """
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(name, len(numbers)) if name else -index - 1 for index, name in enumerate(names)]
    return np.array(groups, np.intp)


def find_leaks(footprints: Sequence[Footprint], groups: NDArray[np.intp]) -> dict[Pair, Leak]:
    """Finds pairs of tiles of different groups that overlap or show the same image.

    Args:
        footprints: The tiles.
        groups: Number of the group (split or activation) of each tile.

    Returns:
        Leaks by the indices of both tiles, the lower first.

    Raises:
        FiresegError: If bounds are invalid.
    """
    fingerprints = [one.fingerprint for one in footprints]
    shares, same_box = _compare_areas(find_overlaps(footprints, groups, MIN_OVERLAP))
    copies = set(find_copies(fingerprints, groups))
    similar = {(one, other): distance for one, other, distance in find_near_duplicates(fingerprints, groups)}
    leaks = {}
    for pair in sorted(shares.keys() | copies | similar.keys()):
        tiles = footprints[pair[0]], footprints[pair[1]]
        first, second = tiles[0].timestamp, tiles[1].timestamp
        kind, note = "overlap", _describe_interval(first, second)
        if pair in copies:
            kind, note = "same acquisition", f"same pixels{_describe_sizes(*tiles)}"
        elif pair in same_box and _is_same_time(first, second):
            kind, note = "same acquisition", f"same box, {note}{_describe_sizes(*tiles)}"
        elif pair in similar:
            masks = {None: "", True: ", similar masks", False: ", different masks"}
            has_similar = have_similar_masks(tiles[0].fingerprint, tiles[1].fingerprint)
            kind, note = "near-identical", f"{100 * similar[pair]:.1f} % of the hash bits differ{masks[has_similar]}"
        if pair not in shares:
            note += ", at different locations"
        leaks[pair] = Leak(kind=kind, tiles=tiles, shares=shares.get(pair, (0.0, 0.0)), note=note)
    return leaks


def find_overlaps(footprints: Sequence[Footprint], groups: NDArray[np.intp], min_overlap: float) -> Overlaps:
    """Finds pairs of footprints of different groups that share more than a part of the smaller one's area.

    Areas are those of EPSG:6933, an equal-area cylindrical projection of WGS 84, in which boxes in degrees remain
    boxes. A footprint across the antimeridian is placed on both sides of the map.

    Args:
        footprints: Each less than 180 degrees wide; west > east across the antimeridian.
        groups: Number of the group of each footprint.
        min_overlap: Shared area over the area of the smaller footprint, above which a pair counts, 0 to 1.

    Raises:
        FiresegError: If bounds are invalid.
    """
    check_footprints(footprints)
    # EPSG:6933 by its parameters: "over" keeps longitudes beyond 180 degrees where they are.
    project = Proj(proj="cea", lat_ts=30, ellps="WGS84", over=True)
    shapes = np.array([_to_polygon(one, project) for one in footprints], object)
    width_m = 2 * project(180.0, 0.0)[0]
    areas_m2 = shapely.area(shapes)
    beyond = np.flatnonzero(shapely.bounds(shapes).reshape(-1, 4)[:, 2] > width_m / 2)
    copies = shapely.transform(shapes[beyond], lambda xy: xy - [width_m, 0.0])
    shapes, owners = np.concatenate([shapes, copies]), np.concatenate([np.arange(len(shapes)), beyond])
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    is_candidate = (one < other) & (groups[owners[one]] != groups[owners[other]])
    one, other = one[is_candidate], other[is_candidate]
    shared_m2 = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    pairs = np.sort(owners[np.stack([one, other])], axis=0)
    is_large = shared_m2 > min_overlap * areas_m2[pairs].min(axis=0)
    # Two footprints across the antimeridian meet on both sides of the map; one of these is enough.
    pairs, index = np.unique(pairs[:, is_large], axis=1, return_index=True)
    return Overlaps(first=pairs[0], second=pairs[1], shared_m2=shared_m2[is_large][index], areas_m2=areas_m2)


def _to_polygon(footprint: Footprint, project: Proj) -> shapely.Polygon:
    """Projects a footprint; its west edge lies within the map, its east edge may lie beyond 180 degrees."""
    west, south, east, north = footprint.bounds
    width = degrees_east(west, east)
    if not (abs(west) <= 180.0 and east > west):  # otherwise unchanged: a remainder costs the last digits
        west = (west + 180.0) % 360.0 - 180.0
        east = west + width
    if footprint.outline is None:
        x_min, y_min, x_max, y_max = *project(west, south), *project(east, north)
        return shapely.box(x_min, y_min, x_max, y_max)
    left = west + width / 2 - 180.0
    corners = [project(left + (x - left) % 360.0, y) for x, y in footprint.outline]
    return shapely.MultiPoint(corners).convex_hull  # pyright: ignore[reportReturnType] - three corners or more


def _compare_areas(overlaps: Overlaps) -> tuple[dict[Pair, tuple[float, float]], set[Pair]]:
    """Returns the shared area over that of each tile by pair, and the pairs with the same bounding box."""
    one, other = overlaps.areas_m2[overlaps.first], overlaps.areas_m2[overlaps.second]
    pairs: list[Pair] = list(zip(overlaps.first.tolist(), overlaps.second.tolist(), strict=True))
    # Rounding can leave a share slightly above 1.
    shares = np.minimum(overlaps.shared_m2[:, None] / np.stack([one, other], axis=1), 1.0).tolist()
    is_same = overlaps.shared_m2 >= SAME_BOX * (one + other - overlaps.shared_m2)
    return (
        {pair: (first, second) for pair, (first, second) in zip(pairs, shares, strict=True)},
        {pairs[index] for index in np.flatnonzero(is_same)},
    )


def _is_same_time(first: str | None, second: str | None) -> bool:
    """Returns True if two timestamps are equal at the lower of their precisions, day or second."""
    if first is None or second is None or not (_is_iso(first) and _is_iso(second)):
        return False
    return first == second or min((first, second), key=len) == max((first, second), key=len)[:10]


def _is_iso(timestamp: str) -> bool:
    try:
        datetime.fromisoformat(timestamp)
    except ValueError:  # an interval, or free text
        return False
    return True


def _describe_interval(first: str | None, second: str | None) -> str:
    if first is None or second is None:
        return "date unknown"
    if first == second:
        if not _is_iso(first):
            return f"both dated {first}"
        return "same second" if "T" in first else "same day"
    try:
        days = abs((date.fromisoformat(first[:10]) - date.fromisoformat(second[:10])).days)
    except ValueError:
        return ""
    return "same day" if days == 0 else f"{format_count(days, 'day')} apart"


def _describe_sizes(one: Footprint, other: Footprint) -> str:
    sizes = [f"{tile.height} x {tile.width} px" if tile.height and tile.width else "" for tile in (one, other)]
    burned = ["" if tile.burned is None else f"{tile.burned:,} burned" for tile in (one, other)]
    parts = [
        first if first == second else f"{first} and {second}" for first, second in (sizes, burned) if first and second
    ]
    return "".join(f", {part}" for part in parts)
