"""Groups of tiles that must be in the same split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Proj
from scipy.spatial import KDTree

from fireseg.prepare.footprints import Footprint, check_footprints, degrees_east
from fireseg.prepare.leakage import Pair, find_leaks, number_groups
from fireseg.prepare.split_options import GROUP_DAYS, GROUP_KM

_TOUCH_M = 1.0
"""Distance up to which tiles touch, in spite of rounded coordinates."""

_EARTH_RADIUS_KM = 6371.0

_SLACK = 1.01
"""Factor on distances on the sphere, larger than their difference from those on the ellipsoid."""


def group_tiles(
    footprints: Sequence[Footprint],
    *,
    max_km: float = GROUP_KM,
    max_days: int = GROUP_DAYS,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """Groups tiles that must be in the same split, because they may show the same fire.

    Tiles are connected if they are of the same activation, overlap, are the same acquisition or near-identical, or
    have the same group name. Without group names, tiles of an unknown activation are also connected to all tiles
    nearby: see `find_near_tiles`. A group is all tiles that are connected directly or through others.

    Args:
        footprints: The tiles; their splits must be empty or are ignored.
        max_km: Distance up to which a tile of unknown activation is connected to another.
        max_days: Number of days up to which it is.
        names: Group name of each tile, empty if it has none.

    Returns:
        Indices of the tiles of each group, in an order that does not depend on that of the tiles.

    Raises:
        FiresegError: If bounds are invalid.
    """
    activations = number_groups([one.activation for one in footprints])
    pairs = [*_chain_equal(activations), *find_leaks(footprints, activations)]
    if names is not None:
        pairs += _chain_equal(number_groups(names))
    else:
        pairs += find_near_tiles(footprints, max_km, max_days)
    parent = list(range(len(footprints)))

    def find_root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in pairs:
        parent[find_root(one)] = find_root(other)
    keys = [(tile.name, tile.activation, tile.bounds, tile.date or "") for tile in footprints]
    groups: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(footprints)), key=keys.__getitem__):
        groups[find_root(index)].append(index)
    return list(groups.values())


def find_near_tiles(footprints: Sequence[Footprint], max_km: float, max_days: int) -> Iterator[Pair]:
    """Yields pairs of tiles close in space and time of which one or both are of an unknown activation.

    Distances are measured between the outlines, in an azimuthal equidistant projection around one of the tiles.

    Args:
        footprints: The tiles.
        max_km: Largest distance between two tiles; 0 if they touch or overlap.
        max_days: Largest number of days between two tiles; an unknown date counts as close.

    Raises:
        FiresegError: If bounds are invalid.
    """
    unknown = [number for number, one in enumerate(footprints) if not one.has_activation]
    if not unknown:
        return
    check_footprints(footprints)
    corners = [_get_corners(one) for one in footprints]
    centres = [_get_centre(one) for one in footprints]
    points = np.array([_to_sphere(*centre) for centre in centres])
    radii = np.array(
        [
            max(np.linalg.norm(_to_sphere(*corner) - point) for corner in outline)
            for outline, point in zip(corners, points, strict=True)
        ]
    )
    days = [_read_day(one.timestamp) for one in footprints]
    # The chord between two points on the sphere is shorter than the way between them.
    reach = radii + radii.max() + _SLACK * max_km / _EARTH_RADIUS_KM
    near = KDTree(points).query_ball_point(points[unknown], _SLACK * reach[unknown])
    for number, neighbours in zip(unknown, near, strict=True):
        others = [
            other
            for other in sorted(neighbours)
            if (other > number or (other < number and footprints[other].has_activation))
            and _are_within(days[number], days[other], max_days)
        ]
        longitude, latitude = centres[number]
        project = Proj(proj="aeqd", lon_0=longitude, lat_0=latitude, ellps="WGS84")
        own = _to_polygon(corners[number], project)
        shapes = np.array([_to_polygon(corners[other], project) for other in others], object)
        is_close = shapely.distance(shapes, own) <= max(1000 * max_km, _TOUCH_M)
        yield from ((number, other) for other, close in zip(others, is_close, strict=True) if close)


def _chain_equal(numbers: NDArray[np.intp]) -> list[Pair]:
    """Returns pairs that connect all items of the same number."""
    first_of: dict[int, int] = {}
    return [(index, first_of.setdefault(number, index)) for index, number in enumerate(numbers.tolist())]


def _get_corners(footprint: Footprint) -> Sequence[tuple[float, float]]:
    west, south, east, north = footprint.bounds
    return footprint.outline or ((west, south), (east, south), (east, north), (west, north))


def _get_centre(footprint: Footprint) -> tuple[float, float]:
    west, south, east, north = footprint.bounds
    return west + degrees_east(west, east) / 2, (south + north) / 2


def _to_sphere(longitude: float, latitude: float) -> NDArray[np.float64]:
    lon, lat = np.radians((longitude, latitude))
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _to_polygon(corners: Sequence[tuple[float, float]], project: Proj) -> Any:
    return shapely.MultiPoint([project(*corner) for corner in corners]).convex_hull


def _read_day(timestamp: str | None) -> date | None:
    try:
        return None if timestamp is None else date.fromisoformat(timestamp[:10])
    except ValueError:  # an interval, or free text
        return None


def _are_within(one: date | None, other: date | None, max_days: int) -> bool:
    return one is None or other is None or abs((one - other).days) <= max_days
