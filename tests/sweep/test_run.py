"""Sweeps with real processes: kills, failures, signals, and several commands on one folder."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fireseg.files import count_cores
from fireseg.runs.folder import RunFolder
from fireseg.sweep.plan import settle_plan
from fireseg.sweep.queue import begin_attempt, is_finished
from scripts.kill_test import differences, read_rows, write_patches
from tests.processes import ForkedProcess, start_program
from tests.sweep.builders import continue_sweep, list_jobs, start_sweep
from tests.sweep.test_plan import make_plan


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("sweep") / "patches")


@pytest.fixture(scope="module")
def undisturbed(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a sweep of four seeds that nothing disturbed."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    output = finish(start_sweep([f"data.root={patches}", "seed=0,1,2,3", "hydra.sweep.dir=fires", "--jobs=2"], cwd), 0)
    assert "4 jobs: 4 finished" in output
    return cwd / "fires"


def finish(process: ForkedProcess, exit_code: int) -> str:
    output, _ = process.communicate()
    assert process.returncode == exit_code, output
    return output


def read_job(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "job.json").read_text())
    except FileNotFoundError:
        return {"state": "missing", "pid": 0}


def wait_for(condition: Callable[[], bool], process: ForkedProcess) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited for two minutes"
        time.sleep(0.01)


def count_epochs(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def test_a_killed_job_and_a_killed_command_lose_nothing_and_nothing_is_done_twice(
    patches: Path, undisturbed: Path, tmp_path: Path
):
    arguments = [f"data.root={patches}", "seed=0,1,2,3", "hydra.sweep.dir=fires", "--jobs", "2"]
    process = start_sweep(arguments, tmp_path)
    first, last = tmp_path / "fires/0_seed-0", tmp_path / "fires/3_seed-3"
    wait_for(lambda: count_epochs(first) == 1, process)
    os.kill(read_job(first)["pid"], signal.SIGKILL)
    wait_for(lambda: read_job(last)["state"] == "running", process)
    os.killpg(process.pid, signal.SIGKILL)  # its jobs notice, and stop at the end of their epoch
    process.wait()
    done = [run for run in list_jobs(tmp_path / "fires") if is_finished(RunFolder(run))]
    times = [(run / "samples.png").stat().st_mtime_ns for run in done]

    output = finish(start_sweep(arguments, tmp_path), 0)

    assert "fires: this sweep goes on" in output
    assert "4 jobs: 4 finished" in output
    assert [(run / "samples.png").stat().st_mtime_ns for run in done] == times
    assert read_job(first)["attempts"] == 2
    for run, other in zip(list_jobs(tmp_path / "fires"), list_jobs(undisturbed), strict=True):
        assert [row["epoch"] for row in read_rows(run)] == [1, 2]
        assert differences(run, other) == []


def test_a_second_command_on_the_same_folder_has_nothing_to_do(patches: Path, undisturbed: Path):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.pt")}
    finish(continue_sweep("run", "fires", cwd=undisturbed.parent), 0)
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.pt")} == before

    arguments = [f"data.root={patches}", "seed=0,1,2,3", "hydra.sweep.dir=fires", "engine.epochs=3"]
    output = finish(start_sweep(arguments, undisturbed.parent), 2)
    assert "fireseg: hydra.sweep.dir: fires holds another sweep: engine.epochs is 2 there and 3 here" in output


def test_two_commands_share_a_sweep_and_no_job_is_run_twice(patches: Path, tmp_path: Path):
    words = [f"data.root={patches}", "seed=0,1,2", "engine.epochs=1", "hydra.sweep.dir=fires"]
    one = start_sweep(words, tmp_path)
    wait_for((tmp_path / "fires/plan.json").exists, one)
    other = continue_sweep("run", str(tmp_path / "fires"), cwd=Path("/"))
    outputs = [finish(one, 0), finish(other, 0)]

    assert all("3 jobs: 3 finished" in output for output in outputs)
    assert [read_job(run)["attempts"] for run in list_jobs(tmp_path / "fires")] == [1, 1, 1]
    # Both may start a process for one job in the same instant; that of the second finds it taken and runs nothing.
    starts = [set(re.findall(r"job \d(?=.*: started, )", output)) for output in outputs]
    assert set.union(*starts) == {"job 0", "job 1", "job 2"}
    assert min(map(len, starts)) >= 1


def test_a_failed_job_leaves_the_others_is_not_tried_again_and_is_named_with_its_last_lines(
    patches: Path, tmp_path: Path
):
    words = [f"data.root={tmp_path / 'nowhere'},{patches}", "engine.epochs=1", "hydra.sweep.dir=fires"]
    output = finish(start_sweep(words, tmp_path), 1)

    failed, finished = list_jobs(tmp_path / "fires")
    assert (read_job(failed)["state"], read_job(failed)["attempts"]) == ("failed", 1)
    assert f"{tmp_path / 'nowhere'}: no such folder" in read_job(failed)["reason"]
    assert any("no such folder" in line for line in read_job(failed)["last_lines"])
    assert count_epochs(finished) == 1
    table = output[output.index("val fire IoU") :]
    assert f"best run: fires/{finished.name}" in table
    assert "2 jobs: 1 finished, 1 failed" in table
    assert f"{tmp_path / 'nowhere'}: no such folder" in table
    assert table.splitlines()[-5:] == [
        "next:",
        "  python -m fireseg.sweep run fires",
        f"  python -m fireseg.evaluate fires/{finished.name} --split val",
        f"  python -m fireseg.predict fires/{finished.name} SCENE.tif",
        "  python -m fireseg.report fires --split val",
    ]

    write_patches(tmp_path / "nowhere")
    finish(continue_sweep("run", "fires", cwd=tmp_path), 0)  # the next command tries it again
    assert (read_job(failed)["attempts"], read_job(finished)["attempts"]) == (2, 1)


def test_a_job_without_memory_is_tried_again_with_smaller_batches_and_as_many_patches_a_step(
    patches: Path, tmp_path: Path
):
    before = (
        "from fireseg.engine import Engine\n"
        "compute = Engine._compute_logits\n"
        "def limited(self, model, image):\n"
        "    if len(image) > 2: raise MemoryError\n"
        "    return compute(self, model, image)\n"
        "Engine._compute_logits = limited"
    )
    words = [f"data.root={patches}", "engine.epochs=1", "engine.limit_batches=2", "hydra.sweep.dir=fires"]
    words.append("data.num_workers=50")  # more than there are cores
    output = finish(start_sweep(words, tmp_path, before), 0)

    (run,) = list_jobs(tmp_path / "fires")
    settings = json.loads((run / "config.json").read_text())
    assert (settings["data"]["batch_size"], settings["engine"]["accumulate"]) == (2, 2)
    assert settings["engine"]["limit_batches"] == 4
    assert settings["data"]["num_workers"] == count_cores()
    assert (read_job(run)["attempts"], read_job(run)["parts"]) == (2, 2)
    assert "data.batch_size=2 and engine.accumulate=2" in (run / "train.log").read_text()
    assert "batches in 2 parts, for want of memory" in output


def test_a_job_that_is_killed_each_time_is_given_up_after_the_retries(patches: Path, tmp_path: Path):
    before = (
        "import os, signal, fireseg.train.run as run\n"
        "def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        "run.run_epochs = kill"
    )
    output = finish(
        start_sweep([f"data.root={patches}", "hydra.sweep.dir=fires", "--retries", "1"], tmp_path, before), 1
    )

    (run,) = list_jobs(tmp_path / "fires")
    assert (read_job(run)["state"], read_job(run)["attempts"]) == ("killed", 2)
    assert "1 job: 1 killed" in output
    assert "killed by SIGKILL" in output


def test_one_signal_lets_the_epoch_finish_and_two_stop_at_once(patches: Path, tmp_path: Path):
    slow = (
        "import time, fireseg.engine.loop as loop\n"
        "check = loop.FiniteLossCheck.update\n"
        "def update(self, *arguments):\n"
        "    time.sleep({seconds})\n"
        "    check(self, *arguments)\n"
        "loop.FiniteLossCheck.update = update"
    )
    words = [f"data.root={patches}", "engine.epochs=3", "hydra.sweep.dir=fires", "seed=0,1"]
    run, other = tmp_path / "fires/0_seed-0", tmp_path / "fires/1_seed-1"
    process = start_sweep(words, tmp_path, slow.format(seconds=0.7))
    wait_for((run / "batch.png").exists, process)
    time.sleep(0.7)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process, 130)

    assert count_epochs(run) == 1
    assert (run / "checkpoints/last.pt").exists()
    assert read_job(run)["state"] == "stopped"
    assert not other.exists()
    assert "continue with: python -m fireseg.sweep run fires" in output
    status = finish(continue_sweep("status", "fires", cwd=tmp_path), 0)
    assert "2 jobs: 1 stopped, 1 missing" in status

    process = continue_sweep("run", "fires", cwd=tmp_path, before=slow.format(seconds=100))
    wait_for(lambda: (run / "job.log").read_text().count("run folder: ") == 2, process)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None  # the epoch would take five minutes
    os.kill(process.pid, signal.SIGTERM)
    finish(process, 143)

    assert count_epochs(run) == 1
    assert (read_job(run)["state"], read_job(run)["attempts"]) == ("stopped", 2)


def test_a_tracking_store_that_is_a_file_is_refused_while_another_host_runs_jobs(tmp_path: Path):
    plan = make_plan(tmp_path / "fires")
    tracker = {"_target_": "fireseg.tracker.create_mlflow_tracker", "uri": None}
    settle_plan(replace(plan, jobs=tuple(replace(job, settings={"tracker": tracker}) for job in plan.jobs)))
    folder = plan.get_folder(plan.jobs[0])
    folder.path.mkdir()
    with folder.locked():
        begin_attempt(folder, call="a", parts=1)
        record = read_job(folder.path)
        (folder.path / "job.json").write_text(json.dumps({**record, "host": "gpu7"}))
        output = finish(continue_sweep("run", "fires", cwd=tmp_path), 1)

    assert output.startswith("fireseg: tracker.uri: sqlite:///")
    assert "running on gpu7" in output
    assert "set MLFLOW_TRACKING_URI" in output
    assert [path.name for path in list_jobs(tmp_path / "fires")] == ["0_seed-0"]


def test_a_job_imports_no_hydra():
    program = (
        "import sys, fireseg.train.job, fireseg.train.run\n"
        "sys.exit(', '.join({'hydra', 'omegaconf'} & {*sys.modules}) or 0)"
    )
    finish(start_program(program), 0)


def test_a_dry_run_lists_jobs_and_folders_and_writes_nothing(tmp_path: Path):
    output = finish(start_sweep(["--dry-run", "seed=0,1", "hydra.sweep.dir=fires"], tmp_path), 0)

    assert output.splitlines() == [
        "job  settings  folder",
        "  0  seed=0    fires/0_seed-0",
        "  1  seed=1    fires/1_seed-1",
        "2 jobs in fires",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "location", "cure"),
    [("--jobs=0", "--jobs", "1 or more"), ("--retries=-1", "--retries", "0 or more"), ("--dry-rum", "--dry-rum", "")],
)
def test_a_wrong_option_of_a_sweep_has_exit_code_two(word: str, location: str, cure: str, tmp_path: Path):
    output = finish(start_sweep([word], tmp_path), 2)
    assert output.startswith(f"fireseg: {location}: ")
    assert cure in output
