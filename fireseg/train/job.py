"""The process of one job of a sweep, `python -m fireseg.train.job SWEEP NUMBER`, which `fireseg.sweep` starts."""

from __future__ import annotations

import argparse
import copy
import io
import logging
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fireseg.console import print_error, start_logging
from fireseg.errors import FiresegError
from fireseg.runs.folder import RunBusyError, RunFolder, find_resume_point
from fireseg.sweep.plan import Job, Plan, read_plan
from fireseg.sweep.prune import create_pruning
from fireseg.sweep.queue import (
    BUSY,
    LOCK_WAIT_S,
    JobRecord,
    begin_attempt,
    end_attempt,
    is_finished,
    read_last_lines,
    read_record,
)

log = logging.getLogger("fireseg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains a job from its last complete epoch on, and records its state in `job.json`.

    Returns:
        The exit code: 0 if the job is finished; `BUSY` if another process runs it; 1 or 2 for an error. After
        SIGTERM, which waits for the end of the epoch the first time, 143.
    """
    parser = argparse.ArgumentParser(prog="python -m fireseg.train.job", description=__doc__)
    parser.add_argument("sweep", type=Path, help="folder of the sweep")
    parser.add_argument("number", type=int, help="number of the job, from 0")
    parser.add_argument("--call", default="", help="identity of the command that starts the job")
    parser.add_argument("--cores", type=int, default=None, help="cores that the job may use; all by default")
    parser.add_argument("--prune", choices=("median", "asha"), help="rule by which a job that is behind stops early")
    options = parser.parse_args(arguments)
    _stop_with_parent()
    for stream in (sys.stdout, sys.stderr):  # into a file, which others read meanwhile
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    start_logging()
    try:
        plan = read_plan(options.sweep)
        job = plan.jobs[options.number]
        folder = plan.get_folder(job)
        with folder.locked(wait_s=LOCK_WAIT_S):
            if is_finished(folder):
                return 0
            should_prune = create_pruning(plan, job, options.prune)
            return _run_attempt(plan, job, folder, call=options.call, cores=options.cores, should_prune=should_prune)
    except RunBusyError:
        return BUSY
    except FiresegError as error:
        return print_error(error)


def _run_attempt(
    plan: Plan, job: Job, folder: RunFolder, *, call: str, cores: int | None, should_prune: Callable[[int], bool]
) -> int:
    """Trains the job; the caller holds the lock of its folder."""
    earlier = read_record(folder)
    parts = _split_further(job.settings, earlier)
    begin_attempt(folder, call=call, parts=parts)
    from fireseg.engine import Interrupted, Interrupts  # imports torch, which takes seconds
    from fireseg.train.run import train

    try:
        with Interrupts(until_epoch_end=True) as interrupts, folder.logging_to_file():
            settings = _adapt(job.settings, parts=parts, cores=cores)
            point = find_resume_point(folder.path)
            name = job.name or folder.path.name
            sweep = plan.path.resolve().name
            train(
                *(settings, folder),
                point=point,
                interrupts=interrupts,
                run_name=name,
                sweep=sweep,
                should_prune=should_prune,
            )
    except Interrupted as request:
        end_attempt(folder, "stopped", exit_code=request.exit_code, reason="stopped by a signal")
        return request.exit_code
    except Exception as error:
        reason, exit_code = _describe(error), error.exit_code if isinstance(error, FiresegError) else 1
        is_splittable = _is_splittable(job.settings, parts=parts)
        state = "out of memory" if is_splittable and _is_out_of_memory(error) else "failed"
        if isinstance(error, FiresegError):
            print_error(error)
        else:
            traceback.print_exc()
        with suppress(FiresegError):  # a full disk: the error that ended the run is the one to report
            end_attempt(folder, state, exit_code=exit_code, reason=reason, last_lines=read_last_lines(folder))
        return exit_code
    end_attempt(folder, "finished", exit_code=0)
    return 0


def _is_splittable(settings: dict[str, Any], *, parts: int) -> bool:
    """Returns True if smaller batches can be accumulated; shards have no accumulation."""
    return settings["data"]["batch_size"] // parts > 1 and settings["engine"].get("shards", 1) == 1


def _split_further(settings: dict[str, Any], earlier: JobRecord) -> int:
    """Returns into how many parts to split each batch: more than before if memory ran out.

    The parts are of equal size, so that the patches of an optimizer step stay the same: a batch of 16 is halved, one
    of 9 becomes three of 3.
    """
    if earlier.state != "out of memory":
        return earlier.parts
    batch_size = settings["data"]["batch_size"] // earlier.parts
    return earlier.parts * next(factor for factor in range(2, batch_size + 1) if batch_size % factor == 0)


def _adapt(settings: dict[str, Any], *, parts: int, cores: int | None) -> dict[str, Any]:
    """Returns the settings with smaller batches and fewer loader processes; neither changes what an epoch trains on."""
    settings = copy.deepcopy(settings)
    data, engine = settings["data"], settings["engine"]
    if cores is not None:
        data["num_workers"] = min(data["num_workers"], cores)
    if parts > 1:
        planned = data["batch_size"]
        data["batch_size"] //= parts
        engine["accumulate"] = engine.get("accumulate", 1) * parts
        if engine["limit_batches"] is not None:
            engine["limit_batches"] *= parts
        log.warning(
            "memory ran out with data.batch_size=%d: data.batch_size=%d and engine.accumulate=%d instead, so that an "
            "optimizer step sees as many patches as before; batch normalisation sees fewer",
            planned,
            data["batch_size"],
            engine["accumulate"],
        )
    return settings


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Returns True if an error was caused by exhausted memory of the host or a device."""
    while error is not None:
        # torch's CPU allocator has no exception class of its own
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        if type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


def _describe(error: Exception) -> str:
    if isinstance(error, FiresegError):
        first, *others = error.faults
        return first + (f" (and {len(others)} more)" if others else "")
    return " ".join(f"{type(error).__name__}: {error}".split())


def _stop_with_parent() -> None:
    """Makes this process end like after SIGTERM when the process at the other end of its standard input has ended."""
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1024):  # empty at the end of the pipe
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
