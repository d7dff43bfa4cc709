"""Tests of the engines that compute a model for maps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

import fireseg.runtime.engines as engines_module
from fireseg import hardware
from fireseg.errors import FiresegError, SettingError
from fireseg.model import FireSegmentationModel, create_segmentation_model
from fireseg.runs import load_trained_model
from fireseg.runtime.cache import read_record
from fireseg.runtime.engines import InferenceEngine, create_engine
from tests.predict.builders import draw_image, make_trained, write_run, write_scene


def train_a_little(model: FireSegmentationModel, steps: int = 30) -> FireSegmentationModel:
    """Trains until the probabilities are spread, as an untrained model decides all pixels by a hair."""
    model.set_normalisation([0.3] * 7, [0.1] * 7)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=5e-3)
    for step in range(steps):
        image = torch.from_numpy(draw_image(96, 96, seed=step))[None]
        optimizer.zero_grad()
        cross_entropy(model(image), (image[:, 3] < 0.2).long()).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = create_segmentation_model("unet", "tu-test_efficientnet", weights="none")
    return write_run(tmp_path_factory.mktemp("runs") / "a_run", train_a_little(model))


def decide(engine: InferenceEngine, image: NDArray[np.float32]) -> NDArray[np.bool_]:
    probabilities = engine.predict_probabilities(image)
    return probabilities[:, 1] > probabilities[:, 0]


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_an_engine_decides_as_torch_on_all_but_a_two_thousandth_of_the_pixels(
    run: Path, runtime: engines_module.RuntimeName
) -> None:
    trained = load_trained_model(run, device="cpu")
    torch_engine = create_engine(trained, runtime="torch", precision="fp32")
    engine = create_engine(trained, runtime=runtime, precision="fp32")
    assert (engine.name, engine.precision) == (runtime, "fp32")
    for shape in [(1, 544, 544), (3, 96, 64), (2, 32, 160)]:
        image = np.stack([draw_image(*shape[1:], seed=number) for number in range(shape[0])])
        expected, burned = decide(torch_engine, image), decide(engine, image)
        assert 0.001 < expected.mean() < 0.999
        assert (burned != expected).mean() <= 0.0005
        assert abs(int(burned.sum()) - int(expected.sum())) <= 0.001 * expected.sum()


@pytest.fixture(scope="module")
def ensemble(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    model = create_segmentation_model("unet", "tu-test_efficientnet", weights="none")
    return f"{run},{write_run(run.parent / 'another_run', train_a_little(model, steps=5))}"


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_an_engine_computes_the_mean_of_several_runs_as_torch(
    ensemble: str, runtime: engines_module.RuntimeName
) -> None:
    alone = [create_engine(load_trained_model(run, device="cpu"), runtime="torch") for run in ensemble.split(",")]
    trained = load_trained_model(ensemble, device="cpu", build=False)
    image = np.stack([draw_image(96, 64, seed=number) for number in (7, 8)])
    expected = (alone[0].predict_probabilities(image) + alone[1].predict_probabilities(image)) / 2

    for name in ("torch", runtime):
        result = create_engine(trained, runtime=name, precision="fp32").predict_probabilities(image)
        np.testing.assert_allclose(result, expected, atol=1e-4 if name == runtime else 1e-6)

    assert trained.folder is not None
    assert (trained.folder.path / f"runtime/{trained.sha256}_1.onnx").is_file()
    assert expected[:, 1].std() > 0.01


def test_int8_of_several_runs_is_refused(ensemble: str) -> None:
    with pytest.raises(SettingError, match=r"--precision: int8 is not available for several runs"):
        create_engine(load_trained_model(ensemble, device="cpu", build=False), precision="int8")


def test_a_process_survives_a_signal_after_another_thread_has_freed_an_engine(run: Path) -> None:
    program = (
        "import os, signal, sys, threading\n"
        "from fireseg.runs import load_trained_model\n"
        "from fireseg.runtime.engines import create_engine\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled', flush=True))\n"
        "engines = [create_engine(load_trained_model(sys.argv[1], device='cpu'), runtime='openvino')]\n"
        "thread = threading.Thread(target=engines.clear); thread.start(); thread.join()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_scene_is_mapped_without_torch_once_the_model_is_converted(run: Path, tmp_path: Path, runtime: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(96, 64))
    program = (
        "import sys\n"
        "from fireseg.predict.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print([name for name in ('torch', 'timm', 'mlflow', 'hydra') if name in sys.modules])\n"
    )
    create_engine(load_trained_model(run, device="cpu"), runtime="openvino")
    command = [sys.executable, "-c", program, str(run), str(scene), "--out", str(tmp_path), "--runtime", runtime]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["[]"]), ended.stderr
    summary = json.loads((tmp_path / "scene.json").read_text())
    assert (summary["runtime"]["name"], summary["versions"]["torch"]) == (runtime, metadata.version("torch"))


def test_the_model_is_converted_once_for_each_checkpoint_and_again_if_the_file_is_damaged(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_trained_model(run, device="cpu")
    create_engine(trained, runtime="openvino")
    (file,) = (run / "runtime").glob("*.onnx")
    assert file.name.startswith(trained.sha256)
    assert read_record(file).keys() == {"sha256"}
    converted = []
    content = file.read_bytes()
    monkeypatch.setattr(
        "fireseg.runtime.onnx.convert_to_onnx", lambda model, path: converted.append(path) or path.write_bytes(content)
    )
    create_engine(trained, runtime="openvino")
    assert converted == []
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    create_engine(trained, runtime="openvino")
    assert converted == [file]


def test_a_run_that_cannot_be_written_is_mapped_all_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_trained_model(run, device="cpu")
    create_engine(trained, runtime="onnx")
    (file,) = (run / "runtime").glob("*.onnx")
    content = file.read_bytes()
    monkeypatch.setattr("fireseg.runtime.onnx.convert_to_onnx", lambda model, path: path.write_bytes(content))
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    before = sorted(path.name for path in run.rglob("*"))
    engine = create_engine(trained, runtime="openvino")
    assert engine.predict_probabilities(np.zeros((1, 7, 64, 64), np.float32)).shape == (1, 2, 64, 64)
    assert sorted(path.name for path in run.rglob("*")) == before


def test_automatic_is_torch_with_a_line_that_names_the_cure_where_openvino_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines_module, "find_spec", lambda name: None)
    with caplog.at_level("INFO", "fireseg"):
        assert create_engine(make_trained()).name == "torch"
    (line,) = caplog.messages
    assert "'fireseg[fast]'" in line
    with pytest.raises(FiresegError, match=r"--runtime: onnx .*'fireseg\[onnx\]'"):
        create_engine(make_trained(), runtime="onnx")


def test_bf16_is_chosen_only_where_the_cpu_has_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"avx512_bf16"}
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset(flags))
    assert create_engine(make_trained(), runtime="torch").precision == "fp32"
    with pytest.raises(SettingError, match=r"--precision: bf16 .* AMX"):
        create_engine(make_trained(), runtime="torch", precision="bf16")
    flags.add("amx_bf16")
    assert create_engine(make_trained(), runtime="torch").precision == "bf16"
    assert create_engine(make_trained(), runtime="torch", precision="fp32").precision == "fp32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "onnx", "precision": "bf16"}, "--precision: bf16 .*; use auto"),
        ({"runtime": "torch", "precision": "fp8"}, "--precision: fp8, but it must be auto, fp32, bf16, int8"),
        ({"runtime": "torch", "precision": "int8"}, "--precision: int8 .* with torch on cpu; use --runtime openvino"),
        ({"runtime": "onnx", "precision": "int8"}, "--precision: int8 .* with onnx on cpu; use --runtime openvino"),
        ({"runtime": "tensorrt"}, "--runtime: tensorrt, but it must be auto, torch, openvino, onnx"),
    ],
)
def test_an_engine_without_that_precision_is_refused_with_the_cure(arguments: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        create_engine(make_trained(), **arguments)


@pytest.mark.skipif(not hardware.has_amx(), reason="needs a CPU with AMX")
def test_bf16_decides_as_fp32_on_all_but_a_two_thousandth_of_the_pixels(run: Path) -> None:
    trained = load_trained_model(run, device="cpu")
    image = draw_image(544, 544)[None]
    expected = decide(create_engine(trained, runtime="torch", precision="fp32"), image)
    burned = decide(create_engine(trained, runtime="openvino", precision="bf16"), image)
    assert (burned != expected).mean() <= 0.0005


def test_the_command_says_which_engine_made_the_map_and_leaves_nothing_of_telemetry(run: Path, tmp_path: Path) -> None:
    create_engine(load_trained_model(run, device="cpu"), runtime="openvino")
    scene = write_scene(tmp_path / "scene.tif", draw_image(64, 64))
    command = [sys.executable, "-m", "fireseg.predict", run, scene, "--out", tmp_path / "maps"]
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    (tmp_path / "home").mkdir()
    done = subprocess.run([str(part) for part in command], env=environment, check=True, capture_output=True, text=True)
    summary = json.loads((tmp_path / "maps" / "scene.json").read_text())["runtime"]
    assert summary["name"] == "openvino"
    assert (done.stdout + done.stderr).rstrip().endswith(f"openvino {summary['precision']} {summary['version']}")
    assert not list((tmp_path / "home").glob("intel*"))
