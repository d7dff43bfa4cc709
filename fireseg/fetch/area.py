"""Reads the area of interest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fireseg.errors import FiresegError
from fireseg.files import check_readable
from fireseg.geo.grid import get_geod
from fireseg.tiles.vector_file import check_vector_file

_MAX_EXTENT_M = 300_000.0
"""Largest extent of an area: the satellite sees a swath of 290 km."""

_LONLAT = "EPSG:4326"


def read_area(path: Path) -> Any:
    """Reads the polygons of a vector file as one shapely geometry in longitude and latitude.

    Args:
        path: GeoJSON (a geometry, a feature or a collection), GeoPackage or shapefile; the first layer is used.
            Without a reference system, coordinates are longitude and latitude.

    Raises:
        FiresegError: If the file cannot be read, has no polygon, or lies outside of the earth or is larger than a
            scene.
    """
    import shapely

    geometries, crs = _read_geometries(path)
    polygons = [geometry for geometry in geometries if geometry.geom_type in ("Polygon", "MultiPolygon")]
    if not polygons or all(polygon.is_empty for polygon in polygons):
        kinds = ", ".join(sorted({geometry.geom_type for geometry in geometries})) or "nothing"
        raise FiresegError(f"{path}: {kinds}, but an area is a Polygon or MultiPolygon; draw its outline")
    if len(polygons) < len(geometries):
        raise FiresegError(f"{path}: other geometries beside polygons; keep only the outline of the area")
    if not np.isfinite(shapely.get_coordinates(polygons)).all():
        raise FiresegError(f"{path}: coordinates that are NaN or infinite; draw the outline again")
    area = shapely.union_all(shapely.make_valid(shapely.force_2d(polygons)))
    if crs and crs != _LONLAT:
        area = _to_lonlat(area, crs, path)
    _check_bounds(path, area.bounds)
    return area


def _read_geometries(path: Path) -> tuple[list[Any], str | None]:
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError
    from pyogrio.raw import read

    if not path.is_file():
        raise FiresegError(f"{path}: no such file; give a GeoJSON with the outline of the area")
    check_readable(path)
    check_vector_file(path)
    try:
        meta, _, geometries, _ = read(path, layer=0, columns=[])
    except (DataSourceError, DataLayerError) as error:
        raise FiresegError(f"{path}: not a readable vector file ({error}); give a GeoJSON with a polygon") from error
    if geometries is None:
        return [], None
    try:
        with np.errstate(invalid="ignore"):  # NaN, reported later
            return [shapely.from_wkb(wkb) for wkb in geometries if wkb is not None], meta["crs"]
    except shapely.errors.GEOSException as error:
        raise FiresegError(f"{path}: a geometry that is none ({error}); draw the outline again") from error


def _to_lonlat(area: Any, crs: str, path: Path) -> Any:
    import shapely
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        transformer = Transformer.from_crs(crs, _LONLAT, always_xy=True)
        return shapely.transform(
            area, lambda points: np.column_stack(transformer.transform(*points.T, errcheck=True)), include_z=False
        )
    except ProjError as error:
        raise FiresegError(f"{path}: cannot be transformed from {crs} to longitude and latitude ({error})") from error


def _check_bounds(path: Path, bounds: tuple[float, float, float, float]) -> None:
    west, south, east, north = bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise FiresegError(
            f"{path}: coordinates {west:g} {south:g} {east:g} {north:g}, but longitudes of -180 to 180 and latitudes "
            "of -90 to 90 are expected; convert it with ogr2ogr -t_srs EPSG:4326"
        )
    geod, middle = get_geod(), (south + north) / 2
    width, height = geod.inv(west, middle, east, middle)[2], geod.inv(west, south, west, north)[2]
    if east - west > 180 or max(width, height) > _MAX_EXTENT_M:
        raise FiresegError(
            f"{path}: the area spans {west:g} to {east:g} east and {south:g} to {north:g} north, but at most "
            f"{_MAX_EXTENT_M / 1000:.0f} km are seen in one pass of the satellite; divide it"
        )
