"""Training runs and their models in MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from fireseg import config
from fireseg.engine import Interrupts
from fireseg.files import hash_file
from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
from fireseg.runs.load import load_trained_model
from fireseg.runs.sync import sync_run
from fireseg.tracker import mlflow_model
from fireseg.train.run import train
from tests.train.test_run import QUICK

Train = Callable[..., RunFolder]


@pytest.fixture
def store(created_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(created_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return uri


@pytest.fixture
def train_run(make_patches: Callable[..., Path], tmp_path: Path) -> Train:
    """Returns a function that trains, or resumes the run of `outputs/run`, in this process."""
    root = make_patches(tmp_path / "patches")

    def run(*overrides: str) -> RunFolder:
        settings = config.compose_settings([f"data.root={root}", *QUICK, "tracker=mlflow", *overrides])
        path = tmp_path / "outputs" / "run"
        point = find_resume_point(path) if path.exists() else ResumePoint(None, None, None)
        folder = point.folder or RunFolder.create(path.parent, "run")
        train(settings, folder, point=point, interrupts=Interrupts())
        return folder

    return run


def list_models(store: str, folder: RunFolder) -> list[LoggedModel]:
    client = MlflowClient(store)
    run_id = folder.read_provenance()["tracking"]["mlflow"]
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"))


def list_files(store: str, folder: RunFolder) -> set[str]:
    client = MlflowClient(store)
    run_id = folder.read_provenance()["tracking"]["mlflow"]
    return {file.path for name in (None, "checkpoints") for file in client.list_artifacts(run_id, name)}


def test_the_best_checkpoint_is_stored_once_as_a_model_and_loaded_from_the_run(store: str, train_run: Train) -> None:
    folder = train_run()
    (model,) = list_models(store, folder)
    sha256 = hash_file(folder.checkpoints / "best_model.pt")
    assert (str(model.status), model.tags["checkpoint_sha256"]) == ("READY", sha256)
    assert list_files(store, folder) >= {"config.json", "run.json", "metrics.jsonl"}
    run_id = folder.read_provenance()["tracking"]["mlflow"]
    artifacts = Path(store.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert [path.name for path in artifacts.rglob("*.pt")] == ["best_model.pt"]
    for address in (f"runs:/{run_id}", f"runs:/{run_id}/checkpoints/best_model.pt", f"models:/{model.model_id}"):
        assert load_trained_model(address, device="cpu").sha256 == sha256


def test_a_run_that_is_killed_while_its_model_is_stored_stores_it_once_when_it_is_resumed(
    store: str, train_run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", kill)
        with pytest.raises(KeyboardInterrupt):
            train_run()
    folder = train_run()
    train_run()
    (model,) = list_models(store, folder)
    assert str(model.status) == "READY"


def test_a_better_checkpoint_of_a_resumed_run_is_another_model(store: str, train_run: Train, tmp_path: Path) -> None:
    folder = train_run()
    first = hash_file(folder.checkpoints / "best_model.pt")
    rows = folder.read_metrics()
    train_run("engine.epochs=4", "optimizer.lr=0.01")
    best = hash_file(folder.checkpoints / "best_model.pt")
    assert best != first, (rows, folder.read_metrics())
    assert {model.tags["checkpoint_sha256"] for model in list_models(store, folder)} == {first, best}
    run_id = folder.read_provenance()["tracking"]["mlflow"]
    assert load_trained_model(f"runs:/{run_id}", device="cpu").sha256 == best


def test_without_log_model_the_checkpoint_is_a_file_of_the_run(store: str, train_run: Train) -> None:
    folder = train_run("tracker.log_model=false")
    assert list_models(store, folder) == []
    assert "checkpoints/best_model.pt" in list_files(store, folder)


def test_a_model_that_a_server_did_not_receive_is_sent_by_sync(
    store: str, train_run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_model, "write_mlflow_model", fail)
        folder = train_run()
    assert "sent_to" not in folder.read_provenance()["tracked"]
    assert "files sent" in sync_run(folder.path)
    assert [str(model.status) for model in list_models(store, folder)] == ["READY"]


def test_runs_of_earlier_versions_are_sent_with_their_checkpoint_as_a_file(store: str, train_run: Train) -> None:
    folder = train_run("tracker=none")
    settings = json.loads(folder.config.read_text())
    settings["tracker"] = {"_target_": "fireseg.tracker.create_mlflow_tracker", "uri": None, "experiment": "a"}
    folder.write_config(settings)
    sync_run(folder.path)
    assert "checkpoints/best_model.pt" in list_files(store, folder)
    assert list_models(store, folder) == []
