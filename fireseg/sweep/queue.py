"""The queue of a sweep: the state of each job, read off its run folder, its lock and its `job.json`.

`job.json` is written by the holder of the lock of the run folder alone. The system releases the lock of a killed
process, so a job that is recorded as running while its lock is free has lost its process.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from filelock import FileLock, Timeout

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, read_error
from fireseg.runs.folder import RunFolder, host
from fireseg.sweep.plan import Job, Plan

State = Literal["missing", "running", "finished", "failed", "out of memory", "killed", "stopped"]

LOG = "job.log"
"""Output of the processes of a job, in its run folder."""

BUSY = 75
"""Exit code of a job that another process runs."""

_RECORD = "job.json"

_NUM_LAST_LINES = 10

LOCK_WAIT_S = 10.0
"""Seconds to wait for a lock that is held for a moment by processes that look at the state of a job."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """Content of `job.json`: the last attempt at a job.

    Attributes:
        state: State at the last write; "running" if its process was killed since.
        attempts: Number of processes that were started for the job.
        call: Identity of the command that made the last attempt.
        parts: Number of batches into which each batch of the plan is split, because memory ran out; 1 at first.
        exit_code: Exit code of the process, negative for a signal; None while it runs.
        reason: Why the job has not finished, in one line.
        last_lines: Last lines of its output, if it failed.
        host: Host of the process.
        pid: Process.
        started: Start of the attempt, ISO 8601 in UTC.
        ended: End of the attempt; empty while it runs.
    """

    state: State = "missing"
    attempts: int = 0
    call: str = ""
    parts: int = 1
    exit_code: int | None = None
    reason: str = ""
    last_lines: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    started: str = ""
    ended: str = ""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """State of a job and the progress of its run.

    Attributes:
        job: The job.
        record: Its last attempt. The state is that of now: not "running" if the process has gone.
        epoch: Last complete epoch; 0 if there is none.
        num_epochs: Number of epochs planned; early stopping may end a run before.
        seconds: Seconds of training so far.
        best_epoch: Epoch of the best model; 0 if there is none.
        best_iou: Its val/fire_iou; None if there is none.
        pruned_epoch: Epoch after which the job was stopped because it was behind others; 0 if it was not.
    """

    job: Job
    record: JobRecord
    epoch: int
    num_epochs: int
    seconds: float
    best_epoch: int
    best_iou: float | None
    pruned_epoch: int

    @property
    def seconds_left(self) -> float:
        """Estimated seconds until the last epoch ends; NaN before the first one has ended."""
        return self.seconds / self.epoch * (self.num_epochs - self.epoch) if self.epoch else math.nan


def read_state(folder: RunFolder) -> JobRecord:
    """Reads the last attempt at a job, with its state of now.

    Raises:
        FiresegError: If the files of the run folder cannot be read.
    """
    record = read_record(folder)
    if is_finished(folder):
        return replace(record, state="finished", reason="")
    if is_locked(folder):
        return replace(record, state="running")
    if record.state in ("running", "finished"):  # or the run folder was changed since
        where = f"process {record.pid} on {record.host}"
        return replace(record, state="killed", reason=record.reason or f"{where} ended without a word")
    return record


def read_status(plan: Plan, job: Job) -> JobStatus:
    """Reads the state of a job and the progress of its run.

    Raises:
        FiresegError: If the files of the run folder cannot be read.
    """
    folder = plan.get_folder(job)
    rows = folder.read_metrics()
    best = next((row for row in reversed(rows) if row["best"]), None)
    return JobStatus(
        job=job,
        record=read_state(folder),
        epoch=rows[-1]["epoch"] if rows else 0,
        num_epochs=job.settings["engine"]["epochs"],
        seconds=sum(row["seconds"] for row in rows),
        best_epoch=best["epoch"] if best else 0,
        best_iou=best["val/fire_iou"] if best else None,
        pruned_epoch=folder.read_provenance().get("pruned", {}).get("epoch", 0),
    )


def is_finished(folder: RunFolder) -> bool:
    """Returns True if the run of a folder has ended as planned: the last thing that a training notes in `run.json`."""
    return folder.read_provenance().get("tracked", {}).get("status") == "FINISHED"


def is_locked(folder: RunFolder) -> bool:
    """Returns True if a process holds the lock of a run folder."""
    path = folder.path / ".lock"
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError as error:
        raise read_error(path, error) from error
    lock.release()
    return False


def read_record(folder: RunFolder) -> JobRecord:
    """Reads `job.json`; an empty record if there is none.

    Raises:
        FiresegError: If it is damaged or cannot be read.
    """
    path = folder.path / _RECORD
    try:
        content = json.loads(path.read_bytes())
        return JobRecord(**{**content, "last_lines": tuple(content["last_lines"])})
    except (FileNotFoundError, NotADirectoryError):
        return JobRecord()
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise FiresegError(f"{path}: damaged; delete it: the job then goes on from its last epoch") from error


def begin_attempt(folder: RunFolder, *, call: str, parts: int) -> JobRecord:
    """Records that this process, which holds the lock of the folder, runs the job.

    Args:
        folder: Run folder of the job.
        call: Identity of the command.
        parts: Number of batches into which each batch of the plan is split.
    """
    record = JobRecord(
        state="running",
        attempts=read_record(folder).attempts + 1,
        call=call,
        parts=parts,
        host=host(),
        pid=os.getpid(),
        started=_now(),
    )
    _write_record(folder, record)
    return record


def end_attempt(
    folder: RunFolder, state: State, *, exit_code: int, reason: str = "", last_lines: tuple[str, ...] = ()
) -> None:
    """Records the end of the attempt; the caller holds the lock of the folder."""
    record = replace(
        read_record(folder), state=state, exit_code=exit_code, reason=reason, last_lines=last_lines, ended=_now()
    )
    _write_record(folder, record)


def record_loss(
    folder: RunFolder, before: JobRecord, state: State, *, pid: int, exit_code: int, reason: str, call: str
) -> None:
    """Records the end of a process that did not do so itself, unless another process has had the job since.

    Args:
        folder: Run folder of the job.
        before: Record of the job when the process was started.
        state: State of the job.
        pid: The process.
        exit_code: Its exit code.
        reason: Why it ended.
        call: Identity of the command that had started it.
    """
    with suppress(Timeout), FileLock(folder.path / ".lock").acquire(timeout=LOCK_WAIT_S):
        record = read_record(folder)
        has_begun = record.state == "running" and (record.pid, record.host) == (pid, host())
        if has_begun or record == before:
            lines = read_last_lines(folder)
            end = {"exit_code": exit_code, "reason": reason, "last_lines": lines, "ended": _now()}
            attempts = record.attempts + (not has_begun)
            _write_record(folder, replace(record, state=state, call=call, attempts=attempts, **end))


def read_last_lines(folder: RunFolder) -> tuple[str, ...]:
    """Reads the last lines of the output of a job; none if there is no output."""
    try:
        with (folder.path / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line for line in lines if line.strip())[-_NUM_LAST_LINES:]


def _write_record(folder: RunFolder, record: JobRecord) -> None:
    content: dict[str, Any] = asdict(record)
    with atomic_write(folder.path / _RECORD) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
