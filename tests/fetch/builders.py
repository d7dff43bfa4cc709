"""A STAC catalogue on the loopback interface, with rasters that are read by range requests."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.shutil import copy
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from fireseg.data.bands import BAND_NAMES

COLLECTION = "sentinel-2-l2a"

EPSG = 32610

WEST, NORTH = 600_000, 4_800_000
"""Upper left corner of the first tile, on multiples of 60 m."""

TILE_PX = 96
"""Rows and columns of a tile at 10 m."""

COMMON_NAMES = ("blue", "green", "red", "nir", "nir08", "swir16", "swir22")

CLEAR, CLOUD = 4, 9

CUT = 0


@dataclass
class StacServer:
    """A catalogue that serves items and files, and fails where it is told to.

    Attributes:
        root: Folder of the rasters.
        url: Address of the catalogue.
        items: Items of the collection.
        failures: Statuses with which a path answers before it works, as `{path: [500, 500]}`; CUT ends the connection
            in the middle of the answer.
        requests: Method and path of every request so far.
        token: Query that requests of files must have.
        conforms: Conformance classes of the API.
    """

    root: Path
    url: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, list[int]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    token: str = ""
    conforms: tuple[str, ...] = ("core", "collections", "ogcapi-features", "item-search")

    def add_item(
        self,
        name: str,
        *,
        day: str,
        values: Mapping[str, int | NDArray[Any]] | int,
        scl: NDArray[np.uint8] | int = CLEAR,
        column: int = 0,
        baseline: str = "05.11",
        time: str = "18:55:00",
        key_style: str = "common",
        raster_fields: bool = True,
        properties: Mapping[str, Any] | None = None,
        empty_columns: slice | None = None,
        epsg: int = EPSG,
        corner: tuple[int, int] = (WEST, NORTH),
    ) -> None:
        """Adds a tile.

        Args:
            name: Name of the item.
            day: Day such as `2025-08-24`.
            values: Digital number of each band, or of all; or an array in the resolution of the band.
            scl: Classes at 20 m `(48, 48)`, or one class.
            column: Tiles east of the first one.
            baseline: Processing baseline; the offset is 1000 from 04.00 on.
            time: Time of universal time.
            key_style: Asset keys: `common` (blue), `band` (B02) or `resolution` (B02_10m).
            raster_fields: Give scale and offset with each band.
            properties: Further properties.
            empty_columns: Columns at 10 m, even ones, outside the swath.
            epsg: Code of the UTM zone.
            corner: Upper left corner of the first tile.
        """
        west, north = corner[0] + column * TILE_PX * 10, corner[1]
        bounds = (west, north - TILE_PX * 10, west + TILE_PX * 10, north)
        assets: dict[str, Any] = {}
        for band, common in zip((*BAND_NAMES, "SCL"), (*COMMON_NAMES, "scl"), strict=True):
            pixel = 20 if band in ("B8A", "B11", "B12", "SCL") else 10
            size = TILE_PX * 10 // pixel
            content = scl if band == "SCL" else values if isinstance(values, int) else values[band]
            image = np.broadcast_to(np.asarray(content), (size, size)).copy()
            if empty_columns is not None:
                image[:, empty_columns.start * 10 // pixel : empty_columns.stop * 10 // pixel] = 0
            file = f"{name}_{band}.tif"
            write_cog(
                self.root / file,
                image.astype(np.uint8 if band == "SCL" else np.uint16),
                f"EPSG:{epsg}",
                Affine(pixel, 0, west, 0, -pixel, north),
            )
            key = {"common": common, "band": band, "resolution": f"{band}_{pixel}m"}[key_style]
            assets[key] = {
                "href": f"{self.url}/files/{file}",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
            }
            if raster_fields and band != "SCL":
                offset = -0.1 if baseline >= "04.00" else 0.0
                assets[key]["raster:bands"] = [{"nodata": 0, "scale": 0.0001, "offset": offset}]
        assets["thumbnail"] = {"href": f"{self.url}/files/none.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
        lonlat = transform_bounds(f"EPSG:{epsg}", "EPSG:4326", *bounds)
        self.items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "stac_extensions": [],
                "id": name,
                "collection": COLLECTION,
                "bbox": list(lonlat),
                "geometry": outline(lonlat),
                "properties": {
                    "datetime": f"{day}T{time}Z",
                    "eo:cloud_cover": 0.5,
                    "proj:epsg": epsg,
                    "s2:processing_baseline": baseline,
                    **(properties or {}),
                },
                "assets": assets,
                "links": [],
            }
        )


def write_cog(path: Path, image: NDArray[Any], crs: str, transform: Affine) -> None:
    """Writes a Cloud-Optimized GeoTIFF with blocks of 128 pixels, not compressed."""
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=image.shape[0],
            width=image.shape[1],
            count=1,
            dtype=image.dtype,
            crs=crs,
            transform=transform,
            nodata=0,
        ) as raster:
            raster.write(image, 1)
        with memory.open() as raster:
            copy(raster, path, driver="COG", blocksize=128, compress="NONE")


def outline(bounds: Sequence[float]) -> dict[str, Any]:
    """Returns the rectangle of west, south, east, north as a GeoJSON polygon."""
    west, south, east, north = bounds
    return {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }


def write_area(path: Path, left: int, top: int, right: int, bottom: int) -> Path:
    """Writes the rectangle of these pixels at 10 m, from the corner of the first tile, as GeoJSON in degrees."""
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    xs, ys = [WEST + 10 * col for col, _ in corners], [NORTH - 10 * row for _, row in corners]
    lon, lat = transform_points(f"EPSG:{EPSG}", "EPSG:4326", xs, ys)[:2]
    polygon = {"type": "Polygon", "coordinates": [[list(point) for point in zip(lon, lat, strict=True)]]}
    content = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": polygon}],
    }
    path.write_text(json.dumps(content))
    return path


@contextmanager
def serve_stac(root: Path) -> Iterator[StacServer]:
    """Serves a catalogue until the end of the context."""
    server = StacServer(root)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(server))
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _make_handler(server: StacServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        _is_cut = False
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            path, query = urlsplit(self.path).path.rstrip("/"), urlsplit(self.path).query
            server.requests.append((self.command, path))
            self._is_cut = False
            if statuses := server.failures.get(path):
                status = statuses.pop(0)
                self._is_cut = status == CUT
                if not self._is_cut:
                    self._send(status, b"{}", {})
                    return
            if path.startswith("/files/") and server.token not in query:
                self._send(403, b"", {})
            elif path.startswith("/files/"):
                self._send_file(server.root / path.removeprefix("/files/"))
            elif (content := _answer_stac(server, path, body)) is not None:
                self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
            else:
                self._send(404, b"{}", {})

        def _send_file(self, path: Path) -> None:
            if not path.is_file():
                self._send(404, b"", {})
                return
            content = path.read_bytes()
            headers = {"Accept-Ranges": "bytes", "Content-Type": "image/tiff"}
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
                if first >= len(content):
                    self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                self._send(206, content[first : last + 1], headers)
            else:
                self._send(200, content, headers)

        def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if self._is_cut else content)
            self.close_connection = self._is_cut

    return Handler


def _answer_stac(server: StacServer, path: str, body: Mapping[str, Any]) -> Any:
    """Answers a request for the root, the collection, or a search; None if the path is unknown."""
    url = server.url
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": COLLECTION,
        "description": "Tiles of the tests",
        "license": "proprietary",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "license", "href": "https://example.org/licence"}],
    }
    if path == "":
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "tests",
            "description": "Catalogue of the tests",
            "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in server.conforms],
            "links": [
                {"rel": "self", "href": url},
                {"rel": "root", "href": url},
                {"rel": "data", "href": f"{url}/collections"},
                {"rel": "search", "href": f"{url}/search", "method": "POST", "type": "application/geo+json"},
            ],
        }
    if path == f"/collections/{COLLECTION}":
        return collection
    if path == "/token":
        return {"token": "sig=secret"}
    if path == "/search":
        first, last = body["datetime"].split("/")
        west, south, east, north = body["bbox"]
        found = [
            item
            for item in server.items
            if first <= item["properties"]["datetime"] <= last
            and item["bbox"][0] <= east
            and item["bbox"][2] >= west
            and item["bbox"][1] <= north
            and item["bbox"][3] >= south
        ]
        return {"type": "FeatureCollection", "features": found, "links": []}
    return None
