"""Whole scenes: from raster to map files, one scene after the other, in bounded memory."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import torch
from matplotlib.image import imread
from rasterio import Affine
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError, SettingError
from fireseg.predict.api import Run
from fireseg.predict.options import PredictOptions
from fireseg.predict.pipeline import predict_scenes
from fireseg.predict.scene import SceneMap
from fireseg.runs import Calibration
from fireseg.tiles import BandReader
from tests.predict.builders import UTM, DarkIsBurned, draw_image, make_trained, predict, write_run, write_scene

NODATA = (slice(0, 7), slice(10, 30))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    image = draw_image(300, 260)
    image[:, *NODATA] = np.nan
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    write_scene(folder / "scene.tif", image)
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> SceneMap:
    scene = folder / "scene.tif"
    return predict(make_trained(num_classes=5), scene, folder / "maps", geojson=True, min_area_ha=1.0)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def test_all_files_exist_and_no_other(made: SceneMap) -> None:
    names = {path.name for path in made.files}
    assert {path.name for path in made.files.summary.parent.iterdir()} == names


def test_rasters_are_cloud_optimized_and_on_the_grid_of_the_scene(made: SceneMap, folder: Path) -> None:
    for path in (made.files.classes, made.files.fire):
        is_valid, errors, _ = cog_validate(str(path))
        assert is_valid, errors
        with rasterio.open(path) as raster, rasterio.open(folder / "scene.tif") as scene:
            assert (raster.shape, raster.crs, raster.transform) == (scene.shape, scene.crs, scene.transform)


def test_unknown_pixels_stay_unknown(made: SceneMap, image: np.ndarray) -> None:
    unknown = np.isnan(image[0])
    np.testing.assert_array_equal(read(made.files.classes) == 255, unknown)
    np.testing.assert_array_equal(read(made.files.fire) == 255, unknown)
    assert made.summary["unknown"] == pytest.approx(unknown.mean())
    assert made.summary["pixels"]["unknown"] == unknown.sum()


def test_the_map_agrees_with_the_model(made: SceneMap, image: np.ndarray) -> None:
    logits = DarkIsBurned(5)(torch.from_numpy(np.nan_to_num(image))[None])[0]
    probabilities = logits.softmax(0).numpy()
    expected = np.where(probabilities[0] <= 0.5, probabilities[1:].argmax(0) + 1, 0)
    classes, known = read(made.files.classes), ~np.isnan(image[0])
    assert set(np.unique(classes[known])) > {0, 1}
    np.testing.assert_array_equal(classes[known], expected[known])
    np.testing.assert_allclose(read(made.files.fire)[known] * 0.004, 1 - probabilities[0][known], atol=0.00201)


def test_the_summary_counts_pixels_and_hectares(made: SceneMap) -> None:
    summary, classes = json.loads(made.files.summary.read_text()), read(made.files.classes)
    assert summary == made.summary
    burned = int(((classes > 0) & (classes < 255)).sum())
    # On its central meridian a pixel of 10 m in UTM is 100 / 0.9996² m² of ground.
    assert summary["burned_ha"] == pytest.approx(burned * 0.01 / 0.9996**2, rel=1e-3)
    assert summary["hectares"]["negligible"] == pytest.approx((classes == 1).sum() * 0.01 / 0.9996**2, rel=1e-3)
    assert summary["pixels"]["moderate"] == (classes == 2).sum()
    assert summary["burned_fraction"] == pytest.approx(burned / (classes < 255).sum())
    assert summary["has_fire"] is True
    assert 0.5 < summary["max_probability"] <= 1


def test_the_summary_records_grid_model_options_and_versions(made: SceneMap) -> None:
    summary = made.summary
    assert summary["grid"]["crs"] == "EPSG:32629"
    assert summary["grid"]["transform"] == [10, 0, 500_000, 0, -10, 4_400_000]
    assert (summary["grid"]["height"], summary["grid"]["width"]) == (300, 260)
    assert summary["model"]["checkpoint"] == "best_model.pt"
    assert summary["model"]["sha256"] == "0" * 64
    assert summary["model"]["epoch"] == 3
    assert summary["options"]["min_area_ha"] == 1.0
    assert set(summary["versions"]) == {"fireseg", "torch", "rasterio", "gdal"}
    assert (summary["threshold"], summary["temperature"], summary["threshold_chosen_by"]) == (0.5, 1.0, "default")


def test_polygons_contain_areas_that_are_large_enough(made: SceneMap) -> None:
    count = made.summary["polygons"]["count"]
    for path in (made.files.burned, made.files.geojson):
        about, _, geometries, fields = pyogrio.raw.read(path, layer="burned")
        assert len(geometries) == count > 0
        areas = dict(zip(about["fields"], fields, strict=True))["area_ha"]
        assert areas.min() >= 1.0
        assert sum(areas) + made.summary["polygons"]["dropped_ha"] == pytest.approx(made.summary["burned_ha"], rel=1e-3)


def test_polygons_name_their_origin(made: SceneMap) -> None:
    for path in (made.files.burned, made.files.geojson):
        about, _, _, fields = pyogrio.raw.read(path, layer="burned")
        first = {name: values[0] for name, values in zip(about["fields"], fields, strict=True)}
        assert (first["scene"], first["date"], first["model"]) == ("scene.tif", None, "best_model.pt")


def test_the_style_of_the_classes_has_their_labels_and_colours(made: SceneMap) -> None:
    assert made.files.style == made.files.classes.with_suffix(".qml")  # the name that QGIS looks for
    entries = list(ElementTree.parse(made.files.style).iterfind(".//paletteEntry"))
    labels = ["no damage", "negligible", "moderate", "high", "destroyed"]
    assert [entry.attrib["label"] for entry in entries] == labels
    assert [entry.attrib["color"] for entry in entries] == list(make_trained(num_classes=5).task.colours)


def test_gdal_calls_the_class_of_a_delineation_burned(folder: Path, tmp_path: Path, image: np.ndarray) -> None:
    files = predict(make_trained(), folder / "scene.tif", tmp_path).files
    assert [name.text for name in ElementTree.parse(files.names).iterfind(".//Category")] == ["unburned", "burned"]


def test_the_quicklook_can_be_opened(made: SceneMap) -> None:
    assert imread(made.files.picture).shape[2] in (3, 4)


def test_an_image_in_memory_gives_the_same_map(made: SceneMap, image: np.ndarray) -> None:
    result = Run(make_trained(num_classes=5)).predict(image)
    np.testing.assert_array_equal(result.classes, read(made.files.classes))
    for name in ("has_fire", "max_probability", "burned_fraction"):
        assert getattr(result, name) == made.summary[name]


def test_probabilities_can_be_written_as_float32(image: np.ndarray, folder: Path, tmp_path: Path) -> None:
    result = predict(make_trained(), folder / "scene.tif", tmp_path, fire_dtype="float32")
    fire = read(result.files.fire)
    np.testing.assert_array_equal(fire, Run(make_trained()).predict(image).fire)
    assert np.isnan(fire[NODATA]).all()
    assert not result.files.geojson.exists()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 31), (31, 700)])
@pytest.mark.parametrize("crs", ["EPSG:32629", "EPSG:4326"])
def test_a_raster_smaller_than_a_window_is_mapped(tmp_path: Path, height: int, width: int, crs: str) -> None:
    image = draw_image(height, width, seed=1)
    transform = {"EPSG:4326": Affine(1e-4, 0, 8, 0, -1e-4, 40)}.get(crs, Affine(10, 0, 500_000, 0, -10, 4_400_000))
    scene = write_scene(tmp_path / "s.tif", image, crs=crs, transform=transform)
    result = predict(make_trained(), scene, tmp_path / "maps")
    assert read(result.files.classes).shape == (height, width)
    # 1e-4 degrees at 40 north: 11.1034 m along the meridian, 8.5394 m along the parallel.
    pixel_ha = 0.01 / 0.9996**2 if crs == "EPSG:32629" else 11.1034 * 8.5394 / 10_000
    assert sum(result.summary["hectares"].values()) == pytest.approx(height * width * pixel_ha, rel=2e-3)


def test_a_scene_without_known_pixels_gives_an_empty_map(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", np.full((7, 40, 50), np.nan, np.float32))
    result = predict(make_trained(), scene, tmp_path / "maps")
    assert (read(result.files.classes) == 255).all()
    assert result.summary["has_fire"] is False
    assert pyogrio.read_info(result.files.burned, layer="burned")["features"] == 0


def calibrated() -> Calibration:
    numbers = {"temperature": 2.0, "threshold": 0.3, "rule_min_pixels": 1, "rule_min_odds": 0.0}
    return Calibration(**numbers, checkpoint_sha256="0" * 64, fingerprint="f" * 64)


def test_the_calibration_of_the_run_is_used_unless_values_are_given(folder: Path, tmp_path: Path) -> None:
    trained = make_trained(calibration=calibrated())
    summary = predict(trained, folder / "scene.tif", tmp_path).summary
    assert (summary["threshold"], summary["temperature"], summary["threshold_chosen_by"]) == (0.3, 2.0, "calibration")
    summary = predict(trained, folder / "scene.tif", tmp_path, threshold=0.6, temperature=1.5, overwrite=True).summary
    assert (summary["threshold"], summary["temperature"], summary["threshold_chosen_by"]) == (0.6, 1.5, "user")


def test_existing_maps_are_rejected_and_unchanged(folder: Path, tmp_path: Path) -> None:
    first = predict(make_trained(), folder / "scene.tif", tmp_path)
    before = {path: path.read_bytes() for path in first.files if path.exists()}
    with pytest.raises(FiresegError, match="--overwrite"):
        predict(make_trained(), folder / "scene.tif", tmp_path, threshold=0.9)
    assert {path: path.read_bytes() for path in first.files if path.exists()} == before


def test_a_model_that_fails_leaves_the_old_map(folder: Path, tmp_path: Path) -> None:
    first = predict(make_trained(), folder / "scene.tif", tmp_path)
    before = first.files.summary.read_bytes()
    broken = dataclasses.replace(make_trained(), device="meta")
    with pytest.raises((NotImplementedError, RuntimeError)):
        predict(broken, folder / "scene.tif", tmp_path, overwrite=True)
    assert first.files.summary.read_bytes() == before
    assert not (tmp_path / ".scene.part").exists()


def test_a_truncated_scene_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    scene = tmp_path / "cut.tif"
    scene.write_bytes((folder / "scene.tif").read_bytes()[:200_000])
    with pytest.raises(FiresegError, match=r"cut\.tif"):
        predict(make_trained(), scene, tmp_path / "maps")
    assert not list((tmp_path / "maps").glob("*"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "a_run")


def make_options(run: Path | str, folder: Path, *names: str, **options: Any) -> PredictOptions:
    scenes = tuple(str(folder / f"{name}.tif") for name in names)
    return PredictOptions(run=str(run), scenes=scenes, out=folder / "maps", device="cpu", runtime="torch", **options)


def test_a_bad_scene_does_not_stop_the_others(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "c"):
        write_scene(tmp_path / f"{name}.tif", draw_image(40, 50))
    (tmp_path / "b.tif").write_text("no raster")
    with caplog.at_level(logging.INFO, "fireseg"):
        faults = predict_scenes(make_options(run, tmp_path, "a", "b", "c"))
    assert len(faults) == 1
    assert "b.tif" in faults[0]
    assert sorted(path.name for path in (tmp_path / "maps").glob("?.json")) == ["a.json", "c.json"]
    *table, engine, collection = [record.message for record in caplog.records][-6:]
    assert engine.startswith("computed by: torch fp32 ")
    assert collection.startswith("all scenes: ")
    assert [line.split()[:2] for line in table] == [
        ["scene", "burned_ha"],
        ["a.tif", table[1].split()[1]],
        ["b.tif", "failed"],
        ["c.tif", table[3].split()[1]],
    ]
    columns = ["burned_fraction", "max_probability", "polygons", "unknown", "cloud", "flags", "map"]
    assert table[0].split()[2:] == columns


@pytest.mark.parametrize("error", [MemoryError(), np.linalg.LinAlgError("Singular\nmatrix")])
def test_a_scene_that_fails_unexpectedly_does_not_stop_the_others(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    for name in ("a", "b"):
        write_scene(tmp_path / f"{name}.tif", draw_image(40, 50))

    def fail_once(self: BandReader) -> tuple[str, ...]:
        if self.name == "a":
            raise error
        return ()

    monkeypatch.setattr(BandReader, "check_values", fail_once)
    (fault,) = predict_scenes(make_options(run, tmp_path, "a", "b"))
    assert fault.startswith(f"{tmp_path / 'a.tif'}: ")
    if isinstance(error, MemoryError):
        assert "memory ran out" in fault
    else:
        assert "LinAlgError: Singular matrix" in fault
        assert "fail_once" in capsys.readouterr().err  # the traceback
    assert [path.name for path in (tmp_path / "maps").glob("?.json")] == ["b.json"]


def test_a_scene_on_the_pole_is_mapped_without_an_arrow_to_the_north(tmp_path: Path) -> None:
    scene = tmp_path / "pole.tif"
    write_scene(scene, draw_image(60, 80), crs="EPSG:3413", transform=Affine(10, 0, -400, 0, -10, 300))
    files = predict(make_trained(), scene, tmp_path / "maps").files
    assert imread(files.picture).shape[0] > 60


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\n\x1b[31mb"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such names")
def test_a_scene_whose_name_is_no_text_is_refused_and_the_others_mapped(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: bytes
) -> None:
    write_scene(tmp_path / "good.tif", draw_image(40, 50))
    stem = os.fsdecode(name)
    shutil.copy(tmp_path / "good.tif", tmp_path / f"{stem}.tif")
    with caplog.at_level(logging.INFO, "fireseg"):
        (fault,) = predict_scenes(make_options(run, tmp_path, stem, "good"))
    assert "not UTF-8 or holds control characters; rename it" in fault
    assert (tmp_path / "maps" / "good.json").exists()
    escaped = {b"caf\xe9": r"caf\xe9.tif", b"a\n\x1b[31mb": r"a\n\x1b[31mb.tif"}[name]
    lines = [record.message for record in caplog.records]
    assert sum(escaped in line for line in lines) == 2  # progress and table
    assert not any("\x1b" in line or "\n" in line or "\udce9" in line for line in lines)


def test_a_missing_run_and_existing_maps_are_reported_together(run: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", draw_image(40, 50))
    assert predict_scenes(make_options(run, tmp_path, "a")) == []
    with pytest.raises(FiresegError) as error:
        predict_scenes(make_options("no_such_run", tmp_path, "a"))
    missing, existing = error.value.faults
    assert missing.startswith("no_such_run: no such run folder")
    assert "--overwrite" in existing
    assert predict_scenes(make_options(run, tmp_path, "a", overwrite=True)) == []


def test_no_scene_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no scene"):
        predict_scenes(make_options("no_such_run", tmp_path))


def test_all_invalid_options_are_named_at_once() -> None:
    options = {"threshold": 1.0, "temperature": 0.0, "min_area_ha": -1, "simplify_m": float("nan")}
    with pytest.raises(SettingError) as error:
        make_options("a_run", Path(), "a", **options, batch_size=0, readers=0)
    named = [fault.split(":")[0] for fault in error.value.faults]
    assert named == ["--threshold", "--temperature", "--min-area-ha", "--simplify-m", "--batch-size", "--readers"]


def test_a_scene_with_a_local_crs_does_not_stop_the_others(run: Path, tmp_path: Path) -> None:
    local = 'LOCAL_CS["a hill",UNIT["metre",1]]'
    write_scene(tmp_path / "bad.tif", draw_image(40, 50), crs=local)
    write_scene(tmp_path / "good.tif", draw_image(40, 50))
    faults = predict_scenes(make_options(run, tmp_path, "bad", "good"))
    assert len(faults) == 1
    assert "bad.tif" in faults[0]
    assert "gdal_edit.py" in faults[0]
    assert (tmp_path / "maps" / "good.json").exists()


def run_tool(tool: str, *words: str | Path) -> str:
    """Output of a GDAL tool, which must not fail."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on PATH (Debian: gdal-bin)")
    return subprocess.run([tool, *map(str, words)], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def grading_map(tmp_path_factory: pytest.TempPathFactory) -> SceneMap:
    folder = tmp_path_factory.mktemp("others")
    scene = write_scene(folder / "scene.tif", draw_image(300, 260))
    return predict(make_trained(num_classes=5), scene, folder / "maps", geojson=True)


def test_gdalinfo_reads_class_names_and_colours(grading_map: SceneMap) -> None:
    info = json.loads(run_tool("gdalinfo", "-json", grading_map.files.classes))
    band = info["bands"][0]
    assert info["size"] == [260, 300]
    assert (band["type"], band["noDataValue"], band["colorInterpretation"]) == ("Byte", 255.0, "Palette")
    assert band["colorTable"]["entries"][4][:3] == [0x67, 0x00, 0x0D]
    assert "destroyed" in run_tool("gdalinfo", grading_map.files.classes).partition("Categories:")[2]


def test_gdalinfo_reads_the_pixels_that_were_written(grading_map: SceneMap) -> None:
    info = json.loads(
        run_tool("gdalinfo", "-json", "-stats", "--config", "GDAL_PAM_ENABLED", "NO", grading_map.files.fire)
    )
    band = info["bands"][0]
    with rasterio.open(grading_map.files.fire) as raster:
        steps = raster.read(1).astype(np.float64)
    assert (band["scale"], band["noDataValue"]) == (0.004, 255.0)
    assert band["mean"] == pytest.approx(steps[steps != 255].mean(), rel=1e-3)


@pytest.mark.parametrize("kind", ["burned", "geojson"])
def test_ogrinfo_reads_every_polygon_with_its_area(grading_map: SceneMap, kind: str) -> None:
    info = run_tool("ogrinfo", "-geom=NO", getattr(grading_map.files, kind), "burned")
    count = int(re.search(r"Feature Count: (\d+)", info)[1])  # pyright: ignore[reportOptionalSubscript]
    hectares = [float(text) for text in re.findall(r"area_ha \(Real\) = ([\d.]+)", info)]
    assert count == len(hectares) == grading_map.summary["polygons"]["count"] > 0
    # Only what is too small for a polygon is missing.
    whole = grading_map.summary["burned_ha"] - grading_map.summary["polygons"]["dropped_ha"]
    assert sum(hectares) == pytest.approx(whole, rel=1e-3)


SCENE_WIDTH = 2048

# Run in a process of its own, whose peak memory is that of one map.
PROGRAM = """
import sys
from pathlib import Path
from tests.predict.builders import make_trained, predict

scene = Path(sys.argv[1])
predict(make_trained(), scene, scene.parent / "maps", min_area_ha=10)
# Not ru_maxrss: a child inherits that of its parent.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def write_tall_scene(path: Path, height: int) -> Path:
    """Writes squares of constant reflectance, some dark, without holding the whole scene."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 7, "height": height, "width": SCENE_WIDTH, **UTM}
    stored = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", **profile, **stored) as raster:
        for top in range(0, height, 512):
            cells = rng.integers(800, 4000, (7, 8, SCENE_WIDTH // 64 + 1))
            window = Window(0, top, SCENE_WIDTH, 512)  # pyright: ignore[reportCallIssue]
            raster.write(
                cells.repeat(64, axis=1).repeat(64, axis=2)[..., :SCENE_WIDTH].astype(np.uint16), window=window
            )
        for channel, band in enumerate(BAND_NAMES, 1):
            raster.set_band_description(channel, band)
    return path


def measure_peak_mb(scene: Path) -> float:
    """Peak memory in megabytes of a process that maps a scene."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(scene)], cwd=root, check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1]) / 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_four_times_the_height_takes_the_same_memory(tmp_path: Path) -> None:
    low = measure_peak_mb(write_tall_scene(tmp_path / "low.tif", 1536))
    tall = measure_peak_mb(write_tall_scene(tmp_path / "tall.tif", 6144))
    # The taller scene has 132 MB more as uint16 and 264 MB more as float32; two measurements of one scene differ by 50.
    assert tall <= low + 80
    assert tall < 2000


def write_wide_scene(path: Path, width: int) -> Path:
    """Writes a scene of which one block in a hundred holds values; the others take no space in the file."""
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 7, "height": 300, "width": width, "nodata": 0, **UTM}
    stored = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "sparse_ok": True}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile, **stored) as raster:
        for left in range(0, width, 100 * 512):
            window = Window(left, 0, 512, 300)  # pyright: ignore[reportCallIssue]
            raster.write(rng.integers(800, 4000, (7, 300, 512)).astype(np.uint16), window=window)
        for channel, band in enumerate(BAND_NAMES, 1):
            raster.set_band_description(channel, band)
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_a_scene_of_a_hundred_thousand_columns_takes_the_memory_of_a_product(tmp_path: Path) -> None:
    # Its windows alone would take 700 MB, and a row of its blocks 700 MB.
    assert measure_peak_mb(write_wide_scene(tmp_path / "wide.tif", 100_000)) < 1500
