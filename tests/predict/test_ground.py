"""How large a pixel is, and where north is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Geod
from rasterio import Affine

from fireseg.geo.grid import PixelSpacing, measure_pixel_spacing
from fireseg.tiles import open_bands
from tests.predict.stand_in import write_scene


def measure(folder: Path, height: int = 60, width: int = 80, **grid: Any) -> PixelSpacing:
    scene = write_scene(folder / "scene.tif", np.full((7, height, width), 0.2, np.float32), **grid)
    return measure_pixel_spacing(open_bands(scene, ("B08",)).place)


@pytest.mark.parametrize("latitude", [0.0, 40.0, -65.0])
def test_degrees_are_as_long_as_geodesics_say(tmp_path: Path, latitude: float) -> None:
    ground = measure(tmp_path, crs="EPSG:4326", transform=Affine(1e-4, 0, 179.999, 0, -1e-4, latitude))
    geod = Geod(ellps="WGS84")
    middle = latitude - 30e-4
    assert ground.column_m == pytest.approx(geod.inv(10, middle, 10.001, middle)[2] / 10, rel=1e-4)
    assert ground.row_m == pytest.approx(geod.inv(10, middle - 5e-4, 10, middle + 5e-4)[2] / 10, rel=1e-4)
    assert ground.north_deg == pytest.approx(0, abs=1e-6)


def test_metres_of_a_projection_are_those_of_the_ground(tmp_path: Path) -> None:
    # On its central meridian a metre of the ground is 0.9996 of UTM.
    ground = measure(tmp_path)
    assert (ground.column_m, ground.row_m) == pytest.approx((10 / 0.9996, 10 / 0.9996), rel=1e-4)
    assert ground.north_deg == pytest.approx(0, abs=0.01)


def test_north_turns_with_the_raster(tmp_path: Path) -> None:
    turn = math.radians(30)
    steps = 10 * math.cos(turn), 10 * math.sin(turn)
    # Columns run 30 degrees south of east: seen from the raster, north is 30 degrees to the left.
    ground = measure(tmp_path, transform=Affine(steps[0], -steps[1], 500_000, -steps[1], -steps[0], 4_400_000))
    assert ground.column_m == pytest.approx(10, rel=1e-3)
    assert ground.north_deg == pytest.approx(-30, abs=0.05)
