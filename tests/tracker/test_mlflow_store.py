"""Addresses of MLflow stores, and local stores that several processes create at the same time."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils

from fireseg.errors import FiresegError, SettingError
from fireseg.tracker import create_mlflow_tracker, mlflow_store
from fireseg.tracker.mlflow_store import (
    check_no_password,
    get_experiment_id,
    open_store,
    redact_text,
    redact_uri,
    relocate_artifacts,
    resolve_uri,
)
from tests.tracker.builders import start


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_default_store_is_a_file_in_the_working_folder(tmp_path: Path) -> None:
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_environment_variable_takes_precedence_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert resolve_uri(None) == "http://tracking:5000"
    assert resolve_uri("https://other") == "https://other"


def test_a_relative_path_becomes_absolute(tmp_path: Path) -> None:
    assert resolve_uri("sqlite:///runs/a.db?timeout=5") == f"sqlite:///{tmp_path}/runs/a.db?timeout=5"


@pytest.mark.parametrize(
    ("uri", "cure"),
    [
        ("htpp://127.0.0.1:5000", "did you mean 'http'?"),
        ("mlflow.db", "sqlite:////"),
        ("file:///tmp/mlruns", "sqlite:////tmp/mlflow.db"),
        ("./mlruns", "database"),
        ("sqlite://", "has no file name"),
        ("sqlite:///:memory:", "has no file name"),
        ("http://", "has no host name"),
        ("127.0.0.1:5000", "sqlite, http"),
    ],
)
def test_an_invalid_address_is_an_error_with_a_cure(uri: str, cure: str) -> None:
    with pytest.raises(SettingError, match=r"tracker\.uri: ") as caught:
        resolve_uri(uri)
    assert cure in str(caught.value)


def test_an_invalid_address_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://host")
    with pytest.raises(SettingError, match=r"^MLFLOW_TRACKING_URI: 'ftp://host'"):
        resolve_uri(None)


def test_a_password_does_not_appear_in_messages() -> None:
    assert redact_uri("postgresql://me:secret@db:5432/mlflow") == "postgresql://db:5432/mlflow"
    assert redact_uri("sqlite:////a@b/mlflow.db") == "sqlite:////a@b/mlflow.db"


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:secret@db:port/mlflow",
        "http://me:secret@",
        "htpp://me:secret@db",
        "postgresql://me:sec/secret@db/mlflow",
        "postgresql://db:port/mlflow?password=secret",
    ],
)
def test_a_password_does_not_appear_in_the_message_of_an_invalid_address(uri: str) -> None:
    with pytest.raises(SettingError) as caught:
        resolve_uri(uri)
    assert "secret" not in str(caught.value)


def test_a_password_does_not_appear_in_messages_of_libraries() -> None:
    uri = "http://me:s%40cret@db/mlflow?token=abc"
    assert redact_text(f"Invalid url: {uri}/api", uri) == "Invalid url: http://db/mlflow/api"
    assert redact_text("login as me with s@cret failed", uri) == "login as me with *** failed"


def test_a_setting_with_a_password_is_refused_because_config_json_would_store_it() -> None:
    with pytest.raises(ValueError, match=r"'http://db'.*set the environment variable MLFLOW_TRACKING_URI") as caught:
        check_no_password("http://me:secret@db")
    assert "secret" not in str(caught.value)
    for uri in (None, "http://me@db", "http://db:5000", "sqlite:////a:b@c/mlflow.db?timeout=5"):
        assert check_no_password(uri) == uri


def test_a_missing_driver_of_a_database_ends_the_start_without_a_password() -> None:
    program = (
        "from fireseg.tracker import TrackedRun, create_mlflow_tracker\n"
        "create_mlflow_tracker(uri='postgresql+none://me:secret@127.0.0.1:1/db').start(TrackedRun(name='a'))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "tracker.uri: postgresql+none://127.0.0.1:1/db refuses the run" in done.stderr
    assert "install the driver" in done.stderr
    assert "secret" not in done.stderr + done.stdout


@pytest.mark.parametrize("name", ["/dev/null", "pipe.db"])
def test_a_store_that_is_no_regular_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    with pytest.raises(SettingError, match=rf"tracker\.uri: .*{name}: a (device|pipe).*sqlite:////.*mlflow\.db"):
        resolve_uri(f"sqlite:///{name}")
    assert Path("/dev/null").is_char_device()


def test_a_store_that_another_process_is_opening_is_told_and_waited_for(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mlflow_store, "_QUIET_LOCK_SECONDS", 0.1)
    monkeypatch.setattr(mlflow_store, "_LOCK_SECONDS", 0.1)
    caplog.set_level(logging.INFO, "fireseg")
    with FileLock(tmp_path / "mlflow.db.lock"), pytest.raises(FiresegError, match="end that process"):
        open_store(store)
    assert "another process is opening it; waiting" in caplog.text


def test_a_locked_store_is_told_within_seconds_and_a_moved_one_too(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "_BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(FiresegError, match=r"mlflow\.db: cannot be updated \(database is locked\)"):
            relocate_artifacts(tmp_path / "mlflow.db")


def test_a_store_half_created_by_a_killed_process_is_replaced(created_store: Path) -> None:
    assert sorted(path.name for path in created_store.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    assert open_store(f"sqlite:///{created_store}").search_experiments()


def test_artifacts_are_stored_beside_the_store_in_a_folder_with_a_difficult_name(created_store: Path) -> None:
    uri = f"sqlite:///{created_store}"
    client = open_store(uri)
    experiment = client.get_experiment(get_experiment_id(client, "odd", uri))
    assert experiment.artifact_location == (created_store.parent / "mlartifacts").as_uri()
    assert "50%25%20in%20M%C3%A4rz" in experiment.artifact_location


def test_a_file_that_is_not_a_store_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("my notes on MLflow")
    with pytest.raises(FiresegError, match=r"mlflow\.db: not an SQLite file"):
        open_store(resolve_uri(None))
    assert (tmp_path / "mlflow.db").read_text() == "my notes on MLflow"


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FiresegError, match=r"file/mlflow\.db: cannot be written"):
        open_store(resolve_uri("sqlite:///file/mlflow.db"))


def test_an_experiment_is_created_once(store: str) -> None:
    client = open_store(store)
    first = get_experiment_id(client, "fires", store)
    assert get_experiment_id(client, "fires", store) == first
    assert client.get_experiment(first).tags["mlflow.experimentKind"] == "custom_model_development"


def test_an_experiment_created_by_another_process_in_the_meantime_is_used(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_store(store)
    other = get_experiment_id(client, "fires", store)
    answers: list[Any] = [None, client.get_experiment(other)]
    monkeypatch.setattr(client, "get_experiment_by_name", lambda name: answers.pop(0))
    assert get_experiment_id(client, "fires", store) == other


def test_a_deleted_experiment_is_an_error_with_a_cure(store: str) -> None:
    client = open_store(store)
    client.delete_experiment(get_experiment_id(client, "fires", store))
    with pytest.raises(FiresegError, match=r"tracker.experiment: 'fires' was deleted .* restore"):
        get_experiment_id(client, "fires", store)


@pytest.fixture
def moved(store: str, tmp_path: Path) -> tuple[str, str]:
    """Tracks a run with an artifact, and moves store and artifacts: returns the new address and the id of the run."""
    session = start(create_mlflow_tracker(uri=store))
    (tmp_path / "config.json").write_text("before the move")
    session.artifact(tmp_path / "config.json")
    home = tmp_path / "brought home, 50%"
    home.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (tmp_path / name).rename(home / name)
    utils._artifact_repos_cache.clear()  # MLflow remembers the folder of a run as long as a process lives
    return f"sqlite:///{home}/mlflow.db", session.run_ids["mlflow"]


def read_artifact(uri: str, run_id: str, name: str) -> str:
    return Path(MlflowClient(uri).download_artifacts(run_id, name)).read_text()


def test_artifacts_of_a_moved_store_are_beside_it_and_nothing_is_written_to_the_former_folder(
    moved: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    caplog.set_level(logging.INFO)
    uri, run_id = moved
    (tmp_path / "curves.png").write_text("after the move")
    session = start(create_mlflow_tracker(uri=uri), {"mlflow": run_id})
    session.artifact(tmp_path / "curves.png")
    session.finish("FINISHED")
    other = start(create_mlflow_tracker(uri=uri))
    other.artifact(tmp_path / "curves.png")

    assert session.run_ids["mlflow"] == run_id
    assert read_artifact(uri, run_id, "config.json") == "before the move"
    assert read_artifact(uri, run_id, "curves.png") == "after the move"
    assert read_artifact(uri, other.run_ids["mlflow"], "curves.png") == "after the move"
    assert not (tmp_path / "mlartifacts").exists()
    assert {text for text in caplog.messages if "moved here" in text} == {
        f"{tmp_path}/brought home, 50%/mlflow.db: moved here from {tmp_path}; files of its runs are read and written "
        f"in {tmp_path}/brought home, 50%/mlartifacts"
    }


def test_a_copied_store_has_its_own_artifacts(store: str, tmp_path: Path) -> None:
    session = start(create_mlflow_tracker(uri=store))
    (tmp_path / "config.json").write_text("original")
    session.artifact(tmp_path / "config.json")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "mlartifacts", copy / "mlartifacts")
    shutil.copy(tmp_path / "mlflow.db", copy)
    uri, run_id = f"sqlite:///{copy}/mlflow.db", session.run_ids["mlflow"]
    (tmp_path / "config.json").write_text("changed")
    utils._artifact_repos_cache.clear()
    start(create_mlflow_tracker(uri=uri), {"mlflow": run_id}).artifact(tmp_path / "config.json")
    assert read_artifact(uri, run_id, "config.json") == "changed"
    utils._artifact_repos_cache.clear()
    assert read_artifact(store, run_id, "config.json") == "original"


def test_artifacts_that_were_stored_elsewhere_on_purpose_stay_there(store: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "big disk" / "mlartifacts"
    elsewhere.mkdir(parents=True)
    (tmp_path / "mlartifacts").mkdir()
    MlflowClient(store).create_experiment("fireseg", artifact_location=elsewhere.as_uri())
    (tmp_path / "config.json").write_text("{}")
    session = start(create_mlflow_tracker(uri=store))
    session.artifact(tmp_path / "config.json")
    open_store(store)
    assert read_artifact(store, session.run_ids["mlflow"], "config.json") == "{}"
    assert [path.name for path in elsewhere.rglob("*.json")] == ["config.json"]


def test_a_store_behind_a_link_is_not_moved(store: str, tmp_path: Path) -> None:
    session = start(create_mlflow_tracker(uri=store))
    (tmp_path / "config.json").write_text("{}")
    session.artifact(tmp_path / "config.json")
    (tmp_path / "link").symlink_to(tmp_path)
    before = MlflowClient(store).get_run(session.run_ids["mlflow"]).info.artifact_uri
    client = open_store(f"sqlite:///{tmp_path}/link/mlflow.db")
    assert client.get_run(session.run_ids["mlflow"]).info.artifact_uri == before


EIGHT_JOBS = """
import multiprocessing, sys
from pathlib import Path
from fireseg.tracker import TrackedRun, create_mlflow_tracker
from fireseg.tracker.mlflow_store import prepare_environment

def track(number):
    tracker = create_mlflow_tracker()
    epochs = []
    dataset = {"name": "patches", "digest": "f00d", "source": "here", "profile": "{}"}
    tracker.start(TrackedRun(name=f"job{number}", params={"seed": number}, tags={"sweep": "eight"}, dataset=dataset,
                             read_epochs=lambda: epochs))
    for epoch in range(1, 4):
        epochs.append((epoch, {"val/fire_iou": number + epoch / 10, "lr": 1e-4}))
        tracker.sync()
    tracker.artifact(Path("config.json"))
    tracker.finish("FINISHED")

prepare_environment()
import mlflow.store.tracking.sqlalchemy_store  # imported once for all, so that they start at the same time
jobs = [multiprocessing.get_context("fork").Process(target=track, args=(number,)) for number in range(8)]
for job in jobs:
    job.start()
for job in jobs:
    job.join()
sys.exit(max(job.exitcode != 0 for job in jobs))
"""


def test_eight_processes_that_start_together_without_a_store_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    jobs = subprocess.run([sys.executable, "-c", EIGHT_JOBS], capture_output=True, text=True, check=False)
    assert (jobs.returncode, jobs.stdout, jobs.stderr) == (0, "", "")

    client = open_store(resolve_uri(None))
    experiment = client.get_experiment_by_name("fireseg")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {f"job{number}" for number in range(8)}
    for number in range(8):
        run = runs[f"job{number}"]
        history = client.get_metric_history(run.info.run_id, "val/fire_iou")
        assert [metric.value for metric in history] == [number + 0.1, number + 0.2, number + 0.3]
        assert run.info.status == "FINISHED"
        assert run.data.params == {"seed": str(number)}
        assert run.inputs is not None
        assert [entry.dataset.digest for entry in run.inputs.dataset_inputs] == ["f00d"]
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.json"]
