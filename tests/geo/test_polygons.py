"""Polygons of burned areas: outlines, areas, simplification and files."""

from __future__ import annotations

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
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from scipy import ndimage

from fireseg.errors import FiresegError
from fireseg.geo import PixelAreas, Polygons, polygonize, write_polygons
from fireseg.geo.qgis import make_polygon_style
from fireseg.task import get_class_names
from tests.geo.builders import HIGH_UTM, LONLAT, NORTH_UP, UTM, draw_blobs, draw_map, make_grid, write_map

HIGH_LONLAT = Affine(2e-4, 0, 20, 0, -1e-4, 78)


def geodesic_ha(outline: shapely.Polygon, crs: CRS, step: float) -> float:
    """Measures an outline with pyproj, with a vertex at least every `step` units."""
    dense = shapely.segmentize(outline, step)
    to_lonlat = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    lonlat = shapely.transform(dense, lambda xy: np.column_stack(to_lonlat.transform(*xy.T)))
    return abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.geometry.polygon.orient(lonlat))[0]) / 1e4


def test_block_of_pixels_is_one_rectangle(tmp_path: Path):
    classes = np.zeros((20, 30))
    classes[5:10, 2:12] = 1
    polygons = draw_map(tmp_path, classes)
    [outline] = polygons.geometries
    assert outline.equals(shapely.box(500_020, 4_600_000 - 100, 500_120, 4_600_000 - 50))
    assert polygons.fields["id"].tolist() == [1]
    assert polygons.fields["area_ha"] == pytest.approx(0.5, rel=1e-3)
    assert list(polygons.fields) == ["id", "area_ha", "mean_probability", "class"]
    assert polygons.fields["class"].tolist() == ["burned"]
    assert polygons.crs == UTM


def test_pixels_that_share_only_a_corner_are_two_polygons(tmp_path: Path):
    assert len(draw_map(tmp_path, [[1, 0], [0, 1]]).geometries) == 2


def test_hole_is_left_out(tmp_path: Path):
    classes = np.ones((5, 5))
    classes[2, 2] = 0
    polygons = draw_map(tmp_path, classes)
    [outline] = polygons.geometries
    assert len(outline.interiors) == 1
    assert outline.area == 2400
    assert polygons.fields["area_ha"] == pytest.approx(0.24, rel=1e-3)


def test_hole_touching_the_outer_ring_leaves_a_valid_polygon(tmp_path: Path):
    classes = np.ones((3, 3))
    classes[1, 1] = classes[0, 0] = 0
    [outline] = draw_map(tmp_path, classes).geometries
    assert outline.is_valid
    assert outline.geom_type == "Polygon"
    assert outline.area == 700


def test_unknown_pixels_are_not_burned(tmp_path: Path):
    polygons = draw_map(tmp_path, [[255, 255, 1], [255, 0, 0]])
    assert [outline.area for outline in polygons.geometries] == [100]


def test_polygon_across_strips_is_one(tmp_path: Path):
    classes = np.zeros((1100, 9))  # three strips
    classes[1:1099, 1] = classes[1:1099, 7] = classes[1098, 1:8] = 1  # a U whose arms meet in the last strip
    classes[510:514, 4] = 1
    polygons = draw_map(tmp_path, classes)
    assert [outline.area for outline in polygons.geometries] == [220_100, 400]


def test_strips_give_the_same_polygons_as_the_whole_map(tmp_path: Path):
    classes, fire = draw_blobs(1100, 130), np.random.default_rng(1).random((1100, 130), dtype=np.float32)
    polygons = draw_map(tmp_path, classes, fire, fire_dtype="float32")
    whole = [shapely.geometry.shape(one) for one, _ in shapes(classes, mask=classes > 0, transform=NORTH_UP)]
    assert shapely.equals(shapely.union_all(polygons.geometries), shapely.union_all(whole))
    np.testing.assert_array_equal(shapely.area(polygons.geometries), sorted(shapely.area(whole), reverse=True))
    labels = np.zeros(classes.shape, np.int32)
    ndimage.label(classes, output=labels)
    means = ndimage.mean(fire, labels, range(1, labels.max() + 1))
    np.testing.assert_allclose(np.sort(polygons.fields["mean_probability"]), np.sort(means), rtol=1e-5)


def test_the_largest_comes_first(tmp_path: Path):
    polygons = draw_map(tmp_path, [[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]])
    assert [outline.area for outline in polygons.geometries] == [300, 200, 100, 100]
    assert polygons.fields["id"].tolist() == [1, 2, 3, 4]
    assert (np.diff(polygons.fields["area_ha"]) <= 1e-6).all()


def test_the_mean_probability_is_that_of_the_pixels(tmp_path: Path):
    fire = [[0.8, 0.6, 0.1, 0.92]]
    polygons = draw_map(tmp_path, [[1, 1, 0, 1]], fire)
    np.testing.assert_allclose(polygons.fields["mean_probability"], [0.7, 0.92], atol=1e-6)


def test_probabilities_written_as_float_give_the_same(tmp_path: Path):
    fire = np.array([[0.8123, 0.6, 0.1, np.nan]])
    polygons = draw_map(tmp_path, [[1, 1, 0, 1]], fire, fire_dtype="float32")
    np.testing.assert_allclose(polygons.fields["mean_probability"], [0.70615, np.nan], atol=1e-6)


def test_hectares_by_grade_add_up_to_the_area(tmp_path: Path):
    classes = [[1, 2, 2, 0, 4], [3, 3, 3, 0, 4]]
    fields = draw_map(tmp_path, classes, num_classes=5).fields
    assert list(fields)[4:] == ["ha_negligible", "ha_moderate", "ha_high", "ha_destroyed"]
    expected = [[0.01, 0.0], [0.02, 0.0], [0.03, 0.0], [0.0, 0.02]]
    for values, wanted in zip(list(fields.values())[4:], expected, strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(sum(list(fields.values())[4:]), fields["area_ha"], rtol=1e-9)


def test_the_class_of_a_polygon_is_that_of_most_of_its_area(tmp_path: Path):
    classes = [[1, 2, 2, 0, 4], [3, 3, 3, 0, 1], [0, 0, 0, 0, 4]]  # 1, 2 and 3 pixels; then 1 and 2
    assert draw_map(tmp_path, classes, num_classes=5).fields["class"].tolist() == ["high", "destroyed"]


def test_small_areas_are_dropped_and_counted(tmp_path: Path):
    classes = np.zeros((10, 40))
    classes[0:5, 0:10] = 1  # 0.5 ha
    classes[7, 20:24] = classes[9, 30:36] = 1  # 0.04 and 0.06 ha
    polygons = draw_map(tmp_path, classes, min_area_ha=0.1)
    assert [outline.area for outline in polygons.geometries] == [5000]
    assert polygons.fields["id"].tolist() == [1]
    assert polygons.num_dropped == 2
    assert polygons.dropped_ha == pytest.approx(0.1, rel=1e-3)


def test_of_too_many_areas_the_largest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fireseg.geo.polygons.MAX_POLYGONS", 2)
    classes = np.zeros((10, 40))
    classes[0:5, 0:10] = classes[7, 20:24] = classes[9, 30:36] = classes[9, 0] = 1  # 0.5, 0.04, 0.06 and 0.01 ha
    polygons = draw_map(tmp_path, classes, min_area_ha=0.02)
    assert [outline.area for outline in polygons.geometries] == [5000, 600]
    assert (polygons.num_omitted, polygons.num_dropped) == (1, 2)
    assert polygons.dropped_ha == pytest.approx(0.05, rel=1e-3)


def test_nothing_dropped_is_nothing(tmp_path: Path):
    polygons = draw_map(tmp_path, draw_blobs(60, 60))
    assert (polygons.num_dropped, polygons.dropped_ha) == (0, 0.0)


@pytest.mark.parametrize("simplify_m", [0.0, 30.0])
def test_a_map_without_fire_has_no_polygon_and_all_fields(tmp_path: Path, simplify_m: float):
    polygons = draw_map(tmp_path, np.zeros((20, 20)), num_classes=5, simplify_m=simplify_m)
    assert polygons.geometries.shape == (0,)
    assert {name: len(values) for name, values in polygons.fields.items()} == {
        "id": 0,
        "area_ha": 0,
        "mean_probability": 0,
        "class": 0,
        "ha_negligible": 0,
        "ha_moderate": 0,
        "ha_high": 0,
        "ha_destroyed": 0,
    }


def test_a_map_where_all_is_dropped_has_no_polygon(tmp_path: Path):
    polygons = draw_map(tmp_path, draw_blobs(30, 30), min_area_ha=100.0, simplify_m=30.0)
    assert len(polygons.geometries) == 0
    assert polygons.num_dropped > 0


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param(UTM, HIGH_UTM, id="UTM at 70 N"),
        pytest.param(UTM, Affine(8, 6, 500_000, 6, -8, 7_000_000), id="rotated"),
        pytest.param(LONLAT, HIGH_LONLAT, id="degrees at 78 N"),
        pytest.param(LONLAT, Affine(1e-4, 0, 179.99, 0, 1e-4, -16), id="antimeridian, south up"),
    ],
)
def test_areas_agree_with_pyproj_within_0_1_percent(tmp_path: Path, crs: CRS, transform: Affine):
    polygons = draw_map(tmp_path, draw_blobs(200, 190), crs=crs, transform=transform)
    assert len(polygons.geometries) > 20
    step = np.hypot(transform.a, transform.d)
    for outline, area_ha in zip(polygons.geometries, polygons.fields["area_ha"], strict=True):
        assert area_ha == pytest.approx(geodesic_ha(outline, crs, step), rel=1e-3)


@pytest.mark.parametrize(("crs", "transform"), [(UTM, HIGH_UTM), (LONLAT, HIGH_LONLAT)], ids=["UTM", "degrees"])
def test_areas_sum_to_those_of_all_burned_pixels(tmp_path: Path, crs: CRS, transform: Affine):
    classes = draw_blobs(200, 190)
    polygons = draw_map(tmp_path, classes, crs=crs, transform=transform, min_area_ha=1.0)
    burned_ha = (PixelAreas(make_grid(crs, transform, 200, 190)).of_rows(0, 200) * classes).sum(dtype=np.float64) / 1e4
    assert polygons.num_dropped > 0
    assert polygons.fields["area_ha"].sum() + polygons.dropped_ha == pytest.approx(burned_ha, rel=1e-5)


@settings(max_examples=20)  # each writes a map
@given(seed=st.integers(0, 10_000), height=st.integers(1, 24), width=st.integers(1, 24), share=st.floats(0.3, 0.8))
def test_polygons_of_any_mask_are_valid_and_cover_its_pixels(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int, share: float
):
    classes = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    polygons = draw_map(tmp_path_factory.mktemp("map"), classes)
    assert all(outline.is_valid and outline.geom_type == "Polygon" for outline in polygons.geometries)
    drawn = np.zeros(classes.shape, np.int32)
    if len(polygons.geometries):
        numbered = zip(polygons.geometries, polygons.fields["id"].tolist(), strict=True)
        rasterize(numbered, out=drawn, transform=NORTH_UP)
    np.testing.assert_array_equal(drawn > 0, classes > 0)
    num_pixels = np.bincount(drawn.ravel(), minlength=len(polygons.geometries) + 1)[1:]
    np.testing.assert_allclose([outline.area for outline in polygons.geometries], 100 * num_pixels)


def test_different_grids_are_an_error(tmp_path: Path):
    for name, transform in (("one", NORTH_UP), ("other", HIGH_UTM)):
        (tmp_path / name).mkdir()
        write_map(tmp_path / name, np.ones((5, 5)), transform=transform)
    with pytest.raises(FiresegError, match="use the two files of one map"):
        polygonize(tmp_path / "one" / "classes.tif", tmp_path / "other" / "fire.tif", class_names=get_class_names(2))


def test_unreadable_map_is_an_error(tmp_path: Path):
    (tmp_path / "classes.tif").write_bytes(b"no raster")
    with pytest.raises(FiresegError, match=r"classes\.tif and .*fire\.tif: cannot be read"):
        polygonize(tmp_path / "classes.tif", tmp_path / "fire.tif", class_names=get_class_names(2))


def test_only_the_map_files_are_left(tmp_path: Path):
    draw_map(tmp_path, draw_blobs(60, 60))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.tif", "classes.tif.aux.xml", "fire.tif"]


def test_full_disk_is_an_error(tmp_path: Path, limit_file_bytes: Callable[[int], None]):
    paths = write_map(tmp_path, np.random.default_rng(0).random((300, 300)) < 0.5)
    limit_file_bytes(3000)
    with pytest.raises(FiresegError, match="outlines"):
        polygonize(paths.classes, paths.fire, class_names=get_class_names(2))


def test_polygons_follow_the_transform(tmp_path: Path):
    transform = Affine(8, 6, 500_000, 6, -8, 4_600_000)
    classes = np.zeros((20, 20))
    classes[3, 7] = 1
    [outline] = draw_map(tmp_path, classes, transform=transform).geometries
    centre = (500_000 + 8 * 7.5 + 6 * 3.5, 4_600_000 + 6 * 7.5 - 8 * 3.5)
    assert (outline.centroid.x, outline.centroid.y) == pytest.approx(centre)


@pytest.mark.parametrize(
    ("crs", "transform", "unit_m"),
    [(UTM, HIGH_UTM, 1.0), (CRS.from_epsg(2263), Affine(30, 0, 980_000, 0, -30, 200_000), 0.3048006)],
    ids=["metres", "feet"],
)
def test_simplification_removes_vertices_within_the_tolerance(
    tmp_path: Path, crs: CRS, transform: Affine, unit_m: float
):
    classes = draw_blobs(150, 150)
    exact = draw_map(tmp_path, classes, crs=crs, transform=transform)
    simple = draw_map(tmp_path, classes, crs=crs, transform=transform, simplify_m=15.0)
    assert shapely.is_valid(simple.geometries).all()
    assert (
        shapely.get_num_coordinates(simple.geometries).sum() < 0.6 * shapely.get_num_coordinates(exact.geometries).sum()
    )
    moved_m = unit_m * shapely.hausdorff_distance(exact.geometries, simple.geometries)
    # GEOS may also drop the first vertex of a ring, which can move the outline a little further.
    assert 5.0 < np.median(moved_m) <= np.quantile(moved_m, 0.9) <= 15.0 + 1e-6
    assert moved_m.max() <= 1.5 * 15.0
    np.testing.assert_array_equal(simple.fields["area_ha"], exact.fields["area_ha"])


def test_tolerance_is_in_metres_for_a_raster_in_degrees(tmp_path: Path):
    transform = Affine(5e-4, 0, 20, 0, -9e-5, 80)  # 9.7 m by 10 m
    classes = draw_blobs(150, 150)
    exact = draw_map(tmp_path, classes, crs=LONLAT, transform=transform)
    simple = draw_map(tmp_path, classes, crs=LONLAT, transform=transform, simplify_m=15.0)
    metres = np.array([111_320 * np.cos(np.radians(80)), 111_320])
    ours, theirs = (shapely.transform(one.geometries, lambda xy: xy * metres) for one in (exact, simple))
    moved_m = shapely.hausdorff_distance(ours, theirs)
    assert 5.0 < np.median(moved_m) <= np.quantile(moved_m, 0.9) <= 15.0 * 1.01
    assert moved_m.max() <= 1.5 * 15.0
    assert shapely.get_num_coordinates(theirs).sum() < 0.6 * shapely.get_num_coordinates(ours).sum()


@settings(max_examples=20)  # each writes a map
@given(seed=st.integers(0, 10_000), simplify_m=st.floats(1.0, 200.0))
def test_simplified_polygons_are_always_valid(tmp_path_factory: pytest.TempPathFactory, seed: int, simplify_m: float):
    classes = np.random.default_rng(seed).random((20, 20)) < 0.6
    polygons = draw_map(tmp_path_factory.mktemp("map"), classes, simplify_m=simplify_m)
    assert shapely.is_valid(polygons.geometries).all()
    assert not shapely.is_empty(polygons.geometries).any()
    assert all(outline.geom_type == "Polygon" for outline in polygons.geometries)


FIELDS = ["id", "area_ha", "mean_probability", "class", "ha_moderate"]


def make_polygons(*outlines: shapely.Geometry, crs: CRS = UTM) -> Polygons:
    num = len(outlines)
    return Polygons(
        geometries=np.array(outlines, object),
        fields={
            "id": np.arange(1, num + 1, dtype=np.int32),
            "area_ha": np.linspace(3.5, 1.0, num),
            "mean_probability": np.linspace(0.75, 0.5, num),
            "class": np.full(num, "moderate", object),
            "ha_moderate": np.zeros(num),
        },
        crs=crs,
        num_dropped=0,
        dropped_ha=0.0,
    )


def read_vectors(path: Path) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    meta, _, geometries, values = pyogrio.raw.read(path, layer="burned")
    return meta, shapely.from_wkb(geometries), dict(zip(meta["fields"], values, strict=True))


HOLED = shapely.box(500_000, 4_600_000, 500_100, 4_600_100).difference(
    shapely.box(500_020, 4_600_020, 500_040, 4_600_040)
)
BOX = shapely.box(501_000, 4_600_000, 501_050, 4_600_010)


def test_geopackage_has_crs_layer_fields_and_outlines(tmp_path: Path):
    path = tmp_path / "scene_burned.gpkg"
    write_polygons(make_polygons(HOLED, BOX), path, driver="GPKG")
    meta, outlines, fields = read_vectors(path)
    assert pyogrio.list_layers(path)[0].tolist() == ["burned", "Polygon"]
    assert CRS.from_user_input(meta["crs"]) == UTM
    assert list(fields) == FIELDS
    assert fields["id"].tolist() == [1, 2]
    assert fields["area_ha"].tolist() == [3.5, 1.0]
    assert fields["mean_probability"].tolist() == [0.75, 0.5]
    assert shapely.equals(outlines, [HOLED, BOX]).all()


def test_geojson_is_in_longitude_and_latitude(tmp_path: Path):
    path = tmp_path / "scene_burned.geojson"
    write_polygons(make_polygons(HOLED, BOX), path, driver="GeoJSON")
    meta, outlines, fields = read_vectors(path)
    assert meta["crs"] == "EPSG:4326"
    assert list(fields) == FIELDS
    lon, lat = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(
        [500_000, 500_100], [4_600_000, 4_600_100]
    )
    assert shapely.bounds(outlines[0]) == pytest.approx([lon[0], lat[0], lon[1], lat[1]], abs=1e-6)
    assert len(outlines[0].interiors) == 1
    assert outlines[0].exterior.is_ccw  # required by RFC 7946
    content = json.loads(path.read_text())
    assert "crs" not in content
    assert content["features"][1]["properties"] == {
        "id": 2,
        "area_ha": 1.0,
        "mean_probability": 0.5,
        "class": "moderate",
        "ha_moderate": 0.0,
    }


def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path):
    path = tmp_path / "burned.geojson"
    write_polygons(make_polygons(shapely.box(179.9, -16.1, 180.2, -16.0), crs=LONLAT), path, driver="GeoJSON")
    _, [outline], _ = read_vectors(path)
    west, east = sorted(part.bounds for part in outline.geoms)
    assert west == pytest.approx((-180.0, -16.1, -179.8, -16.0))
    assert east == pytest.approx((179.9, -16.1, 180.0, -16.0))


def test_empty_geopackage_has_layer_and_fields(tmp_path: Path):
    path = tmp_path / "burned.gpkg"
    write_polygons(make_polygons(), path, driver="GPKG")
    info = pyogrio.read_info(path, layer="burned")
    assert (info["features"], info["layer_name"], list(info["fields"])) == (0, "burned", FIELDS)
    assert info["geometry_type"] == "Polygon"
    assert CRS.from_user_input(info["crs"]) == UTM


def test_empty_geojson_is_a_collection_without_features(tmp_path: Path):
    path = tmp_path / "burned.geojson"
    write_polygons(make_polygons(), path, driver="GeoJSON")
    content = json.loads(path.read_text())
    assert (content["type"], content["features"]) == ("FeatureCollection", [])


def test_geopackage_is_a_valid_database(tmp_path: Path):
    path = tmp_path / "burned.gpkg"
    write_polygons(make_polygons(HOLED, BOX), path, driver="GPKG")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall() == [
            ("burned", "features"),
            ("layer_styles", "attributes"),
        ]


def test_geopackage_has_a_version_that_gdal_3_6_and_qgis_3_22_know(tmp_path: Path):
    path = tmp_path / "burned.gpkg"
    write_polygons(make_polygons(BOX), path, driver="GPKG")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (10200,)
        assert database.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"GPKG"),)


@pytest.mark.parametrize("outlines", [(HOLED, BOX), ()], ids=["polygons", "nothing burned"])
def test_geopackage_has_one_default_style_for_qgis(tmp_path: Path, outlines: tuple[shapely.Geometry, ...]):
    path = tmp_path / "burned.gpkg"
    write_polygons(make_polygons(*outlines), path, driver="GPKG")
    columns = "f_table_catalog, f_table_schema, f_table_name, f_geometry_column, useAsDefault, styleQML"
    with closing(sqlite3.connect(path)) as database:
        [(*target, is_default, style)] = database.execute(f"SELECT {columns} FROM layer_styles").fetchall()
        [geometry] = database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchall()
    # QGIS compares the schema with an empty text, which NULL is not.
    assert target == ["", "", "burned", *geometry]
    assert is_default == 1
    assert style == make_polygon_style()


def test_files_have_rounded_areas_and_the_origin(tmp_path: Path):
    polygons = make_polygons(BOX)
    polygons.fields["area_ha"][0], polygons.fields["ha_moderate"][0] = 12.3456, 0.999
    origin = {"date": "2023-08-18/2023-08-28", "scene": "Évora 1.tif", "model": None}
    write_polygons(polygons, tmp_path / "a.gpkg", driver="GPKG", origin=origin)
    write_polygons(polygons, tmp_path / "a.geojson", driver="GeoJSON", origin=origin)
    for path in (tmp_path / "a.gpkg", tmp_path / "a.geojson"):
        fields = {name: values.tolist() for name, values in read_vectors(path)[2].items()}
        assert fields == {
            **{"id": [1], "area_ha": [12.35], "mean_probability": [0.75], "class": ["moderate"], "ha_moderate": [1.0]},
            **{"date": ["2023-08-18/2023-08-28"], "scene": ["Évora 1.tif"], "model": [None]},
        }


@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON"])
def test_existing_file_is_replaced(tmp_path: Path, driver: Literal["GPKG", "GeoJSON"]):
    path = tmp_path / f"burned.{driver.lower()}"
    path.write_text("old")
    write_polygons(make_polygons(BOX), path, driver=driver)
    assert list(tmp_path.iterdir()) == [path]
    assert len(read_vectors(path)[1]) == 1


@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON"])
def test_full_disk_keeps_the_old_file(
    tmp_path: Path, limit_file_bytes: Callable[[int], None], driver: Literal["GPKG", "GeoJSON"]
):
    path = tmp_path / "burned.file"
    path.write_text("old")
    many = make_polygons(*(shapely.Point(500_000 + 10 * n, 4_600_000).buffer(4.0) for n in range(2000)))
    limit_file_bytes(120_000)
    with pytest.raises(FiresegError, match=r"burned\.file: .*disk is full"):
        write_polygons(many, path, driver=driver)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_features_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = pyogrio.raw.write

    def write_one(path, geometry, field_data, fields, **options):
        short = geometry if geometry is None else geometry[:1]
        write(path, short, [values[:1] for values in field_data], fields, **options)

    monkeypatch.setattr(pyogrio.raw, "write", write_one)
    with pytest.raises(FiresegError, match=r"burned\.gpkg: features are missing"):
        write_polygons(make_polygons(HOLED, BOX), tmp_path / "burned.gpkg", driver="GPKG")
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"burned\.gpkg: cannot be written"):
        write_polygons(make_polygons(BOX), tmp_path / "nowhere" / "burned.gpkg", driver="GPKG")


def test_areas_across_blocks_of_columns_are_those_of_the_whole_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    classes = draw_blobs(600, 700)
    whole = draw_map(tmp_path / "whole", classes, min_area_ha=1.0)
    for module in ("components", "polygons"):
        monkeypatch.setattr(f"fireseg.geo.{module}.MAX_COLS", 256)
    blocks = draw_map(tmp_path, classes, min_area_ha=1.0)
    assert len(whole.geometries) == len(blocks.geometries) > 20
    np.testing.assert_allclose(blocks.fields["area_ha"], whole.fields["area_ha"])
    assert {outline.wkb for outline in blocks.geometries} == {outline.wkb for outline in whole.geometries}
