"""Tiles spread over processes, and their patches put in order."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from fireseg.console import format_seconds
from fireseg.errors import FiresegError
from fireseg.files import end_with_parent

log = logging.getLogger("fireseg")

Result = TypeVar("Result")

Result_co = TypeVar("Result_co", covariant=True)

_MOST_HELD = 2
"""Jobs that a worker holds, the one it is at included: it need not wait for a slow neighbour, nor fill the memory."""


class TaskRunner(Protocol[Result_co]):
    """Work in two steps: what comes out of the first decides where the second one writes."""

    def cut(self, number: int) -> Result_co:
        """Does the work and keeps what is heavy."""
        ...

    def write(self, number: int, first: int) -> None:
        """Writes what was kept to its place, in another thread than the next job is cut in."""
        ...


def run_in_order(
    craft: TaskRunner[Result], numbers: Sequence[int], place: Callable[[Result], int], *, workers: int
) -> Iterator[tuple[int, Result]]:
    """Yields what comes of each job, in order, once it is written.

    What is heavy never leaves the process that made it: only small results and places travel.

    Args:
        craft: What does the work. With several workers each gets a copy of it.
        numbers: The jobs.
        place: Where the second step writes; called in the order of the jobs.
        workers: Processes; with 1 the calling process does the work itself.

    Raises:
        FiresegError: If a worker meets one, or is ended from outside.
    """
    if min(workers, len(numbers)) <= 1:
        yield from _work_alone(craft, numbers, place)
        return
    with _Crew(craft, min(workers, len(numbers))) as crew:
        yield from crew.run(numbers, place)


def _work_alone(
    craft: TaskRunner[Result], numbers: Sequence[int], place: Callable[[Result], int]
) -> Iterator[tuple[int, Result]]:
    """One tile is written, which is mostly waiting for the disk, while the next one is cut."""
    with ThreadPoolExecutor(1) as writer:
        before: tuple[int, Result, Future[None]] | None = None
        for number in numbers:
            result = craft.cut(number)
            if before is not None:
                before[2].result()
                yield before[:2]
            before = number, result, writer.submit(craft.write, number, place(result))
        if before is not None:
            before[2].result()
            yield before[:2]


@dataclass
class _Worker:
    """One process, and what it has before it."""

    process: BaseProcess
    pipe: Connection
    is_cutting: bool = False
    held: int = 0


class _Crew(Generic[Result]):
    """Worker processes that end with this one."""

    def __init__(self, craft: TaskRunner[Result], count: int) -> None:
        # Spawned, because the calling process may have threads, and a fork would copy their locks.
        context = multiprocessing.get_context("spawn")
        self._workers = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, craft), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def __enter__(self) -> _Crew[Result]:
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    def run(self, numbers: Sequence[int], place: Callable[[Result], int]) -> Iterator[tuple[int, Result]]:
        waiting = deque(numbers)
        to_place, to_yield = deque(numbers), deque(numbers)
        results: dict[int, tuple[_Worker, Result]] = {}
        written: set[int] = set()
        while to_yield:
            for worker in self._workers:
                if waiting and not worker.is_cutting and worker.held < _MOST_HELD:
                    worker.pipe.send(("cut", waiting.popleft(), 0))
                    worker.is_cutting, worker.held = True, worker.held + 1
            for worker, (step, number, result) in self._hear():
                if step == "written":
                    written.add(number)
                    worker.held -= 1
                else:
                    results[number] = worker, result
                    worker.is_cutting = False
            while to_place and to_place[0] in results:
                number = to_place.popleft()
                worker, result = results[number]
                worker.pipe.send(("write", number, place(result)))
            while to_yield and to_yield[0] in written:
                number = to_yield.popleft()
                yield number, results.pop(number)[1]

    def _hear(self) -> Iterator[tuple[_Worker, Any]]:
        """What the workers have done by now; waits for one at least."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe)):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            try:
                answer = pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                worker.process.join()
                raise FiresegError(
                    f"a worker was ended from outside (exit code {worker.process.exitcode}), perhaps for want of "
                    "memory; give the same command again, with fewer --workers: what is done is kept"
                ) from error
            if answer[0] == "failed":
                raise FiresegError(*answer[2])
            yield worker, answer


def _serve(pipe: Connection, craft: TaskRunner[Any]) -> None:
    """What a worker does until it is ended: cuts, and in a thread beside it writes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    end_with_parent()
    telling = threading.Lock()

    def do(step: str, number: int, work: Callable[[], Any]) -> None:
        try:
            answer = (step, number, work())
        except FiresegError as error:
            answer = ("failed", number, error.faults)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        with telling:
            pipe.send(answer)

    with ThreadPoolExecutor(1) as writer:
        while True:
            try:
                step, number, first = pipe.recv()
            except EOFError:
                return
            if step == "cut":
                do("cut", number, partial(craft.cut, number))
            else:
                writer.submit(do, "written", number, partial(craft.write, number, first))


_LINE_EVERY_S = 30.0


class TileProgress:
    """Counts tiles: a bar with the time left on a terminal, elsewhere a line now and then.

    Args:
        total: Tiles in all.
        done: Tiles done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._begin = self._said = time.monotonic()
        self._total, self._before, self._done = total, done, done
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc="tiles", unit="tile", leave=False, disable=not is_terminal)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def advance(self, what: str) -> None:
        """One tile more.

        Args:
            what: To be shown beside the bar.
        """
        self._done += 1
        self._bar.set_postfix_str(what, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._said >= _LINE_EVERY_S and self._done < self._total:
            self._said = now
            left = self.seconds / (self._done - self._before) * (self._total - self._done)
            log.info("%d of %d tiles, %s; %s left", self._done, self._total, what, format_seconds(left))

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()


@contextmanager
def track_tiles(total: int, *, done: int) -> Iterator[TileProgress]:
    """Shows the pace of what happens within."""
    pace = TileProgress(total, done)
    try:
        yield pace
    finally:
        pace.close()
