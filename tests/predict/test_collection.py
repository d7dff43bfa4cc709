"""The table and the polygons of several scenes together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import shapely
from rasterio import Affine

from fireseg.errors import FiresegError
from fireseg.predict.collection import write_collection
from fireseg.predict.pipeline import format_summary
from fireseg.predict.scene import SceneMap
from fireseg.tiles.products import Scene
from tests.predict.builders import make_trained, predict, write_scene


def write_square(path: Path, *, rows: int = 10, **profile: Any) -> Path:
    """Writes bright ground with a dark rectangle of 10 columns."""
    image = np.full((7, 60, 60), 0.3, np.float32)
    image += np.linspace(0, 0.1, 7, dtype=np.float32)[:, None, None]
    image[3, 20 : 20 + rows, 30:40] = 0.05
    return write_scene(path, image, **profile)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[Scene, SceneMap | FiresegError]:
    folder = tmp_path_factory.mktemp("scenes")
    west = write_square(folder / "west.tif")
    east = write_square(
        folder / "east.tif", rows=20, crs="EPSG:32630", transform=Affine(10, 0, 500_000, 0, -10, 4_400_000)
    )
    empty = write_square(folder / "empty.tif", rows=0)
    trained = make_trained()
    found: dict[Scene, SceneMap | FiresegError] = {
        scene: predict(trained, scene, folder / "maps") for scene in (empty, west, east)
    }
    return {folder / "bad.tif": FiresegError("bad.tif: a fault, with commas"), **found}


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_scene_with_hectares_flags_and_faults(results: Any, tmp_path: Path):
    write_collection(results, tmp_path)
    bad, empty, west, east = read_rows(tmp_path / "all_burned.csv")
    assert (bad["state"], bad["faults"], bad["burned_ha"]) == ("failed", "bad.tif: a fault, with commas", "")
    assert (empty["state"], float(empty["burned_ha"]), empty["polygons"]) == ("done", 0, "0")
    # 100 and 200 pixels of 10 m on the central meridian of UTM: 1 and 2 ha, divided by 0.9996 squared.
    assert float(west["burned_ha"]) == pytest.approx(1.0, abs=0.011)
    assert float(east["burned_ha"]) == pytest.approx(2.0, abs=0.011)
    assert list(west) == list(bad)
    assert {"scene", "date", "max_probability", "cloud", "flags", "map"} <= west.keys()


def test_the_polygons_of_two_utm_zones_are_in_one_file_in_longitude_and_latitude(results: Any, tmp_path: Path):
    write_collection(results, tmp_path)
    about, _, outlines, values = pyogrio.raw.read(tmp_path / "all_burned.gpkg", layer="burned")
    fields = dict(zip(about["fields"], values, strict=True))
    assert about["crs"] == "EPSG:4326"
    assert list(fields["scene"]) == ["west.tif", "east.tif"]
    assert "date" in fields
    np.testing.assert_allclose(fields["area_ha"], [1.0, 2.0], atol=0.01)
    # Central meridians of the zones 29 and 30: -9 and -3; 300 m to the east are 0.0035 degrees at latitude 39.7.
    longitudes = shapely.bounds(shapely.from_wkb(outlines))[:, 0]
    np.testing.assert_allclose(longitudes, [-9 + 0.0035, -3 + 0.0035], atol=1e-4)
    styles = pyogrio.read_info(tmp_path / "all_burned.gpkg", layer="layer_styles", force_feature_count=True)
    assert styles["features"] == 1


def test_without_a_map_the_polygons_of_an_earlier_command_go(results: Any, tmp_path: Path):
    write_collection(results, tmp_path)
    write_collection({scene: one for scene, one in results.items() if isinstance(one, FiresegError)}, tmp_path)
    assert not (tmp_path / "all_burned.gpkg").exists()
    assert len(read_rows(tmp_path / "all_burned.csv")) == 1


def test_of_many_scenes_the_table_shows_those_of_which_most_burned(results: Any):
    *_, west, east = (one for one in results.values())
    many: dict[Scene, SceneMap | FiresegError] = {Path(f"{number}.tif"): west for number in range(150)}
    many[Path("east.tif")] = east
    lines = format_summary(many)
    assert lines[1].startswith("east.tif")
    assert len(lines) == 1 + 100 + 1
    assert lines[-1].startswith("and 51 more")
    assert "all_burned.csv" in lines[-1]
