"""Runs a sweep with an engine, and prints its results and the commands to type next."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from fireseg.console import format_command, start_logging
from fireseg.errors import FiresegError
from fireseg.files import SWEEP_PLAN
from fireseg.sweep.local import Drain, Extend
from fireseg.sweep.options import EngineOptions, WorkOptions
from fireseg.sweep.plan import Job, Plan, choose_job, read_plan
from fireseg.sweep.queue import JobStatus
from fireseg.sweep.ray import run_in_ray
from fireseg.sweep.slurm import count_slurm_cores, requeue_at_time_limit, submit_sweep
from fireseg.sweep.status import format_counts, format_status, read_statuses


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
        _check_working_folder(plan)
        return submit_sweep(plan, options, call)
    return run_jobs(plan, options, call, again=format_command("sweep", "run", plan.path))


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
    _check_working_folder(plan)
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
    _check_working_folder(plan)
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


def format_results(plan: Plan, statuses: list[JobStatus]) -> list[str]:
    """Formats the finished jobs, best first, the others with the reason, and the commands to type next."""
    finished = sorted(
        (status for status in statuses if status.record.state == "finished"),
        key=lambda status: -1 if status.best_iou is None else status.best_iou,
        reverse=True,
    )
    others = [status for status in statuses if status.record.state != "finished"]
    lines = format_status([*finished, *others])
    for status in others:
        if status.record.last_lines:
            folder = plan.get_folder(status.job).path
            lines += [f"{folder}:", *(f"  {line}" for line in status.record.last_lines)]
    lines.append("next:")
    if others:
        lines.append(f"  {format_command('sweep', 'run', plan.path)}")
    if finished:
        best = plan.get_folder(finished[0].job).path
        split = () if _has_test(plan, finished[0].job) else ("--split", "val")
        lines.append(f"  {format_command('evaluate', best, *split)}")
        lines.append(f"  {format_command('predict', best, Path('SCENE.tif'))}")
    return lines


def _has_test(plan: Plan, job: Job) -> bool:
    root = job.settings["data"]["root"]
    return any((plan.cwd / one / "test").is_dir() for one in (root if isinstance(root, list) else [root]))


def _check_working_folder(plan: Plan) -> None:
    if not plan.cwd.is_dir():
        raise FiresegError(
            f"{plan.path / SWEEP_PLAN}: the working folder of its jobs, {plan.cwd}, does not exist on this host; make "
            "it available under this path, as relative paths in the settings start there"
        )
