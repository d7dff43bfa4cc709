"""Areas of interest in vector files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pyogrio.raw import write

from fireseg.errors import FiresegError
from fireseg.fetch.area import read_area
from tests.fetch.builders import outline

BOUNDS = (-121.8, 43.3, -121.7, 43.4)


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def make_feature(geometry: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"name": "fire"}, "geometry": geometry}


@pytest.mark.parametrize(
    "content",
    [
        outline(BOUNDS),
        {"type": "MultiPolygon", "coordinates": [outline(BOUNDS)["coordinates"]]},
        make_feature(outline(BOUNDS)),
        {"type": "FeatureCollection", "features": [make_feature(outline(BOUNDS))]},
    ],
    ids=["polygon", "multipolygon", "feature", "collection"],
)
def test_every_kind_of_geojson_is_read(tmp_path: Path, content: Any) -> None:
    area = read_area(write_json(tmp_path / "fire.geojson", content))
    assert area.equals(shapely.box(*BOUNDS))


def test_all_features_are_one_area(tmp_path: Path) -> None:
    features = [make_feature(outline(box)) for box in ((8.0, 44.0, 8.1, 44.1), (8.2, 44.0, 8.3, 44.2))]
    area = read_area(write_json(tmp_path / "fires.geojson", {"type": "FeatureCollection", "features": features}))
    assert area.bounds == (8.0, 44.0, 8.3, 44.2)


@pytest.mark.parametrize("suffix", ["shp", "gpkg"])
def test_other_formats_and_reference_systems_are_read(tmp_path: Path, suffix: str) -> None:
    square = shapely.box(600_000, 4_799_000, 601_000, 4_800_000)
    path = tmp_path / f"fire.{suffix}"
    geometry = np.array([shapely.to_wkb(square)], object)
    write(path, geometry, field_data=[], fields=[], geometry_type="Polygon", crs="EPSG:32610")
    # EPSG:32610 has its central meridian at 123 degrees west; 100 km east of it is 1.23 degrees at this latitude.
    assert read_area(path).bounds == pytest.approx((-121.7667, 43.3366, -121.7539, 43.3458), abs=2e-3)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"type": "Point", "coordinates": [8.0, 44.0]}, "Point, but an area is a Polygon"),
        ({"type": "FeatureCollection", "features": []}, "nothing, but an area is a Polygon"),
        (outline((600_000, 4_800_000, 601_000, 4_801_000)), "longitudes of -180 to 180 .*ogr2ogr -t_srs EPSG:4326"),
        (outline((8.0, 44.0, 13.0, 44.1)), "at most 300 km .*divide it"),
        (outline((8.0, 41.0, 8.1, 44.0)), "at most 300 km .*divide it"),
        (outline((-179.9, 51.0, 179.9, 51.1)), "at most 300 km .*divide it"),
        ({"type": "Topology"}, "not a vector file .*export it as GeoJSON"),
    ],
    ids=["point", "empty", "metres", "wide", "high", "antimeridian", "topology"],
)
def test_what_is_no_area_is_refused_with_the_file(tmp_path: Path, content: Any, what: str) -> None:
    path = write_json(tmp_path / "fire.geojson", content)
    with pytest.raises(FiresegError, match=rf"fire.geojson: .*{what}"):
        read_area(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"fire.geojson: no such file; give a GeoJSON"):
        read_area(tmp_path / "fire.geojson")


@pytest.mark.parametrize("number", ["NaN", "1e999"])
def test_coordinates_that_are_not_finite_are_refused(tmp_path: Path, number: str) -> None:
    path = write_json(tmp_path / "area.geojson", outline(BOUNDS))
    path.write_text(path.read_text().replace("43.4", number, 1))
    with pytest.raises(FiresegError, match=r"area\.geojson: .*draw the outline again"):
        read_area(path)
