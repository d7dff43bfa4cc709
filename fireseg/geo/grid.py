"""Pixel grids of rasters: location, geodesic pixel spacing and areas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio import Affine
from rasterio._err import CPLE_BaseError  # pyright: ignore[reportMissingImports]  # GDAL's errors have no public name
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from fireseg.errors import FiresegError

Transform = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f of x = a col + b row + c, y = d col + e row + f."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError, SystemError)
"""Errors that rasterio raises for GDAL. SystemError is raised where GDAL fails a second time while it reports the
first failure. Import them from here: this is the only import of a private module of rasterio."""

M2_PER_HA = 10_000.0

_LONLAT = "EPSG:4326"


class PixelSpacing(NamedTuple):
    """Ground distances between pixels at the centre of a raster.

    Attributes:
        column_m: Distance between neighbouring columns in metres.
        row_m: Distance between neighbouring rows in metres.
        north_deg: Direction of north, in degrees clockwise from the top of the raster; None at a pole.
    """

    column_m: float
    row_m: float
    north_deg: float | None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The pixel grid of a raster: size, reference system and transform.

    Attributes:
        height: Number of rows.
        width: Number of columns.
        crs: Reference system, as `EPSG:4326` or WKT.
        transform: Affine coefficients from (column, row) to coordinates in the CRS.
    """

    height: int
    width: int
    crs: str
    transform: Transform

    @classmethod
    def of_raster(cls, raster: DatasetReader) -> Self:
        """The grid of an open raster that has a CRS."""
        transform: Any = tuple(raster.transform)[:6]
        return cls(height=raster.height, width=raster.width, crs=raster.crs.to_string(), transform=transform)

    @property
    def pixel_m(self) -> float:
        """Side in metres of a square as large as a pixel at the centre."""
        spacing = self.pixel_spacing()
        return math.sqrt(spacing.column_m * spacing.row_m)

    @property
    def affine(self) -> Affine:
        """The transform as rasterio takes it."""
        return Affine(*self.transform)

    @cached_property
    def rasterio_crs(self) -> CRS:
        """The reference system as rasterio takes it.

        Raises:
            FiresegError: If PROJ does not know it.
        """
        try:
            return CRS.from_user_input(self.crs)
        except CRSError as error:
            raise FiresegError(
                f"reference system {self.crs}: PROJ does not know it; give it as EPSG:… or in WKT"
            ) from error

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest and largest coordinates in the CRS: left, bottom, right, top."""
        xs, ys = zip(*self._corners(), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @cached_property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees; west > east across the antimeridian.

        Raises:
            FiresegError: If the CRS cannot be transformed to longitude and latitude.
        """
        bounds = self.bounds
        if self._is_lonlat:
            return bounds
        try:
            return transform_bounds(self.rasterio_crs, _LONLAT, *bounds)
        except GDAL_ERRORS as error:
            raise self._transform_error(error) from error

    @cached_property
    def outline_lonlat(self) -> tuple[tuple[float, float], ...]:
        """Longitude and latitude of the four corners, clockwise from the upper left one as the raster is stored.

        Raises:
            FiresegError: If the CRS cannot be transformed to longitude and latitude.
        """
        if self._is_lonlat:
            return tuple(self._corners())
        cols, rows = zip(*self._pixel_corners(), strict=True)
        lon, lat = self.to_lonlat(cols, rows)
        return tuple(zip(lon.tolist(), lat.tolist(), strict=True))

    def to_lonlat(self, cols: ArrayLike, rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Transforms pixel coordinates to longitude and latitude.

        Args:
            cols: Column coordinates, `(N,)`; pixel edges are integers.
            rows: Row coordinates, `(N,)`.

        Returns:
            Longitudes and latitudes in degrees, `(N,)` each.

        Raises:
            FiresegError: If the CRS is unknown, or cannot be transformed to longitude and latitude.
        """
        a, b, c, d, e, f = self.transform
        cols, rows = np.asarray(cols, np.float64), np.asarray(rows, np.float64)
        try:
            lon, lat = transform_points(self.rasterio_crs, _LONLAT, a * cols + b * rows + c, d * cols + e * rows + f)[
                :2
            ]
        except GDAL_ERRORS as error:
            raise self._transform_error(error) from error
        return np.asarray(lon), np.asarray(lat)

    def pixel_spacing(self) -> PixelSpacing:
        """Measures the distances between pixels on the WGS 84 ellipsoid at the centre of the raster.

        Raises:
            FiresegError: If the CRS cannot be transformed to longitude and latitude, or the centre is not on earth.
        """
        col, row = self.width / 2, self.height / 2
        lon, lat = self.to_lonlat([col - 0.5, col + 0.5, col, col], [row, row, row - 0.5, row + 0.5])
        azimuths, _, distances = get_geod().inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
        if not (np.isfinite(distances).all() and distances.min() > 0):
            raise self._off_earth_error()
        axes = np.stack([np.sin(np.radians(azimuths)), np.cos(np.radians(azimuths))])  # east and north of each axis
        try:
            right, down = np.linalg.solve(axes, [0.0, 1.0])
        except np.linalg.LinAlgError:  # at a pole every direction is north, or south
            return PixelSpacing(float(distances[0]), float(distances[1]), None)
        north_deg = math.degrees(math.atan2(right, -down)) + 0.0  # no -0.0
        return PixelSpacing(float(distances[0]), float(distances[1]), north_deg)

    @property
    def _is_lonlat(self) -> bool:
        return self.rasterio_crs.to_epsg() == 4326  # a transformation to itself would cost the last digits

    def _pixel_corners(self) -> Sequence[tuple[int, int]]:
        return (0, 0), (self.width, 0), (self.width, self.height), (0, self.height)

    def _corners(self) -> list[tuple[float, float]]:
        a, b, c, d, e, f = self.transform
        return [(a * col + b * row + c, d * col + e * row + f) for col, row in self._pixel_corners()]

    def _off_earth_error(self) -> FiresegError:
        return FiresegError(
            f"raster: some pixels are not on earth (transform {self.transform}, {self.crs}); check its georeference"
        )

    def _transform_error(self, error: Exception) -> FiresegError:
        return FiresegError(
            f"reference system {self.crs}: coordinates cannot be transformed to longitude and latitude ({error}); "
            "check the georeference and set the right reference system with gdal_edit.py -a_srs EPSG:…"
        )


_MAX_NODES = 33
"""Pixels measured along each axis. Areas between them are interpolated: 0.02 % error over 60 degrees of latitude."""

_UNIFORM_SHARE = 1e-6
"""Largest relative difference along a row for which all pixels of the row count as equal."""


class PixelAreas:
    """Geodesic areas of the pixels of a raster in any CRS, north up or not.

    The outlines of at most 33 x 33 evenly spread pixels are measured on the WGS 84 ellipsoid; the areas of all other
    pixels are interpolated linearly.

    Args:
        grid: Grid of the raster.

    Raises:
        FiresegError: If PROJ does not know the CRS, or a pixel lies outside the area where it is defined.

    References:
        Karney, Algorithms for geodesics, Journal of Geodesy 87 (2013).
    """

    def __init__(self, grid: Grid) -> None:
        self._width = grid.width
        self._rows, self._cols = _spread_nodes(grid.height), _spread_nodes(grid.width)
        self._areas = _measure_pixels(grid, self._rows, self._cols)
        if np.ptp(self._areas, axis=1).max() <= _UNIFORM_SHARE * self._areas.max():
            self._width, self._cols, self._areas = 1, self._cols[:1], self._areas[:, :1]

    def of_rows(self, top: int, num_rows: int, *, left: int = 0, width: int | None = None) -> NDArray[np.float32]:
        """Computes the pixel areas of consecutive rows.

        Args:
            top: First row.
            num_rows: Number of rows.
            left: First column.
            width: Number of columns; all that follow if None.

        Returns:
            Areas in m², `(num_rows, width)`, or `(num_rows, 1)` if all pixels of a row are equal, as in a raster in
            degrees.
        """
        rows = _interpolate(self._areas, self._rows, np.arange(top, top + num_rows))
        cols = np.arange(self._width)[left:][:width] if len(self._cols) > 1 else np.arange(self._width)
        return _interpolate(rows.T.astype(np.float32), self._cols, cols).T


def get_geod() -> Any:
    """Returns the WGS 84 ellipsoid, on which distances and areas are measured."""
    from pyproj import Geod

    return Geod(ellps="WGS84")


def _spread_nodes(length: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, _MAX_NODES).round().astype(np.intp))


def _measure_pixels(grid: Grid, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.float64]:
    """Measures the areas `(rows, cols)` in m² of the pixels at these rows and columns."""
    shape = (len(rows), len(cols), 4)
    right = np.broadcast_to(cols[None, :, None] + np.array([0, 1, 1, 0]), shape)
    down = np.broadcast_to(rows[:, None, None] + np.array([0, 0, 1, 1]), shape)
    lon, lat = (values.reshape(-1, 4) for values in grid.to_lonlat(right.ravel(), down.ravel()))
    geod = get_geod()
    areas = np.array([abs(geod.polygon_area_perimeter(*pixel)[0]) for pixel in zip(lon, lat, strict=True)])
    if not (np.isfinite(areas).all() and areas.min() > 0):
        raise grid._off_earth_error()
    return areas.reshape(shape[:2])


def _interpolate(values: NDArray, nodes: NDArray[np.intp], positions: NDArray[np.intp]) -> NDArray:
    """Interpolates values `(nodes, ...)` linearly to `(positions, ...)`."""
    if len(nodes) == 1:
        return np.repeat(values, len(positions), axis=0)
    before = np.clip(np.searchsorted(nodes, positions, side="right") - 1, 0, len(nodes) - 2)
    share = ((positions - nodes[before]) / (nodes[before + 1] - nodes[before])).astype(values.dtype)[:, None]
    return values[before] * (1 - share) + values[before + 1] * share
