"""Vector files that make GDAL open addresses and other files are refused before GDAL sees them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyogrio import raw

from fireseg.errors import FiresegError
from fireseg.tiles.vector_file import check_vector_file
from tests.conftest import CountingServer

BOX = shapely.box(0, 0, 1, 1)


def write_layer(path: Path, driver: str) -> Path:
    shapes = shapely.to_wkb(np.array([BOX]))
    raw.write(path, shapes, [], [], driver=driver, layer="burned", geometry_type="Polygon", crs="EPSG:4326")
    return path


def write_geojson(path: Path, **members: object) -> Path:
    feature = {
        "type": "Feature",
        "properties": {"type": "link", "crs": "none"},
        "geometry": shapely.geometry.mapping(BOX),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **members}))
    return path


@pytest.mark.parametrize(
    ("name", "driver"), [("a.gpkg", "GPKG"), ("a.shp", "ESRI Shapefile"), ("a.geojson", "GeoJSON")]
)
def test_the_three_formats_are_read(tmp_path: Path, name: str, driver: str) -> None:
    check_vector_file(write_layer(tmp_path / name, driver))


def test_a_reference_system_by_name_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.geojson", crs={"type": "name", "properties": {"name": "EPSG:32631"}})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check_vector_file(path)


def write_link(path: Path, url: str) -> None:
    write_geojson(path, crs={"type": "link", "properties": {"href": f"{url}/crs", "type": "proj4"}})


def write_virtual_layer(path: Path, url: str) -> None:
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/vsicurl/{url}/a.geojson</SrcDataSource></OGRVRTLayer>'
        "</OGRVRTDataSource>"
    )


def write_service(path: Path, url: str) -> None:
    path.write_text(f"<OGRWFSDataSource><URL>{url}/wfs</URL></OGRWFSDataSource>")


def write_pipeline(path: Path, url: str) -> None:
    command = f"gdal vector pipeline ! read /vsicurl/{url}/a.geojson"
    write_geojson(path, **{"type": "gdal_streamed_alg", "command_line": command})


def write_virtual_table(path: Path, url: str) -> None:
    write_sql(path, f"CREATE VIRTUAL TABLE v USING VirtualOGR('/vsicurl/{url}/a.geojson')")


def write_view(path: Path, url: str) -> None:
    write_sql(path, f"CREATE VIEW v AS SELECT ogr_geocode('x', 'geometry', 'QUERY_TEMPLATE={url}/%s') AS geom")


def write_sql(path: Path, sql: str) -> None:
    base = sqlite3.connect(write_layer(path, "GPKG"))
    base.execute("PRAGMA writable_schema=1")
    kind = "table" if "TABLE" in sql else "view"
    base.execute("INSERT INTO sqlite_master VALUES (?, 'v', 'v', 0, ?)", (kind, sql))
    base.commit()
    base.close()


@pytest.mark.parametrize(
    ("write", "name"),
    [
        *((write, "a.geojson") for write in (write_link, write_virtual_layer, write_service, write_pipeline)),
        *((write, "a.gpkg") for write in (write_virtual_table, write_view, write_virtual_layer)),
    ],
)
def test_a_file_that_names_a_server_does_not_reach_it(
    tmp_path: Path, server: CountingServer, write: Callable[[Path, str], None], name: str
) -> None:
    write(tmp_path / name, server.url)
    with pytest.raises(FiresegError, match=rf"{name}: .*(ogr2ogr|export it as GeoJSON)"):
        check_vector_file(tmp_path / name)
    assert server.paths == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"SQLite format 3\0" + b"x" * 100, b"<kml></kml>"])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.geojson").write_bytes(content)
    with pytest.raises(FiresegError, match=r"a\.geojson: (empty|truncated or not a vector file)"):
        check_vector_file(tmp_path / "a.geojson")
