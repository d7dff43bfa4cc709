"""Tests of whole exports, from a run folder to the files beside the model."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch

from fireseg.errors import FiresegError, SettingError
from fireseg.export import pipeline
from fireseg.export.cli import main
from fireseg.export.formats import Predict
from fireseg.export.parity import collect_images, compare_outputs
from fireseg.model import FireSegmentationModel
from fireseg.predict.api import Run
from fireseg.runs.folder import RunFolder
from fireseg.runtime.onnx import DeployedModel
from tests.conftest import MakePatches
from tests.export.builders import export, load, write_run


def test_an_onnx_export_is_one_file_with_its_metadata_a_report_a_card_and_an_item(
    run: RunFolder, onnx_export: Path
) -> None:
    names = ["MODEL_CARD.md", "model.onnx", "model.stac.json", "parity.json"]
    assert sorted(path.name for path in onnx_export.iterdir()) == names
    out = onnx_export
    report = json.loads((out / "parity.json").read_text())
    assert report["parity"]["source"] == "val patches"
    assert report["parity"]["images"] == 4
    assert 0 <= report["parity"]["max_difference"] < 1e-5
    assert report["parity"]["changed_share"] == 0

    session = onnxruntime.InferenceSession(out / "model.onnx")
    stored = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert stored == report["model"]
    assert stored["bands"] == ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]
    assert stored["colours"] == ["#d9d9d9", "#c1272d"]
    trained = load(run)
    assert trained.calibration is not None
    assert (stored["threshold"], stored["temperature"]) == (trained.calibration.threshold, 2.0)
    assert stored["checkpoint_sha256"] == trained.sha256

    image = np.random.default_rng(0).uniform(0, 0.4, (1, 7, 64, 96)).astype(np.float32)
    (fire,) = 1 - np.asarray(session.run(None, {"image": image})[0])[:, 0]
    with torch.inference_mode():
        unburned, burned = trained.model(torch.from_numpy(image))[0]
    np.testing.assert_allclose(fire, torch.sigmoid((burned - unburned) / 2.0), atol=1e-5)


def test_an_openvino_export_holds_weights_of_32_bits_and_its_metadata(openvino_export: Path) -> None:
    out = openvino_export
    assert {path.name for path in out.iterdir()} >= {"model.xml", "model.bin"}
    assert not list(out.glob("*.onnx"))
    model = openvino.Core().read_model(out / "model.xml")
    assert json.loads(model.get_rt_info(["fireseg", "temperature"]).value) == 2.0
    constants = {str(node.get_output_element_type(0)) for node in model.get_ops() if node.get_type_name() == "Constant"}
    assert not any("f16" in name for name in constants)


def test_an_mlflow_export_is_a_model_folder_with_the_checkpoint_of_the_run(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(run.path), "--to", "mlflow", "--out", str(out)]) == 0
    report = json.loads((out / "parity.json").read_text())
    assert report["parity"]["max_difference"] < 1e-4
    files = {file["name"]: file["sha256"] for file in report["files"]}
    assert files["model/artifacts/best_model.pt"] == load(run).sha256
    assert "(batch, height, width), one channel" not in (out / "MODEL_CARD.md").read_text()


@pytest.fixture
def quick_format(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replaces the conversion, which takes seconds, by a file without content; returns a setter of its error."""
    errors = [0.0]

    def write(model: FireSegmentationModel, folder: Path, *, temperature: float | None, **_: object) -> None:
        (folder / "model.pt2").write_bytes(b"quick")
        networks.append(DeployedModel(model, temperature=temperature))

    def open_quick(*_: object) -> Predict:
        return lambda image: networks[-1](torch.from_numpy(image)).numpy() + np.float32(errors[-1])

    networks: list[DeployedModel] = []
    monkeypatch.setattr(pipeline, "write_model", write)
    monkeypatch.setattr(pipeline, "open_model", open_quick)
    return errors.append


def test_an_export_that_differs_from_the_run_is_refused_and_nothing_is_left(
    tmp_path: Path,
    make_patches: MakePatches,
    quick_format: Callable[[float], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_run(tmp_path / "run", patches=make_patches())
    before = sorted(path.name for path in folder.path.iterdir())
    for error, text in ((2e-4, "differ by 0.0002"), (math.nan, "are not finite")):
        quick_format(error)
        assert main([str(folder.path), "--to", "torch"]) == 1
        assert f"best_model.pt: the probabilities of the exported model {text}" in capsys.readouterr().err
        assert sorted(path.name for path in folder.path.iterdir()) == before


def test_a_difference_below_the_limit_is_written_into_the_report(
    tmp_path: Path, make_patches: MakePatches, quick_format: Callable[[float], None]
) -> None:
    quick_format(5e-5)
    out = export(write_run(tmp_path / "run", patches=make_patches()), to="torch")
    parity = json.loads((out / "parity.json").read_text())["parity"]
    assert parity["max_difference"] == pytest.approx(5e-5, rel=0.01)
    assert parity["mean_difference"] == pytest.approx(5e-5, rel=0.01)


@pytest.mark.usefixtures("quick_format")
def test_an_export_is_replaced_only_if_asked_and_another_folder_never(
    tmp_path: Path, make_patches: MakePatches
) -> None:
    folder = write_run(tmp_path / "run", patches=make_patches())
    out = export(folder, to="torch", out=tmp_path / "out")
    (out / "old.txt").touch()
    with pytest.raises(FiresegError, match="exists already; replace it with --overwrite"):
        export(folder, to="torch", out=out)
    export(folder, to="torch", out=out, overwrite=True)
    assert not (out / "old.txt").exists()
    with pytest.raises(FiresegError, match=r"run: exists, but is no folder of this command; .*--out"):
        export(folder, to="torch", out=folder.path, overwrite=True)


@pytest.mark.usefixtures("quick_format")
def test_without_the_patches_of_the_run_synthetic_scenes_are_compared_and_the_card_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = export(write_run(tmp_path / "run", patches=tmp_path / "moved"), to="torch")
    assert json.loads((out / "parity.json").read_text())["parity"]["source"] == "synthetic scenes"
    assert "Not compared on the patches of the run" in (out / "MODEL_CARD.md").read_text()
    assert "synthetic scenes" in caplog.text


def test_missing_packages_are_named_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "onnx" in name else find_spec(name))
    with pytest.raises(FiresegError, match=r"onnx, onnxscript, onnxruntime not installed.*'fireseg\[export\]'"):
        export(write_run(tmp_path / "run"), to="onnx")


def test_a_file_of_fixed_size_has_what_the_qgis_plugin_deepness_reads(
    tmp_path: Path, make_patches: MakePatches
) -> None:
    folder = write_run(tmp_path / "run", patches=make_patches())
    out = export(folder, to="onnx", out=tmp_path / "out", static=128, scale=0.0001, offset=1000)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert session.get_inputs()[0].shape == [1, 7, 128, 128]
    assert session.get_outputs()[0].shape == [1, 2, 128, 128]
    stored = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert stored["model_type"] == "Segmentor"
    assert stored["class_names"] == {"0": "unburned", "1": "burned"}
    assert (stored["tile_size"], stored["tiles_overlap"], stored["seg_thresh"]) == (128, 50, 0.6)
    # A digital number of 3000 of a product since 2022 is a reflectance of 0.2; Deepness divides by 255 first.
    mean, std = stored["standardization_mean"][0], stored["standardization_std"][0]
    assert (3000 / 255 - mean) / std == pytest.approx(0.2)


def test_a_scene_relative_model_is_not_exported_in_a_format_that_cannot_measure_the_scene(
    make_patches: MakePatches, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "relative", "data.normalisation=scene", patches=make_patches(train=1, val=2))
    with pytest.raises(SettingError, match=r"--to onnx: .*relative to the whole scene.*use --to mlflow"):
        export(folder, to="onnx", out=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_maps_of_a_scene_relative_model_are_compared_with_images_relative_to_themselves(
    make_patches: MakePatches, tmp_path: Path
) -> None:
    trained = load(write_run(tmp_path / "relative", "data.normalisation=scene", patches=make_patches(val=2, size=64)))
    images = collect_images(trained)
    assert images.source == "val patches"
    mapped = Run(trained)

    def predict(batch: np.ndarray) -> np.ndarray:
        fire = np.stack([mapped.predict(image, temperature=2.0).fire for image in batch])
        return np.stack([1 - fire, fire], axis=1)

    report = compare_outputs(trained, predict, images, temperature=2.0, threshold=0.6, is_static=True)
    assert report["max_difference"] < 1e-5
    plain = replace(trained, settings={**trained.settings, "data": {}})
    with pytest.raises(FiresegError, match="differ by"):
        compare_outputs(plain, predict, images, temperature=2.0, threshold=0.6, is_static=True)
