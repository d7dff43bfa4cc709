"""The Slurm engine: submits a sweep as one job array, one task for each job of the sweep."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from fireseg.console import format_command, format_count
from fireseg.errors import FiresegError, SettingError
from fireseg.files import atomic_write, convert_disk_errors
from fireseg.sweep.options import EngineOptions
from fireseg.sweep.plan import Plan
from fireseg.sweep.queue import read_state
from fireseg.sweep.store import check_shared_store

log = logging.getLogger("fireseg")

_ARRAY = "slurm_array"
"""File in the folder of a sweep with the number of its last job array."""

_GRACE_S = 120
"""Seconds before the time limit at which Slurm sends SIGTERM; Slurm itself may send it up to a minute earlier."""


def submit_sweep(plan: Plan, options: EngineOptions, call: str) -> int:
    """Submits what is missing from a sweep to Slurm, and prints how to watch and to cancel it.

    Args:
        plan: The sweep.
        options: Options of the engine.
        call: Identity of the command.

    Returns:
        The exit code 0.

    Raises:
        SettingError: If Slurm is not installed, an earlier array is still queued, or the store is an SQLite file.
        FiresegError: If Slurm refuses the array.
    """
    if shutil.which("sbatch") is None:
        raise SettingError(
            "--engine: slurm, but the program sbatch is not installed here; type this on a login node of the cluster"
        )
    check_shared_store(plan)
    _check_no_earlier_array(plan)
    states = {job.number: read_state(plan.get_folder(job)).state for job in plan.jobs}
    numbers = [number for number, state in states.items() if state not in ("finished", "running")]
    if not numbers:
        running = list(states.values()).count("running")
        left = f"{format_count(running, 'job')} running, the others finished" if running else "all jobs are finished"
        sys.stdout.write(f"{plan.path}: nothing to submit: {left}\n")
        return 0
    array = _submit(plan, options, call, numbers)
    with convert_disk_errors(plan.path), atomic_write(plan.path / _ARRAY) as part:
        part.write_text(f"{array}\n", encoding="utf-8")
    lines = [
        f"{format_count(len(numbers), 'job')} submitted to Slurm as array {array}; output in {_name_output(plan.path)}",
        "next:",
        f"  {format_command('sweep', 'status', plan.path)}",
        f"  squeue --job {array}",
        f"  scancel {array}",
    ]
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def count_slurm_cores() -> int | None:
    """Returns the number of cores that Slurm has given this process; None outside Slurm."""
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return int(cores) if cores.isdigit() else None


def requeue_at_time_limit() -> None:
    """Queues the Slurm task of this process again if its time is over; does nothing after `scancel` or elsewhere."""
    if (task := os.environ.get("SLURM_JOB_ID")) is None:
        return
    # The state of a cancelled task is no longer RUNNING. No variable of Slurm 22 has the end of the task.
    state, _, end = _run(["squeue", "--noheader", "--job", task, "--format", "%T %e"]).stdout.strip().partition(" ")
    try:
        seconds_left = datetime.fromisoformat(end).timestamp() - time.time()
    except ValueError:  # no time limit
        return
    if state != "RUNNING" or seconds_left > _GRACE_S + 60:
        return
    result = _run(["scontrol", "requeue", task])
    if result.returncode:
        log.warning("scontrol requeue %s: %s", task, result.stderr.strip())
    else:
        log.info("the time limit is reached; the task is queued again and goes on from its last epoch")


def _check_no_earlier_array(plan: Plan) -> None:
    """Raises an error if an array of the sweep is queued: its tasks would wait for those of the new one."""
    try:
        array = (plan.path / _ARRAY).read_text(encoding="utf-8").strip()
    except OSError:
        return
    if _run(["squeue", "--noheader", "--job", array, "--format", "%T"]).stdout.strip():
        raise SettingError(
            f"{plan.path}: array {array} of this sweep is still in Slurm's queue; wait for it (squeue --job {array}), "
            f"or cancel it first (scancel {array})"
        )


def _submit(plan: Plan, options: EngineOptions, call: str, numbers: list[int]) -> str:
    limit = f"%{options.jobs}" if options.jobs else ""
    command = [
        *("sbatch", "--parsable", f"--array={','.join(map(str, numbers))}{limit}"),
        *("--requeue", f"--signal=B:TERM@{_GRACE_S}", "--open-mode=append"),
        *(f"--job-name={plan.path.resolve().name}", f"--output={_name_output(plan.path.resolve())}"),
        *(f"--chdir={plan.cwd}", *shlex.split(options.sbatch_options or "")),
    ]
    result = _run(command, _write_script(plan, options, call))
    if result.returncode:
        given = f"--sbatch-options: {options.sbatch_options}" if options.sbatch_options else "--engine: slurm"
        said = "; ".join(line.removeprefix("sbatch: ") for line in result.stderr.strip().splitlines())
        raise FiresegError(f"{given}, but sbatch refuses it: {said}; change --sbatch-options")
    return result.stdout.strip().partition(";")[0]


def _run(command: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def _write_script(plan: Plan, options: EngineOptions, call: str) -> str:
    """Writes the batch script: one process, which the shell becomes, so that Slurm's signals reach it."""
    work = [sys.executable, "-m", "fireseg.sweep", "work", str(plan.path.resolve()), "--call", call]
    work += ["--retries", str(options.retries), *(["--prune", options.prune] if options.prune else [])]
    return f'#!/bin/sh\nexec {shlex.join(work)} --job "$SLURM_ARRAY_TASK_ID"\n'


def _name_output(path: Path) -> str:
    """Names the files of output by array and task; Slurm replaces what begins with %."""
    return f"{str(path).replace('%', '%%')}/slurm-%A_%a.out"
