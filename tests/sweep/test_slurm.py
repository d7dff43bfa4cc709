"""The Slurm engine, with real daemons of Slurm on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fireseg.errors import SettingError
from fireseg.sweep.options import RunOptions
from fireseg.sweep.plan import Plan
from fireseg.sweep.queue import read_state
from fireseg.sweep.slurm import submit_sweep
from scripts.slurm_test import find_obstacle, start_slurm
from tests.sweep.stand_ins import count_epochs, read_job, stand_in_environment, write_sweep

Environment = dict[str, str]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Starts a Slurm of one node, or skips the test; returns the environment of its commands and of their jobs."""
    if obstacle := find_obstacle():
        pytest.skip(f"no Slurm: {obstacle}")
    with start_slurm() as variables:
        yield {**stand_in_environment(tmp_path_factory.mktemp("stand_ins")), "SLURM_CONF": variables["SLURM_CONF"]}


def run(environment: Environment, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def run_sweep(environment: Environment, plan: Plan, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fireseg.sweep", "run", plan.path, "--engine", "slurm", *words]
    return run(environment, *command, cwd=plan.cwd)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "waited for 90 seconds"
        time.sleep(0.1)


def list_queue(environment: Environment, cwd: Path) -> str:
    return run(environment, "squeue", "--noheader", cwd=cwd).stdout


def read_states(plan: Plan) -> list[str]:
    return [read_state(plan.get_folder(job)).state for job in plan.jobs]


def test_four_jobs_of_which_one_fails_and_one_is_queued_again_and_goes_on(slurm: Environment, tmp_path: Path):
    plan = write_sweep(tmp_path / "fires 100%", [0.5, 0.6, 0.7, 0.8], failing=[1], epochs=4, seconds=1.0)

    submitted = run_sweep(slurm, plan, "--sbatch-options=--time=10 --comment='a b'")

    assert submitted.returncode == 0, submitted.stderr
    first = submitted.stdout.splitlines()[0]
    array = first.partition(" as array ")[2].partition(";")[0]
    assert first.startswith("4 jobs submitted to Slurm as array ")
    assert f"  scancel {array}" in submitted.stdout.splitlines()
    wait_for(lambda: count_epochs(plan, 0) >= 1)
    assert run(slurm, "scontrol", "requeue", f"{array}_0", cwd=tmp_path).returncode == 0
    wait_for(lambda: "BeginTime" in list_queue(slurm, tmp_path))  # in two minutes: Slurm's delay after a requeue
    run(slurm, "scontrol", "update", f"JobId={array}_0", "StartTime=now", cwd=tmp_path)
    again = run_sweep(slurm, plan)
    assert again.returncode == 2
    assert f"array {array} of this sweep is still in Slurm's queue" in again.stderr
    wait_for(lambda: not list_queue(slurm, tmp_path))

    assert read_states(plan) == ["finished", "failed", "finished", "finished"]
    assert [read_job(plan, number)["attempts"] for number in range(4)] == [2, 1, 1, 1]
    assert [row["epoch"] for row in plan.get_folder(plan.jobs[0]).read_metrics()] == [1, 2, 3, 4]
    assert "nothing there" in read_job(plan, 1)["reason"]
    assert "1 failed" in (plan.path / f"slurm-{array}_1.out").read_text()
    assert "4 jobs: 3 finished, 1 failed" in run_status(slurm, plan)
    assert run_sweep(slurm, plan).stdout.startswith("1 job submitted")
    wait_for(lambda: not list_queue(slurm, tmp_path))
    assert read_job(plan, 1)["attempts"] == 2


def run_status(environment: Environment, plan: Plan) -> str:
    return run(environment, sys.executable, "-m", "fireseg.sweep", "status", plan.path, cwd=plan.cwd).stdout


def test_sigterm_of_slurm_ends_a_job_after_its_epoch(slurm: Environment, tmp_path: Path):
    plan = write_sweep(tmp_path / "fires", [0.5], epochs=30, seconds=0.5)
    array = run_sweep(slurm, plan).stdout.partition(" as array ")[2].partition(";")[0]
    wait_for(lambda: count_epochs(plan, 0) >= 1)

    run(slurm, "scancel", "--batch", "--signal=TERM", f"{array}_0", cwd=tmp_path)
    wait_for(lambda: not list_queue(slurm, tmp_path))

    assert read_states(plan) == ["stopped"]
    assert count_epochs(plan, 0) == int((plan.get_folder(plan.jobs[0]).checkpoints / "last.pt").read_text()) < 30


def test_options_that_sbatch_refuses_are_named(slurm: Environment, tmp_path: Path):
    plan = write_sweep(tmp_path / "fires", [0.5])
    result = run_sweep(slurm, plan, "--sbatch-options=--partition=gpu")
    assert result.returncode == 1
    assert result.stderr.startswith("fireseg: --sbatch-options: --partition=gpu, but sbatch refuses it: ")


def test_without_sbatch_one_line_says_where_to_type_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = write_sweep(tmp_path / "fires", [0.5])
    with pytest.raises(SettingError, match=r"^--engine: slurm, .* login node"):
        submit_sweep(plan, RunOptions(sweep=plan.path, engine="slurm"), "call")


def test_a_tracking_store_in_a_file_is_refused_with_the_command_of_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = {"_target_": "fireseg.tracker.create_mlflow_tracker", "uri": None}
    plan = write_sweep(tmp_path / "fires", [0.5], tracker=tracker)
    with pytest.raises(SettingError, match=r"^tracker\.uri: sqlite:///.* `mlflow server .*tracker=none$"):
        submit_sweep(plan, RunOptions(sweep=plan.path, engine="slurm"), "call")
