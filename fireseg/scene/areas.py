"""How many square metres a pixel or a polygon has on the ellipsoid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from fireseg.errors import FiresegError

if TYPE_CHECKING:
    from shapely.geometry import MultiPolygon, Polygon

_MOST_NODES = 33
"""Along an axis. Between nodes an area follows a straight line; where a raster spans 60 degrees that is 0.02 % off."""

_ALIKE = 1e-6


class PixelAreas:
    """Geodesic areas of the pixels of a raster, in any CRS, north up or not.

    The outlines of a few pixels, spread evenly, are measured on the ellipsoid; between them areas are interpolated.

    Args:
        crs: CRS of the raster, or its text.
        transform: From (column, row) to coordinates in that CRS, or its six numbers.
        height: Rows of the raster.
        width: Columns of the raster.

    Raises:
        FiresegError: If nobody can read the CRS, or there is a pixel that lies nowhere on earth.

    References:
        Karney, Algorithms for geodesics, Journal of Geodesy 87 (2013).
    """

    def __init__(self, crs: CRS | str, transform: Affine | Sequence[float], height: int, width: int) -> None:
        try:
            crs, transform = CRS.from_user_input(crs), Affine(*transform[:6])
        except CRSError as error:
            raise FiresegError(f"reference system {crs}: PROJ does not know it; give it as EPSG:… or in WKT") from error
        self._width = width
        self._rows, self._cols = _spread(height), _spread(width)
        self._areas = _measure_pixels(crs, transform, self._rows, self._cols)
        if np.ptp(self._areas, axis=1).max() <= _ALIKE * self._areas.max():
            self._width, self._cols, self._areas = 1, self._cols[:1], self._areas[:, :1]

    def of_rows(self, top: int, num_rows: int) -> NDArray[np.float32]:
        """Areas of the pixels of some rows.

        Args:
            top: The first row.
            num_rows: How many.

        Returns:
            `(num_rows, width)`, or `(num_rows, 1)` where all pixels of a row are equal, as those of a raster in
            degrees are; in m².
        """
        rows = _interpolate(self._areas, self._rows, np.arange(top, top + num_rows))
        return _interpolate(rows.T.astype(np.float32), self._cols, np.arange(self._width)).T


def polygon_area_m2(geometry: Polygon | MultiPolygon) -> float:
    """Geodesic area of a polygon or of several, holes left out.

    Args:
        geometry: In longitude and latitude, degrees.

    Returns:
        The area on the WGS 84 ellipsoid in m², at least 0.
    """
    import shapely

    geod, total = _get_geod(), 0.0
    for polygon in shapely.get_parts(geometry):
        outside, *holes = (
            abs(geod.polygon_area_perimeter(*shapely.get_coordinates(ring).T)[0])
            for ring in (polygon.exterior, *polygon.interiors)
        )
        total += outside - sum(holes)
    return total


def _get_geod() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")


def _spread(length: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, _MOST_NODES).round().astype(np.intp))


def _measure_pixels(crs: CRS, transform: Affine, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.float64]:
    """Areas `(rows, cols)` in m² of the pixels at these rows and columns."""
    import pyproj
    from pyproj.exceptions import ProjError

    right = cols[None, :, None] + np.array([0, 1, 1, 0])
    down = rows[:, None, None] + np.array([0, 0, 1, 1])
    x = transform.a * right + transform.b * down + transform.c
    y = transform.d * right + transform.e * down + transform.f
    try:
        to_lonlat = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
        lon, lat = to_lonlat.transform(x, y)
    except ProjError as error:
        raise FiresegError(f"reference system {crs}: nothing leads from it to longitude and latitude") from error
    geod = _get_geod()
    areas = np.array(
        [
            [abs(geod.polygon_area_perimeter(*pixel)[0]) for pixel in zip(*row, strict=True)]
            for row in zip(lon, lat, strict=True)
        ]
    )
    if not (np.isfinite(areas).all() and areas.min() > 0):
        raise FiresegError(
            f"raster: some of its pixels lie nowhere on earth (transform {tuple(transform)[:6]}, {crs}); "
            "is its georeference right?"
        )
    return areas


def _interpolate(values: NDArray, nodes: NDArray[np.intp], places: NDArray[np.intp]) -> NDArray:
    """Values `(nodes, ...)` at nodes into values `(places, ...)` at places, along straight lines."""
    if len(nodes) == 1:
        return np.repeat(values, len(places), axis=0)
    before = np.clip(np.searchsorted(nodes, places, side="right") - 1, 0, len(nodes) - 2)
    share = ((places - nodes[before]) / (nodes[before + 1] - nodes[before])).astype(values.dtype)[:, None]
    return values[before] * (1 - share) + values[before + 1] * share
