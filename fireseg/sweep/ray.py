"""The Ray engine: runs each job of a sweep as a task of a Ray cluster, in a process of its own."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from fireseg.errors import FiresegError
from fireseg.runs.folder import host
from fireseg.sweep.local import Drain, Extend
from fireseg.sweep.options import EngineOptions, PruneRule
from fireseg.sweep.plan import Job, Plan, choose_job, read_plan
from fireseg.sweep.queue import read_state
from fireseg.sweep.store import check_shared_store
from fireseg.workers import choose_gpus, connected_to_ray, receiving_signals

log = logging.getLogger("fireseg")

_POLL_S = 0.5


def run_in_ray(plan: Plan, options: EngineOptions, call: str, extend: Extend | None = None) -> int:
    """Runs what is missing from a sweep in a Ray cluster.

    The folder of the sweep and the patches must be on a disk that all nodes share. A job whose node or process is
    lost is tried again elsewhere, from its last epoch.

    Args:
        plan: The sweep.
        options: Options of the engine.
        call: Identity of the command.
        extend: Called when there is room for another job; returns the plan with one more, or None if there is none.

    Returns:
        Number of the signal that stopped it; 0 if it ended by itself.

    Raises:
        SettingError: If Ray is not installed or has no room for a job, or the store is an SQLite file.
        FiresegError: If the cluster cannot be reached.
    """
    with connected_to_ray(options.address, "--engine"):
        import ray

        nodes = [node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]]
        if len(nodes) > 1 or nodes != [host()]:
            check_shared_store(plan)
        task = ray.remote(max_calls=1, max_retries=options.retries)(_run_job)
        task = task.options(num_cpus=1, num_gpus=choose_gpus(options.gpus_per_job, "--gpus-per-job"))
        return _Driver(plan, options, call, task, extend).run()


class _Driver:
    """Keeps as many tasks in the cluster as wanted, and passes signals on to them."""

    def __init__(self, plan: Plan, options: EngineOptions, call: str, task: Any, extend: Extend | None) -> None:
        import ray

        self._plan, self._options, self._call, self._task, self._extend = plan, options, call, task, extend
        self._waiting = [job for job in plan.jobs if read_state(plan.get_folder(job)).state != "finished"]
        # The trials of a search are chosen when there is room for them: by then, earlier ones have ended.
        room = len(plan.jobs) if extend is None else max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._max_running = options.jobs or room
        self._running: dict[Any, int] = {}
        self._signals: list[int] = []

    def run(self) -> int:
        import ray

        num_passed_on = 0
        with receiving_signals(self._signals):
            while True:
                while len(self._running) < self._max_running and not self._signals and (job := self._choose_next()):
                    self._submit(job)
                if not self._running:
                    return self._signals[0] if self._signals else 0
                done, _ = ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
                for reference in done:
                    self._handle_end(reference)
                if len(self._signals) > num_passed_on:
                    self._pass_on(is_first=num_passed_on == 0)
                    num_passed_on = len(self._signals)

    def _choose_next(self) -> Job | None:
        if self._waiting:
            return self._waiting.pop(0)
        if self._extend is None or (plan := self._extend()) is None:
            return None
        self._plan = plan
        return plan.jobs[-1]

    def _submit(self, job: Job) -> None:
        path, cwd = str(self._plan.path.resolve()), str(self._plan.cwd)
        reference = self._task.remote(path, cwd, job.number, self._call, self._options.retries, self._options.prune)
        self._running[reference] = job.number

    def _handle_end(self, reference: Any) -> None:
        import ray
        from ray.exceptions import RayError

        number = self._running.pop(reference)
        try:
            for fault in ray.get(reference):
                log.warning("job %d: %s", number, fault)
        except RayError as error:
            if not self._signals:
                log.warning("job %d: given up: %s", number, " ".join(str(error).split())[:300])

    def _pass_on(self, *, is_first: bool) -> None:
        import ray

        message = "the running jobs finish their epoch; a second signal stops them now" if is_first else "stopping now"
        log.warning("%s", message)
        for reference in self._running:
            ray.cancel(reference, force=not is_first)


def _run_job(path: str, cwd: str, number: int, call: str, retries: int, prune: PruneRule | None) -> tuple[str, ...]:
    """Runs a job in a process of Ray, which ends with it; the first cancellation of the task arrives as SIGINT.

    Returns:
        Why the job could not be run here, if so.
    """
    import ray

    if not Path(cwd).is_dir():
        return (f"{cwd} does not exist on {host()}; the nodes must share the disk of the working folder",)
    os.chdir(cwd)
    logging.getLogger("fireseg").setLevel(logging.WARNING)
    num_cores = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
    try:
        plan = choose_job(read_plan(Path(path)), number)
        # Another try at a job whose node was lost waits until the lock of its folder is free.
        drain = Drain(plan, call=call, num_jobs=1, retries=retries, is_waiting=True, num_cores=num_cores, prune=prune)
        drain.run()
    except FiresegError as error:
        return error.faults
    return ()
