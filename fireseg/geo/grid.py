"""How large a pixel is on the ground, and where north is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Transform = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f of x = a col + b row + c, y = d col + e row + f."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where and when a tile was taken.

    Attributes:
        height: Rows.
        width: Columns.
        crs: Reference system, as `EPSG:4326` or in WKT.
        transform: From columns and rows to the reference system.
        bounds_lonlat: West, south, east, north in degrees; west > east across the antimeridian.
        outline_lonlat: The four corners in degrees, one after the other around the tile.
        date: In ISO 8601: a moment, a day, or the interval that was searched (`from/to`); None where
            nothing tells.
    """

    height: int
    width: int
    crs: str
    transform: Transform
    bounds_lonlat: tuple[float, float, float, float]
    outline_lonlat: tuple[tuple[float, float], ...]
    date: str | None


_SEMI_MAJOR_M, _FLATTENING = 6378137.0, 1 / 298.257223563


class PixelSpacing(NamedTuple):
    """A raster as it lies on the ground, in its middle.

    Attributes:
        column_m: From one column to the next, in metres.
        row_m: From one row to the next, in metres.
        north_deg: Where north is, in degrees clockwise from the top of the raster.
    """

    column_m: float
    row_m: float
    north_deg: float


def measure_pixel_spacing(place: Grid) -> PixelSpacing:
    """Reads distances off the corners' longitudes and latitudes, with the radii of curvature of WGS 84.

    Good for a scale bar in any reference system: exact to some parts in a thousand for a scene of 100 km.

    Args:
        place: Of the raster.

    References:
        Snyder, Map Projections: A Working Manual, 1987, p. 24-25 (radii of the meridian and the parallel).
    """
    corners = np.array(place.outline_lonlat)
    latitude = math.radians(float(corners[:, 1].mean()))
    squared = _FLATTENING * (2 - _FLATTENING)
    bulge = 1 - squared * math.sin(latitude) ** 2
    parallel_m = _SEMI_MAJOR_M / math.sqrt(bulge) * math.cos(latitude)
    meridian_m = _SEMI_MAJOR_M * (1 - squared) / bulge**1.5
    top_left, top_right, bottom_right, bottom_left = corners
    right = (_step(top_left, top_right) + _step(bottom_left, bottom_right)) / 2 / place.width
    down = (_step(top_left, bottom_left) + _step(top_right, bottom_right)) / 2 / place.height
    axes = np.radians(np.stack([right, down], axis=1)) * [[parallel_m], [meridian_m]]
    column_m, row_m = np.hypot(*axes)
    columns, rows = np.linalg.solve(axes, [0.0, 1.0])
    return PixelSpacing(
        float(column_m), float(row_m), math.degrees(math.atan2(columns * column_m, -rows * row_m)) + 0.0
    )


def _step(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Degrees east and north from one place to another, the short way around."""
    east, north = end - start
    return np.array([(east + 180) % 360 - 180, north])
