"""The Ray engine, with a real Ray on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fireseg.errors import SettingError
from fireseg.runs.folder import host
from fireseg.sweep.options import EngineOptions, RunOptions, parse_engine_options
from fireseg.sweep.queue import read_state
from fireseg.sweep.ray import run_in_ray
from fireseg.sweep.store import check_shared_store
from tests.sweep.stand_ins import count_epochs, read_job, stand_in_environment, write_sweep

PROGRAM = """
import sys
from pathlib import Path
from fireseg.console import start_logging
from fireseg.sweep.options import RunOptions
from fireseg.sweep.plan import read_plan
from fireseg.sweep.ray import run_in_ray
start_logging()
path = Path(sys.argv[1])
sys.exit(run_in_ray(read_plan(path), RunOptions(sweep=path, engine="ray"), "call"))
"""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Returns a folder for the files of Ray whose sockets have paths that are short enough."""
    with tempfile.TemporaryDirectory(prefix="ray_", ignore_cleanup_errors=True) as name:
        yield Path(name)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "waited for 3 minutes"
        time.sleep(0.05)


def read_parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes of Ray in /proc")
def test_jobs_run_in_processes_of_ray_and_one_whose_process_is_killed_goes_on(tmp_path: Path, ray_folder: Path):
    plan = write_sweep(tmp_path / "fires", [0.5, 0.6], failing=[1], epochs=6, seconds=0.5)
    environment = stand_in_environment(tmp_path / "stand_ins")
    environment.pop("RAY_ADDRESS", None)
    # Without the second one, Ray writes a token into the home folder.
    environment |= {"RAY_TMPDIR": str(ray_folder), "RAY_AUTH_MODE": "disabled"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, plan.path],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: count_epochs(plan, 0) >= 1 or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    os.kill(read_parent(read_job(plan, 0)["pid"]), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, output
    assert [read_state(plan.get_folder(job)).state for job in plan.jobs] == ["finished", "failed"]
    assert [read_job(plan, number)["attempts"] for number in (0, 1)] == [2, 1]
    assert [row["epoch"] for row in plan.get_folder(plan.jobs[0]).read_metrics()] == [1, 2, 3, 4, 5, 6]
    assert "data.root: nothing there" in output


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plan = write_sweep(tmp_path / "fires", [0.5])
    with pytest.raises(SettingError, match=r"^--engine: ray, .*pip install 'fireseg\[ray\]'$"):
        run_in_ray(plan, RunOptions(sweep=plan.path, engine="ray"), "call")


def test_jobs_of_several_hosts_may_share_a_server_or_leave_mlflow_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    target = {"_target_": "fireseg.tracker.create_mlflow_tracker"}
    check_shared_store(write_sweep(tmp_path / "none", [0.5]))
    check_shared_store(write_sweep(tmp_path / "server", [0.5], tracker={**target, "uri": "http://head:5000"}))
    plan = write_sweep(tmp_path / "file", [0.5], tracker={**target, "uri": None})
    with pytest.raises(SettingError, match=rf"^tracker\.uri: .*--allowed-hosts {host()}:5000"):
        check_shared_store(plan)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://head:5000")
    check_shared_store(plan)


@pytest.mark.parametrize(
    ("options", "location", "cure"),
    [
        ({"gpus_per_job": 0.5}, "--gpus-per-job", "--engine ray"),
        ({"engine": "ray", "gpus_per_job": 1.5}, "--gpus-per-job", "whole number"),
        ({"engine": "ray", "sbatch_options": "--time=1"}, "--sbatch-options", "--engine slurm"),
        ({"engine": "slurm", "address": "head:6379"}, "--address", "--engine ray"),
    ],
)
def test_an_option_of_another_engine_is_refused(options: dict[str, object], location: str, cure: str, tmp_path: Path):
    with pytest.raises(SettingError, match=f"^{location}: .*{cure}"):
        RunOptions(sweep=tmp_path, **options)  # pyright: ignore[reportArgumentType]


def test_options_are_repeated_in_the_command_that_goes_on() -> None:
    words = ["--engine=ray", "--jobs=2", "--gpus-per-job=0.5"]
    assert parse_engine_options(words).list_words() == words
    assert EngineOptions().list_words() == []
