"""Runs a sweep with an engine, and prints its results and the commands to type next."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.console import format_command, start_logging
from fireseg.errors import FiresegError
from fireseg.files import SWEEP_PLAN
from fireseg.runs.folder import host
from fireseg.runs.leaderboard import format_leaderboard, read_leaderboard
from fireseg.sweep.local import Drain, Extend
from fireseg.sweep.options import EngineOptions, WorkOptions
from fireseg.sweep.plan import Plan, choose_job, name_job, read_plan
from fireseg.sweep.queue import JobStatus, read_state
from fireseg.sweep.ray import run_in_ray
from fireseg.sweep.slurm import count_slurm_cores, requeue_at_time_limit, submit_sweep
from fireseg.sweep.status import describe, format_counts, format_status, read_statuses
from fireseg.tracker.mlflow_store import resolve_uri


def run_sweep(plan: Plan, options: EngineOptions) -> int:
    """Runs what is missing from a sweep, and prints the results.

    Args:
        plan: The sweep.
        options: Engine and its options.

    Returns:
        The exit code: 0 if every job is finished, 1 if one failed, 128 plus the number of a signal.

    Raises:
        FiresegError: If the sweep cannot be run here.
    """
    call = secrets.token_hex(4)
    if options.engine == "slurm":
        start_logging()
        _check_host(plan)
        return submit_sweep(plan, options, call)
    return run_jobs(plan, options, call, again=format_command("sweep", "run", plan.path, *options.list_words()))


def run_jobs(plan: Plan, options: EngineOptions, call: str, *, again: str, extend: Extend | None = None) -> int:
    """Runs jobs here or in a Ray cluster, waits for their end, and prints the results.

    Args:
        plan: The sweep.
        options: Engine and its options.
        call: Identity of the command.
        again: Command that goes on with the sweep after a signal.
        extend: Called when there is room for another job; returns the plan with one more, or None if there is none.

    Returns:
        The exit code, as of `run_sweep`.
    """
    start_logging()
    _check_host(plan)
    if options.engine == "ray":
        signum = run_in_ray(plan, options, call, extend)
    else:
        drain = Drain(
            plan,
            call=call,
            num_jobs=options.jobs or 1,
            retries=options.retries,
            is_waiting=True,
            prune=options.prune,
            extend=extend,
        )
        signum = drain.run()
    plan = read_plan(plan.path)
    statuses = read_statuses(plan)
    if signum:
        sys.stdout.write(f"stopped; {format_counts(statuses)}\n")
        sys.stdout.write(f"continue with: {again}\n")
        return 128 + signum
    sys.stdout.write("\n".join(["", *format_results(plan, statuses), ""]))
    return int(any(status.record.state != "finished" for status in statuses))


def work(options: WorkOptions, plan: Plan) -> int:
    """Runs jobs one after the other until none is left to begin; does not wait for those of other processes.

    In a task of Slurm that stops because its time is over, the task is queued again.

    Returns:
        The exit code: 1 if a job that this process ran failed, 128 plus the number of a signal, or 0.
    """
    start_logging()
    _check_host(plan)
    call = options.call or secrets.token_hex(4)
    drain = Drain(
        plan if options.job is None else choose_job(plan, options.job),
        call=call,
        num_jobs=1,
        retries=options.retries,
        is_waiting=options.job is not None,
        num_cores=count_slurm_cores(),
        prune=options.prune,
    )
    signum = drain.run()
    if signum:
        requeue_at_time_limit()
    statuses = read_statuses(plan)
    sys.stdout.write(f"{format_counts(statuses)}\n")
    has_failed = any(status.record.state == "failed" and status.record.call == call for status in statuses)
    return 128 + signum if signum else int(has_failed)


def format_results(plan: Plan, statuses: Sequence[JobStatus]) -> list[str]:
    """Formats the finished runs, best first, the other jobs with the reason, and the commands to type next."""
    finished = [status for status in statuses if status.record.state == "finished"]
    others = [status for status in statuses if status.record.state != "finished"]
    lines, commands = [], []
    if others:
        commands.append(format_command("sweep", "run", plan.path))
    if finished:
        leaderboard = read_leaderboard([plan.get_folder(status.job).path for status in finished])
        lines += format_leaderboard(leaderboard)
        lines += [f"{name_job(status.job)}: {note}" for status in finished if (note := describe(status))]
        best = leaderboard.tables[0].best_run
        split = () if _has_test(plan, best.settings) else ("--split", "val")
        commands.append(format_command("evaluate", best.path, *split))
        commands.append(format_command("predict", best.path, Path("SCENE.tif")))
        commands.append(format_command("report", plan.path, *split))
    if others:
        lines += ["", *format_status(others)[:-1]]
    for status in others:
        if status.record.last_lines:
            folder = plan.get_folder(status.job).path
            lines += [f"{folder}:", *(f"  {line}" for line in status.record.last_lines)]
    return [*lines, format_counts(statuses), "next:", *(f"  {command}" for command in commands)]


def _has_test(plan: Plan, settings: Mapping[str, Any]) -> bool:
    root = settings["data"]["root"]
    return any((plan.cwd / one / "test").is_dir() for one in (root if isinstance(root, list) else [root]))


def _check_host(plan: Plan) -> None:
    """Checks that jobs of the sweep can run on this host, and beside those of other hosts."""
    if not plan.cwd.is_dir():
        raise FiresegError(
            f"{plan.path / SWEEP_PLAN}: the working folder of its jobs, {plan.cwd}, does not exist on this host; make "
            "it available under this path, as relative paths in the settings start there"
        )
    if not plan.jobs:  # a search that begins
        return
    tracker = plan.jobs[0].settings["tracker"]
    if "mlflow" not in tracker["_target_"] or not (uri := resolve_uri(tracker.get("uri"))).startswith("sqlite:"):
        return
    records = [read_state(plan.get_folder(job)) for job in plan.jobs]
    if others := sorted({record.host for record in records if record.state == "running"} - {host(), ""}):
        raise FiresegError(
            f"tracker.uri: {uri} is a file, which one host at a time can write, and jobs of this sweep are running on "
            f"{' and '.join(others)}; stop these, start `mlflow server --host 0.0.0.0 --backend-store-uri {uri}` on "
            "one host, set MLFLOW_TRACKING_URI=http://HOST:5000 on all, and run the sweep again"
        )
