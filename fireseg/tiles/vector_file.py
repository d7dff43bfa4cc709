"""Checks that a vector file has a known format and makes GDAL open nothing else."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fireseg.errors import FiresegError
from fireseg.files import check_regular_file

_SHAPEFILE, _SQLITE = b"\x00\x00\x27\x0a", b"SQLite format 3\0"

_GEOJSON_TYPES = (
    *("FeatureCollection", "Feature", "GeometryCollection"),
    *("Polygon", "MultiPolygon", "LineString", "MultiLineString", "Point", "MultiPoint"),
)

_GDAL_FUNCTION = re.compile(r"(?<!\w)(ogr|gdal)_", re.IGNORECASE)
"""Functions that GDAL adds to SQLite; some of them open addresses and files."""

_OTHER_FORMAT = re.compile(rb"gdal_streamed_alg|<(OGR|GDAL|VRT)", re.IGNORECASE)
"""Words by which GDAL takes a json for commands, which it runs since version 3.11, or for a virtual layer."""

_CURE = "if you trust it, write it again with ogr2ogr copy.gpkg"


def check_vector_file(path: Path) -> None:
    """Checks that a file is a GeoJSON, a GeoPackage or a shapefile that refers to no other file or address.

    The format is that of the content, as GDAL sees it: under any suffix it takes virtual layers and services.

    Raises:
        FiresegError: If it is anything else, or names an address, or has tables that are read from elsewhere.
    """
    check_regular_file(path)
    with path.open("rb") as file:
        head = file.read(len(_SQLITE))
    if head.startswith(_SHAPEFILE):
        return
    if head == _SQLITE:
        _check_geopackage(path)
    elif head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        _check_geojson(path)
    else:
        what = "truncated or not a vector file (GeoJSON, GeoPackage or shapefile)" if head else "empty"
        raise FiresegError(f"{path}: {what}; export it again, or convert it with ogr2ogr copy.gpkg {path.name}")


def _check_geojson(path: Path) -> None:
    has_link = False

    def look(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal has_link
        is_link = any(key.lower() == "type" and str(value).lower() == "link" for key, value in pairs)
        has_link |= is_link and any(key.lower() == "properties" for key, _ in pairs)
        return dict(pairs)

    content = path.read_bytes()
    try:
        root = json.loads(content.decode("utf-8-sig"), object_pairs_hook=look)
    except (ValueError, RecursionError) as error:
        raise FiresegError(f"{path}: truncated or not a vector file ({error}); export it again") from error
    if root.get("type") not in _GEOJSON_TYPES or _OTHER_FORMAT.search(content):
        raise FiresegError(f"{path}: truncated or not a vector file (a json of another kind); export it as GeoJSON")
    if has_link:
        raise FiresegError(f"{path}: its reference system is a link, which is not followed; name it (EPSG:…); {_CURE}")


def _check_geopackage(path: Path) -> None:
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as base:
            rows = base.execute("SELECT name, type, rootpage, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    except sqlite3.Error as error:
        raise FiresegError(f"{path}: truncated or not a vector file ({error}); export it again") from error
    for name, kind, rootpage, sql in rows:
        is_virtual = kind == "table" and not rootpage and not re.search(r"\busing\s+rtree\b", str(sql), re.IGNORECASE)
        if is_virtual or _GDAL_FUNCTION.search(str(sql)):
            raise FiresegError(f"{path}: {kind} {name} reads other files or addresses, which is not allowed; {_CURE}")
