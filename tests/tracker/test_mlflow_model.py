"""Checkpoints that are stored as MLflow models."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.exceptions import MlflowException

import fireseg
from fireseg.files import hash_file
from fireseg.runs.calibration import Calibration, write_calibration
from fireseg.runs.folder import RunFolder
from fireseg.runs.sync import describe_checkpoint
from fireseg.tracker.mlflow_model import write_mlflow_model
from tests.runs.builders import FINGERPRINT, write_run

# Without .pth files, so that fireseg is not installed for this process.
FRESH = """
import sys
sys.path.append(sys.argv[1])
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[2])
numpy.savez("maps.npz", **model.predict(numpy.load("images.npy")))
example = model.predict(model.input_example)
import fireseg, fireseg.config
print(fireseg.__file__, fireseg.config.CONF_DIR.exists(), example["classes"].shape)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with random weights, of which half of the pixels reach the threshold."""
    folder = write_run(tmp_path_factory.mktemp("model") / "run", "task=gra")
    fire = fireseg.load(folder.path, device="cpu").predict(make_images()[1], temperature=1.7).fire
    calibration = Calibration(
        temperature=1.7,
        threshold=float(np.median(fire)),
        rule_min_pixels=1,
        rule_min_odds=0.0,
        checkpoint_sha256=hash_file(folder.checkpoints / "best_model.pt"),
        fingerprint=FINGERPRINT,
    )
    write_calibration(folder, calibration)
    return folder


@pytest.fixture(scope="module")
def model(run: RunFolder) -> Path:
    folder = run.path.parent / "model"
    write_mlflow_model(folder, describe_checkpoint(run.checkpoints / "best_model.pt"))
    return folder


@pytest.fixture
def loaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path])
    return mlflow.pyfunc.load_model(str(model))


def make_images() -> np.ndarray:
    images = np.random.default_rng(0).uniform(0.02, 0.5, (2, 7, 70, 90)).astype(np.float32)
    images[0, :, :5] = 0.0  # unknown
    return images


def test_a_process_without_fireseg_and_conf_maps_like_the_run(run: RunFolder, model: Path, tmp_path: Path) -> None:
    images = make_images()
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-S", "-c", FRESH, sysconfig.get_path("purelib"), str(model)]
    environment = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{model}/artifacts/fireseg.zip/fireseg/__init__.py False (1, 16, 16)\n", done.stderr
    maps, ours = np.load(tmp_path / "maps.npz"), fireseg.load(run.path, device="cpu")
    for image, classes, fire in zip(images, maps["classes"], maps["fire"], strict=True):
        expected = ours.predict(image)
        assert 0.01 < expected.burned_fraction < 0.99
        np.testing.assert_array_equal(classes, expected.classes)
        np.testing.assert_allclose(fire, expected.fire, rtol=0, atol=1e-6)
    assert (maps["classes"][0, :5] == 255).all()


def test_the_threshold_can_be_replaced_when_the_model_is_loaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    loaded = mlflow.pyfunc.load_model(str(model), model_config={"threshold": 0.01, "temperature": 1.7})
    assert (loaded.predict(make_images()[1:])["classes"] > 0).all()


@pytest.mark.parametrize("image", [np.zeros((1, 6, 32, 32), np.float32), np.zeros((1, 7, 32, 32))])
def test_other_bands_and_data_types_are_refused(loaded: Any, image: np.ndarray) -> None:
    with pytest.raises(MlflowException, match="schema"):
        loaded.predict(image)


def test_an_empty_batch_gives_empty_maps(loaded: Any) -> None:
    maps = loaded.predict(np.zeros((0, 7, 32, 40), np.float32))
    assert {name: (each.shape, each.dtype.name) for name, each in maps.items()} == {
        "classes": ((0, 32, 40), "uint8"),
        "fire": ((0, 32, 40), "float32"),
    }


def test_the_description_tells_bands_classes_threshold_and_checkpoint(run: RunFolder, model: Path) -> None:
    content = yaml.safe_load((model / "MLmodel").read_text())["metadata"]
    assert content.pop("threshold") == describe_checkpoint(run.checkpoints / "best_model.pt").threshold != 0.5
    assert content == {
        "task": "gra",
        "arch": "unet",
        "encoder": "tu-test_efficientnet",
        "fingerprint": FINGERPRINT,
        "val_fire_iou": 0.5,
        "fireseg": fireseg.__version__,
        "bands": ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"],
        "class_names": ["no_damage", "negligible", "moderate", "high", "destroyed"],
        "temperature": 1.7,
        "checkpoint_sha256": hash_file(run.checkpoints / "best_model.pt"),
        "epoch": 3,
    }
    assert {f"torch=={version('torch').partition('+')[0]}", f"mlflow=={version('mlflow')}"} <= set(
        (model / "requirements.txt").read_text().splitlines()
    )
