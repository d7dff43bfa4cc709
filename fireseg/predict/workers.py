"""Maps scenes with several workers at the same time, which are processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from fireseg.errors import FiresegError, OutOfMemoryError, convert_unexpected_errors
from fireseg.files import count_cores, end_with_parent
from fireseg.predict.manifest import Settings, get_settings, read_map
from fireseg.predict.options import PredictOptions
from fireseg.predict.outputs import MapFiles, get_decision_threshold, remove_unfinished
from fireseg.runs.folder import host
from fireseg.tiles.products import Scene, get_scene_name
from fireseg.workers import choose_gpus, connected_to_ray, limit_threads

if TYPE_CHECKING:
    from fireseg.runs import TrainedModel
    from fireseg.runtime.engines import InferenceEngine

log = logging.getLogger("fireseg")

_MAX_TRIES = 2
"""How often a scene is begun whose worker is lost, or runs out of memory."""

POLL_S = 0.5

_LOCK_WAIT_S = 60.0
"""Seconds to wait for a map that a lost process still writes: Ray ends the workers of a lost node within a minute."""

_STOP_S = 10.0
"""Seconds in which a worker that is stopped has to remove the files of its unfinished map."""


class Answer(NamedTuple):
    """Message of a worker, or of the pool about it.

    Attributes:
        worker: Key of the worker.
        kind: `ready` with its model loaded; `done` or `failed` with a scene; `memory` if it ran out of memory with
            it; `unfit` if it cannot work at all; `lost` if its process or its node has ended.
        value: The summary and the seconds of a map that is done, else the faults.
    """

    worker: Any
    kind: Literal["ready", "done", "failed", "memory", "unfit", "lost"]
    value: Any = None


class SceneWorker:
    """Maps scenes one after the other with a model that is loaded once.

    Args:
        options: Options of the command.
        settings: What shapes the maps; a model that gives other ones is refused.
        cwd: Working folder of the command.
        num_threads: CPU threads.
    """

    def __init__(self, options: PredictOptions, settings: Settings, cwd: str, num_threads: int) -> None:
        self._options, self._settings, self._cwd, self.num_threads = options, settings, cwd, num_threads
        self._trained: TrainedModel | None = None
        self._engine: InferenceEngine | None = None

    def load(self) -> tuple[Literal["ready", "unfit"], Any]:
        """Loads the model once; does not raise an error that a user can mend, because Ray would wrap it."""
        if self._trained is not None:
            return "ready", None
        try:
            if not Path(self._cwd).is_dir():
                raise FiresegError(
                    f"{self._cwd} does not exist on {host()}; the nodes must share the disk of the working folder"
                )
            os.chdir(self._cwd)
            # Flags are part of the maps, and are printed with the table.
            logging.getLogger("fireseg").setLevel(logging.ERROR)
            from fireseg.runs import load_trained_model
            from fireseg.runtime.engines import create_engine

            options = self._options
            trained = load_trained_model(options.run, device=options.device, threads=self.num_threads, build=False)
            decision = get_decision_threshold(trained, options.threshold, options.temperature)
            if get_settings(trained.sha256, decision, options) != self._settings:
                raise FiresegError(
                    f"{options.run}: its model or calibration has changed since the command began; start it again"
                )
            self._engine = create_engine(trained, runtime=options.runtime, precision=options.precision)
            self._trained = trained
        except FiresegError as error:
            return "unfit", error.faults
        return "ready", None

    def map_scene(self, scene: Scene) -> tuple[Literal["done", "failed", "memory"], Any]:
        """Maps a scene, unless another process has finished its map in the meantime."""
        from fireseg.predict.scene import predict_scene

        assert self._trained is not None
        options, name = self._options, get_scene_name(scene)
        files = MapFiles.of(options.out, name)
        try:
            with convert_unexpected_errors(scene):
                remove_unfinished(options.out, name, wait_s=_LOCK_WAIT_S)
                summary = None if options.overwrite else read_map(files, self._settings, str(scene))
                if summary is not None:
                    return "done", (summary, 0.0)
                result = predict_scene(self._trained, scene, options.out, options=options, engine=self._engine)
        except FiresegError as error:
            return "memory" if isinstance(error, OutOfMemoryError) else "failed", error.faults
        return "done", (result.summary, result.seconds)


class WorkerPool(Protocol):
    """Processes with a `SceneWorker` each."""

    def count_room(self) -> int:
        """Returns the number of workers that there is room for now."""
        ...

    def start(self) -> Any:
        """Starts a worker and returns its key; `receive` says when it is ready."""
        ...

    def submit(self, worker: Any, scene: Scene) -> bool:
        """Passes a scene to a worker; returns False if the worker was lost before."""
        ...

    def receive(self) -> list[Answer]:
        """Returns the answers of workers; waits half a second for one."""
        ...

    def stop(self) -> None:
        """Stops all workers at once."""
        ...


def map_scenes(
    pool: WorkerPool, scenes: Sequence[Scene], out: Path, signals: Sequence[int]
) -> Iterator[tuple[Scene, tuple[dict[str, Any], float] | FiresegError]]:
    """Maps scenes with the workers of a pool and yields their summary and seconds, or their error, as they end.

    A scene whose worker is lost or runs out of memory is tried once more, when all others have begun.

    Args:
        pool: The workers.
        scenes: Scenes to map.
        out: Output folder.
        signals: Signals that the command has received: after the first one no further scene is begun, and after the
            second one the workers are stopped.

    Raises:
        FiresegError: If no worker can begin to work.
    """
    waiting, tries = deque(scenes), Counter[Scene]()
    starting: set[Any] = set()
    idle: list[Any] = []
    running: dict[Any, Scene] = {}
    failed_starts: list[str] = []
    is_stopping = False
    while waiting or running:
        if signals and not is_stopping:
            is_stopping = True
            if running:
                log.warning("the running scenes are finished; a second signal stops them now")
        if signals and (not running or len(signals) > 1):
            break
        num_wanted = 0 if signals else len(waiting) + len(running)
        while len(starting) + len(idle) + len(running) < min(num_wanted, pool.count_room()) and len(failed_starts) < 3:
            starting.add(pool.start())
        while idle and waiting and not signals:
            if pool.submit(worker := idle.pop(), waiting[0]):
                running[worker] = waiting.popleft()
                tries[running[worker]] += 1
        if not (starting or running or idle) and len(failed_starts) >= 3:
            raise FiresegError(f"--workers: they end before they begin ({failed_starts[-1]}); choose fewer")
        for worker, kind, value in pool.receive():
            starting.discard(worker)
            if kind == "unfit":
                raise FiresegError(*value)
            if kind == "ready":
                failed_starts.clear()
            scene = running.pop(worker, None)
            if kind != "lost":
                idle.append(worker)
            elif worker in idle:
                idle.remove(worker)
            if scene is None:
                failed_starts += [value[0]] if kind == "lost" else []
            elif kind in ("lost", "memory") and tries[scene] < _MAX_TRIES:
                log.warning("%s: %s; it is tried once more", scene, value[0])
                waiting.append(scene)
            else:
                if kind == "lost":
                    remove_unfinished(out, get_scene_name(scene))
                    yield scene, FiresegError(f"{scene}: {value[0]}, at the second try too; choose fewer --workers")
                else:
                    yield scene, value if kind == "done" else FiresegError(*value)
    pool.stop()
    for scene in running.values():
        remove_unfinished(out, get_scene_name(scene), wait_s=_STOP_S)


@dataclass
class _Process:
    process: BaseProcess
    pipe: Connection


class LocalPool:
    """Spawned processes of this machine, which end with the command.

    Not a `concurrent.futures.ProcessPoolExecutor`, which gives up all of its work when one process is killed.

    Args:
        worker: The worker; copied to each process.
        count: Number of processes.
    """

    def __init__(self, worker: SceneWorker, count: int) -> None:
        self._worker, self._count = worker, count
        self._processes: dict[int, _Process] = {}

    def count_room(self) -> int:
        """Returns the number of processes."""
        return self._count

    def start(self) -> int:
        """Starts a process and returns its id."""
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads
        pipe, worker_pipe = context.Pipe()
        process = context.Process(target=_serve, args=(worker_pipe, self._worker), daemon=True)
        with _limited_threads(self._worker.num_threads):
            process.start()
        worker_pipe.close()
        assert process.pid is not None
        self._processes[process.pid] = _Process(process, pipe)
        return process.pid

    def submit(self, worker: int, scene: Scene) -> bool:
        """Passes a scene to a process; returns False if it was killed before."""
        try:
            self._processes[worker].pipe.send(scene)
        except (BrokenPipeError, ConnectionResetError):  # killed while it was idle
            return False
        return True

    def receive(self) -> list[Answer]:
        """Returns the answers of processes, and which have ended."""
        answers = []
        by_pipe = {each.pipe: pid for pid, each in self._processes.items()}
        for pipe in wait(list(by_pipe), timeout=POLL_S):
            assert isinstance(pipe, Connection)
            pid = by_pipe[pipe]
            try:
                answers.append(Answer(pid, *pipe.recv()))
            except (EOFError, ConnectionResetError):
                process = self._processes.pop(pid).process
                process.join()
                answers.append(Answer(pid, "lost", [_explain_end(process.exitcode)]))
        return answers

    def stop(self) -> None:
        """Stops the processes, which remove their unfinished maps."""
        for each in self._processes.values():
            each.process.terminate()
        deadline = time.monotonic() + _STOP_S
        for each in self._processes.values():
            each.process.join(max(0.0, deadline - time.monotonic()))
            each.process.kill()
            each.process.join()
            each.pipe.close()
        self._processes.clear()


@contextmanager
def _limited_threads(number: int) -> Iterator[None]:
    """Sets the number of threads that libraries read from the environment of a process when they are imported."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = str(number)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _explain_end(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its worker was killed by SIGKILL, which is also what the system does when memory runs out"
    if code is not None and code < 0:
        return f"its worker was killed by {signal.Signals(-code).name}"
    return f"its worker ended with exit code {code}"


def _serve(pipe: Connection, worker: SceneWorker) -> None:
    """Runs the loop of a worker process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # reach all processes of a terminal; the parent handles them
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # removes the unfinished map on its way
    end_with_parent()
    answer: tuple[str, Any] = worker.load()
    while True:
        pipe.send(answer)
        try:
            scene = pipe.recv()
        except EOFError:
            return
        answer = worker.map_scene(scene)


@contextmanager
def open_pool(options: PredictOptions, settings: Settings, num_scenes: int) -> Iterator[WorkerPool]:
    """Yields the pool that the options name, and ends its processes.

    Args:
        options: Options of the command.
        settings: What shapes the maps.
        num_scenes: Scenes to map.

    Raises:
        SettingError: If Ray is not installed, or has no room for a worker.
        FiresegError: If the cluster cannot be reached.
    """
    worker: Callable[[int], SceneWorker] = lambda num_threads: SceneWorker(  # noqa: E731
        options, settings, str(Path.cwd()), num_threads
    )
    if options.workers != "ray":
        count = min(int(options.workers), num_scenes)
        num_cores = options.cores_per_worker or limit_threads(max(1, count_cores() // count))
        pool = LocalPool(worker(num_cores), count)
        try:
            yield pool
        finally:
            pool.stop()
        return
    from fireseg.predict.ray import RayPool

    with connected_to_ray(options.address, "--workers"):
        num_cores = options.cores_per_worker or 1
        pool = RayPool(worker(num_cores), num_cores, choose_gpus(options.gpus_per_worker, "--gpus-per-worker"))
        if not pool.count_room():
            raise FiresegError(
                f"--cores-per-worker: no node of the Ray cluster has {num_cores} cores for a worker; choose fewer"
            )
        try:
            yield pool
        finally:
            pool.stop()
