"""Burned areas as polygons, in GeoPackage or GeoJSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
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
from fireseg.geo.components import Components, find_components, label_blocks
from fireseg.geo.grid import GDAL_ERRORS, M2_PER_HA, Grid, PixelAreas, get_geod
from fireseg.geo.qgis import make_polygon_style
from fireseg.geo.raster import CACHE_BYTES
from fireseg.geo.windows import MAX_COLS
from fireseg.memory import check_memory

LAYER = "burned"

_POLYGON_BYTES = 4000
"""Memory of a small polygon while it is outlined and written."""

MAX_POLYGONS = 100_000
"""Most polygons of a map; noise has a million in a scene of 10980 x 10980 pixels, fires have some thousands."""

_BUILT_TOGETHER = 1000
"""Polygons built by one call of shapely, which costs far more time than the polygon itself."""

STYLES = "layer_styles"
"""Table in which QGIS looks for the styles of layers."""


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Polygons of burned areas, the largest first.

    Attributes:
        geometries: Valid shapely polygons in `crs`, `(N,)` of objects.
        fields: Attributes by name, each `(N,)`: `id` from 1, `area_ha`, `mean_probability`, `class` (`burned`, or with
            more than two classes that of most of the area), and with more than two classes `ha_<class>` for each
            burned class. Areas are those of the pixels, before any simplification.
        crs: CRS of the raster.
        num_dropped: Number of areas without a polygon: below the minimum area, or the smallest of too many.
        dropped_ha: Their total area in hectares.
        num_omitted: Number of those that are left out only because there are more than `MAX_POLYGONS`.
    """

    geometries: NDArray[np.object_]
    fields: Mapping[str, NDArray]
    crs: CRS
    num_dropped: int
    dropped_ha: float
    num_omitted: int = 0


def polygonize(
    classes_path: Path,
    fire_path: Path,
    *,
    class_names: Sequence[str],
    min_area_ha: float = 0.0,
    simplify_m: float = 0.0,
) -> Polygons:
    """Converts the burned areas of a map to polygons: pixels above class 0 that share an edge form one polygon.

    The map is read and labelled block by block, so that apart from the polygons memory does not grow with its size.
    Measured on 8000 x 8000 pixels with 19,500 polygons: 160 MB, against 1,470 MB if the whole map is labelled at once.

    Args:
        classes_path: Class raster written by `MapWriter`; temporary files are written to its folder.
        fire_path: Fire probabilities on the same grid.
        class_names: One name per class, the first for unburned.
        min_area_ha: Smaller areas are dropped and counted.
        simplify_m: Simplification tolerance in metres; 0 keeps the pixel outlines.

    Raises:
        FiresegError: If a file cannot be read, the grids of the two files differ, or the disk is full.
    """
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
            rasterio.open(classes_path, driver="GTiff") as classes,
            rasterio.open(fire_path, driver="GTiff") as fire,
        ):
            _check_grids(classes, fire)
            areas = PixelAreas(Grid.of_raster(classes))
            components = find_components(classes, fire, areas, num_classes=len(class_names))
            order = np.argsort(-components.areas_m2, kind="stable")
            large_enough = order[components.areas_m2[order] >= min_area_ha * M2_PER_HA]
            selected = large_enough[:MAX_POLYGONS]
            check_memory(
                len(selected) * _POLYGON_BYTES,
                f"{classes_path.name}: {len(selected):,} burned areas",
                "leave out small ones with --min-area-ha",
            )
            outlines = _outline_components(classes, components, selected, folder=classes_path.parent)
            crs = classes.crs
    except GDAL_ERRORS as error:
        raise FiresegError(f"{classes_path} and {fire_path}: cannot be read ({error}); map the scene again") from error
    dropped_ha = (components.areas_m2.sum() - components.areas_m2[selected].sum()) / M2_PER_HA
    return Polygons(
        geometries=_simplify(outlines, crs, simplify_m) if simplify_m else outlines,
        fields=_make_fields(components, selected, class_names),
        crs=crs,
        num_dropped=len(order) - len(selected),
        dropped_ha=float(max(0.0, dropped_ha)),
        num_omitted=len(large_enough) - len(selected),
    )


def write_polygons(
    polygons: Polygons,
    path: Path,
    *,
    driver: Literal["GPKG", "GeoJSON"],
    origin: Mapping[str, str | None] | None = None,
) -> None:
    """Writes polygons to a file, atomically. A map without burned areas gives a valid file without features.

    Areas are rounded to 0.01 ha.

    Args:
        polygons: Polygons to write.
        path: Output file; temporary files are written to its folder, which must exist.
        driver: `GPKG` writes layer `burned` in the CRS of the map, and its style for QGIS. `GeoJSON` writes longitude
            and latitude (RFC 7946), cut at the antimeridian; an empty GeoJSON has no fields, because the format stores
            them per feature.
        origin: Further fields, equal in all features, such as scene and model.

    Raises:
        FiresegError: If the file cannot be written.
    """
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        with TemporaryDirectory(prefix=".vectors-", dir=path.parent) as work:
            written = Path(work) / f"{LAYER}.{driver.lower()}"  # GDAL requires the suffix of the format
            is_complete = _write(polygons, written, driver, origin or {})
            if is_complete:
                with atomic_write(path) as part:
                    written.replace(part)
    except OSError as error:
        raise disk_error(path, error) from error
    except (DataLayerError, DataSourceError) as error:
        raise FiresegError(f"{path}: cannot be written ({error}); if the disk is full, free some space") from error
    if not is_complete:
        raise FiresegError(f"{path}: features are missing after writing; check that the disk is not full or damaged")


def _check_grids(classes: DatasetReader, fire: DatasetReader) -> None:
    one, other = ((raster.shape, raster.transform, raster.crs) for raster in (classes, fire))
    if one != other:
        raise FiresegError(
            f"{fire.name}: {fire.height} x {fire.width} pixels at {tuple(fire.transform)[:6]}, but the grid of "
            f"{classes.name} is required ({classes.height} x {classes.width} at {tuple(classes.transform)[:6]}); "
            "use the two files of one map"
        )


def _outline_components(
    classes: DatasetReader, components: Components, selected: NDArray[np.intp], *, folder: Path
) -> NDArray[np.object_]:
    """Outlines components along their pixel edges.

    Args:
        classes: Class raster of the map.
        components: Components of the map.
        selected: Numbers of the components to outline, in the order of the result.
        folder: Folder for temporary files of 5 bytes per pixel before compression.

    Returns:
        Valid shapely polygons in the CRS of the map, `(len(selected),)` of objects.

    Raises:
        FiresegError: If the folder cannot be written, or the disk is full.
    """
    import shapely

    outlines = np.full(len(selected), None, object)
    try:
        with TemporaryDirectory(prefix=".outlines-", dir=folder) as work:
            ids_path, mask_path = Path(work) / "ids.tif", Path(work) / "mask.tif"
            _write_ids(classes, components, selected, ids_path, mask_path)
            with rasterio.open(ids_path, driver="GTiff") as ids, rasterio.open(mask_path, driver="GTiff") as mask:
                found = shapes(rasterio.band(ids, 1), mask=rasterio.band(mask, 1), connectivity=4)
                while batch := list(islice(found, _BUILT_TOGETHER)):
                    numbers = np.array([number for _, number in batch], np.intp)
                    outlines[numbers - 1] = _build_polygons([outline["coordinates"] for outline, _ in batch])
    except GDAL_ERRORS as error:
        raise FiresegError(
            f"{folder}: temporary files of the outlines cannot be written ({error}); if the disk is full, free some "
            "space"
        ) from error
    except OSError as error:
        raise disk_error(folder, error) from error
    if shapely.is_missing(outlines).any():  # GDAL can miss that the disk is full
        raise FiresegError(
            f"{folder}: temporary files of the outlines are incomplete; check that the disk is not full or damaged"
        )
    # A hole that touches the outer ring at a corner can be traced as one line that touches itself.
    for number in np.flatnonzero(~shapely.is_valid(outlines)):
        outlines[number] = shapely.make_valid(outlines[number], method="structure")
    return outlines


def _build_polygons(outlines: Sequence[Sequence[Sequence[tuple[float, float]]]]) -> NDArray[np.object_]:
    """Builds shapely polygons from their rings."""
    import shapely

    rings = [ring for outline in outlines for ring in outline]
    starts_of_rings = np.cumsum([0, *map(len, rings)])
    points = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), np.float64, 2 * int(starts_of_rings[-1]))
    starts_of_outlines = np.cumsum([0, *map(len, outlines)])
    offsets = starts_of_rings, starts_of_outlines
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, points.reshape(-1, 2), offsets)


def _write_ids(
    classes: DatasetReader, components: Components, selected: NDArray[np.intp], ids_path: Path, mask_path: Path
) -> None:
    """Writes the numbers of the selected components from 1, 0 elsewhere, and a mask of the pixels above 0."""
    id_of = np.zeros(int(components.component_of_piece.max(initial=-1)) + 1, np.int32)
    id_of[selected] = np.arange(1, len(selected) + 1)
    id_of_piece = np.concatenate([[0], id_of[components.component_of_piece]]).astype(np.int32)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "height": classes.height,
        "width": classes.width,
        "crs": classes.crs,
        "transform": classes.transform,
        # GDAL outlines line by line: low tiles, of which its cache holds a row of the whole width.
        "tiled": True,
        "blockxsize": min(MAX_COLS, -(-classes.width // 16) * 16),
        "blockysize": 16,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    with (
        rasterio.open(ids_path, "w", dtype="int32", **profile) as ids,
        rasterio.open(mask_path, "w", dtype="uint8", **profile) as mask,
    ):
        for block, _, pieces in label_blocks(classes):
            numbers = id_of_piece[pieces]
            ids.write(numbers, 1, window=block.to_rasterio())
            mask.write((numbers > 0).astype(np.uint8), 1, window=block.to_rasterio())


def _simplify(outlines: NDArray[np.object_], crs: CRS, tolerance_m: float) -> NDArray[np.object_]:
    """Simplifies polygons `(N,)` in metres; a polygon that would become invalid or empty is returned unchanged."""
    import shapely

    scale = _metres_per_unit(outlines, crs)
    scaled = shapely.simplify(_scale(outlines, scale), tolerance_m, preserve_topology=True)
    simple = _scale(scaled, 1.0 / scale)
    return np.where(shapely.is_valid(simple) & ~shapely.is_empty(simple), simple, outlines)


def _metres_per_unit(outlines: NDArray[np.object_], crs: CRS) -> NDArray[np.float64]:
    """Measures how many metres one unit of x and of y is at the middle latitude of each outline, `(N, 2)`."""
    import shapely

    factor = crs.units_factor[1]  # metres, or radians if the CRS is geographic
    if not crs.is_geographic:
        return np.full((len(outlines), 2), factor)
    unit_deg, step_deg = np.degrees(factor), 0.01
    bounds = shapely.bounds(outlines)
    latitude = np.clip((bounds[:, 1] + bounds[:, 3]) / 2 * unit_deg, -89.9, 89.9)  # longitude has no length at a pole
    zero, geod = np.zeros(len(outlines)), get_geod()
    east_m = geod.inv(zero, latitude, zero + step_deg, latitude)[2]
    north_m = geod.inv(zero, latitude - step_deg / 2, zero, latitude + step_deg / 2)[2]
    return np.column_stack([east_m, north_m]) / step_deg * unit_deg


def _scale(outlines: NDArray[np.object_], factors: NDArray[np.float64]) -> NDArray[np.object_]:
    """Multiplies x and y of each outline by its factors `(N, 2)`."""
    import shapely

    coordinates, owners = shapely.get_coordinates(outlines, return_index=True)
    return shapely.set_coordinates(outlines.copy(), coordinates * factors[owners])


def _make_fields(components: Components, selected: NDArray[np.intp], class_names: Sequence[str]) -> dict[str, NDArray]:
    fields: dict[str, NDArray] = {
        "id": np.arange(1, len(selected) + 1, dtype=np.int32),
        "area_ha": components.areas_m2[selected] / M2_PER_HA,
        "mean_probability": components.mean_probability[selected],
    }
    if len(class_names) == 2:
        fields["class"] = np.full(len(selected), "burned", object)
    else:
        largest = components.class_areas_m2[selected].argmax(axis=1)
        fields["class"] = np.array(class_names[1:], object)[largest]
        for column, name in enumerate(class_names[1:]):
            fields[f"ha_{name}"] = components.class_areas_m2[selected, column] / M2_PER_HA
    return fields


def _write(polygons: Polygons, path: Path, driver: str, origin: Mapping[str, str | None]) -> bool:
    """Writes the file and returns True if it is complete: GDAL can miss that the disk is full at the end of a file."""
    import shapely
    from pyogrio import raw, read_info

    num_polygons, is_geopackage = len(polygons.geometries), driver == "GPKG"
    fields = {name: _round_areas(name, values) for name, values in polygons.fields.items()}
    fields |= {name: np.full(num_polygons, text, object) for name, text in origin.items()}
    raw.write(
        path,
        shapely.to_wkb(polygons.geometries),
        list(fields.values()),
        list(fields),
        driver=driver,
        layer=LAYER,
        geometry_type="Polygon",
        crs=polygons.crs.to_wkt(),
        # QGIS 3.22 warns of the newer versions of the format that GDAL writes by default.
        dataset_options={"VERSION": "1.2"} if is_geopackage else {},
        layer_options={} if is_geopackage else {"RFC7946": "YES"},
    )
    expected = {LAYER: num_polygons}
    if is_geopackage:
        write_style(path)
        expected[STYLES] = 1
    counts = {layer: read_info(path, layer=layer, force_feature_count=True)["features"] for layer in expected}
    return counts == expected


def _round_areas(name: str, values: NDArray) -> NDArray:
    return values.round(2) if name == "area_ha" or name.startswith("ha_") else values


def write_style(path: Path) -> None:
    """Adds the default style of the layer to a GeoPackage, in the table that QGIS itself creates for styles."""
    from pyogrio import raw

    texts = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": LAYER,
        "f_geometry_column": "geom",
        "styleName": LAYER,
        "styleQML": make_polygon_style(),
        "styleSLD": "",
        "description": "Outlines of burned areas with their hectares",
        "owner": "",
        "ui": None,
    }
    fields: dict[str, NDArray] = {name: np.array([text], object) for name, text in texts.items()}
    fields["useAsDefault"] = np.array([True])
    fields["update_time"] = np.array([np.datetime64("now", "ms")])
    raw.write(
        path,
        None,
        list(fields.values()),
        list(fields),
        driver="GPKG",
        layer=STYLES,
        append=True,
        layer_options={"FID": "id"},
    )
