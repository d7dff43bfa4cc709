"""Maps as GDAL's own tools read them, which nobody here wrote."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.predict.options import Options
from fireseg.predict.pipeline import SceneMap, map_scene
from tests.predict.stand_in import draw_image, make_trained, write_scene


def ask(tool: str, *words: str | Path) -> str:
    """What a tool answers; it must not fail."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on PATH (Debian: gdal-bin)")
    return subprocess.run([tool, *map(str, words)], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SceneMap:
    folder = tmp_path_factory.mktemp("others")
    scene = write_scene(folder / "scene.tif", draw_image(300, 260))
    return map_scene(make_trained(num_classes=5), scene, folder / "maps", Options(geojson=True))


def test_gdalinfo_sees_classes_with_names_and_colours(made: SceneMap) -> None:
    found = json.loads(ask("gdalinfo", "-json", made.files.classes))
    band = found["bands"][0]
    assert found["size"] == [260, 300]
    assert (band["type"], band["noDataValue"], band["colorInterpretation"]) == ("Byte", 255.0, "Palette")
    assert band["colorTable"]["entries"][4][:3] == [0x67, 0x00, 0x0D]
    assert "destroyed" in ask("gdalinfo", made.files.classes).partition("Categories:")[2]


def test_gdalinfo_counts_the_pixels_that_were_written(made: SceneMap) -> None:
    found = json.loads(ask("gdalinfo", "-json", "-stats", "--config", "GDAL_PAM_ENABLED", "NO", made.files.fire))
    band = found["bands"][0]
    with rasterio.open(made.files.fire) as raster:
        steps = raster.read(1).astype(np.float64)
    assert (band["scale"], band["noDataValue"]) == (0.004, 255.0)
    assert band["mean"] == pytest.approx(steps[steps != 255].mean(), rel=1e-3)


@pytest.mark.parametrize("kind", ["burned", "geojson"])
def test_ogrinfo_sees_every_polygon_with_its_hectares(made: SceneMap, kind: str) -> None:
    told = ask("ogrinfo", "-al", "-geom=NO", getattr(made.files, kind))
    count = int(re.search(r"Feature Count: (\d+)", told)[1])  # pyright: ignore[reportOptionalSubscript]
    hectares = [float(text) for text in re.findall(r"area_ha \(Real\) = ([\d.]+)", told)]
    assert count == len(hectares) == made.summary["polygons"]["count"] > 0
    # Only what is too small for a polygon is missing.
    whole = made.summary["burned_ha"] - made.summary["polygons"]["dropped_ha"]
    assert sum(hectares) == pytest.approx(whole, rel=1e-3)
