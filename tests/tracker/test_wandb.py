"""Offline runs in W&B, checked by the content of their file."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.tracker import create_wandb_tracker

BLOCK, FIRST_HEADER, HEADER = 32768, 7, 7

# W&B starts a service that runs until its process ends, so each of these scripts is a process.
BEGIN = """
import logging, os, signal, sys
from pathlib import Path
from fireseg.tracker import create_mlflow_wandb_tracker, create_wandb_tracker
from tests.tracker.builders import start
logging.basicConfig(level=logging.WARNING)
"""
ONE_RUN = """
session = start(create_wandb_tracker(project="fires"))
for epoch in (1, 2):
    session.log({"val/fire_iou": epoch / 10, "iou_fire": None}, epoch)
Path("best_model.pt").write_text("weights")
session.artifact(Path("best_model.pt"), "checkpoints")
session.finish("FINISHED")
print(session.run_ids["wandb"])
"""
RESUMED_WITH_MLFLOW = """
session = start(create_mlflow_wandb_tracker(uri=sys.argv[1]), run_ids={"wandb": "0a1b2c3d4e5f"})
session.log({"val/fire_iou": 0.5}, 1)
session.finish("KILLED")
print(" ".join(sorted(session.run_ids)))
"""
SERVICE_DIES = """
session = start(create_wandb_tracker())
for path in Path("/proc").glob("[0-9]*/cmdline"):
    words = path.read_bytes().split(b"\\0") if path.exists() else [b""]
    if words[0].endswith(b"wandb-core") and str(os.getpid()).encode() in words:
        os.kill(int(path.parent.name), signal.SIGKILL)
for epoch in range(1, 100):
    session.log({"val/fire_iou": 0.5}, epoch)
session.finish("FINISHED")
print("trained to the end")
"""


class Tracked(NamedTuple):
    """Output and records of a process."""

    folder: Path
    stdout: str
    stderr: str
    records: list[Any]


def track(script: str, folder: Path, *arguments: str, **environment: str) -> Tracked:
    given = {**os.environ, "WANDB_MODE": "offline", "HOME": str(folder), "PYTHONPATH": str(Path.cwd()), **environment}
    command = [sys.executable, "-c", BEGIN + script, *arguments]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Tracked(folder, done.stdout.strip(), done.stderr, read_records(folder))


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, listener: socket.socket) -> Tracked:
    """One offline run, whose network requests would reach the listener."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    names = ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy")
    return track(ONE_RUN, tmp_path_factory.mktemp("wandb"), **dict.fromkeys(names, address))


def read_records(folder: Path) -> list[Any]:
    """Reads W&B's file: records in blocks of 32 kB, each piece after a checksum, a length and a kind."""
    from wandb.proto import wandb_internal_pb2

    content = next(folder.glob("wandb/offline-run-*/run-*.wandb")).read_bytes()
    records, position, parts = [], FIRST_HEADER, b""
    while position + HEADER <= len(content):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue] (made at import)
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def read_config(records: list[Any]) -> dict[str, Any]:
    updates = [update for record in records if record.HasField("run") for update in record.run.config.update]
    return {update.key: json.loads(update.value_json) for update in updates}


def read_history(records: list[Any]) -> list[dict[str, Any]]:
    rows = [record.history.item for record in records if record.HasField("history")]
    return [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in row} for row in rows]


def test_an_offline_run_has_its_name_tags_and_settings(tracked: Tracked) -> None:
    run = next(record.run for record in tracked.records if record.HasField("run"))
    assert (run.project, run.display_name, run.run_group) == ("fires", "resnet34", "2026-11-22")
    assert run.run_id == tracked.stdout
    assert list(run.tags) == ["task=del", "git_commit=0123abc", "sweep=2026-11-22"]
    config = read_config(tracked.records)
    assert (config["model"], config["optimizer"]) == ({"encoder": "resnet34"}, {"lr": 1e-4})
    assert config["dataset"]["digest"] == "f00d"


def test_epochs_are_rows_over_the_epoch_without_missing_values(tracked: Tracked) -> None:
    rows = [{key: value for key, value in row.items() if key[0] != "_"} for row in read_history(tracked.records)]
    assert rows == [{"epoch": 1, "val/fire_iou": 0.1}, {"epoch": 2, "val/fire_iou": 0.2}]
    metrics = [record.metric for record in tracked.records if record.HasField("metric")]
    assert {metric.glob_name: metric.step_metric for metric in metrics}["*"] == "epoch"


def test_a_file_is_linked_into_its_folder_and_marked_for_upload(tracked: Tracked) -> None:
    (linked,) = tracked.folder.glob("wandb/offline-run-*/files/checkpoints/best_model.pt")
    assert linked.read_text() == "weights"
    files = [file.path for record in tracked.records if record.HasField("files") for file in record.files.files]
    assert "checkpoints/best_model.pt" in files


def test_an_offline_run_ends_without_warnings_or_network_requests(tracked: Tracked, listener: socket.socket) -> None:
    assert tracked.stderr == ""
    assert [record.exit.exit_code for record in tracked.records if record.HasField("exit")] == [0]
    listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_both_services_receive_a_resumed_run_which_keeps_its_id(store: str, tmp_path: Path) -> None:
    tracked = track(RESUMED_WITH_MLFLOW, tmp_path, store)
    assert tracked.stdout == "mlflow wandb"
    assert [row["val/fire_iou"] for row in read_history(tracked.records)] == [0.5]
    assert next(record.run.run_id for record in tracked.records if record.HasField("run")) == "0a1b2c3d4e5f"
    assert [record.exit.exit_code for record in tracked.records if record.HasField("exit")] == [130]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds W&B's service in the process table of Linux")
def test_a_wandb_process_that_dies_costs_one_warning(tmp_path: Path) -> None:
    tracked = track(SERVICE_DIES, tmp_path)
    assert tracked.stdout == "trained to the end"
    assert tracked.stderr.count("WARNING:fireseg:W&B: ") == 1
    assert "metrics.jsonl" in tracked.stderr


def test_an_unknown_mode_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(SettingError, match="did you mean 'offline'"):
        create_wandb_tracker()


def test_without_wandb_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(FiresegError, match=r"pip install 'fireseg\[wandb\]'"):
        create_wandb_tracker()
