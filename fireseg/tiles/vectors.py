"""Rasterises the polygons of a vector file as a mask on the grid of an image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError, did_you_mean, join_names
from fireseg.files import check_readable
from fireseg.geo.grid import Grid
from fireseg.task import IGNORE_INDEX, TASKS
from fireseg.tiles.masks import Mask, MaskKind
from fireseg.tiles.options import DEFAULT_LABELS, LabelOptions
from fireseg.tiles.vector_file import check_vector_file

GRADE_WORDS: Mapping[str, int] = {
    "no visible damage": 0,
    "no damage": 0,
    "not affected": 0,
    "negligible to slight damage": 1,
    "negligible": 1,
    "moderately damaged": 2,
    "moderate": 2,
    "highly damaged": 3,
    "high": 3,
    "destroyed": 4,
    "completely destroyed": 4,
}
"""Grades of CEMS layers and of this project as text, in lower case."""

_POLYGON_TYPES = (3, 6)
"""Polygon and MultiPolygon, as shapely numbers the types of geometries."""

_MAX_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Features of a layer: shapely geometries `(N,)`, their numbers, the values of one field, and the CRS."""

    geometries: NDArray[Any]
    numbers: NDArray[Any]
    values: NDArray[Any] | None
    crs: str | None
    warnings: tuple[str, ...]


def read_vector_mask(path: Path, kind: MaskKind, grid: Grid, labels: LabelOptions = DEFAULT_LABELS) -> Mask:
    """Rasterises a delineation or a grading: a pixel has the class of the polygon that its centre lies in.

    Where polygons overlap, the highest grade counts. Pixels outside of all polygons are 0, all of them if the layer has
    no feature.

    Args:
        path: GeoJSON, GeoPackage or shapefile with one polygon layer, in any reference system.
        kind: DEL or GRA.
        grid: Grid of the image.
        labels: `grade_field` names the field of the grades, 0 to 4 or the words of CEMS; `classes` applies to its
            numbers.

    Raises:
        FiresegError: With all faults: not readable, no or several polygon layers, no reference system, invalid
            polygons, other geometries, unknown grades, wholly outside of the image.
    """
    layer = _read_layer(path, _require_grade_field(path, labels) if kind == "GRA" else None)
    flags = [f"{path}: {text}" for text in layer.warnings]
    if not len(layer.geometries):
        return Mask(values=np.zeros((grid.height, grid.width), np.uint8), flags=tuple(flags))
    faults, has_shape = _check_geometries(layer)
    classes = np.ones(len(layer.geometries), np.int64)
    if layer.values is not None:
        classes, unknown_grades = _parse_grades(layer.values, labels)
        faults += unknown_grades
    if faults:
        raise FiresegError(*(f"{path}: {fault}" for fault in faults))
    if missing := int((~has_shape).sum()):
        flags.append(f"{path}: {missing} of {len(has_shape)} features have no geometry and are left out")
    try:
        values = _rasterize(layer.geometries[has_shape], classes[has_shape], layer.crs or "", grid)
    except FiresegError as error:
        raise FiresegError(f"{path}: {error}") from error
    return Mask(values=values, flags=tuple(flags))


def _read_layer(path: Path, field: str | None) -> _Layer:
    """Reads the only polygon layer of a file, with the values of one field."""
    import shapely
    from pyogrio import list_layers, raw, read_info
    from pyogrio.errors import DataLayerError, DataSourceError

    check_readable(path)
    check_vector_file(path)
    try:
        with warnings.catch_warnings(record=True) as caught:  # GDAL reports rings that are not closed, and the like
            warnings.simplefilter("always")
            layers = [str(name) for name, geometry in list_layers(path) if _may_hold_polygons(geometry)]
            if len(layers) != 1:
                what = f"{len(layers)} layers of polygons ({', '.join(layers)})" if layers else "no layer of polygons"
                raise FiresegError(f"{path}: {what}, but labels need one; write it to a file of its own with ogr2ogr")
            fields = [str(name) for name in read_info(path, layer=layers[0])["fields"]]
            if field is not None and field not in fields:
                hint = did_you_mean(field, fields)
                raise FiresegError(
                    f"{path}: no field {field}{hint}; choose with --grade-field among: {', '.join(fields) or 'none'}"
                )
            columns = [] if field is None else [field]
            meta, numbers, shapes, values = raw.read(
                path, layer=layers[0], columns=columns, force_2d=True, return_fids=True
            )
    except (DataSourceError, DataLayerError) as error:
        what = "empty" if path.stat().st_size == 0 else f"truncated or not a vector file ({error})"
        raise FiresegError(f"{path}: {what}; export it again") from error
    try:
        with np.errstate(invalid="ignore"):  # NaN, reported later
            geometries = shapely.from_wkb(shapes)
    except shapely.errors.GEOSException as error:
        raise FiresegError(f"{path}: a geometry that is none ({error}); export it again") from error
    if not len(geometries) and _has_features(path):
        raise FiresegError(f"{path}: its features are none that GeoJSON knows; export it again")
    return _Layer(
        geometries=geometries,
        numbers=numbers,
        values=values[0] if values else None,
        crs=meta["crs"],
        warnings=tuple(str(warning.message) for warning in caught),
    )


def _has_features(path: Path) -> bool:
    """Returns True for a GeoJSON with features; GDAL reads past those that are damaged without a word."""
    if path.suffix.lower() != ".geojson":
        return False
    return bool(json.loads(path.read_bytes()).get("features"))


def _may_hold_polygons(geometry: str | None) -> bool:
    """Returns True for layers of polygons, and of any geometries such as those of an empty GeoJSON."""
    return geometry is not None and any(word in geometry for word in ("Polygon", "Unknown", "Surface", "Collection"))


def _require_grade_field(path: Path, labels: LabelOptions) -> str:
    if labels.grade_field is None:
        raise FiresegError(f"{path}: a grading as polygons needs the field of the grades; name it with --grade-field")
    return labels.grade_field


def _check_geometries(layer: _Layer) -> tuple[list[str], NDArray[np.bool_]]:
    """Returns the faults of the geometries, and which features have one."""
    import shapely

    geometries, faults = layer.geometries, []
    has_shape = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if not has_shape.any():
        return ["no feature has a geometry, so where land burned is unknown; export it again"], has_shape
    if layer.crs is None:
        faults.append("no reference system; set it, for example with ogr2ogr -a_srs EPSG:…")
    others = has_shape & ~np.isin(shapely.get_type_id(geometries), _POLYGON_TYPES)
    if others.any():
        types = sorted({str(geometry.geom_type) for geometry in geometries[others]})
        faults.append(f"{', '.join(types)}, but burned areas are polygons; remove the other geometries")
    invalid = has_shape & ~shapely.is_valid(geometries)
    if invalid.any():
        reasons = [
            f"feature {number}: {shapely.is_valid_reason(geometry)}"
            for number, geometry in zip(layer.numbers[invalid], geometries[invalid], strict=True)
        ]
        faults.append(
            f"{len(reasons)} invalid polygons ({join_names(reasons, _MAX_SHOWN)}); repair them with "
            "ogr2ogr -makevalid, or with Fix geometries in QGIS"
        )
    return faults, has_shape


def _parse_grades(values: NDArray[Any], labels: LabelOptions) -> tuple[NDArray[np.int64], list[str]]:
    """Returns the grade of each feature, and a fault if some are not understood."""
    classes = labels.class_map("GRA")
    grades, unknown = np.zeros(len(values), np.int64), set[str]()
    for index, value in enumerate(values):
        text = " ".join(str(value).split())
        number: float | None = GRADE_WORDS.get(text.lower())
        if number is None:
            try:
                number = classes.get(float(text), float(text))
            except ValueError:
                number = None
        if number is None or number not in (*range(TASKS["gra"].num_classes), IGNORE_INDEX):
            unknown.add("no value" if value is None else text)
        else:
            grades[index] = int(number)
    if not unknown:
        return grades, []
    shown = join_names(sorted(unknown), _MAX_SHOWN)
    return grades, [
        f"field {labels.grade_field}: {shown} not understood as a grade; use 0 to 4, or the words of CEMS from "
        "'No visible damage' to 'Destroyed'; --classes says what other numbers mean"
    ]


def _rasterize(geometries: NDArray[Any], classes: NDArray[np.int64], crs: str, grid: Grid) -> NDArray[np.uint8]:
    import shapely
    from rasterio.features import rasterize

    geometries = _transform(geometries, crs, grid)
    a, b, c, d, e, f = grid.transform
    corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    outline = shapely.polygons([(a * col + b * row + c, d * col + e * row + f) for col, row in corners])
    shapely.prepare(outline)
    is_inside = shapely.intersects(geometries, outline)
    if not is_inside.any():
        raise FiresegError(
            f"lies wholly outside of the image ({_format_bounds(geometries)}, but the image is "
            f"{_format_bounds(outline)}); check that it belongs to this image, and its reference system; if nothing "
            "burned there, write a file without features"
        )
    # Later shapes are drawn over earlier ones: unknown first, then by grade.
    order = np.argsort(np.where(classes == IGNORE_INDEX, -1, classes), kind="stable")
    shapes: Sequence[Any] = [(geometries[index], int(classes[index])) for index in order if is_inside[index]]
    return rasterize(shapes, (grid.height, grid.width), fill=0, transform=grid.affine, dtype="uint8")


def _transform(geometries: NDArray[Any], crs: str, grid: Grid) -> NDArray[Any]:
    """Transforms geometries to the reference system of the grid."""
    import shapely
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        source, target = CRS.from_user_input(crs), CRS.from_user_input(grid.crs)
    except CRSError as error:
        raise FiresegError(f"reference system not understood ({error}); set it with ogr2ogr -a_srs EPSG:…") from error
    west, south, east, north = shapely.total_bounds(geometries)
    if source.is_geographic and (west < -360 or east > 360 or south < -90 or north > 90):
        raise FiresegError(
            f"coordinates ({_format_bounds(geometries)}) are no degrees, but its reference system is {source.name}; "
            "set the right one with ogr2ogr -a_srs EPSG:…"
        )
    if source.equals(target, ignore_axis_order=True):
        return geometries
    transformer = Transformer.from_crs(source, target, always_xy=True)
    moved = shapely.transform(geometries, lambda points: np.column_stack(transformer.transform(*points.T)))
    if not np.isfinite(shapely.bounds(moved)).all():
        raise FiresegError(
            f"coordinates ({_format_bounds(geometries)}) cannot be transformed from {source.name} to {target.name}; "
            "check its reference system"
        )
    return moved


def _format_bounds(geometries: Any) -> str:
    import shapely

    west, south, east, north = shapely.total_bounds(geometries)
    return f"x {west:.6g} to {east:.6g}, y {south:.6g} to {north:.6g}"
