"""Burned areas as polygons: which pixels they hold, and how many hectares."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize

from fireseg.errors import FiresegError
from fireseg.geo import PixelAreas, components, polygonize
from fireseg.task import get_class_names
from tests.geo.builders import HIGH_UTM, LONLAT, NORTH_UP, UTM, draw_blobs, draw_map, make_grid, write_map

HIGH_LONLAT = Affine(2e-4, 0, 20, 0, -1e-4, 78)


def geodesic_ha(outline: shapely.Polygon, crs: CRS, step: float) -> float:
    """Area by pyproj of an outline with a vertex at least every `step` units."""
    dense = shapely.segmentize(outline, step)
    to_lonlat = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    lonlat = shapely.transform(dense, lambda xy: np.column_stack(to_lonlat.transform(*xy.T)))
    return abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.geometry.polygon.orient(lonlat))[0]) / 1e4


def test_a_block_of_pixels_is_one_rectangle(tmp_path: Path):
    classes = np.zeros((20, 30))
    classes[5:10, 2:12] = 1
    polygons = draw_map(tmp_path, classes)
    [outline] = polygons.geometries
    assert outline.equals(shapely.box(500_020, 4_600_000 - 100, 500_120, 4_600_000 - 50))
    assert polygons.fields["id"].tolist() == [1]
    assert polygons.fields["area_ha"] == pytest.approx(0.5, rel=1e-3)
    assert list(polygons.fields) == ["id", "area_ha", "mean_probability"]
    assert polygons.crs == UTM


def test_pixels_that_share_a_corner_alone_are_two_polygons(tmp_path: Path):
    assert len(draw_map(tmp_path, [[1, 0], [0, 1]]).geometries) == 2


def test_a_hole_is_left_out(tmp_path: Path):
    classes = np.ones((5, 5))
    classes[2, 2] = 0
    polygons = draw_map(tmp_path, classes)
    [outline] = polygons.geometries
    assert len(outline.interiors) == 1
    assert outline.area == 2400
    assert polygons.fields["area_ha"] == pytest.approx(0.24, rel=1e-3)


def test_a_hole_that_touches_the_rim_at_a_corner_leaves_a_valid_polygon(tmp_path: Path):
    classes = np.ones((3, 3))
    classes[1, 1] = classes[0, 0] = 0
    [outline] = draw_map(tmp_path, classes).geometries
    assert outline.is_valid
    assert outline.geom_type == "Polygon"
    assert outline.area == 700


def test_unknown_pixels_burn_nowhere(tmp_path: Path):
    polygons = draw_map(tmp_path, [[255, 255, 1], [255, 0, 0]])
    assert [outline.area for outline in polygons.geometries] == [100]


def test_a_polygon_that_spans_several_strips_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(components, "STRIP_ROWS", 4)
    classes = np.zeros((20, 9))
    classes[1:19, 1] = classes[1:19, 7] = classes[18, 1:8] = 1  # a U: its arms meet in the last strip
    classes[2:6, 4] = 1
    polygons = draw_map(tmp_path, classes)
    assert [outline.area for outline in polygons.geometries] == [4100, 400]


def test_the_height_of_the_strips_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    classes = draw_blobs(150, 130)
    whole = draw_map(tmp_path, classes)
    monkeypatch.setattr(components, "STRIP_ROWS", 7)
    pieces = draw_map(tmp_path, classes)
    for name, values in whole.fields.items():
        np.testing.assert_allclose(np.sort(pieces.fields[name]), np.sort(values), rtol=1e-12)
    together = (shapely.union_all(one.geometries) for one in (whole, pieces))
    assert shapely.equals(*together)


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
    assert list(fields)[3:] == ["ha_negligible", "ha_moderate", "ha_high", "ha_destroyed"]
    expected = [[0.01, 0.0], [0.02, 0.0], [0.03, 0.0], [0.0, 0.02]]
    for values, wanted in zip(list(fields.values())[3:], expected, strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(sum(list(fields.values())[3:]), fields["area_ha"], rtol=1e-9)


def test_small_areas_are_dropped_and_counted(tmp_path: Path):
    classes = np.zeros((10, 40))
    classes[0:5, 0:10] = 1  # 0.5 ha
    classes[7, 20:24] = classes[9, 30:36] = 1  # 0.04 and 0.06 ha
    polygons = draw_map(tmp_path, classes, min_area_ha=0.1)
    assert [outline.area for outline in polygons.geometries] == [5000]
    assert polygons.fields["id"].tolist() == [1]
    assert polygons.num_dropped == 2
    assert polygons.dropped_ha == pytest.approx(0.1, rel=1e-3)


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
def test_hectares_agree_with_pyproj_within_a_tenth_of_a_percent(tmp_path: Path, crs: CRS, transform: Affine):
    polygons = draw_map(tmp_path, draw_blobs(200, 190), crs=crs, transform=transform)
    assert len(polygons.geometries) > 20
    step = np.hypot(transform.a, transform.d)
    for outline, area_ha in zip(polygons.geometries, polygons.fields["area_ha"], strict=True):
        assert area_ha == pytest.approx(geodesic_ha(outline, crs, step), rel=1e-3)


@pytest.mark.parametrize(("crs", "transform"), [(UTM, HIGH_UTM), (LONLAT, HIGH_LONLAT)], ids=["UTM", "degrees"])
def test_hectares_of_all_polygons_are_those_of_all_burned_pixels(tmp_path: Path, crs: CRS, transform: Affine):
    classes = draw_blobs(200, 190)
    polygons = draw_map(tmp_path, classes, crs=crs, transform=transform, min_area_ha=1.0)
    burned_ha = (PixelAreas(make_grid(crs, transform, 200, 190)).of_rows(0, 200) * classes).sum(dtype=np.float64) / 1e4
    assert polygons.num_dropped > 0
    assert polygons.fields["area_ha"].sum() + polygons.dropped_ha == pytest.approx(burned_ha, rel=1e-5)


@given(seed=st.integers(0, 10_000), height=st.integers(1, 24), width=st.integers(1, 24), share=st.floats(0.3, 0.8))
def test_the_polygons_of_any_mask_are_valid_and_hold_its_pixels(
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


def test_maps_on_different_grids_are_refused(tmp_path: Path):
    for name, transform in (("one", NORTH_UP), ("other", HIGH_UTM)):
        (tmp_path / name).mkdir()
        write_map(tmp_path / name, np.ones((5, 5)), transform=transform)
    with pytest.raises(FiresegError, match="take the two of one map"):
        polygonize(tmp_path / "one" / "classes.tif", tmp_path / "other" / "fire.tif", class_names=get_class_names(2))


def test_a_map_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "classes.tif").write_bytes(b"no raster")
    with pytest.raises(FiresegError, match=r"classes\.tif and .*fire\.tif: cannot be read"):
        polygonize(tmp_path / "classes.tif", tmp_path / "fire.tif", class_names=get_class_names(2))


def test_nothing_but_the_map_is_left_in_the_folder(tmp_path: Path):
    draw_map(tmp_path, draw_blobs(60, 60))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.tif", "classes.tif.aux.xml", "fire.tif"]


def test_a_full_disk_is_told(tmp_path: Path, limit_file_bytes: Callable[[int], None]):
    paths = write_map(tmp_path, np.random.default_rng(0).random((300, 300)) < 0.5)
    limit_file_bytes(3000)
    with pytest.raises(FiresegError, match="the outlines need room there"):
        polygonize(paths.classes, paths.fire, class_names=get_class_names(2))


def test_polygons_lie_where_the_raster_says(tmp_path: Path):
    transform = Affine(8, 6, 500_000, 6, -8, 4_600_000)
    classes = np.zeros((20, 20))
    classes[3, 7] = 1
    [outline] = draw_map(tmp_path, classes, transform=transform).geometries
    centre = (500_000 + 8 * 7.5 + 6 * 3.5, 4_600_000 + 6 * 7.5 - 8 * 3.5)
    assert (outline.centroid.x, outline.centroid.y) == pytest.approx(centre)
