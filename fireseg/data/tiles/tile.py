"""A tile in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Transform = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f of x = a col + b row + c, y = d col + e row + f."""


@dataclass(frozen=True, kw_only=True)
class Place:
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


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What a tile holds.

    Attributes:
        image: `(H, W, C)` uint16, reflectance x 10000, rounded, clipped to 0..1; 0 where unknown.
        unknown: `(H, W)`, True where a band wanted has no value.
        delineation: `(H, W)` uint8, 0, 1, 255; all 255 without one.
        grading: `(H, W)` uint8, 0 to 4, 255; None without one.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 not known; None without one.
        place: Where and when.
        flags: What looks strange about it, each with its file in front.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8] | None
    cloud: NDArray[np.uint8] | None
    place: Place
    flags: tuple[str, ...]

    @property
    def crs(self) -> str:
        """See `Place`."""
        return self.place.crs

    @property
    def transform(self) -> Transform:
        """See `Place`."""
        return self.place.transform

    @property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """See `Place`."""
        return self.place.bounds_lonlat

    @property
    def date(self) -> str | None:
        """See `Place`."""
        return self.place.date
