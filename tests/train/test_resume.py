"""Runs killed with SIGKILL, or asked to stop, and what they are when they have been resumed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from scripts.kill_test import SETTINGS, differences, finish, only_run, read_rows, start, write_patches

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

# Each dies by its own SIGKILL, exactly where it says.
KILLS = {
    "before the first last.pt": f"""
from fireseg.engine.checkpoint import Checkpoints
def save_state(self, epoch, state): {KILL}
Checkpoints.save_state = save_state
""",
    "in mid-epoch": f"""
from fireseg.engine.state import TrainingState
steps, whole = [], TrainingState.step
def step(self, loss, *, clip_norm):
    whole(self, loss, clip_norm=clip_norm)
    steps.append(1)
    if len(steps) == 8: {KILL}
TrainingState.step = step
""",
    "between metrics.jsonl and last.pt": f"""
from fireseg.engine.checkpoint import Checkpoints
whole = Checkpoints.save_state
def save_state(self, epoch, state):
    if epoch == 3: {KILL}
    whole(self, epoch, state)
Checkpoints.save_state = save_state
""",
}


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("kills") / "patches")


@pytest.fixture(scope="module")
def reference(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    finish(start([f"data.root={patches}", *SETTINGS, "data.num_workers=0"], folder))
    return only_run(folder / "outputs")


@pytest.mark.parametrize("workers", [(0, 2), (2, 0)], ids=["0_then_2_workers", "2_then_0_workers"])
@pytest.mark.parametrize("kill", KILLS, ids=[name.replace(" ", "_") for name in KILLS])
def test_a_killed_run_resumed_ends_as_if_it_had_never_been_killed(
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
        "in mid-epoch": (True, 2),
        "between metrics.jsonl and last.pt": (True, 3),
    }[kill]
    assert differences(reference, run) == []
    assert only_run(tmp_path / "outputs") == run


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_a_run_ends_its_step_keeps_the_last_epoch_and_can_go_on(
    signum: int, code: int, patches: Path, reference: Path, tmp_path: Path
):
    slow = "import fireseg.engine.state as s, time; w = s.TrainingState.step\n"
    slow += "def step(self, loss, *, clip_norm): time.sleep(0.5); w(self, loss, clip_norm=clip_norm)\n"
    slow += "s.TrainingState.step = step"
    process = start([f"data.root={patches}", *SETTINGS, "data.num_workers=2"], tmp_path, slow)
    run = wait_for_epoch(tmp_path / "outputs", 1)
    # As a terminal and a batch system do it: the signal goes to the workers too.
    os.killpg(process.pid, signum)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == code, output
    assert "Traceback" not in output
    assert f"resume={run.relative_to(tmp_path)}" in output
    assert len(read_rows(run)) < 4

    finish(start([f"resume={run}"], tmp_path))

    assert differences(reference, run) == []


def wait_for_epoch(outputs: Path, epoch: int) -> Path:
    """Waits until a run below `outputs` has written down an epoch."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for metrics in outputs.glob("*/checkpoints/last.pt"):
            if len(read_rows(metrics.parents[1])) >= epoch:
                return metrics.parents[1]
        time.sleep(0.1)
    raise TimeoutError(outputs)


def test_an_older_checkpoint_begins_a_new_run_that_names_its_parent(patches: Path, reference: Path, tmp_path: Path):
    older = reference / "checkpoints" / "checkpoint_epoch_2.pt"

    finish(start([f"resume={older}", "data.num_workers=0"], tmp_path))

    run = only_run(tmp_path / "outputs")
    others = [found for found in differences(reference, run) if not found.startswith("checkpoints:")]
    assert others == []
    assert json.loads((run / "run.json").read_text())["parent"] == str(older)


def test_a_killed_run_goes_on_in_the_same_mlflow_run(patches: Path, tmp_path: Path):
    from mlflow import MlflowClient

    settings = [s for s in SETTINGS if s != "tracker=none"]
    process = start([f"data.root={patches}", *settings, "data.num_workers=0"], tmp_path, KILLS["in mid-epoch"])
    process.communicate(timeout=300)
    run = only_run(tmp_path / "outputs")

    finish(start([f"resume={run}", "data.num_workers=0"], tmp_path))

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [found.info.status for found in runs] == ["FINISHED"]
    history = client.get_metric_history(runs[0].info.run_id, "val/fire_iou")
    assert [(m.step, m.value) for m in history] == [(row["epoch"], row["val/fire_iou"]) for row in read_rows(run)]
