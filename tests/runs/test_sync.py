"""Runs that are sent to MLflow after its server was down."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fireseg.errors import FiresegError
from fireseg.runs.cli import main
from fireseg.runs.folder import RunFolder
from fireseg.runs.sync import (
    describe_results,
    finish_tracking,
    list_epochs,
    name_run,
    note_run_ids,
    send_files,
    start_tracking,
    sync_run,
)
from fireseg.tracker import Tracker, create_mlflow_tracker, create_no_tracker
from tests.runs.builders import write_finished_run

DATA = {"root": "/data/patches", "fingerprint": "f00d" * 16, "class_counts": [90, 10]}


@pytest.fixture
def store(created_store: Path, tmp_path: Path) -> str:
    shutil.copy(created_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> str:
    """Sets MLFLOW_TRACKING_URI to the address of a server that is down."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address


def create_run(path: Path, tracker: str = "fireseg.tracker.create_mlflow_tracker") -> RunFolder:
    path.mkdir()
    folder = RunFolder(path)
    folder.write_config({"task": {"name": "del"}, "data": {"root": "patches"}, "tracker": {"_target_": tracker}})
    folder.write_provenance({"git_commit": "0123abc", "host": "gpu1", "data": DATA})
    return folder


def train(folder: RunFolder, tracker: Tracker, scores: tuple[float, ...], *, num_epochs_done: int = 0) -> None:
    """Records epochs and a checkpoint, and reports them."""
    start_tracking(tracker, folder, name="resnet34", tags={"sweep": "lr"}, num_epochs_done=num_epochs_done)
    for epoch, score in enumerate(scores, start=num_epochs_done + 1):
        folder.append_metrics({"epoch": epoch, "val/fire_iou": score, "seconds": 60.0, "best": True})
        tracker.sync()
    folder.checkpoints.mkdir(exist_ok=True)
    for name in ("last.pt", "best_model.pt", "final_model.pt"):
        (folder.checkpoints / name).write_text("weights")


def finish(folder: RunFolder, tracker: Tracker) -> None:
    send_files(tracker, folder)
    finish_tracking(tracker, folder, "FINISHED")


def get_run(store: str, folder: RunFolder) -> Any:
    return MlflowClient(store).get_run(folder.read_provenance()["tracking"]["mlflow"])


def get_history(store: str, folder: RunFolder) -> list[tuple[int, float]]:
    run_id = folder.read_provenance()["tracking"]["mlflow"]
    return [(row.step, row.value) for row in MlflowClient(store).get_metric_history(run_id, "val/fire_iou")]


def list_artifacts(store: str, folder: RunFolder) -> set[str]:
    run_id = folder.read_provenance()["tracking"]["mlflow"]
    client = MlflowClient(store)
    return {file.path for name in (None, "checkpoints") for file in client.list_artifacts(run_id, name)}


def test_a_run_that_finished_while_the_server_was_down_is_sent_completely(
    store: str, down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tracker = create_run(tmp_path / "run"), create_mlflow_tracker(log_model=False)
    train(folder, tracker, (0.1, 0.3))
    finish(folder, tracker)
    note = folder.read_provenance()["tracked"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert sync_run(folder.path) == f"{folder.path}: 2 epochs and 4 files sent to MLflow at {store}"
    run = get_run(store, folder)
    assert (run.info.run_name, run.info.status) == ("resnet34", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (note["started_ms"], note["ended_ms"])
    assert {"task": "del", "sweep": "lr", "host": "gpu1", "git_commit": "0123abc"}.items() <= run.data.tags.items()
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("patches", "f00d" * 8)
    assert get_history(store, folder) == [(1, 0.1), (2, 0.3)]
    times = MlflowClient(store).get_metric_history(run.info.run_id, "val/best_fire_iou")
    assert [row.timestamp for row in times] == [note["ended_ms"] - 60_000, note["ended_ms"]]
    stored = {"config.json", "run.json", "metrics.jsonl", "checkpoints", "checkpoints/best_model.pt"}
    assert list_artifacts(store, folder) == stored


def test_a_run_that_was_sent_is_not_sent_again(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    folder, tracker = create_run(tmp_path / "run"), create_mlflow_tracker(log_model=False)
    train(folder, tracker, (0.1,))
    finish(folder, tracker)
    assert "up to date" in sync_run(folder.path)


def test_a_run_whose_process_was_killed_is_sent_as_killed(
    store: str, down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_run(tmp_path / "run")
    train(folder, create_mlflow_tracker(log_model=False), (0.1, 0.3))
    (folder.checkpoints / "final_model.pt").unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    sync_run(folder.path)
    assert get_run(store, folder).info.status == "KILLED"
    assert get_history(store, folder) == [(1, 0.1), (2, 0.3)]
    assert "up to date" in sync_run(folder.path)


def test_only_missing_epochs_are_sent_and_a_run_of_an_earlier_version_keeps_its_status(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    folder, tracker = create_run(tmp_path / "run"), create_mlflow_tracker(log_model=False)
    train(folder, tracker, (0.1, 0.2))
    folder.append_metrics({"epoch": 3, "val/fire_iou": 0.3, "seconds": 60.0, "best": True})
    (folder.checkpoints / "final_model.pt").write_text("weights")
    facts = folder.read_provenance()
    folder.provenance.write_text(json.dumps({name: value for name, value in facts.items() if name != "tracked"}))
    assert "1 epoch and 4 files sent" in sync_run(folder.path)
    assert get_history(store, folder) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert get_run(store, folder).info.status == "FINISHED"


def test_a_run_is_copied_to_another_store(
    store: str, down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_run(tmp_path / "run")
    folder.write_provenance({"tracking": {"mlflow": "0" * 32, "wandb": "ab12"}})
    train(folder, create_mlflow_tracker(log_model=False), (0.1,))
    folder.write_provenance({"tracking": {"mlflow": "0" * 32, "wandb": "ab12"}})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    sync_run(folder.path)
    assert get_history(store, folder) == [(1, 0.1)]
    assert folder.read_provenance()["tracking"]["wandb"] == "ab12"


def test_epochs_inherited_from_a_parent_run_are_not_sent(
    store: str, down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_run(tmp_path / "run")
    folder.append_metrics({"epoch": 1, "val/fire_iou": 0.5, "seconds": 60.0, "best": True})
    train(folder, create_mlflow_tracker(log_model=False), (0.6,), num_epochs_done=1)
    train(folder, create_mlflow_tracker(log_model=False), (0.7,), num_epochs_done=2)  # resumed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    sync_run(folder.path)
    assert get_history(store, folder) == [(2, 0.6), (3, 0.7)]


def test_epochs_have_the_best_score_so_far(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    for epoch, score, best in ((1, None, False), (2, 0.5, True), (3, 0.4, False)):
        folder.append_metrics({"epoch": epoch, "val/fire_iou": score, "lr": 0.1, "best": best})
    assert list_epochs(folder) == [
        (1, {"val/fire_iou": None, "lr": 0.1, "val/best_fire_iou": None}),
        (2, {"val/fire_iou": 0.5, "lr": 0.1, "val/best_fire_iou": 0.5}),
        (3, {"val/fire_iou": 0.4, "lr": 0.1, "val/best_fire_iou": 0.5}),
    ]


def test_the_metrics_that_people_compare_are_first_and_the_rest_is_named_behind_them(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    names = ("val/fire_iou", "val/iou_fire", "val/loss", "train/recall_fire", "train/loss", "lr", "seconds")
    folder.append_metrics({"epoch": 1, **dict.fromkeys(names, 0.5), "best": True})
    ((_, metrics),) = list_epochs(folder)
    assert list(metrics) == [
        *("val/fire_iou", "val/best_fire_iou", "val/loss", "train/loss", "lr"),
        *("z_details/val/iou_fire", "z_details/train/recall_fire", "z_details/seconds"),
    ]


def test_the_description_has_the_best_score_the_interval_and_the_commands(store: str, tmp_path: Path) -> None:
    fires = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8, "e": 0.9}
    folder = write_finished_run(tmp_path / "run", ious=[0.4, 0.75, 0.7], fires={"test": fires})
    tracker = create_mlflow_tracker(uri=store)
    start_tracking(tracker, folder, name="a", tags={}, num_epochs_done=0)
    finish_tracking(tracker, folder, "FINISHED")
    note = get_run(store, folder).data.tags["mlflow.note.content"]
    assert note == describe_results(folder)
    # The interval of these five scores is worked out in test_leaderboard.py.
    assert note.splitlines() == [
        "Best: epoch 2, fire IoU on val 0.750",
        "- IoU over fires of test: 0.700 [0.478, 0.856] (n = 5)",
        "",
        "```",
        f"python -m fireseg.evaluate {folder.path}",
        f"python -m fireseg.predict {folder.path} SCENE.tif",
        "```",
    ]


def test_a_description_that_the_user_wrote_is_kept(store: str, tmp_path: Path) -> None:
    folder = write_finished_run(tmp_path / "run")
    tracker = create_mlflow_tracker(uri=store)
    start_tracking(tracker, folder, name="a", tags={}, num_epochs_done=0)
    MlflowClient(store).set_tag(tracker.run_ids["mlflow"], "mlflow.note.content", "the run of the paper")
    finish_tracking(tracker, folder, "FINISHED")
    assert get_run(store, folder).data.tags["mlflow.note.content"] == "the run of the paper"


def test_jobs_of_a_sweep_are_named_in_words() -> None:
    assert name_run("model.encoder=resnet18,data.bands=[B04,B12],seed=1") == "resnet18, bands [B04,B12], seed 1"
    assert name_run("model/encoder=resnet34,loss=focal_dice") == "resnet34, loss focal_dice"
    assert name_run("") == ""


def test_a_server_that_is_still_down_is_an_error(down: str, tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    train(folder, create_mlflow_tracker(log_model=False), (0.1,))
    with pytest.raises(FiresegError, match=r"run: 0 epochs and 0 files sent.*try again"):
        sync_run(folder.path)


def test_a_run_that_stopped_before_its_training_has_nothing_to_send(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    folder.provenance.unlink()
    assert "nothing to send" in sync_run(folder.path)
    assert not folder.provenance.exists()


def test_a_damaged_config_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    folder.config.write_bytes(b"\0" * 8)
    with pytest.raises(FiresegError, match=r"config\.json: cannot be read.*restore it"):
        sync_run(folder.path)


def test_a_refused_entry_is_reported_and_no_reason_to_try_again(
    store: str, down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_run(tmp_path / "run")
    train(folder, create_mlflow_tracker(log_model=False), (0.1,))

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException.invalid_parameter_value("too large")

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert "only in the run folder" in sync_run(folder.path)
    assert get_history(store, folder) == [(1, 0.1)]


def test_a_tracker_that_gave_up_keeps_the_id_of_its_run(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    folder.write_provenance({"tracking": {"mlflow": "0" * 32}})
    note_run_ids(create_no_tracker(), folder)
    assert folder.read_provenance()["tracking"] == {"mlflow": "0" * 32}


def test_a_run_that_is_being_trained_is_an_error(down: str, tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run")
    with folder.locked(), pytest.raises(FiresegError, match="another process"):
        sync_run(folder.path)


@pytest.mark.parametrize(
    ("tracker", "hint"), [("create_no_tracker", "nothing sent"), ("create_wandb_tracker", "wandb sync")]
)
def test_a_run_that_mlflow_does_not_track_is_skipped(tracker: str, hint: str, tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", f"fireseg.tracker.{tracker}")
    assert hint in sync_run(folder.path)


def test_the_command_sends_every_run_and_reports_those_that_fail(
    store: str, down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = create_run(tmp_path / "run")
    train(folder, create_mlflow_tracker(log_model=False), (0.1,))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    capsys.readouterr()  # the warning that the server is down, if another test has started the log
    assert main(["sync", str(tmp_path / "missing"), str(folder.path)]) == 1
    output = capsys.readouterr()
    assert output.err.startswith(f"fireseg: {tmp_path}/missing: no run folder")
    assert output.out == f"{folder.path}: 1 epoch and 4 files sent to MLflow at {store}\n"
    assert main(["sync", str(folder.path)]) == 0


def test_the_command_needs_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync"]) == 2
    assert "RUN: " in capsys.readouterr().err


def test_help_needs_neither_torch_nor_mlflow() -> None:
    script = "import sys, fireseg.runs.cli; print({'torch', 'mlflow', 'pandas'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
