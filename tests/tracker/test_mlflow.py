"""A tracker that tells MLflow, in a local store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError
from fireseg.tracker import Tracker, create_mlflow_tracker
from fireseg.tracker.mlflow_store import open_store
from tests.tracker.service import begin

READINGS = {"val/fire_iou": 0.5, "train/loss": 0.9, "lr": 1e-4, "a": 1.0}


def get_run(store: str, tracker: Tracker) -> Any:
    return open_store(store).get_run(tracker.run_ids["mlflow"])


def get_history(store: str, tracker: Tracker, key: str) -> list[tuple[int, float]]:
    history = open_store(store).get_metric_history(tracker.run_ids["mlflow"], key)
    return [(metric.step, metric.value) for metric in history]


def test_a_run_has_its_name_settings_tags_and_data_set(store: str) -> None:
    tracker = begin(create_mlflow_tracker(uri=store))
    run = get_run(store, tracker)
    assert (run.info.run_name, run.info.status) == ("resnet34", "RUNNING")
    assert run.data.params == {"model.encoder": "resnet34", "optimizer.lr": "0.0001"}
    assert {"task": "del", "sweep": "2026-11-22"}.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.source.git.commit"] == "0123abc"
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("patches", "f00d")
    assert entry.dataset.source == '{"uri": "/data/patches"}'


def test_a_name_of_the_tracker_goes_before_the_one_given(store: str) -> None:
    tracker = begin(create_mlflow_tracker(uri=store, run_name="mine", experiment="others"))
    run = get_run(store, tracker)
    assert run.info.run_name == "mine"
    assert open_store(store).get_experiment(run.info.experiment_id).name == "others"


def test_more_settings_than_fit_one_call_all_arrive(store: str) -> None:
    tracker = begin(create_mlflow_tracker(uri=store), many={f"p{number}": number for number in range(250)})
    assert len(get_run(store, tracker).data.params) == 252


def test_the_score_stays_first_over_the_epochs(store: str) -> None:
    tracker = begin(create_mlflow_tracker(uri=store))
    for epoch in (1, 2):
        tracker.log({**READINGS, f"new{epoch}": 1.0}, epoch)
    assert list(get_run(store, tracker).data.metrics) == ["val/fire_iou", "train/loss", "lr", "a", "new1", "new2"]


def test_every_epoch_is_a_step_and_what_is_no_number_is_left_out(store: str) -> None:
    tracker = begin(create_mlflow_tracker(uri=store))
    tracker.log({"val/fire_iou": 0.1, "iou_fire": math.nan}, 1)
    tracker.log({"val/fire_iou": 0.2, "iou_fire": None}, 2)
    assert get_history(store, tracker, "val/fire_iou") == [(1, 0.1), (2, 0.2)]
    assert list(get_run(store, tracker).data.metrics) == ["val/fire_iou"]


def test_files_lie_beside_the_store_in_their_folder(store: str, tmp_path: Path) -> None:
    (tmp_path / "best_model.pt").write_text("weights")
    tracker = begin(create_mlflow_tracker(uri=store))
    tracker.artifact(tmp_path / "best_model.pt", "checkpoints")
    kept = tmp_path / "mlartifacts" / tracker.run_ids["mlflow"] / "artifacts" / "checkpoints" / "best_model.pt"
    assert kept.read_text() == "weights"


def test_a_file_that_is_gone_is_passed_over(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = begin(create_mlflow_tracker(uri=store))
    tracker.artifact(tmp_path / "checkpoint_epoch_5.pt")
    tracker.finish("FINISHED")
    assert caplog.records == []


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_ended(store: str, status: Any) -> None:
    tracker = begin(create_mlflow_tracker(uri=store))
    tracker.finish(status)
    run = get_run(store, tracker)
    assert run.info.status == status
    assert run.info.end_time >= run.info.start_time


def test_a_resumed_run_runs_again_and_goes_on(store: str) -> None:
    first = begin(create_mlflow_tracker(uri=store))
    first.log(READINGS, 1)
    first.finish("KILLED")
    second = begin(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    assert second.run_ids == first.run_ids
    assert get_run(store, second).info.status == "RUNNING"
    second.log({**READINGS, "val/fire_iou": 0.6}, 2)
    assert get_history(store, second, "val/fire_iou") == [(1, 0.5), (2, 0.6)]


def test_an_epoch_done_again_after_a_kill_is_there_once(store: str) -> None:
    first = begin(create_mlflow_tracker(uri=store))
    first.log({"val/fire_iou": 0.5, "seconds": 10.0}, 1)
    second = begin(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    second.log({"val/fire_iou": 0.5, "seconds": 11.0, "late": 1.0}, 1)
    assert get_history(store, second, "val/fire_iou") == [(1, 0.5)]
    assert get_history(store, second, "seconds") == [(1, 10.0)]
    assert get_history(store, second, "late") == [(1, 1.0)]


def test_an_epoch_done_again_with_another_score_is_told_anew(store: str) -> None:
    first = begin(create_mlflow_tracker(uri=store))
    first.log({"val/fire_iou": 0.5}, 1)
    second = begin(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    second.log({"val/fire_iou": 0.4}, 1)
    assert get_history(store, second, "val/fire_iou") == [(1, 0.5), (1, 0.4)]
    assert get_run(store, second).data.metrics == {"val/fire_iou": 0.4}


def test_settings_changed_on_resume_are_tags_and_new_ones_are_added(store: str) -> None:
    first = begin(create_mlflow_tracker(uri=store), engine={"epochs": 2})
    second = begin(create_mlflow_tracker(uri=store), run_ids=first.run_ids, engine={"epochs": 4, "device": "cpu"})
    data = get_run(store, second).data
    assert (data.params["engine.epochs"], data.params["engine.device"]) == ("2", "cpu")
    assert data.tags["resumed.engine.epochs"] == "4"
    assert [tag for tag in data.tags if tag.startswith("resumed.")] == ["resumed.engine.epochs"]


def test_a_run_that_is_not_there_any_more_begins_anew(store: str, caplog: pytest.LogCaptureFixture) -> None:
    first = begin(create_mlflow_tracker(uri=store))
    open_store(store).delete_run(first.run_ids["mlflow"])
    for gone in (first.run_ids["mlflow"], "0" * 32):
        tracker = begin(create_mlflow_tracker(uri=store), run_ids={"mlflow": gone})
        assert get_run(store, tracker).info.status == "RUNNING"
        assert tracker.run_ids["mlflow"] != gone
        assert f"run {gone} is not there any more" in caplog.text


def test_a_deleted_experiment_ends_the_program_at_the_start(store: str) -> None:
    tracker = begin(create_mlflow_tracker(uri=store))
    open_store(store).delete_experiment(get_run(store, tracker).info.experiment_id)
    with pytest.raises(FiresegError, match="was deleted"):
        begin(create_mlflow_tracker(uri=store))


def test_a_call_whose_answer_was_lost_makes_no_second_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    create_run, lost = MlflowClient.create_run, [ConnectionError("the answer was lost")]

    def create_and_lose(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        run = create_run(self, *args, **kwargs)
        if lost:
            raise lost.pop()
        return run

    monkeypatch.setattr(MlflowClient, "create_run", create_and_lose)
    tracker = begin(create_mlflow_tracker(uri=store))
    experiment = get_run(store, tracker).info.experiment_id
    assert [run.info.run_id for run in open_store(store).search_runs([experiment])] == [tracker.run_ids["mlflow"]]


def test_metrics_told_twice_are_there_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    log_batch, lost = MlflowClient.log_batch, []

    def log_and_lose(self: MlflowClient, *args: Any, **kwargs: Any) -> None:
        log_batch(self, *args, **kwargs)
        if lost:
            raise lost.pop()

    monkeypatch.setattr(MlflowClient, "log_batch", log_and_lose)
    tracker = begin(create_mlflow_tracker(uri=store))
    lost.append(ConnectionError("the answer was lost"))
    tracker.log(READINGS, 1)
    assert get_history(store, tracker, "val/fire_iou") == [(1, 0.5)]


def test_a_store_that_refuses_hours_later_costs_the_tracking_not_the_training(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [FiresegError("tracker.experiment: 'fireseg' was deleted")] + [ConnectionError("down")] * 3

    def open_later(uri: str) -> None:
        raise answers.pop()

    monkeypatch.setattr("fireseg.tracker.mlflow.open_store", open_later)
    tracker = begin(create_mlflow_tracker(uri=store))
    for epoch in (1, 2):
        tracker.log(READINGS, epoch)
    tracker.finish("FINISHED")
    warnings = [record.getMessage() for record in caplog.records]
    assert [warning.partition(";")[0] for warning in warnings] == [
        f"MLflow at {store}: down",
        "tracker.experiment: 'fireseg' was deleted",
    ]


def test_nothing_is_told_before_the_start(store: str, tmp_path: Path) -> None:
    tracker = create_mlflow_tracker(uri=store)
    tracker.log(READINGS, 1)
    tracker.artifact(tmp_path)
    tracker.finish("FAILED")
    assert tracker.run_ids == {}
