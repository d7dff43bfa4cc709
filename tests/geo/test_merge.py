"""Polygons of many maps in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import shapely
from rasterio.crs import CRS

from fireseg.errors import FiresegError
from fireseg.geo import merge
from fireseg.geo.merge import merge_polygons
from fireseg.geo.polygons import Polygons, write_polygons


def write_map(path: Path, boxes: list[tuple[float, float, float, float]], *, crs: str, extra: str = "flags") -> Path:
    number = len(boxes)
    polygons = Polygons(
        geometries=np.array([shapely.box(*box) for box in boxes], object),
        fields={"id": np.arange(number, dtype=np.int32), "area_ha": np.ones(number)},
        crs=CRS.from_string(crs),
        num_dropped=0,
        dropped_ha=0.0,
    )
    write_polygons(polygons, path, driver="GPKG", origin={"scene": path.name, extra: ""})
    return path


def read_bounds(path: Path) -> np.ndarray:
    return shapely.bounds(shapely.from_wkb(pyogrio.raw.read(path, layer="burned")[2]))


@pytest.mark.parametrize("batch", [1, 3, 5000])
def test_batches_of_any_size_give_all_polygons_in_order(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(merge, "_BATCH", batch)
    boxes = [(number, 0.0, number + 0.5, 1.0) for number in range(7)]
    groups = [[], boxes[:2], [], boxes[2:6], boxes[6:], []]
    paths = [write_map(tmp_path / f"{number}.gpkg", each, crs="EPSG:4326") for number, each in enumerate(groups)]
    assert merge_polygons(paths, tmp_path / "all.gpkg") == 7
    np.testing.assert_allclose(read_bounds(tmp_path / "all.gpkg"), boxes)


def test_maps_without_burned_areas_give_a_file_without_polygons(tmp_path: Path):
    path = write_map(tmp_path / "a.gpkg", [], crs="EPSG:32629")
    assert merge_polygons([path, path], tmp_path / "all.gpkg") == 0
    assert pyogrio.read_info(tmp_path / "all.gpkg", layer="burned")["features"] == 0


def test_an_outline_across_the_antimeridian_stays_whole(tmp_path: Path):
    # UTM zone 60, central meridian 177: at the equator 3 degrees to the east are 334 km, so 180 is at 834 km.
    path = write_map(tmp_path / "a.gpkg", [(830_000, 1000, 840_000, 2000)], crs="EPSG:32660")
    merge_polygons([path], tmp_path / "all.gpkg")
    west, _, east, _ = read_bounds(tmp_path / "all.gpkg")[0]
    assert 179.9 < west < 180 < east < 180.1


def test_maps_with_other_fields_are_refused_and_the_file_stays(tmp_path: Path):
    one = write_map(tmp_path / "a.gpkg", [(0, 0, 1, 1)], crs="EPSG:4326")
    other = write_map(tmp_path / "b.gpkg", [(0, 0, 1, 1)], crs="EPSG:4326", extra="other")
    (tmp_path / "all.gpkg").write_text("before")
    with pytest.raises(FiresegError, match=r"with the fields .*--overwrite"):
        merge_polygons([one, other], tmp_path / "all.gpkg")
    assert (tmp_path / "all.gpkg").read_text() == "before"
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path):
    path = write_map(tmp_path / "a.gpkg", [(0, 0, 1, 1)], crs="EPSG:4326")
    (tmp_path / ".all.gpkg.abc.work").mkdir()
    merge_polygons([path], tmp_path / "all.gpkg")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.gpkg", "all.gpkg"]


def test_a_map_that_has_vanished_is_named(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"gone\.gpkg: .*map the scene again"):
        merge_polygons([tmp_path / "gone.gpkg"], tmp_path / "all.gpkg")
