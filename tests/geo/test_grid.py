"""Pixel spacing, north and areas of grids, against pyproj."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer
from rasterio import Affine
from rasterio.crs import CRS

from fireseg.errors import FiresegError
from fireseg.geo import PixelAreas, PixelSpacing
from tests.geo.builders import LONLAT, NORTH_UP, UTM, make_grid

GEOD = Geod(ellps="WGS84")
SCENE = Affine(10, 0, 499_980, 0, -10, 7_800_000)
"""Transform of a Sentinel-2 scene at 70 N."""


def measure_spacing(transform: Affine, crs: CRS = UTM) -> PixelSpacing:
    return make_grid(crs, transform, 60, 80).pixel_spacing()


@pytest.mark.parametrize("latitude", [0.0, 40.0, -65.0])
def test_pixel_spacing_in_degrees_is_geodesic(latitude: float) -> None:
    spacing = measure_spacing(Affine(1e-4, 0, 179.999, 0, -1e-4, latitude), LONLAT)
    middle = latitude - 30e-4
    assert spacing.column_m == pytest.approx(GEOD.inv(10, middle, 10.001, middle)[2] / 10, rel=1e-4)
    assert spacing.row_m == pytest.approx(GEOD.inv(10, middle - 5e-4, 10, middle + 5e-4)[2] / 10, rel=1e-4)
    assert spacing.north_deg == pytest.approx(0, abs=1e-6)


def test_pixel_spacing_accounts_for_the_scale_of_the_projection() -> None:
    # The scale of UTM is 0.9996 on its central meridian.
    spacing = measure_spacing(NORTH_UP)
    assert (spacing.column_m, spacing.row_m) == pytest.approx((10 / 0.9996, 10 / 0.9996), rel=1e-4)
    assert spacing.north_deg == pytest.approx(0, abs=0.01)


def test_north_follows_the_rotation_of_the_raster() -> None:
    turn = math.radians(30)
    steps = 10 * math.cos(turn), 10 * math.sin(turn)
    # Rows point 30 degrees south of east, so north is 30 degrees to the left of the top.
    spacing = measure_spacing(Affine(steps[0], -steps[1], 500_000, -steps[1], -steps[0], 4_600_000))
    assert spacing.column_m == pytest.approx(10, rel=1e-3)
    assert spacing.north_deg == pytest.approx(-30, abs=0.05)


@pytest.mark.parametrize("epsg", [3413, 3031])
def test_a_raster_centred_on_a_pole_has_no_direction_of_north(epsg: int) -> None:
    spacing = measure_spacing(Affine(10, 0, -400, 0, -10, 300), CRS.from_epsg(epsg))
    assert spacing.north_deg is None
    assert spacing.column_m == pytest.approx(spacing.row_m, rel=1e-6)
    assert 9.5 < spacing.column_m < 10.5  # the scale of both projections at the pole is 0.97


def test_a_raster_centred_beyond_the_pole_is_refused() -> None:
    with pytest.raises(FiresegError, match="not on earth"):
        measure_spacing(Affine(1e-4, 0, 8, 0, -1e-4, 90.0035), LONLAT)


def geodesic_pixel_m2(epsg: int, transform: Affine, row: int, col: int) -> float:
    """Measures one pixel whose edges have 20 points each."""
    along = np.linspace(0, 1, 20, endpoint=False)
    right = col + np.concatenate([along, np.ones(20), 1 - along, np.zeros(20)])
    down = row + np.concatenate([np.zeros(20), along, np.ones(20), 1 - along])
    x = transform.a * right + transform.b * down + transform.c
    y = transform.d * right + transform.e * down + transform.f
    lonlat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
    return abs(GEOD.polygon_area_perimeter(*lonlat)[0])


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [
        pytest.param(32633, SCENE, id="UTM at 70 N"),
        pytest.param(32633, Affine(1, 0, 180_000, 0, -1, 5_000_000), id="UTM beyond its zone, 1 m"),
        pytest.param(32633, Affine(8, 6, 500_000, 6, -8, 7_000_000), id="UTM rotated"),
        pytest.param(32733, Affine(20, 0, 500_000, 0, 20, 9_000_000), id="UTM south, south up"),
        pytest.param(4326, Affine(1e-4, 0, 20, 0, -1e-4, 80), id="degrees at 80 N"),
        pytest.param(4326, Affine(9e-5, 3e-5, -121, 2e-5, -9e-5, 39.8), id="degrees rotated"),
        pytest.param(4326, Affine(1e-4, 0, 179.9, 0, -1e-4, -16), id="degrees across the antimeridian"),
        pytest.param(4326, Affine(0.01, 0, 0, 0, -0.01, 75), id="degrees, 30 degrees high"),
        pytest.param(32601, Affine(20, 0, 200_000, 0, -20, 7_200_000), id="UTM across the antimeridian"),
        pytest.param(3031, Affine(20, 0, -30_000, 0, -20, 30_000), id="south pole inside"),
        pytest.param(2263, Affine(30, 0, 980_000, 0, -30, 200_000), id="feet"),
    ],
)
def test_pixel_areas_are_geodesic_within_0_1_percent(epsg: int, transform: Affine):
    areas = PixelAreas(make_grid(CRS.from_epsg(epsg), transform, 3000, 2999))
    for row, col in [(0, 0), (47, 2998), (1499, 1501), (1717, 313), (2999, 0), (2999, 2998)]:
        got = np.broadcast_to(areas.of_rows(row, 1), (1, 2999))[0, col]
        assert got == pytest.approx(geodesic_pixel_m2(epsg, transform, row, col), rel=1e-3), (row, col)


def test_areas_of_a_tiny_raster():
    transform = Affine(0.5, 0, 10, 0, -0.5, 80)
    areas = PixelAreas(make_grid(CRS.from_epsg(4326), transform, 3, 2)).of_rows(0, 3)
    for row in range(3):
        assert areas[row, 0] == pytest.approx(geodesic_pixel_m2(4326, transform, row, 0), rel=1e-3)


def test_areas_in_degrees_have_one_column():
    areas = PixelAreas(make_grid(CRS.from_epsg(4326), Affine(1e-4, 0, 20, 0, -1e-4, 80), 500, 700))
    assert areas.of_rows(10, 50).shape == (50, 1)
    assert areas.of_rows(10, 1) < areas.of_rows(400, 1)


def test_areas_in_metres_have_all_columns():
    areas = PixelAreas(make_grid(CRS.from_epsg(32633), SCENE, 500, 10_980))
    assert areas.of_rows(480, 20).shape == (20, 10_980)


def test_area_of_a_single_pixel():
    area = PixelAreas(make_grid(CRS.from_epsg(32633), SCENE, 1, 1)).of_rows(0, 1)
    assert area == pytest.approx(geodesic_pixel_m2(32633, SCENE, 0, 0), rel=1e-6)


def test_areas_of_a_whole_scene_are_fast():
    begin = time.process_time()
    areas = PixelAreas(make_grid(CRS.from_epsg(32633), SCENE, 10_980, 10_980))
    total = sum(
        float(areas.of_rows(top, min(512, 10_980 - top)).sum(dtype=np.float64)) for top in range(0, 10_980, 512)
    )
    assert time.process_time() - begin < 5
    outline = shapely.segmentize(shapely.box(499_980, 7_800_000 - 109_800, 499_980 + 109_800, 7_800_000), 1000)
    to_lonlat = Transformer.from_crs(32633, 4326, always_xy=True)
    x, y = shapely.get_coordinates(outline).T
    assert total == pytest.approx(abs(GEOD.polygon_area_perimeter(*to_lonlat.transform(x, y))[0]), rel=1e-4)


def test_pixels_outside_the_projection_are_an_error():
    with pytest.raises(FiresegError, match=r"EPSG:32633: .*cannot be transformed.* gdal_edit\.py"):
        PixelAreas(make_grid(CRS.from_epsg(32633), Affine(1e9, 0, 0, 0, -1e9, 0), 100, 100))
