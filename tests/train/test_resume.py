"""Runs that are killed or stopped and then resumed equal runs that were never interrupted."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.kill_test import SETTINGS, differences, only_run, read_rows, write_patches
from tests.conftest import SmallDisk
from tests.processes import Terminal
from tests.train.builders import finish, start

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

# Each kills its own process with SIGKILL at the named point.
KILLS = {
    "before the first last.pt": f"""
from fireseg.engine.checkpoint import Checkpoints
def save_state(self, epoch, state): {KILL}
Checkpoints.save_state = save_state
""",
    "within an epoch": f"""
from fireseg.engine.state import TrainingState
steps, original = [], TrainingState.step
def step(self, loss, *, clip_norm):
    original(self, loss, clip_norm=clip_norm)
    steps.append(1)
    if len(steps) == 8: {KILL}
TrainingState.step = step
""",
    "between metrics.jsonl and last.pt": f"""
from fireseg.engine.checkpoint import Checkpoints
original = Checkpoints.save_state
def save_state(self, epoch, state):
    if epoch == 3: {KILL}
    original(self, epoch, state)
Checkpoints.save_state = save_state
""",
}


SLOW = """
import fireseg.engine.state as s, time
original = s.TrainingState.step
def step(self, loss, *, clip_norm): time.sleep(0.5); original(self, loss, clip_norm=clip_norm)
s.TrainingState.step = step
"""


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("kills") / "patches")


@pytest.fixture(scope="module")
def reference(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains the uninterrupted run that the others are compared with."""
    folder = tmp_path_factory.mktemp("reference")
    finish(start([f"data.root={patches}", *SETTINGS, "data.num_workers=0"], folder))
    return only_run(folder / "outputs")


@pytest.mark.parametrize("workers", [(0, 2), (2, 0)], ids=["0_then_2_workers", "2_then_0_workers"])
@pytest.mark.parametrize("kill", KILLS, ids=[name.replace(" ", "_") for name in KILLS])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    kill: str, workers: tuple[int, int], patches: Path, reference: Path, tmp_path: Path
):
    process = start([f"data.root={patches}", *SETTINGS, f"data.num_workers={workers[0]}"], tmp_path, KILLS[kill])
    process.communicate(timeout=300)
    run = only_run(tmp_path / "outputs")
    had_state = (run / "checkpoints" / "last.pt").exists()
    num_rows = len(read_rows(run))

    finish(start([f"resume={run}", f"data.num_workers={workers[1]}"], tmp_path))

    assert process.returncode == -signal.SIGKILL
    assert (had_state, num_rows) == {
        "before the first last.pt": (False, 1),
        "within an epoch": (True, 2),
        "between metrics.jsonl and last.pt": (True, 3),
    }[kill]
    assert differences(reference, run) == []
    assert only_run(tmp_path / "outputs") == run


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_keeps_its_last_epoch_and_can_be_resumed(
    signum: int, code: int, patches: Path, reference: Path, tmp_path: Path
):
    process = start([f"data.root={patches}", *SETTINGS, "data.num_workers=2"], tmp_path, SLOW)
    run = wait_for_epoch(tmp_path / "outputs", 1)
    # Like a terminal or a batch system, signals the loader processes too.
    os.killpg(process.pid, signum)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == code, output
    assert "Traceback" not in output
    assert f"resume={run.relative_to(tmp_path)}" in output
    assert len(read_rows(run)) < 4

    finish(start([f"resume={run}"], tmp_path))

    assert differences(reference, run) == []


def wait_for_epoch(outputs: Path, epoch: int) -> Path:
    """Waits until a run below `outputs` has finished an epoch, and returns its folder."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for last in outputs.glob("*/checkpoints/last.pt"):
            if not last.parents[1].is_symlink() and len(read_rows(last.parents[1])) >= epoch:
                return last.parents[1]
        time.sleep(0.1)
    raise TimeoutError(outputs)


def test_a_run_whose_terminal_is_closed_keeps_its_last_epoch_and_its_tracked_run_is_killed(
    patches: Path, tmp_path: Path
):
    from mlflow import MlflowClient

    settings = [setting for setting in SETTINGS if setting != "tracker=none"]
    terminal = Terminal()
    process = start([f"data.root={patches}", *settings, "data.num_workers=2"], tmp_path, terminal.adopt + SLOW)
    run = wait_for_epoch(tmp_path / "outputs", 1)
    terminal.close()

    assert process.wait(timeout=60) == 129
    assert "stopped; continue with" in (run / "train.log").read_text()
    assert list(run.rglob("*.part")) == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tracked,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert tracked.info.status == "KILLED"


def test_a_branch_killed_before_its_first_state_goes_on_from_the_checkpoint_it_branched_from(
    patches: Path, reference: Path, tmp_path: Path
):
    older = reference / "checkpoints" / "checkpoint_epoch_2.pt"
    process = start([f"resume={older}", "data.num_workers=0"], tmp_path, KILLS["before the first last.pt"])
    process.communicate(timeout=300)
    run = only_run(tmp_path / "outputs")
    assert process.returncode == -signal.SIGKILL
    assert not (run / "checkpoints/last.pt").exists()

    finish(start([f"resume={run}", "data.num_workers=0"], tmp_path))

    assert [line for line in differences(reference, run) if not line.startswith("checkpoints:")] == []
    assert json.loads((run / "run.json").read_text())["parent"] == str(older)


def test_an_older_checkpoint_starts_a_new_run_that_records_its_parent(patches: Path, reference: Path, tmp_path: Path):
    older = reference / "checkpoints" / "checkpoint_epoch_2.pt"

    finish(start([f"resume={older}", "data.num_workers=0"], tmp_path))

    run = only_run(tmp_path / "outputs")
    others = [line for line in differences(reference, run) if not line.startswith("checkpoints:")]
    assert others == []
    assert json.loads((run / "run.json").read_text())["parent"] == str(older)


def test_a_resumed_run_continues_its_mlflow_run(patches: Path, tmp_path: Path):
    from mlflow import MlflowClient

    settings = [setting for setting in SETTINGS if setting != "tracker=none"]
    process = start([f"data.root={patches}", *settings, "data.num_workers=0"], tmp_path, KILLS["within an epoch"])
    process.communicate(timeout=300)
    run = only_run(tmp_path / "outputs")

    finish(start([f"resume={run}", "data.num_workers=0"], tmp_path))

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (tracked,) = runs
    assert tracked.info.status == "FINISHED"
    assert tracked.info.run_name == run.name
    history = client.get_metric_history(tracked.info.run_id, "val/fire_iou")
    assert [(metric.step, metric.value) for metric in history] == [
        (row["epoch"], row["val/fire_iou"]) for row in read_rows(run)
    ]


def test_a_run_stopped_by_a_full_disk_keeps_its_epoch_and_continues_to_the_same_results(
    patches: Path, reference: Path, tmp_path: Path, make_small_disk: Callable[..., SmallDisk]
):
    disk = make_small_disk("size=200m")
    checkpoints = reference / "checkpoints"
    one_epoch = sum((checkpoints / name).stat().st_size for name in ("last.pt", "best_model.pt"))
    disk.fill(left=one_epoch + 1_000_000)
    settings = [f"data.root={patches}", *SETTINGS, "data.num_workers=0", f"output_dir={disk.folder / 'outputs'}"]

    process = start(settings, tmp_path)
    output, _ = process.communicate()

    run = only_run(disk.folder / "outputs")
    assert process.returncode == 1
    (line,) = [line for line in output.splitlines() if line.startswith("fireseg:")]
    assert line.startswith(f"fireseg: {run}/checkpoints/")
    assert "the disk is full; make room and start again" in line
    assert "Traceback" not in output
    assert list(run.rglob("*.part")) == []
    assert (run / "checkpoints/last.pt").exists()

    disk.make_room()
    finish(start([f"resume={run}", "data.num_workers=0"], tmp_path))
    assert differences(reference, run) == []
