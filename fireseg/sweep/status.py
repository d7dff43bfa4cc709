"""The state of a sweep as a table, and its results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from fireseg.console import format_count, format_score, format_seconds, format_table
from fireseg.sweep.plan import Plan
from fireseg.sweep.queue import JobStatus, read_status

_STATES = ("finished", "running", "stopped", "killed", "out of memory", "failed", "missing")

_MAX_REASON = 160


def read_statuses(plan: Plan) -> list[JobStatus]:
    """Reads the state of each job of a sweep.

    Raises:
        FiresegError: If the files of a run folder cannot be read.
    """
    return [read_status(plan, job) for job in plan.jobs]


def format_counts(statuses: Sequence[JobStatus]) -> str:
    """Formats the number of jobs in each state: `12 jobs: 10 finished, 1 running, 1 failed`."""
    counts = Counter(status.record.state for status in statuses)
    states = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    return f"{format_count(len(statuses), 'job')}: {states}"


def format_status(statuses: Sequence[JobStatus]) -> list[str]:
    """Formats the state of each job: its epoch, the time it took and will take, and why it has not finished."""
    rows = [["job", "", "state", "epoch", "time", "left", "val fire IoU", ""]]
    for status in statuses:
        record, has_begun = status.record, status.epoch > 0
        is_running = record.state == "running"
        rows.append(
            [
                str(status.job.number),
                status.job.name or status.job.subdir,
                record.state,
                f"{status.epoch}/{status.num_epochs}" if has_begun or is_running else "-",
                format_seconds(status.seconds) if has_begun else "-",
                format_seconds(status.seconds_left) if is_running and not math.isnan(status.seconds_left) else "-",
                format_score(status.best_iou),
                describe(status),
            ]
        )
    return [*format_table(rows, align="><<>>>><"), format_counts(statuses)]


def describe(status: JobStatus) -> str:
    """Describes what a reader should know about a job: where it runs, why it failed, smaller batches."""
    record = status.record
    notes = []
    if record.state == "running":
        notes.append(f"process {record.pid} on {record.host}" if record.pid else "starting")
    elif record.state != "finished" and record.reason:
        reason = record.reason
        notes.append(reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 1]}…")
    if status.pruned_epoch:
        notes.append(f"pruned at epoch {status.pruned_epoch}")
    if record.attempts > 1:
        notes.append(f"{record.attempts} attempts")
    if record.parts > 1:
        notes.append(f"batches in {record.parts} parts, for want of memory")
    return "; ".join(notes)
