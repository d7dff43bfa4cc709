"""Results added to a run that was tracked before."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from fireseg.tracker import create_mlflow_tracker, log_to_existing_run
from fireseg.tracker.mlflow_store import open_store
from fireseg.tracker.protocol import Status
from tests.tracker.service import begin, find_free_port


def make_ended(store: str, status: Status = "FINISHED") -> dict[str, str]:
    tracker = begin(create_mlflow_tracker(uri=store))
    tracker.log({"val/fire_iou": 0.5}, 3)
    tracker.finish(status)
    return tracker.run_ids


def list_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_readings_and_files_are_added_and_the_end_stays_the_end(
    store: str, status: Status, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = make_ended(store, status)
    before = open_store(store).get_run(run_ids["mlflow"]).info
    (tmp_path / "evaluation_test.json").write_text("{}")
    metrics = {"test/fire_iou": 0.8, "test/iou_destroyed": math.nan, "test/iou_high": None}
    files = [tmp_path / "evaluation_test.json"]
    log_to_existing_run(store, run_ids, metrics=metrics, step=3, artifacts=files, folder="evaluation")
    run = open_store(store).get_run(run_ids["mlflow"])
    assert (run.info.status, run.info.end_time) == (status, before.end_time)
    assert run.data.metrics == {"val/fire_iou": 0.5, "test/fire_iou": 0.8}
    kept = open_store(store).list_artifacts(run_ids["mlflow"], "evaluation")
    assert [file.path for file in kept] == ["evaluation/evaluation_test.json"]
    assert caplog.records == []


def test_the_same_evaluation_again_is_there_once_and_another_is_told(store: str) -> None:
    run_ids = make_ended(store)
    for score in (0.8, 0.8, 0.7):
        log_to_existing_run(store, run_ids, metrics={"test/fire_iou": score}, step=3)
    history = open_store(store).get_metric_history(run_ids["mlflow"], "test/fire_iou")
    assert [(metric.step, metric.value) for metric in history] == [(3, 0.8), (3, 0.7)]


def test_more_readings_than_fit_one_call_all_arrive(store: str) -> None:
    run_ids = make_ended(store)
    log_to_existing_run(store, run_ids, metrics={f"test/{number}": float(number) for number in range(150)}, step=3)
    assert len(open_store(store).get_run(run_ids["mlflow"]).data.metrics) == 151


def test_a_run_that_is_not_there_is_one_warning(store: str, caplog: pytest.LogCaptureFixture) -> None:
    gone = make_ended(store)
    open_store(store).delete_run(gone["mlflow"])
    for run_ids in (gone, {"mlflow": "0" * 32}):
        caplog.clear()
        log_to_existing_run(store, run_ids, metrics={"test/fire_iou": 0.8}, step=3)
        (warning,) = list_warnings(caplog)
        assert warning.startswith(f"MLflow at {store}: nothing could be added to run {run_ids['mlflow']} (")
        assert "\n" not in warning


def test_a_store_that_is_not_there_is_one_warning_and_is_not_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    for uri in (None, f"http://127.0.0.1:{find_free_port()}", "mlruns"):
        caplog.clear()
        log_to_existing_run(uri, {"mlflow": "0" * 32}, metrics={"test/fire_iou": 0.8}, step=3)
        (warning,) = list_warnings(caplog)
        assert "nothing could be added" in warning
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_kept_is_one_warning(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = make_ended(store)
    log_to_existing_run(store, run_ids, metrics={"test/fire_iou": 0.8}, step=3, artifacts=[tmp_path / "none.html"])
    assert "No such file" in list_warnings(caplog)[0]
    assert open_store(store).get_run(run_ids["mlflow"]).data.metrics["test/fire_iou"] == 0.8


def test_a_run_of_wandb_is_left_alone_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fireseg"):
        log_to_existing_run(None, {"wandb": "ab12"}, metrics={"test/fire_iou": 0.8}, step=3)
    assert [record.getMessage() for record in caplog.records] == [
        "W&B: run ab12 is left as it is; the results stay in the run folder"
    ]


def test_an_untracked_run_is_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    log_to_existing_run("http://127.0.0.1:9", {}, metrics={"test/fire_iou": 0.8}, step=3)
    assert caplog.records == []
