"""Burned areas in files, as pyogrio reads them."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import pytest
import shapely
from rasterio.crs import CRS

from fireseg.errors import FiresegError
from fireseg.geo import Polygons, write_polygons
from tests.geo.builders import LONLAT, UTM

FIELDS = ["id", "area_ha", "mean_probability", "ha_moderate"]


def gather(*outlines: shapely.Geometry, crs: CRS = UTM) -> Polygons:
    num = len(outlines)
    return Polygons(
        geometries=np.array(outlines, object),
        fields={
            "id": np.arange(1, num + 1, dtype=np.int32),
            "area_ha": np.linspace(3.5, 1.0, num),
            "mean_probability": np.linspace(0.75, 0.5, num),
            "ha_moderate": np.zeros(num),
        },
        crs=crs,
        num_dropped=0,
        dropped_ha=0.0,
    )


def read(path: Path) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    meta, _, geometries, values = pyogrio.raw.read(path)
    return meta, shapely.from_wkb(geometries), dict(zip(meta["fields"], values, strict=True))


HOLED = shapely.box(500_000, 4_600_000, 500_100, 4_600_100).difference(
    shapely.box(500_020, 4_600_020, 500_040, 4_600_040)
)
BOX = shapely.box(501_000, 4_600_000, 501_050, 4_600_010)


def test_a_geopackage_has_crs_layer_fields_and_outlines(tmp_path: Path):
    path = tmp_path / "scene_burned.gpkg"
    write_polygons(gather(HOLED, BOX), path, driver="GPKG")
    meta, outlines, fields = read(path)
    assert pyogrio.list_layers(path).tolist() == [["burned", "Polygon"]]
    assert CRS.from_user_input(meta["crs"]) == UTM
    assert list(fields) == FIELDS
    assert fields["id"].tolist() == [1, 2]
    assert fields["area_ha"].tolist() == [3.5, 1.0]
    assert fields["mean_probability"].tolist() == [0.75, 0.5]
    assert shapely.equals(outlines, [HOLED, BOX]).all()


def test_a_geojson_is_in_longitude_and_latitude(tmp_path: Path):
    path = tmp_path / "scene_burned.geojson"
    write_polygons(gather(HOLED, BOX), path, driver="GeoJSON")
    meta, outlines, fields = read(path)
    assert meta["crs"] == "EPSG:4326"
    assert list(fields) == FIELDS
    lon, lat = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(
        [500_000, 500_100], [4_600_000, 4_600_100]
    )
    assert shapely.bounds(outlines[0]) == pytest.approx([lon[0], lat[0], lon[1], lat[1]], abs=1e-6)
    assert len(outlines[0].interiors) == 1
    assert outlines[0].exterior.is_ccw  # as RFC 7946 wants it
    content = json.loads(path.read_text())
    assert "crs" not in content
    assert content["features"][1]["properties"] == {
        "id": 2,
        "area_ha": 1.0,
        "mean_probability": 0.5,
        "ha_moderate": 0.0,
    }


def test_a_geojson_is_cut_at_the_antimeridian(tmp_path: Path):
    path = tmp_path / "burned.geojson"
    write_polygons(gather(shapely.box(179.9, -16.1, 180.2, -16.0), crs=LONLAT), path, driver="GeoJSON")
    _, [outline], _ = read(path)
    west, east = sorted(part.bounds for part in outline.geoms)
    assert west == pytest.approx((-180.0, -16.1, -179.8, -16.0))
    assert east == pytest.approx((179.9, -16.1, 180.0, -16.0))


def test_an_empty_geopackage_has_the_same_layer_and_fields(tmp_path: Path):
    path = tmp_path / "burned.gpkg"
    write_polygons(gather(), path, driver="GPKG")
    info = pyogrio.read_info(path)
    assert (info["features"], info["layer_name"], list(info["fields"])) == (0, "burned", FIELDS)
    assert info["geometry_type"] == "Polygon"
    assert CRS.from_user_input(info["crs"]) == UTM


def test_an_empty_geojson_is_a_collection_without_features(tmp_path: Path):
    path = tmp_path / "burned.geojson"
    write_polygons(gather(), path, driver="GeoJSON")
    content = json.loads(path.read_text())
    assert (content["type"], content["features"]) == ("FeatureCollection", [])


def test_a_geopackage_is_a_sound_database(tmp_path: Path):
    path = tmp_path / "burned.gpkg"
    write_polygons(gather(HOLED, BOX), path, driver="GPKG")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall() == [
            ("burned", "features")
        ]


@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON"])
def test_an_existing_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, driver: Literal["GPKG", "GeoJSON"]):
    path = tmp_path / f"burned.{driver.lower()}"
    path.write_text("old")
    write_polygons(gather(BOX), path, driver=driver)
    assert list(tmp_path.iterdir()) == [path]
    assert len(read(path)[1]) == 1


@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON"])
def test_a_full_disk_is_told_and_the_old_file_stays(
    tmp_path: Path, limit_file_bytes: Callable[[int], None], driver: Literal["GPKG", "GeoJSON"]
):
    path = tmp_path / "burned.file"
    path.write_text("old")
    many = gather(*(shapely.Point(500_000 + 10 * place, 4_600_000).buffer(4.0) for place in range(2000)))
    limit_file_bytes(120_000)
    with pytest.raises(FiresegError, match=r"burned\.file: .*is the disk full"):
        write_polygons(many, path, driver=driver)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_lacks_features_is_told_though_gdal_saw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = pyogrio.raw.write

    def write_one(path, geometry, field_data, fields, **options):
        write(path, geometry[:1], [values[:1] for values in field_data], fields, **options)

    monkeypatch.setattr(pyogrio.raw, "write", write_one)
    with pytest.raises(FiresegError, match=r"burned\.gpkg: does not hold what was written"):
        write_polygons(gather(HOLED, BOX), tmp_path / "burned.gpkg", driver="GPKG")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"burned\.gpkg: cannot be written"):
        write_polygons(gather(BOX), tmp_path / "nowhere" / "burned.gpkg", driver="GPKG")
