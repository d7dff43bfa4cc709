"""Downloads of checkpoints from MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fireseg.errors import FiresegError
from fireseg.tracker import create_mlflow_tracker, download_artifact
from fireseg.tracker.mlflow_store import open_store
from tests.ports import find_free_port
from tests.tracker.builders import Server, Session, start

MakeRun = Callable[..., Session]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Creates a finished run with a checkpoint that contains a text."""

    def make(uri: str, text: str = "weights", name: str = "best_model.pt", folder: str = "checkpoints") -> Session:
        session = start(create_mlflow_tracker(uri=uri))
        store_file(session, tmp_path / name, text, folder)
        session.finish("FINISHED")
        return session

    return make


def store_file(session: Session, path: Path, text: str, folder: str = "") -> None:
    path.write_text(text)
    session.artifact(path, folder)


def test_the_best_checkpoint_of_a_run_and_its_calibration_are_cached_as_in_a_run_folder(
    store: str, make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    run_id = make_run(store).run_ids["mlflow"]
    (tmp_path / "calibration.json").write_text("{}")
    open_store(store).log_artifact(run_id, str(tmp_path / "calibration.json"))
    path = download_artifact(f"runs:/{run_id}", tracking_uri=store)
    assert (path.read_text(), path.name, path.parent.name) == ("weights", "best_model.pt", "checkpoints")
    assert path.is_relative_to(cache / "fireseg" / "mlflow")
    assert (path.parent.parent / "calibration.json").read_text() == "{}"
    assert sorted(file.name for file in path.parent.parent.rglob("*") if file.is_file()) == [
        "best_model.pt",
        "calibration.json",
    ]


def test_a_folder_or_a_file_of_a_run_can_be_named(store: str, make_run: MakeRun) -> None:
    run_id = make_run(store, "epoch 5", name="checkpoint_epoch_5.pt").run_ids["mlflow"]
    uri = f"runs:/{run_id}/checkpoints"
    assert download_artifact(f"{uri}/checkpoint_epoch_5.pt", tracking_uri=store).read_text() == "epoch 5"
    with pytest.raises(FiresegError, match=r"available: checkpoint_epoch_5\.pt; name a run"):
        download_artifact(uri, tracking_uri=store)


def test_the_default_store_is_that_of_the_environment(
    store: str, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = make_run(store).run_ids["mlflow"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert download_artifact(f"runs:/{run_id}").read_text() == "weights"


def test_the_checkpoint_of_an_ended_run_is_downloaded_once_and_its_calibration_each_time(
    store: str, make_run: MakeRun, tmp_path: Path
) -> None:
    run_id = make_run(store).run_ids["mlflow"]
    first = download_artifact(f"runs:/{run_id}", tracking_uri=store)
    fetched = first.stat().st_mtime_ns, first.stat().st_ino
    (tmp_path / "calibration.json").write_text('{"new": 1}')
    open_store(store).log_artifact(run_id, str(tmp_path / "calibration.json"))
    again = download_artifact(f"runs:/{run_id}", tracking_uri=store)
    assert (again, again.stat().st_mtime_ns, again.stat().st_ino) == (first, *fetched)
    assert (again.parent.parent / "calibration.json").read_text() == '{"new": 1}'


def test_the_new_checkpoint_of_a_resumed_run_is_downloaded(store: str, make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run(store)
    uri = f"runs:/{first.run_ids['mlflow']}"
    download_artifact(uri, tracking_uri=store)
    second = start(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    store_file(second, tmp_path / "best_model.pt", "better", "checkpoints")
    assert download_artifact(uri, tracking_uri=store).read_text() == "better"
    store_file(second, tmp_path / "best_model.pt", "the best", "checkpoints")
    assert download_artifact(uri, tracking_uri=store).read_text() == "the best"
    second.finish("FINISHED")
    assert download_artifact(uri, tracking_uri=store).read_text() == "the best"


def test_a_registered_model_is_found_by_version_alias_and_as_the_latest(store: str, make_run: MakeRun) -> None:
    client = open_store(store)
    client.create_registered_model("fire seg")
    for text, deep in (("one", ""), ("two", "/checkpoints"), ("three", "/checkpoints/best_model.pt")):
        run_id = make_run(store, text).run_ids["mlflow"]
        root = f"runs:/{run_id}" if text == "one" else client.get_run(run_id).info.artifact_uri
        client.create_model_version("fire seg", f"{root}{deep}", run_id)
    client.set_registered_model_alias("fire seg", "champion", "2")
    texts = {
        suffix: download_artifact(f"models:/fire seg{suffix}", tracking_uri=store).read_text()
        for suffix in ("/1", "/2", "/3", "@champion", "/latest", "/1/checkpoints", "@champion/best_model.pt")
    }
    assert texts == {
        "/1": "one",
        "/2": "two",
        "/3": "three",
        "@champion": "two",
        "/latest": "three",
        "/1/checkpoints": "one",
        "@champion/best_model.pt": "two",
    }


def test_a_run_without_a_checkpoint_is_an_error(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store))
    with pytest.raises(FiresegError, match=r"^runs:/\w+: best_model.pt not found; name a run"):
        download_artifact(f"runs:/{session.run_ids['mlflow']}", tracking_uri=store)


@pytest.mark.parametrize(
    "uri", ["runs:/" + "0" * 32, "models:/none/1", "models:/none/latest", "models:/none@best", "models:/m-0"]
)
def test_an_unknown_run_or_model_is_an_error_of_one_line(store: str, uri: str) -> None:
    with pytest.raises(FiresegError, match=f"^{uri}: .*sqlite:.*MLFLOW_TRACKING_URI") as caught:
        download_artifact(uri, tracking_uri=store)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "uri", ["runs:/", "models:/", "models:/fireseg", "models:/fireseg/Production", "models:/@best"]
)
def test_an_invalid_address_is_an_error_that_lists_the_valid_forms(store: str, uri: str) -> None:
    with pytest.raises(FiresegError, match=f"^{uri}: .*write it as runs:/ID"):
        download_artifact(uri, tracking_uri=store)


def test_a_download_creates_no_store(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"none\.db: no such MLflow store; .*MLFLOW_TRACKING_URI"):
        download_artifact("runs:/1", tracking_uri=f"sqlite:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.glob("none*"))


def test_a_server_that_is_down_is_an_error_of_one_line_at_once() -> None:
    began, uri = time.monotonic(), f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(FiresegError, match=rf"^runs:/1: .*{uri} \(Connection refused\); ") as caught:
        download_artifact("runs:/1", tracking_uri=uri)
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - began < 5


def test_an_address_of_a_server_needs_a_server(store: str) -> None:
    with pytest.raises(FiresegError, match=r"^mlflow-artifacts:/0/a: .*sqlite:.*MLFLOW_TRACKING_URI"):
        download_artifact("mlflow-artifacts:/0/a", tracking_uri=store)


def test_a_cache_that_cannot_be_written_is_an_error(store: str, make_run: MakeRun, cache: Path) -> None:
    run_id = make_run(store).run_ids["mlflow"]
    cache.write_text("no folder")
    with pytest.raises(FiresegError, match="cannot be written"):
        download_artifact(f"runs:/{run_id}", tracking_uri=store)


def test_runs_models_and_plain_artifacts_are_downloaded_from_a_server(
    server: Server, make_run: MakeRun, tmp_path: Path
) -> None:
    run_id = make_run(server.uri, "served").run_ids["mlflow"]
    client = MlflowClient(server.uri)
    (tmp_path / "calibration.json").write_text("{}")
    client.log_artifact(run_id, str(tmp_path / "calibration.json"))
    root = client.get_run(run_id).info.artifact_uri
    assert root is not None
    assert root.startswith("mlflow-artifacts:/")
    client.create_registered_model("served")
    client.create_model_version("served", f"{root}/checkpoints", run_id)
    for uri in (f"runs:/{run_id}", root, f"{root}/checkpoints/best_model.pt", "models:/served/1"):
        path = download_artifact(uri, tracking_uri=server.uri)
        assert path.read_text() == "served"
        assert (path.parent.parent / "calibration.json").read_text() == "{}"
