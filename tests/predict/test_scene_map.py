"""One scene into its map, from file to files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import torch
from matplotlib.image import imread
from rasterio import Affine
from rio_cogeo.cogeo import cog_validate

from fireseg.errors import FiresegError
from fireseg.predict.api import Run
from fireseg.predict.options import Options
from fireseg.predict.pipeline import SceneMap, map_scene
from fireseg.runs import Calibration
from tests.predict.stand_in import DarkIsBurned, draw_image, make_trained, write_scene

NODATA = (slice(0, 7), slice(10, 30))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    image = draw_image(300, 260)
    image[:, *NODATA] = np.nan
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="module")
def made(image: np.ndarray, folder: Path) -> SceneMap:
    scene = write_scene(folder / "scene.tif", image)
    return map_scene(make_trained(num_classes=5), scene, folder / "maps", Options(geojson=True, min_area_ha=1.0))


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def test_all_files_are_there_and_no_other(made: SceneMap) -> None:
    names = {path.name for path in made.files}
    assert {path.name for path in made.files.summary.parent.iterdir()} == names


def test_rasters_are_cloud_optimized_and_lie_where_the_scene_lies(made: SceneMap, folder: Path) -> None:
    for path in (made.files.classes, made.files.fire):
        is_valid, errors, _ = cog_validate(str(path))
        assert is_valid, errors
        with rasterio.open(path) as raster, rasterio.open(folder / "scene.tif") as scene:
            assert (raster.shape, raster.crs, raster.transform) == (scene.shape, scene.crs, scene.transform)


def test_unknown_stays_unknown(made: SceneMap, image: np.ndarray) -> None:
    unknown = np.isnan(image[0])
    np.testing.assert_array_equal(read(made.files.classes) == 255, unknown)
    np.testing.assert_array_equal(read(made.files.fire) == 255, unknown)
    assert made.summary["unknown_share"] == pytest.approx(unknown.mean())
    assert made.summary["pixels"]["unknown"] == unknown.sum()


def test_the_map_is_what_the_model_says(made: SceneMap, image: np.ndarray) -> None:
    logits = DarkIsBurned(5)(torch.from_numpy(np.nan_to_num(image))[None])[0]
    probabilities = logits.softmax(0).numpy()
    expected = np.where(probabilities[0] <= 0.5, probabilities[1:].argmax(0) + 1, 0)
    classes, known = read(made.files.classes), ~np.isnan(image[0])
    assert set(np.unique(classes[known])) > {0, 1}
    np.testing.assert_array_equal(classes[known], expected[known])
    np.testing.assert_allclose(read(made.files.fire)[known] * 0.004, 1 - probabilities[0][known], atol=0.00201)


def test_the_summary_counts_pixels_and_hectares(made: SceneMap) -> None:
    said, classes = json.loads(made.files.summary.read_text()), read(made.files.classes)
    assert said == made.summary
    burned = int(((classes > 0) & (classes < 255)).sum())
    # On its central meridian a pixel of 10 m in UTM is 100 / 0.9996² m² of ground.
    assert said["burned_ha"] == pytest.approx(burned * 0.01 / 0.9996**2, rel=1e-3)
    assert said["hectares"]["negligible"] == pytest.approx((classes == 1).sum() * 0.01 / 0.9996**2, rel=1e-3)
    assert said["pixels"]["moderate"] == (classes == 2).sum()
    assert said["fraction"] == pytest.approx(burned / (classes < 255).sum())
    assert said["has_fire"] is True
    assert 0.5 < said["confidence"] <= 1


def test_the_summary_says_where_with_what_and_how(made: SceneMap) -> None:
    said = made.summary
    assert said["grid"]["crs"] == "EPSG:32629"
    assert said["grid"]["transform"] == [10, 0, 500_000, 0, -10, 4_400_000]
    assert (said["grid"]["height"], said["grid"]["width"]) == (300, 260)
    assert said["model"]["checkpoint"] == "best_model.pt"
    assert said["model"]["sha256"] == "0" * 64
    assert said["model"]["epoch"] == 3
    assert said["options"]["min_area_ha"] == 1.0
    assert set(said["versions"]) == {"fireseg", "torch", "rasterio", "gdal"}
    assert (said["threshold"], said["temperature"], said["threshold_chosen_by"]) == (0.5, 1.0, "default")


def test_polygons_hold_what_is_large_enough(made: SceneMap) -> None:
    count = made.summary["polygons"]["count"]
    for path in (made.files.burned, made.files.geojson):
        about, _, geometries, fields = pyogrio.raw.read(path)
        assert len(geometries) == count > 0
        areas = dict(zip(about["fields"], fields, strict=True))["area_ha"]
        assert areas.min() >= 1.0
        assert sum(areas) + made.summary["polygons"]["dropped_ha"] == pytest.approx(made.summary["burned_ha"], rel=1e-3)


def test_the_picture_can_be_opened(made: SceneMap) -> None:
    assert imread(made.files.picture).shape[2] in (3, 4)


def test_an_image_in_memory_gets_the_same_map(made: SceneMap, image: np.ndarray) -> None:
    found = Run(make_trained(num_classes=5)).predict(image)
    np.testing.assert_array_equal(found.classes, read(made.files.classes))
    for name in ("has_fire", "confidence", "fraction"):
        assert getattr(found, name) == made.summary[name]


def test_probabilities_can_be_kept_as_they_are(image: np.ndarray, folder: Path, tmp_path: Path) -> None:
    found = map_scene(make_trained(), folder / "scene.tif", tmp_path, Options(fire_dtype="float32"))
    fire = read(found.files.fire)
    np.testing.assert_array_equal(fire, Run(make_trained()).predict(image).fire)
    assert np.isnan(fire[NODATA]).all()
    assert not found.files.geojson.exists()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 31), (31, 700)])
@pytest.mark.parametrize("crs", ["EPSG:32629", "EPSG:4326"])
def test_a_raster_smaller_than_the_model_takes_is_mapped(tmp_path: Path, height: int, width: int, crs: str) -> None:
    image = draw_image(height, width, seed=1)
    transform = {"EPSG:4326": Affine(1e-4, 0, 8, 0, -1e-4, 40)}.get(crs, Affine(10, 0, 500_000, 0, -10, 4_400_000))
    scene = write_scene(tmp_path / "s.tif", image, crs=crs, transform=transform)
    found = map_scene(make_trained(), scene, tmp_path / "maps")
    assert read(found.files.classes).shape == (height, width)
    # 1e-4 degrees at 40 north: 11.1034 m along the meridian, 8.5394 m along the parallel.
    pixel_ha = 0.01 / 0.9996**2 if crs == "EPSG:32629" else 11.1034 * 8.5394 / 10_000
    assert sum(found.summary["hectares"].values()) == pytest.approx(height * width * pixel_ha, rel=2e-3)


def test_a_scene_of_which_nothing_is_known_gives_an_empty_map(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", np.full((7, 40, 50), np.nan, np.float32))
    found = map_scene(make_trained(), scene, tmp_path / "maps")
    assert (read(found.files.classes) == 255).all()
    assert found.summary["has_fire"] is False
    assert pyogrio.read_info(found.files.burned)["features"] == 0


def calibrated() -> Calibration:
    numbers = {"temperature": 2.0, "threshold": 0.3, "rule_min_pixels": 1, "rule_min_odds": 0.0}
    return Calibration(**numbers, checkpoint_sha256="0" * 64, fingerprint="f" * 64)


def test_the_calibration_of_the_run_is_used_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    trained = make_trained(calibration=calibrated())
    said = map_scene(trained, folder / "scene.tif", tmp_path).summary
    assert (said["threshold"], said["temperature"], said["threshold_chosen_by"]) == (0.3, 2.0, "calibration")
    options = Options(threshold=0.6, temperature=1.5, overwrite=True)
    said = map_scene(trained, folder / "scene.tif", tmp_path, options).summary
    assert (said["threshold"], said["temperature"], said["threshold_chosen_by"]) == (0.6, 1.5, "user")


def test_existing_maps_are_refused_and_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    first = map_scene(make_trained(), folder / "scene.tif", tmp_path)
    before = {path: path.read_bytes() for path in first.files if path.exists()}
    with pytest.raises(FiresegError, match="--overwrite"):
        map_scene(make_trained(), folder / "scene.tif", tmp_path, Options(threshold=0.9))
    assert {path: path.read_bytes() for path in first.files if path.exists()} == before


def test_a_model_that_breaks_half_way_leaves_the_old_map(folder: Path, tmp_path: Path) -> None:
    first = map_scene(make_trained(), folder / "scene.tif", tmp_path)
    before = first.files.summary.read_bytes()
    broken = dataclasses.replace(make_trained(), device=torch.device("meta"))
    with pytest.raises((NotImplementedError, RuntimeError)):
        map_scene(broken, folder / "scene.tif", tmp_path, Options(overwrite=True))
    assert first.files.summary.read_bytes() == before
    assert not (tmp_path / ".scene.part").exists()


def test_a_scene_that_is_cut_short_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    scene = tmp_path / "cut.tif"
    scene.write_bytes((folder / "scene.tif").read_bytes()[:200_000])
    with pytest.raises(FiresegError, match=r"cut\.tif"):
        map_scene(make_trained(), scene, tmp_path / "maps")
    assert not list((tmp_path / "maps").glob("*"))
