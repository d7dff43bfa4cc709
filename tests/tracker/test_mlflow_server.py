"""A tracker that tells MLflow, on a server that comes and goes."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fireseg.errors import FiresegError
from fireseg.tracker import create_mlflow_tracker
from tests.tracker.service import Server, begin, find_free_port


def list_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_gets_the_same_content_with_the_score_first(server: Server, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    tracker = begin(create_mlflow_tracker(uri=server.uri))
    for epoch in (1, 2):
        tracker.log({"val/fire_iou": 0.1 * epoch, "train/loss": 1 / 3, "lr": 1e-4}, epoch)
    tracker.artifact(tmp_path / "config.json", "settings")
    tracker.finish("FINISHED")
    client = MlflowClient(server.uri)
    run = client.get_run(tracker.run_ids["mlflow"])
    assert list(run.data.metrics.items()) == [("val/fire_iou", 0.2), ("train/loss", 1 / 3), ("lr", 1e-4)]
    assert run.data.params == {"model.encoder": "resnet34", "optimizer.lr": "0.0001"}
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.name == "patches"
    assert [file.path for file in client.list_artifacts(run.info.run_id, "settings")] == ["settings/config.json"]
    assert run.info.status == "FINISHED"


def test_a_resumed_run_on_a_server_tells_no_epoch_twice(server: Server) -> None:
    first = begin(create_mlflow_tracker(uri=server.uri))
    first.log({"val/fire_iou": 1 / 3, "seconds": 1.0}, 1)
    second = begin(create_mlflow_tracker(uri=server.uri), run_ids=first.run_ids)
    second.log({"val/fire_iou": 1 / 3, "seconds": 2.0}, 1)
    history = MlflowClient(server.uri).get_metric_history(first.run_ids["mlflow"], "seconds")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0)]


def test_a_run_outlives_a_server_that_is_killed_and_comes_back(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = tmp_path / "best_model.pt"
    best.write_text("first")
    tracker = begin(create_mlflow_tracker(uri=server.uri))
    late = create_mlflow_tracker(uri=server.uri)
    tracker.log({"val/fire_iou": 0.1, "lr": 1.0}, 1)
    server.kill()
    began = time.monotonic()
    for epoch in (2, 3):
        tracker.log({"val/fire_iou": 0.1 * epoch, "lr": 1.0}, epoch)
        best.write_text(f"epoch {epoch}")
        tracker.artifact(best, "checkpoints")
    begin(late).log({"val/fire_iou": 0.7}, 1)
    assert time.monotonic() - began < 5
    assert late.run_ids == {}
    started = f"MLflow at {server.uri}: Connection refused; training goes on"
    assert [warning.startswith(started) for warning in list_warnings(caplog)] == [True, True]

    server.start()
    tracker.log({"val/fire_iou": 0.4, "lr": 1.0}, 4)
    tracker.finish("FINISHED")
    late.finish("FAILED")
    client = MlflowClient(server.uri)
    run = client.get_run(tracker.run_ids["mlflow"])
    history = client.get_metric_history(run.info.run_id, "val/fire_iou")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2), (3, 0.1 * 3), (4, 0.4)]
    assert Path(client.download_artifacts(run.info.run_id, "checkpoints/best_model.pt")).read_text() == "epoch 3"
    assert run.info.status == "FINISHED"
    other = client.get_run(late.run_ids["mlflow"])
    assert (other.data.metrics, other.data.params["model.encoder"]) == ({"val/fire_iou": 0.7}, "resnet34")
    assert other.info.status == "FAILED"


def test_a_server_that_never_comes_costs_a_warning_and_no_time(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    tracker = begin(create_mlflow_tracker(uri=f"http://127.0.0.1:{find_free_port()}"))
    for epoch in range(10):
        tracker.log({"val/fire_iou": 0.5}, epoch)
    tracker.finish("FINISHED")
    assert time.monotonic() - began < 5
    (warning,) = list_warnings(caplog)
    assert "metrics.jsonl" in warning


def test_a_silent_server_costs_one_waiting_time_and_one_at_the_end(
    silent_server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    began = time.monotonic()
    tracker = begin(create_mlflow_tracker(uri=silent_server))
    for epoch in range(10):
        tracker.log({"val/fire_iou": 0.5}, epoch)
    tracker.finish("KILLED")
    assert 3.5 < time.monotonic() - began < 7
    assert len(list_warnings(caplog)) == 1


def test_an_address_that_is_no_mlflow_is_said_at_the_start(server: Server) -> None:
    with pytest.raises(FiresegError, match=r"tracker.uri: http://127.0.0.1:\d+/nothing takes no run"):
        begin(create_mlflow_tracker(uri=f"{server.uri}/nothing"))
