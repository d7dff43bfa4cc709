"""Burned areas as polygons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error
from fireseg.geo.components import Components, find_components, label_strips, rows_of
from fireseg.geo.grid import GDAL_ERRORS, Grid, PixelAreas
from fireseg.geo.raster import CACHE_BYTES


def polygonize_components(
    classes: DatasetReader, found: Components, kept: NDArray[np.intp], *, folder: Path
) -> NDArray[np.object_]:
    """The outlines of components, along the edges of their pixels.

    Args:
        classes: The classes of a map.
        found: What hangs together in it.
        kept: Which components to outline, in the order wanted.
        folder: Takes a temporary file of 5 bytes a pixel before compression.

    Returns:
        Valid shapely polygons in the CRS of the map, `(len(kept),)` of objects.

    Raises:
        FiresegError: If the folder cannot be written, or the disk is full.
    """
    import shapely

    outlines = np.full(len(kept), None, object)
    try:
        with TemporaryDirectory(prefix=".outlines-", dir=folder) as work:
            for number, outline in _draw(classes, found, kept, Path(work)):
                outlines[number - 1] = shapely.geometry.shape(outline)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{folder}: the outlines need room there ({error}); is the disk full? make room") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    if shapely.is_missing(outlines).any():  # GDAL can miss that the disk is full
        raise FiresegError(f"{folder}: the outlines need room there; is the disk full or broken? make room")
    # A hole that touches the rim at a corner can be drawn as one line that touches itself.
    for place in np.flatnonzero(~shapely.is_valid(outlines)):
        outlines[place] = shapely.make_valid(outlines[place], method="structure")
    return outlines


def _draw(
    classes: DatasetReader, found: Components, kept: NDArray[np.intp], work: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    ids_path, kept_path = work / "ids.tif", work / "kept.tif"
    _write_ids(classes, found, kept, ids_path, kept_path)
    with rasterio.open(ids_path) as ids, rasterio.open(kept_path) as is_kept:
        for outline, number in shapes(rasterio.band(ids, 1), mask=rasterio.band(is_kept, 1), connectivity=4):
            yield int(number), outline


def simplify_polygons(outlines: NDArray[np.object_], crs: CRS, simplify_m: float) -> NDArray[np.object_]:
    """Outlines with fewer corners. One that would cross itself by that stays as it is.

    Args:
        outlines: Valid shapely polygons, `(N,)` of objects.
        crs: Their CRS.
        simplify_m: About how far an outline may move, in metres.

    Returns:
        Valid shapely polygons, `(N,)` of objects.
    """
    import shapely

    metres = _metres_per_unit(outlines, crs)
    simple = _scale(shapely.simplify(_scale(outlines, metres), simplify_m, preserve_topology=True), 1.0 / metres)
    is_fine = shapely.is_valid(simple) & ~shapely.is_empty(simple)
    return np.where(is_fine, simple, outlines)


def _write_ids(
    classes: DatasetReader, found: Components, kept: NDArray[np.intp], ids_path: Path, kept_path: Path
) -> None:
    """Writes a band with 1 for the first component kept, 2 for the next, 0 elsewhere; and one that tells the two."""
    id_of = np.zeros(int(found.of_piece.max(initial=-1)) + 1, np.int32)
    id_of[kept] = np.arange(1, len(kept) + 1)
    id_of_piece = np.concatenate([[0], id_of[found.of_piece]]).astype(np.int32)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "height": classes.height,
        "width": classes.width,
        "crs": classes.crs,
        "transform": classes.transform,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    with (
        rasterio.open(ids_path, "w", dtype="int32", **profile) as ids,
        rasterio.open(kept_path, "w", dtype="uint8", **profile) as is_kept,
    ):
        for top, _, pieces in label_strips(classes):
            numbers = id_of_piece[pieces]
            rows = rows_of(classes, top, len(pieces))
            ids.write(numbers, 1, window=rows)
            is_kept.write((numbers > 0).astype(np.uint8), 1, window=rows)


def _metres_per_unit(outlines: NDArray[np.object_], crs: CRS) -> NDArray[np.float64]:
    """Measures how many metres one unit of x and of y is at the middle latitude of each outline, `(N, 2)`."""
    import shapely
    from pyproj import Geod

    factor = crs.units_factor[1]  # metres, or radians if the CRS is geographic
    if not crs.is_geographic:
        return np.full((len(outlines), 2), factor)
    unit_deg, step_deg = np.degrees(factor), 0.01
    bounds = shapely.bounds(outlines)
    latitude = np.clip((bounds[:, 1] + bounds[:, 3]) / 2 * unit_deg, -89.9, 89.9)  # a degree of a pole has no length
    zero, geod = np.zeros(len(outlines)), Geod(ellps="WGS84")
    east_m = geod.inv(zero, latitude, zero + step_deg, latitude)[2]
    north_m = geod.inv(zero, latitude - step_deg / 2, zero, latitude + step_deg / 2)[2]
    return np.column_stack([east_m, north_m]) / step_deg * unit_deg


def _scale(outlines: NDArray[np.object_], factors: NDArray[np.float64]) -> NDArray[np.object_]:
    """Outlines whose x and y are multiplied by factors `(N, 2)` of their own."""
    import shapely

    coordinates, owners = shapely.get_coordinates(outlines, return_index=True)
    return shapely.set_coordinates(outlines.copy(), coordinates * factors[owners])


M2_PER_HA = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Burned areas, the largest first.

    Args:
        geometries: Shapely polygons in `crs`, `(N,)` of objects, all valid.
        fields: Attributes by name, each `(N,)`: `id` from 1, `area_ha`, `mean_probability`, and with more than two
            classes `ha_<class>` for each burned one. Areas are those of the pixels, before any simplification.
        crs: CRS of the raster they were drawn from.
        num_dropped: How many were smaller than the smallest area asked for.
        dropped_ha: Their hectares together.
    """

    geometries: NDArray[np.object_]
    fields: Mapping[str, NDArray]
    crs: CRS
    num_dropped: int
    dropped_ha: float


def polygonize(
    classes_path: Path,
    fire_path: Path,
    *,
    class_names: Sequence[str],
    min_area_ha: float = 0.0,
    simplify_m: float = 0.0,
) -> Polygons:
    """Outlines the burned areas of a map: pixels above class 0 that share an edge are one polygon.

    Read and outlined strip by strip: beside the polygons themselves, memory grows with the width of the map alone.

    Args:
        classes_path: Classes as `MapWriter` writes them; the folder takes a temporary file.
        fire_path: Probabilities of fire on the same grid.
        class_names: One name a class, the first for unburned.
        min_area_ha: Areas smaller than this are dropped, and counted.
        simplify_m: About how far, in metres, an outline may move to need fewer corners; 0 keeps that of the pixels.

    Raises:
        FiresegError: If a file cannot be read, the two lie on different grids, or the disk is full.
    """
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
            rasterio.open(classes_path) as classes,
            rasterio.open(fire_path) as fire,
        ):
            _check_grids(classes, fire)
            areas = PixelAreas(Grid.of_raster(classes))
            found = find_components(classes, fire, areas, num_classes=len(class_names))
            order = np.argsort(-found.areas_m2, kind="stable")
            kept = order[found.areas_m2[order] >= min_area_ha * M2_PER_HA]
            outlines = polygonize_components(classes, found, kept, folder=classes_path.parent)
            crs = classes.crs
    except GDAL_ERRORS as error:
        raise FiresegError(f"{classes_path} and {fire_path}: cannot be read ({error}); map the scene again") from error
    dropped_ha = (found.areas_m2.sum() - found.areas_m2[kept].sum()) / M2_PER_HA
    return Polygons(
        geometries=simplify_polygons(outlines, crs, simplify_m) if simplify_m else outlines,
        fields=_list_fields(found, kept, class_names),
        crs=crs,
        num_dropped=len(order) - len(kept),
        dropped_ha=float(max(0.0, dropped_ha)),
    )


def _check_grids(classes: DatasetReader, fire: DatasetReader) -> None:
    ours, theirs = ((one.shape, one.transform, one.crs) for one in (classes, fire))
    if ours != theirs:
        raise FiresegError(
            f"{fire.name}: {fire.height} x {fire.width} pixels at {tuple(fire.transform)[:6]}, but those of "
            f"{classes.name} ({classes.height} x {classes.width} at {tuple(classes.transform)[:6]}) are wanted; "
            "take the two of one map"
        )


def _list_fields(found: Components, kept: NDArray[np.intp], class_names: Sequence[str]) -> dict[str, NDArray]:
    fields: dict[str, NDArray] = {
        "id": np.arange(1, len(kept) + 1, dtype=np.int32),
        "area_ha": found.areas_m2[kept] / M2_PER_HA,
        "mean_probability": found.mean_probability[kept],
    }
    if len(class_names) > 2:
        for place, name in enumerate(class_names[1:]):
            fields[f"ha_{name}"] = found.class_areas_m2[kept, place] / M2_PER_HA
    return fields


LAYER = "burned"


def write_polygons(polygons: Polygons, path: Path, *, driver: Literal["GPKG", "GeoJSON"]) -> None:
    """Writes polygons, whole or not at all. A map without fire gives a valid file without a feature.

    Args:
        polygons: What to write.
        path: The file; its folder must exist, and takes a temporary file.
        driver: `GPKG` in the CRS of the map, layer `burned`; `GeoJSON` in longitude and latitude (RFC 7946), cut at
            the antimeridian. GeoJSON names its fields with each feature, so an empty one has none.

    Raises:
        FiresegError: If the file cannot be written.
    """
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        with TemporaryDirectory(prefix=".vectors-", dir=path.parent) as work:
            written = Path(work) / f"{LAYER}.{driver.lower()}"  # GDAL wants the suffix of the format
            is_whole = _write(polygons, written, driver)
            if is_whole:
                with atomic_write(path) as part:
                    written.replace(part)
    except OSError as error:
        raise disk_error(path, error) from error
    except (DataLayerError, DataSourceError) as error:
        raise FiresegError(f"{path}: cannot be written ({error}); is the disk full? make room") from error
    if not is_whole:
        raise FiresegError(f"{path}: does not hold what was written to it; is the disk full or broken?")


def _write(polygons: Polygons, path: Path, driver: str) -> bool:
    """Returns whether all of it is there: GDAL can miss that the disk is full at the end of a file."""
    import shapely
    from pyogrio import raw, read_info

    raw.write(
        path,
        shapely.to_wkb(polygons.geometries),
        list(polygons.fields.values()),
        list(polygons.fields),
        driver=driver,
        layer=LAYER,
        geometry_type="Polygon",
        crs=polygons.crs.to_wkt(),
        layer_options={"RFC7946": "YES"} if driver == "GeoJSON" else {},
    )
    return read_info(path, force_feature_count=True)["features"] == len(polygons.geometries)
