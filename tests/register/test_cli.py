"""Runs that are registered as models."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

import fireseg
from fireseg.errors import FiresegError
from fireseg.files import hash_file
from fireseg.register.cli import main
from fireseg.runs.calibration import Calibration, write_calibration
from fireseg.runs.folder import RunFolder
from tests.runs.builders import FINGERPRINT, write_run

DATA = {"root": "/data/patches", "fingerprint": FINGERPRINT, "class_counts": [90, 10]}


@pytest.fixture
def store(created_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store that the environment names."""
    shutil.copy(created_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that no tracker has followed."""
    folder = write_run(tmp_path / "outputs" / "one")
    folder.write_provenance({"git_commit": "0123abc", "host": "gpu1", "data": DATA})
    for epoch, score in ((1, 0.25), (2, 0.75)):
        folder.append_metrics({"epoch": epoch, "val/fire_iou": score, "val/loss": 0.5, "seconds": 1.0, "best": True})
    return folder


def calibrate(run: RunFolder, threshold: float) -> None:
    calibration = Calibration(
        temperature=1.0,
        threshold=threshold,
        rule_min_pixels=1,
        rule_min_odds=0.0,
        checkpoint_sha256=hash_file(run.checkpoints / "best_model.pt"),
        fingerprint=FINGERPRINT,
    )
    write_calibration(run, calibration)


def test_an_untracked_run_is_sent_registered_and_loaded_by_its_alias(
    store: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(run, 0.4)
    assert main([str(run.path), "--name", "burned-area", "--alias", "champion"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"burned-area version 1: {run.path}, fire IoU on val 0.750" in lines
    assert "  python -m fireseg.predict models:/burned-area@champion SCENE.tif" in lines
    assert f"  MLFLOW_TRACKING_URI={store} mlflow models serve -m models:/burned-area@champion" in "\n".join(lines)

    client = MlflowClient(store)
    version = client.get_model_version_by_alias("burned-area", "champion")
    assert version.run_id == run.read_provenance()["tracking"]["mlflow"]
    assert {
        "val_fire_iou": "0.75",
        "bands": '["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]',
        "threshold": "0.4",
        "checkpoint_sha256": hash_file(run.checkpoints / "best_model.pt"),
    }.items() <= version.tags.items()

    image = np.random.default_rng(0).uniform(0.02, 0.5, (7, 40, 50)).astype(np.float32)
    expected = fireseg.load(run.path, device="cpu").predict(image)
    for address in ("models:/burned-area@champion", "models:/burned-area/1"):
        loaded = fireseg.load(address, device="cpu")
        assert loaded.trained.calibration is not None
        np.testing.assert_array_equal(loaded.predict(image).fire, expected.fire)


def test_an_equal_model_is_registered_once_and_another_threshold_is_another_version(
    store: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [main([str(run.path), "--alias", "champion"]) for _ in range(2)] == [0, 0]
    assert "version 1, registered before" in capsys.readouterr().out
    calibrate(run, 0.3)
    main([str(run.path), "--alias", "champion"])
    assert "alias champion: version 2, before version 1" in capsys.readouterr().out
    client = MlflowClient(store)
    versions = sorted(client.search_model_versions("name = 'burned-area'"), key=lambda version: int(version.version))
    assert [version.tags["threshold"] for version in versions] == ["0.5", "0.3"]


def test_a_misspelt_name_alias_or_version_is_named_with_the_nearest(store: str, run: RunFolder) -> None:
    main([str(run.path), "--alias", "champion"])
    for address, hint in {
        "models:/burnt-area@champion": r"did you mean 'burned-area'\?",
        "models:/burned-area@champoin": r"did you mean 'champion'\?",
        "models:/burned-area/7": "the newest is 1",
    }.items():
        with pytest.raises(FiresegError, match=f"^{address}: .*{hint}.*MLFLOW_TRACKING_URI") as caught:
            fireseg.load(address)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "place"),
    [(["--name", "a/b"], "--name"), (["--alias", "latest"], "--alias"), (["--alias", "v2"], "--alias")],
)
def test_a_name_that_mlflow_refuses_is_refused_before_anything_is_stored(
    store: str, run: RunFolder, words: list[str], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.path), *words]) == 2
    assert f"{place}: " in capsys.readouterr().err
    assert "tracking" not in run.read_provenance()


def test_what_is_no_run_with_a_model_is_an_error(
    store: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.path.parent / "onn")]) == 1
    assert "no run folder" in (error := capsys.readouterr().err)
    assert "did you mean 'one'?" in error
    (run.checkpoints / "best_model.pt").unlink()
    assert main([str(run.path)]) == 1
    assert "a run without best_model.pt; wait for its first epoch" in capsys.readouterr().err


def test_a_run_of_another_store_is_not_copied_into_a_new_one(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run.write_provenance({"tracked": {"sent_to": "sqlite:////elsewhere/mlflow.db"}})
    assert main([str(run.path)]) == 1
    assert "set MLFLOW_TRACKING_URI=sqlite:////elsewhere/mlflow.db" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
