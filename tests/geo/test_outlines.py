"""Outlines made simpler."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS

from tests.geo.builders import HIGH_UTM, LONLAT, UTM, draw_blobs, draw_map


@pytest.mark.parametrize(
    ("crs", "transform", "unit_m"),
    [(UTM, HIGH_UTM, 1.0), (CRS.from_epsg(2263), Affine(30, 0, 980_000, 0, -30, 200_000), 0.3048006)],
    ids=["metres", "feet"],
)
def test_simpler_outlines_have_fewer_corners_and_move_about_as_far_as_allowed(
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
    # Of each ring GEOS may drop the vertex that it begins with as well, which can move a little further.
    assert 5.0 < np.median(moved_m) <= np.quantile(moved_m, 0.9) <= 15.0 + 1e-6
    assert moved_m.max() <= 1.5 * 15.0
    np.testing.assert_array_equal(simple.fields["area_ha"], exact.fields["area_ha"])


def test_in_degrees_metres_are_metres_in_both_directions(tmp_path: Path):
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


@given(seed=st.integers(0, 10_000), simplify_m=st.floats(1.0, 200.0))
def test_simpler_outlines_are_valid_polygons_always(
    tmp_path_factory: pytest.TempPathFactory, seed: int, simplify_m: float
):
    classes = np.random.default_rng(seed).random((20, 20)) < 0.6
    polygons = draw_map(tmp_path_factory.mktemp("map"), classes, simplify_m=simplify_m)
    assert shapely.is_valid(polygons.geometries).all()
    assert not shapely.is_empty(polygons.geometries).any()
    assert all(outline.geom_type == "Polygon" for outline in polygons.geometries)
