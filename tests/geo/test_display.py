"""The picture of a scene and the areas by fire probability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from fireseg.geo import MapWriter
from fireseg.geo.display import sum_area_by_probability, write_picture
from fireseg.geo.grid import Grid

# On the central meridian of the zone the scale of UTM is 0.9996, so a pixel of 10 m has 100 / 0.9996² m².
GRID = Grid(height=3, width=4, crs="EPSG:32629", transform=(10, 0, 500_000, 0, -10, 4_400_000))

PIXEL_HA = 0.01 / 0.9996**2


def test_areas_are_summed_by_stored_probability_without_unknown_pixels(tmp_path: Path) -> None:
    fire = np.array([[0, 0, 0.5, 1], [np.nan, 0.004, 0.501, 1], [np.nan, np.nan, 0.998, 1]], np.float32)
    classes = np.where(np.isnan(fire), 255, fire >= 0.5).astype(np.uint8)
    with MapWriter(tmp_path, GRID, class_names="ab", labels="ab", colours=("#000000", "#ffffff")) as writer:
        writer.write(0, classes, fire)
        path = writer.close().fire
    areas = np.array(sum_area_by_probability(path)) / PIXEL_HA
    assert len(areas) == 251
    # 0.501 is stored as 0.5, and 0.998 (249.5 steps) as the even 250.
    expected = {0: 2, 1: 1, 125: 2, 250: 4}
    np.testing.assert_allclose([areas[level] for level in expected], list(expected.values()), rtol=1e-4)
    np.testing.assert_allclose(areas.sum(), 9, rtol=1e-4)


def test_a_picture_keeps_its_place_and_its_unknown_pixels(tmp_path: Path) -> None:
    tones = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3)
    unknown = np.zeros((3, 4), bool)
    unknown[1, 2] = True
    rows = [(0, tones[:2], unknown[:2]), (2, tones[2:], unknown[2:])]
    write_picture(tmp_path / "scene.tif", GRID, rows)
    with rasterio.open(tmp_path / "scene.tif") as raster:
        assert (tuple(raster.transform)[:6], raster.crs.to_string()) == (GRID.transform, GRID.crs)
        values = raster.read().transpose(1, 2, 0)
    assert values[0, 0].tolist() == [1, 1, 2]  # black is no unknown pixel
    assert values[1, 2].tolist() == [0, 0, 0]
    assert values[2, 3].tolist() == [33, 34, 35]


def test_a_smaller_picture_covers_the_same_ground(tmp_path: Path) -> None:
    rows = [(0, np.full((2, 2, 3), 9, np.uint8), np.zeros((2, 2), bool))]
    write_picture(tmp_path / "scene.tif", GRID, rows, step=2)
    with rasterio.open(tmp_path / "scene.tif") as raster:
        assert raster.shape == (2, 2)
        assert tuple(raster.transform)[:6] == (20, 0, 500_000, 0, -20, 4_400_000)
