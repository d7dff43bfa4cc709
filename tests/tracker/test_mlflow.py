"""Runs in MLflow: in a local store, on a server that comes and goes, and extended by later results."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from fireseg.errors import FiresegError
from fireseg.tracker import Status, create_mlflow_tracker, log_to_existing_run
from fireseg.tracker.mlflow_store import open_store
from tests.ports import find_free_port
from tests.tracker.builders import Server, Session, list_warnings, start

METRICS: dict[str, float | None] = {"val/fire_iou": 0.5, "train/loss": 0.9, "lr": 1e-4, "a": 1.0}

Fail = Callable[..., None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Lets calls of an MLflow client raise errors, before or after they have done their work."""

    def install(name: str, *errors: Exception, is_answer_lost: bool = False) -> None:
        original, waiting = getattr(MlflowClient, name), list(errors)

        def call(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs) if is_answer_lost or not waiting else None
            if waiting:
                raise waiting.pop(0)
            return result

        monkeypatch.setattr(MlflowClient, name, call)

    return install


def get_run(store: str, session: Session) -> Any:
    return open_store(store).get_run(session.run_ids["mlflow"])


def get_history(store: str, run_ids: dict[str, str], key: str) -> list[tuple[int, float]]:
    history = MlflowClient(store).get_metric_history(run_ids["mlflow"], key)
    return [(metric.step, metric.value) for metric in history]


# A local store


def test_a_run_has_its_name_settings_tags_and_data_set(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store))
    run = get_run(store, session)
    assert (run.info.run_name, run.info.status) == ("resnet34", "RUNNING")
    assert run.data.params == {"model.encoder": "resnet34", "optimizer.lr": "0.0001"}
    assert {"task": "del", "sweep": "2026-11-22"}.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.source.git.commit"] == "0123abc"
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("patches", "f00d")
    assert entry.dataset.source == '{"uri": "/data/patches"}'


def test_run_name_of_the_tracker_takes_precedence(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store, run_name="mine", experiment="others"))
    run = get_run(store, session)
    assert run.info.run_name == "mine"
    assert open_store(store).get_experiment(run.info.experiment_id).name == "others"


def test_more_settings_than_fit_one_call_are_all_stored(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store), many={f"p{number}": number for number in range(250)})
    assert len(get_run(store, session).data.params) == 252


def test_the_score_stays_the_first_metric_over_the_epochs(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store))
    for epoch in (1, 2):
        session.log({**METRICS, f"new{epoch}": 1.0}, epoch)
    assert list(get_run(store, session).data.metrics) == ["val/fire_iou", "train/loss", "lr", "a", "new1", "new2"]


def test_every_epoch_is_a_step_and_values_that_are_not_finite_are_left_out(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store))
    session.log({"val/fire_iou": 0.1, "iou_fire": math.nan}, 1)
    session.log({"val/fire_iou": 0.2, "iou_fire": None}, 2)
    assert get_history(store, session.run_ids, "val/fire_iou") == [(1, 0.1), (2, 0.2)]
    assert list(get_run(store, session).data.metrics) == ["val/fire_iou"]


def test_files_are_stored_beside_the_store_in_their_folder(store: str, tmp_path: Path) -> None:
    (tmp_path / "best_model.pt").write_text("weights")
    session = start(create_mlflow_tracker(uri=store))
    session.artifact(tmp_path / "best_model.pt", "checkpoints")
    stored = tmp_path / "mlartifacts" / session.run_ids["mlflow"] / "artifacts" / "checkpoints" / "best_model.pt"
    assert stored.read_text() == "weights"


def test_a_file_that_was_deleted_is_skipped(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = start(create_mlflow_tracker(uri=store))
    session.artifact(tmp_path / "checkpoint_epoch_5.pt")
    session.finish("FINISHED")
    assert caplog.records == []
    assert session.tracker.is_complete


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_with_its_status(store: str, status: Status) -> None:
    session = start(create_mlflow_tracker(uri=store))
    session.finish(status)
    run = get_run(store, session)
    assert run.info.status == status
    assert run.info.end_time >= run.info.start_time


def test_calls_before_the_start_do_nothing(store: str, tmp_path: Path) -> None:
    session = Session(create_mlflow_tracker(uri=store))
    session.log(METRICS, 1)
    session.artifact(tmp_path)
    session.finish("FAILED")
    assert session.run_ids == {}


# Resumed runs


def test_a_resumed_run_is_continued(store: str) -> None:
    first = start(create_mlflow_tracker(uri=store))
    first.log(METRICS, 1)
    first.finish("KILLED")
    second = start(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    assert second.run_ids == first.run_ids
    assert get_run(store, second).info.status == "RUNNING"
    second.log({**METRICS, "val/fire_iou": 0.6}, 2)
    assert get_history(store, second.run_ids, "val/fire_iou") == [(1, 0.5), (2, 0.6)]


def test_an_epoch_repeated_after_a_kill_is_stored_once(store: str) -> None:
    first = start(create_mlflow_tracker(uri=store))
    first.log({"val/fire_iou": 0.5, "seconds": 10.0}, 1)
    second = start(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    second.log({"val/fire_iou": 0.5, "seconds": 11.0, "late": 1.0}, 1)
    assert get_history(store, first.run_ids, "val/fire_iou") == [(1, 0.5)]
    assert get_history(store, first.run_ids, "seconds") == [(1, 10.0)]
    assert get_history(store, first.run_ids, "late") == [(1, 1.0)]


def test_an_epoch_repeated_with_another_score_is_stored_again(store: str) -> None:
    first = start(create_mlflow_tracker(uri=store))
    first.log({"val/fire_iou": 0.5}, 1)
    second = start(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    second.log({"val/fire_iou": 0.4}, 1)
    assert get_history(store, second.run_ids, "val/fire_iou") == [(1, 0.5), (1, 0.4)]
    assert get_run(store, second).data.metrics == {"val/fire_iou": 0.4}


def test_epochs_that_an_earlier_process_could_not_send_are_sent_when_the_run_is_resumed(store: str) -> None:
    first = start(create_mlflow_tracker(uri=store))
    first.log({"val/fire_iou": 0.1}, 1)
    second = start(create_mlflow_tracker(uri=store), run_ids=first.run_ids)
    second.epochs += [(1, {"val/fire_iou": 0.1}), (2, {"val/fire_iou": 0.2})]
    second.log({"val/fire_iou": 0.3}, 3)
    assert get_history(store, second.run_ids, "val/fire_iou") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_settings_changed_on_resume_are_tags_and_new_ones_are_added(store: str) -> None:
    first = start(create_mlflow_tracker(uri=store), engine={"epochs": 2})
    second = start(create_mlflow_tracker(uri=store), run_ids=first.run_ids, engine={"epochs": 4, "device": "cpu"})
    data = get_run(store, second).data
    assert (data.params["engine.epochs"], data.params["engine.device"]) == ("2", "cpu")
    assert data.tags["resumed.engine.epochs"] == "4"
    assert [tag for tag in data.tags if tag.startswith("resumed.")] == ["resumed.engine.epochs"]


def test_a_run_that_no_longer_exists_is_created_again(store: str, caplog: pytest.LogCaptureFixture) -> None:
    first = start(create_mlflow_tracker(uri=store))
    open_store(store).delete_run(first.run_ids["mlflow"])
    for missing in (first.run_ids["mlflow"], "0" * 32):
        session = start(create_mlflow_tracker(uri=store), run_ids={"mlflow": missing})
        assert get_run(store, session).info.status == "RUNNING"
        assert session.run_ids["mlflow"] != missing
        assert f"run {missing} does not exist" in caplog.text


def test_a_deleted_experiment_ends_the_program_at_the_start(store: str) -> None:
    session = start(create_mlflow_tracker(uri=store))
    open_store(store).delete_experiment(get_run(store, session).info.experiment_id)
    with pytest.raises(FiresegError, match="was deleted"):
        start(create_mlflow_tracker(uri=store))


# Failing calls


def test_a_run_whose_creation_was_not_confirmed_is_not_created_twice(
    store: str, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    fail("create_run", ConnectionError("answer lost"), is_answer_lost=True)
    session = start(create_mlflow_tracker(uri=store))
    experiment = get_run(store, session).info.experiment_id
    assert [run.info.run_id for run in open_store(store).search_runs([experiment])] == [session.run_ids["mlflow"]]
    assert caplog.records == []


def test_metrics_that_were_not_confirmed_are_stored_once(
    store: str, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    session = start(create_mlflow_tracker(uri=store))
    fail("log_batch", *[ConnectionError("answer lost")] * 3, is_answer_lost=True)
    session.log(METRICS, 1)
    assert not session.tracker.is_complete
    time.sleep(1.0)
    session.finish("FINISHED")
    assert get_history(store, session.run_ids, "val/fire_iou") == [(1, 0.5)]
    assert len(list_warnings(caplog)) == 1
    assert session.tracker.is_complete


def test_a_failure_that_passes_at_once_causes_no_warning(
    store: str, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    session = start(create_mlflow_tracker(uri=store))
    fail("log_batch", ConnectionError("dropped"), MlflowException("two wrote the same row"))
    session.log(METRICS, 1)
    assert get_history(store, session.run_ids, "lr") == [(1, 1e-4)]
    assert caplog.records == []


def test_a_refused_entry_does_not_delay_the_next(
    store: str, tmp_path: Path, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    session = start(create_mlflow_tracker(uri=store))
    fail("log_artifact", *[MlflowException.invalid_parameter_value("too large")] * 3)
    session.artifact(tmp_path / "a.json")
    session.artifact(tmp_path / "b.json")
    session.finish("FINISHED")
    stored = open_store(store).list_artifacts(session.run_ids["mlflow"])
    assert [file.path for file in stored] == ["b.json"]
    assert "refused an entry (" in list_warnings(caplog)[0]
    assert get_run(store, session).info.status == "FINISHED"
    assert not session.tracker.is_complete


def test_a_file_storage_that_is_down_delays_neither_epochs_nor_the_end(
    store: str, tmp_path: Path, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text("{}")
    session = start(create_mlflow_tracker(uri=store))
    fail("log_artifact", *[ConnectionError("file storage is down")] * 100)
    session.artifact(tmp_path / "config.json")
    session.log(METRICS, 1)
    session.finish("FINISHED")
    assert get_history(store, session.run_ids, "val/fire_iou") == [(1, 0.5)]
    assert get_run(store, session).info.status == "FINISHED"
    assert not session.tracker.is_complete
    assert len(list_warnings(caplog)) == 1


def test_a_programming_error_is_not_hidden(store: str, fail: Fail) -> None:
    session = start(create_mlflow_tracker(uri=store))
    fail("log_batch", KeyError("a bug"))
    with pytest.raises(KeyError):
        session.log(METRICS, 1)


def test_a_locked_store_receives_the_epochs_when_it_is_unlocked(
    store: str, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    session = start(create_mlflow_tracker(uri=store))
    fail("log_batch", *[MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)] * 3)
    session.log({"val/fire_iou": 0.1}, 1)
    (warning,) = list_warnings(caplog)
    assert "database is locked" in warning
    session.epochs.append((2, {"val/fire_iou": 0.2}))
    session.finish("FINISHED")
    assert get_history(store, session.run_ids, "val/fire_iou") == [(1, 0.1), (2, 0.2)]
    assert session.tracker.is_complete


def test_a_store_that_refuses_the_run_later_ends_the_tracking_and_not_the_training(
    store: str, fail: Fail, caplog: pytest.LogCaptureFixture
) -> None:
    gone = FiresegError("tracker.experiment: 'fireseg' was deleted")
    fail("get_experiment_by_name", *[ConnectionError("down")] * 3, gone)
    session = start(create_mlflow_tracker(uri=store))
    for epoch in (1, 2):
        session.log(METRICS, epoch)
    session.finish("FINISHED")
    assert [warning.partition(";")[0] for warning in list_warnings(caplog)] == [
        f"MLflow at {store}: down",
        "tracker.experiment: 'fireseg' was deleted",
    ]


# Servers


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_receives_the_same_content_with_the_score_first(server: Server, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    session = start(create_mlflow_tracker(uri=server.uri))
    for epoch in (1, 2):
        session.log({"val/fire_iou": 0.1 * epoch, "train/loss": 1 / 3, "lr": 1e-4}, epoch)
    session.artifact(tmp_path / "config.json", "settings")
    session.finish("FINISHED")
    client = MlflowClient(server.uri)
    run = client.get_run(session.run_ids["mlflow"])
    assert list(run.data.metrics.items()) == [("val/fire_iou", 0.2), ("train/loss", 1 / 3), ("lr", 1e-4)]
    assert run.data.params == {"model.encoder": "resnet34", "optimizer.lr": "0.0001"}
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.name == "patches"
    assert [file.path for file in client.list_artifacts(run.info.run_id, "settings")] == ["settings/config.json"]
    assert run.info.status == "FINISHED"


def test_a_resumed_run_on_a_server_stores_no_epoch_twice(server: Server) -> None:
    first = start(create_mlflow_tracker(uri=server.uri))
    first.log({"val/fire_iou": 1 / 3, "seconds": 1.0}, 1)
    second = start(create_mlflow_tracker(uri=server.uri), run_ids=first.run_ids)
    second.log({"val/fire_iou": 1 / 3, "seconds": 2.0}, 1)
    assert get_history(server.uri, first.run_ids, "seconds") == [(1, 1.0)]


def test_a_server_that_was_killed_receives_everything_when_it_is_back(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = tmp_path / "best_model.pt"
    best.write_text("first")
    session = start(create_mlflow_tracker(uri=server.uri))
    late_tracker = create_mlflow_tracker(uri=server.uri)
    session.log({"val/fire_iou": 0.1, "lr": 1.0}, 1)
    server.kill()
    began = time.monotonic()
    for epoch in (2, 3):
        session.log({"val/fire_iou": 0.1 * epoch, "lr": 1.0}, epoch)
        best.write_text(f"epoch {epoch}")
        session.artifact(best, "checkpoints")
    late = start(late_tracker)
    late.log({"val/fire_iou": 0.7}, 1)
    assert time.monotonic() - began < 5
    assert late.run_ids == {}
    expected = f"MLflow at {server.uri}: Connection refused; training continues"
    assert [warning.startswith(expected) for warning in list_warnings(caplog)] == [True, True]

    server.start()
    session.log({"val/fire_iou": 0.4, "lr": 1.0}, 4)
    session.finish("FINISHED")
    late.finish("FAILED")
    client = MlflowClient(server.uri)
    run = client.get_run(session.run_ids["mlflow"])
    epochs = [(1, 0.1), (2, 0.2), (3, 0.1 * 3), (4, 0.4)]
    assert get_history(server.uri, session.run_ids, "val/fire_iou") == epochs
    assert Path(client.download_artifacts(run.info.run_id, "checkpoints/best_model.pt")).read_text() == "epoch 3"
    assert run.info.status == "FINISHED"
    other = client.get_run(late.run_ids["mlflow"])
    assert (other.data.metrics, other.data.params["model.encoder"]) == ({"val/fire_iou": 0.7}, "resnet34")
    assert other.info.status == "FAILED"


def test_a_server_that_is_never_up_costs_one_warning_and_no_time(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    session = start(create_mlflow_tracker(uri=f"http://127.0.0.1:{find_free_port()}"))
    for epoch in range(1, 11):
        session.log({"val/fire_iou": 0.5}, epoch)
    with caplog.at_level(logging.INFO, logger="fireseg"):
        session.finish("FINISHED")
    assert time.monotonic() - began < 5
    (warning,) = list_warnings(caplog)
    assert "metrics.jsonl" in warning
    assert "python -m fireseg.runs sync" in caplog.text


def test_a_silent_server_costs_one_timeout_and_one_at_the_end(
    silent_server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    began = time.monotonic()
    session = start(create_mlflow_tracker(uri=silent_server))
    for epoch in range(1, 11):
        session.log({"val/fire_iou": 0.5}, epoch)
    session.finish("KILLED")
    assert 3.5 < time.monotonic() - began < 7
    assert len(list_warnings(caplog)) == 1


def test_an_address_that_is_not_mlflow_ends_the_program_at_the_start(server: Server) -> None:
    with pytest.raises(FiresegError, match=r"^tracker.uri: http://127.0.0.1:\d+/nothing refuses"):
        start(create_mlflow_tracker(uri=f"{server.uri}/nothing"))


# Results added to a run that has ended


def create_ended_run(store: str, status: Status = "FINISHED") -> dict[str, str]:
    session = start(create_mlflow_tracker(uri=store))
    session.log({"val/fire_iou": 0.5}, 3)
    session.finish(status)
    return session.run_ids


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_metrics_and_files_are_added_and_status_and_end_time_stay(
    store: str, status: Status, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = create_ended_run(store, status)
    before = open_store(store).get_run(run_ids["mlflow"]).info
    (tmp_path / "evaluation_test.json").write_text("{}")
    metrics = {"test/fire_iou": 0.8, "test/iou_destroyed": math.nan, "test/iou_high": None}
    files = [tmp_path / "evaluation_test.json"]
    log_to_existing_run(store, run_ids, metrics=metrics, step=3, artifacts=files, folder="evaluation")
    run = open_store(store).get_run(run_ids["mlflow"])
    assert (run.info.status, run.info.end_time) == (status, before.end_time)
    assert run.data.metrics == {"val/fire_iou": 0.5, "test/fire_iou": 0.8}
    stored = open_store(store).list_artifacts(run_ids["mlflow"], "evaluation")
    assert [file.path for file in stored] == ["evaluation/evaluation_test.json"]
    assert caplog.records == []


def test_a_new_description_replaces_that_of_the_training_and_none_of_the_user(store: str) -> None:
    run_ids = create_ended_run(store)

    def describe(text: str) -> str:
        log_to_existing_run(store, run_ids, metrics={}, step=3, description=text)
        return open_store(store).get_run(run_ids["mlflow"]).data.tags["mlflow.note.content"]

    assert describe("Best: epoch 3") == "Best: epoch 3"
    assert describe("Best: epoch 3, evaluated") == "Best: epoch 3, evaluated"
    open_store(store).set_tag(run_ids["mlflow"], "mlflow.note.content", "mine")
    assert describe("Best: epoch 4") == "mine"


def test_an_equal_evaluation_is_stored_once_and_another_is_added(store: str) -> None:
    run_ids = create_ended_run(store)
    for score in (0.8, 0.8, 0.7):
        log_to_existing_run(store, run_ids, metrics={"test/fire_iou": score}, step=3)
    assert get_history(store, run_ids, "test/fire_iou") == [(3, 0.8), (3, 0.7)]


def test_more_metrics_than_fit_one_call_are_all_added(store: str) -> None:
    run_ids = create_ended_run(store)
    log_to_existing_run(store, run_ids, metrics={f"test/{number}": float(number) for number in range(150)}, step=3)
    assert len(open_store(store).get_run(run_ids["mlflow"]).data.metrics) == 151


def test_a_run_that_does_not_exist_is_one_warning(store: str, caplog: pytest.LogCaptureFixture) -> None:
    deleted = create_ended_run(store)
    open_store(store).delete_run(deleted["mlflow"])
    for run_ids in (deleted, {"mlflow": "0" * 32}):
        caplog.clear()
        log_to_existing_run(store, run_ids, metrics={"test/fire_iou": 0.8}, step=3)
        (warning,) = list_warnings(caplog)
        assert warning.startswith(f"MLflow at {store}: ")
        assert run_ids["mlflow"] in warning
        assert "\n" not in warning


def test_a_store_that_does_not_exist_is_one_warning_and_is_not_created(
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


def test_a_file_that_cannot_be_sent_is_one_warning(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = create_ended_run(store)
    log_to_existing_run(store, run_ids, metrics={"test/fire_iou": 0.8}, step=3, artifacts=[tmp_path / "none.html"])
    assert "No such file" in list_warnings(caplog)[0]
    assert open_store(store).get_run(run_ids["mlflow"]).data.metrics["test/fire_iou"] == 0.8


def test_a_run_in_wandb_is_not_changed_and_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fireseg"):
        log_to_existing_run(None, {"wandb": "ab12"}, metrics={"test/fire_iou": 0.8}, step=3)
    (record,) = caplog.records
    assert record.getMessage().startswith("W&B: run ab12 is not changed")


def test_results_of_an_untracked_run_are_sent_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    log_to_existing_run("http://127.0.0.1:9", {}, metrics={"test/fire_iou": 0.8}, step=3)
    assert caplog.records == []
