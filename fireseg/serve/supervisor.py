"""Runs the worker process: hands it one scene after the other, and ends it when it takes too long."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from fireseg.errors import FiresegError, convert_unexpected_errors
from fireseg.serve.names import find_scene
from fireseg.serve.options import ServeOptions
from fireseg.serve.store import INPUT, Job, Store

log = logging.getLogger("fireseg")

_LOADING_LIMIT_S = 600.0

_POLL_S = 0.5


class Supervisor:
    """Maps the scenes of a store in a worker process, in a thread of the server.

    A worker that crashes, or is ended because a scene takes too long, costs that one scene; the next scene gets a new
    worker.

    Args:
        store: Scenes.
        options: Run and limits.
        on_failure: Called if the run cannot be loaded, after which no scene can be mapped.

    Attributes:
        model: `run`, `bands` and `labels` of the loaded model; None until then.
        error: Why the run cannot be loaded.
    """

    def __init__(self, store: Store, options: ServeOptions, *, on_failure: Callable[[], None]) -> None:
        self.model: dict[str, Any] | None = None
        self.error: tuple[tuple[str, ...], int] | None = None
        self._store, self._options, self._on_failure = store, options, on_failure
        self._root = options.root.resolve() if options.root else None
        self._progress: dict[str, dict[str, Any]] = {}
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the worker; the scene that it maps is queued again."""
        self._is_stopping.set()
        self._thread.join()

    def get_progress(self, job: Job) -> dict[str, Any] | None:
        """Returns the stage and the share, 0 to 1, of a scene that is being mapped; None for others."""
        return self._progress.get(job.id)

    def _run(self) -> None:
        try:
            with convert_unexpected_errors("serve"):
                self._map_scenes()
        except FiresegError as error:  # the disk is full, or a bug: no scene would be mapped any more
            self.error = error.faults, error.exit_code
            self._on_failure()

    def _map_scenes(self) -> None:
        worker = None
        try:
            while not self._is_stopping.is_set():
                if worker is None:
                    worker = _Worker(self._options)
                    if not self._wait_for_model(worker):
                        return
                if (job := self._store.take(_POLL_S)) is None:
                    if worker.is_running():
                        continue
                elif self._map(worker, job):
                    continue
                worker.kill()
                worker = None
        finally:
            if worker is not None:
                worker.kill()

    def _wait_for_model(self, worker: _Worker) -> bool:
        deadline = time.monotonic() + _LOADING_LIMIT_S
        while not self._is_stopping.is_set():
            message = worker.receive(_POLL_S)
            if message is not None and "run" in message:
                self.model = message
                log.info("%s is loaded", message["run"])
                return True
            if message is not None or not worker.is_running() or time.monotonic() > deadline:
                worker.kill()
                fault = f"{self._options.run}: the process that loads it {worker.describe_end()}; see above"
                content = message or {}
                self.error = tuple(content.get("faults", [fault])), int(content.get("exit_code", 1))
                self._on_failure()
                return False
        worker.kill()
        return False

    def _find_base(self, job: Job) -> Path:
        """Returns the folder that the name of a scene belongs to, after another look at what lies there now."""
        if not job.root:
            return self._store.get_folder(job) / INPUT
        if self._root is None or str(self._root) != job.root:
            raise FiresegError(f"{job.name}: lies below another --root than that of this server; pick it again")
        find_scene(self._root, job.name)
        return self._root

    def _map(self, worker: _Worker, job: Job) -> bool:
        """Maps a scene; returns True if the worker can map the next one."""
        limit_min = self._options.time_limit_min
        deadline = time.monotonic() + 60 * limit_min
        folder = self._store.get_folder(job)
        log.info("%s: mapping", job.name)
        self._progress[job.id] = {"stage": "reading", "share": 0.0}
        faults: tuple[str, ...] | None = None
        try:
            try:
                base = self._find_base(job)
            except FiresegError as error:
                faults = error.faults
                return True
            worker.send({"scene": job.name, "base": str(base), "folder": str(folder), "settings": job.settings})
            while not self._is_stopping.is_set():
                message = worker.receive(_POLL_S)
                if message is not None and "stage" in message:
                    self._progress[job.id] = message
                elif message is not None:
                    faults = tuple(message.get("faults", ()))
                    return True
                elif not worker.is_running():
                    faults = (f"{job.name}: the process that maps it {worker.describe_end()}; map a smaller part",)
                    return False
                elif time.monotonic() > deadline:
                    faults = (
                        f"{job.name}: not mapped within {limit_min:g} minutes; map a smaller part, or start the "
                        "server with a larger --time-limit-min",
                    )
                    return False
            return False
        finally:
            if faults is None:
                worker.kill()
                self._store.put_back(job)
            else:
                self._store.finish(job, faults)
                log.info("%s: %s", job.name, "; ".join(faults) or "done")
            self._progress.pop(job.id, None)


class _Worker:
    """The process, and its messages as a thread reads them."""

    def __init__(self, options: ServeOptions) -> None:
        limits = (str(options.memory_gb), str(options.max_megapixels))
        command = [sys.executable, "-m", "fireseg.serve.worker", options.run, options.device, *limits]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal reaches the server alone
            env={**os.environ, "CPL_LOG": os.devnull},
        )
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, as the caller will see
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        with suppress(queue.Empty):
            return self._messages.get(timeout=timeout_s)
        return None

    def is_running(self) -> bool:
        """Returns True while the process runs or has messages left."""
        return self._reader.is_alive() or not self._messages.empty()

    def describe_end(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was ended by {signal.Signals(-code).name}, perhaps because memory ran out"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _read(self, stdout: IO[str]) -> None:
        with suppress(ValueError):
            for line in stdout:
                self._messages.put(json.loads(line))
