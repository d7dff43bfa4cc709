"""Training runs of several processes, which equal those of one."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from scripts.kill_test import SETTINGS, differences, only_run, read_rows, write_patches
from tests.engine.builders import start_processes
from tests.processes import ROOT, start_program
from tests.train.builders import finish, start

MAIN = "import sys\nfrom fireseg.train.cli import main\nsys.exit(main())"

SHARDED = (*SETTINGS, "data.batch_size=8", "engine.shards=4", "data.num_workers=0")


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 18 patches: the last batch of two is one shard.
    return write_patches(tmp_path_factory.mktemp("shards") / "patches", train=18, val=9)


@pytest.fixture(scope="module")
def reference(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains the run of one process that the others are compared with."""
    folder = tmp_path_factory.mktemp("reference")
    finish(start([f"data.root={patches}", *SHARDED], folder))
    return only_run(folder / "outputs")


def test_a_run_of_two_processes_equals_that_of_one(patches: Path, reference: Path, tmp_path: Path):
    arguments = [f"data.root={patches}", *SHARDED, "data.num_workers=1"]
    processes = start_processes(MAIN, 2, arguments, cwd=tmp_path)

    (output, _), (silence, _) = (process.communicate() for process in processes)

    assert [process.returncode for process in processes] == [0, 0], output + silence
    assert differences(reference, only_run(tmp_path / "outputs")) == []
    assert "epoch 4/4" in output
    assert silence == ""


def test_a_run_of_torchrun_whose_process_is_killed_ends_and_goes_on_in_one_process(
    patches: Path, reference: Path, tmp_path: Path
):
    arguments = ["--standalone", "--nproc-per-node", "2", "-m", "fireseg.train"]
    torchrun = start_program(
        "from torch.distributed.run import main\nmain()",
        [*arguments, f"data.root={patches}", *SHARDED, "engine.epochs=40"],
        cwd=tmp_path,
        PYTHONPATH=str(ROOT),
    )
    while not list(tmp_path.glob("outputs/*/checkpoints/last.pt")):
        assert torchrun.poll() is None, torchrun.communicate()[0]
        time.sleep(0.05)
    os.kill(find_rank(1, torchrun.pid), signal.SIGKILL)
    killed = time.monotonic()
    output, _ = torchrun.communicate()

    run = only_run(tmp_path / "outputs")
    assert torchrun.returncode != 0
    assert time.monotonic() - killed < 60
    assert "stopped; continue with: python -m fireseg.train resume=" in output
    # Told by the other process or, if torchrun's SIGTERM reaches it before it misses its peer, by torchrun alone.
    reports = re.findall(r"^fireseg: torchrun: a process of this run has ended", output, re.MULTILINE)
    assert len(reports) == 1 or (not reports and "Signal 9 (SIGKILL) received" in output)
    assert 0 < len(read_rows(run)) < 40
    finish(start([f"resume={run}", "engine.epochs=4"], tmp_path))
    assert differences(reference, run) == []


def test_a_signal_to_one_process_stops_the_run_which_two_processes_resume(
    patches: Path, reference: Path, tmp_path: Path
):
    before = """
import os, signal
from fireseg.engine.state import TrainingState
steps, original = [], TrainingState.apply_gradients
def apply_gradients(self, *, clip_norm):
    original(self, clip_norm=clip_norm)
    steps.append(1)
    if len(steps) == 5 and os.environ["RANK"] == "1": os.kill(os.getpid(), signal.SIGTERM)
TrainingState.apply_gradients = apply_gradients
"""
    stopped = start_processes(before + MAIN, 2, [f"data.root={patches}", *SHARDED], cwd=tmp_path)
    outputs = [process.communicate()[0] for process in stopped]
    run = only_run(tmp_path / "outputs")
    num_rows = len(read_rows(run))

    resumed = start_processes(MAIN, 2, [f"resume={run}"], cwd=tmp_path)
    assert [(process.wait(), process.communicate()[0])[0] for process in resumed] == [0, 0]

    assert [process.returncode for process in stopped] == [143, 143]
    assert num_rows == 1
    assert "stopped; continue with" in outputs[0]
    assert differences(reference, run) == []


@pytest.mark.parametrize(
    ("size", "arguments", "message"),
    [
        (2, ["engine.shards=1"], r"engine\.shards: 1, but torchrun started 2 .*set engine\.shards=2"),
        (2, ["-m", "engine.shards=2", "seed=0,1"], r"torchrun: .*leave out -m"),
        (2, ["engine.shards=2", "data.root=nowhere"], r"nowhere"),
        (2, ["engine.shard=2"], r"engine\.shard: no such setting"),
    ],
    ids=["shards", "sweep", "data", "misspelt"],
)
def test_an_error_is_reported_by_one_process(size: int, arguments: list[str], message: str, tmp_path: Path):
    started = start_processes(MAIN, size, [*arguments, *SHARDED[:-2]], cwd=tmp_path)

    outputs = "".join(process.communicate()[0] for process in started)

    assert all(process.returncode for process in started)
    (line,) = re.findall(r"^fireseg: (.*)", outputs, re.MULTILINE)
    assert re.search(message, line)
    assert not list(tmp_path.glob("outputs/*"))


def test_an_error_of_the_main_process_is_reported_once_if_another_process_is_slow(tmp_path: Path):
    before = """
import os, time
import fireseg.engine.distributed as distributed
original = distributed.is_first_report
def is_first_report(error):
    time.sleep(2 * (os.environ["RANK"] == "1"))
    return original(error)
distributed.is_first_report = is_first_report
"""
    started = start_processes(before + MAIN, 2, [*SHARDED[:-2], "engine.shards=2", "data.root=nowhere"], cwd=tmp_path)

    outputs = "".join(process.communicate()[0] for process in started)

    assert all(process.returncode for process in started)
    (line,) = re.findall(r"^fireseg: (.*)", outputs, re.MULTILINE)
    assert "nowhere" in line


def find_rank(rank: int, parent: int) -> int:
    """Returns the process that a torchrun started as this rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except (OSError, ValueError):
            continue
    raise AssertionError(f"no process of rank {rank}")
