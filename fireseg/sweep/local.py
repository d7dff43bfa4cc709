"""The local engine: runs the jobs of a sweep in processes of this machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fireseg.console import format_count
from fireseg.files import convert_disk_errors, count_cores
from fireseg.sweep.options import PruneRule
from fireseg.sweep.plan import Job, Plan, name_job
from fireseg.sweep.queue import BUSY, LOG, JobRecord, is_finished, read_record, read_state, record_loss
from fireseg.workers import limit_threads, receiving_signals

log = logging.getLogger("fireseg")

_POLL_S = 0.1
"""Seconds between two looks at the running processes."""

_SCAN_S = 1.0
"""Seconds between two looks at the jobs that other processes run, on a disk that many may share."""


Extend = Callable[[], Plan | None]
"""Adds a job to the plan of a search."""


class JobProcess:
    """A running process of a job, whose output goes to `job.log` in its run folder.

    Args:
        plan: The sweep.
        job: The job.
        call: Identity of this command.
        num_cores: Cores that the job may use.
        prune: Rule by which a job that is behind others is stopped early.
    """

    def __init__(self, plan: Plan, job: Job, *, call: str, num_cores: int, prune: PruneRule | None) -> None:
        self.job = job
        self.folder = plan.get_folder(job)
        with convert_disk_errors(self.folder.path):
            self.folder.path.mkdir(parents=True, exist_ok=True)
            output = (self.folder.path / LOG).open("ab")
        self.before = read_record(self.folder)
        self._position = output.tell()
        command = [*("-m", "fireseg.train.job"), str(_locate(plan)), str(job.number)]
        command += ["--call", call, "--cores", str(num_cores), *(["--prune", prune] if prune else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(limit_threads(num_cores))}
        with output:
            self._process = start_process(command, plan.cwd, output.fileno(), environment)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, or None while the process runs."""
        return self._process.poll()

    def send(self, signum: int) -> None:
        """Sends a signal to the process; SIGKILL to all processes that it has started."""
        with suppress(ProcessLookupError):
            if signum == signal.SIGKILL:
                os.killpg(self.pid, signum)
            else:
                os.kill(self.pid, signum)

    def close(self) -> None:
        """Ends what the process has left behind: loader processes, which would hold the lock for seconds."""
        self.send(signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def print_output(self) -> None:
        """Prints the lines that the process has written since the last call, after the number of the job."""
        with suppress(OSError), (self.folder.path / LOG).open("rb") as file:
            file.seek(self._position)
            content = file.read()
            complete = content[: content.rfind(b"\n") + 1]
            self._position += len(complete)
            for line in complete.decode(errors="replace").splitlines():
                sys.stdout.write(f"[{self.job.number}] {line}\n")
            sys.stdout.flush()


def start_process(command: list[str], cwd: Path, output: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts Python in a session of its own, so that Ctrl-C in the terminal reaches only the command.

    Standard input is a pipe that closes when this process ends, however it ends: the job then stops as well.
    """
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


class Drain:
    """Runs the jobs of a sweep until none is left for this process.

    Args:
        plan: The sweep.
        call: Identity of the command; a job that failed in one process of a command is not tried again in another.
        num_jobs: Jobs at the same time.
        retries: How often a job that was killed or ran out of memory is tried again.
        is_waiting: Also waits for jobs that other processes run, and takes over those whose process is lost.
        num_cores: Cores for all jobs together; by default those of the machine.
        prune: Rule by which a job that is behind others is stopped early.
        extend: Called when there is room for another job; returns the plan with one more, or None if there is none.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        call: str,
        num_jobs: int,
        retries: int,
        is_waiting: bool,
        num_cores: int | None = None,
        prune: PruneRule | None = None,
        extend: Extend | None = None,
    ) -> None:
        self._plan, self._call, self._num_jobs, self._is_waiting = plan, call, num_jobs, is_waiting
        self._max_tries, self._extend = 1 + retries, extend
        self._prune: PruneRule | None = prune
        self._num_cores = max(1, (num_cores or count_cores()) // num_jobs)
        self._tries: Counter[int] = Counter()
        self._running: dict[int, JobProcess] = {}
        self._signals: list[int] = []
        self._num_passed_on = 0
        self._awaited: list[str] = []
        records = {job.number: read_state(plan.get_folder(job)) for job in plan.jobs}
        self._failed_before = {number: record for number, record in records.items() if record.state == "failed"}
        self._finished = {number for number, record in records.items() if record.state == "finished"}

    def run(self) -> int:
        """Runs the jobs.

        Returns:
            Number of the signal that stopped it; 0 if it ended by itself.
        """
        next_scan = 0.0
        with receiving_signals(self._signals):
            try:
                while True:
                    has_ended = self._reap()
                    self._pass_on_signals()
                    if self._signals and not self._running:
                        return self._signals[0]
                    is_free = not self._signals and len(self._running) < self._num_jobs
                    if is_free and (has_ended or time.monotonic() >= next_scan):
                        num_elsewhere = self._start_jobs()
                        next_scan = time.monotonic() + _SCAN_S
                        if not self._running and not (num_elsewhere and self._is_waiting):
                            return 0
                    time.sleep(_POLL_S)
            except BaseException:
                for process in self._running.values():
                    process.send(signal.SIGTERM)
                raise

    def _reap(self) -> bool:
        """Handles the processes that have ended, and returns True if there are any."""
        ended = [process for process in self._running.values() if process.poll() is not None]
        for process in self._running.values():
            process.print_output()
        for process in ended:
            del self._running[process.job.number]
            process.close()
            self._handle_end(process)
        return bool(ended)

    def _handle_end(self, process: JobProcess) -> None:
        job, code = process.job, process.poll()
        assert code is not None
        if is_finished(process.folder):
            self._finished.add(job.number)
            log.info("%s: finished", name_job(job))
            return
        if code == BUSY:
            self._tries[job.number] -= 1
            return
        record = read_record(process.folder)
        if record == process.before or (record.state == "running" and record.pid == process.pid):
            self._record_loss(process, code, has_begun=record != process.before)
            record = read_record(process.folder)
        if record.state == "stopped" and self._signals:
            log.info("%s: stopped", name_job(job))
        elif record.state != "failed" and self._tries[job.number] < self._max_tries and not self._signals:
            log.warning("%s: %s; it is tried again from its last epoch", name_job(job), _explain(record))
        else:
            log.warning("%s: %s", name_job(job), _explain(record))

    def _record_loss(self, process: JobProcess, code: int, *, has_begun: bool) -> None:
        if self._signals:
            state, reason = "stopped", "stopped by a signal"
        elif code < 0:
            state, reason = "killed", f"its process was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                reason += ", which is also what the system does when memory runs out"
        else:
            state = "killed" if has_begun else "failed"  # an interpreter that cannot even start will not do so again
            reason = f"its process ended with exit code {code}"
        record_loss(
            process.folder, process.before, state, pid=process.pid, exit_code=code, reason=reason, call=self._call
        )

    def _start_jobs(self) -> int:
        """Starts jobs while there is room, and returns the number of jobs that other processes run."""
        elsewhere = []
        for job in self._plan.jobs:
            if job.number in self._finished or job.number in self._running:
                continue
            record = read_state(self._plan.get_folder(job))
            if record.state == "finished":
                self._finished.add(job.number)
            elif record.state == "running":
                elsewhere.append(f"{name_job(job)} (process {record.pid} on {record.host})")
            elif len(self._running) < self._num_jobs and self._is_due(job, record):
                self._tries[job.number] += 1
                self._start(job)
        while self._extend and len(self._running) < self._num_jobs and (plan := self._extend()):
            self._plan = plan
            self._tries[plan.jobs[-1].number] += 1
            self._start(plan.jobs[-1])
        if self._is_waiting and not self._running and elsewhere and elsewhere != self._awaited:
            log.info("waiting for %s of other processes: %s", format_count(len(elsewhere), "job"), "; ".join(elsewhere))
        self._awaited = elsewhere
        return len(elsewhere)

    def _is_due(self, job: Job, record: JobRecord) -> bool:
        if record.state == "failed":  # of an earlier command, unless it has failed again since
            return record.call != self._call and self._failed_before.get(job.number) == record
        return self._tries[job.number] < self._max_tries

    def _start(self, job: Job) -> None:
        process = JobProcess(self._plan, job, call=self._call, num_cores=self._num_cores, prune=self._prune)
        self._running[job.number] = process
        log.info("%s: started, %s", name_job(job), process.folder.path)

    def _pass_on_signals(self) -> None:
        for number in range(self._num_passed_on, len(self._signals)):
            messages = ("the running jobs finish their epoch; a second signal stops them now", "stopping now", "killed")
            if self._running:
                log.warning("%s", messages[min(number, 2)])
            for process in self._running.values():
                process.send(signal.SIGTERM if number < 2 else signal.SIGKILL)
        self._num_passed_on = len(self._signals)


def _locate(plan: Plan) -> Path:
    """Returns the path of the sweep as seen from the working folder of its jobs, relative if it is inside."""
    path = plan.path.resolve()
    return path.relative_to(plan.cwd) if path.is_relative_to(plan.cwd) else path


def _explain(record: JobRecord) -> str:
    return f"{record.state}: {record.reason}" if record.reason else record.state
