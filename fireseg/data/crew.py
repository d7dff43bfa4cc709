"""Tiles spread over processes, and their patches put in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

from fireseg.errors import FiresegError

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_MOST_HELD = 2
"""Jobs a worker may hold, the one it is at included: it need not wait for a slow neighbour, and memory stays bounded."""


class Craft(Protocol[Result_co]):
    """Work in two steps: what comes out of the first decides where the second one writes."""

    def cut(self, number: int) -> Result_co:
        """Does the work and keeps what is heavy."""
        ...

    def write(self, number: int, first: int) -> None:
        """Writes what was kept to its place."""
        ...


def work_in_order(
    craft: Craft[Result], numbers: Sequence[int], place: Callable[[Result], int], *, workers: int
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
        for number in numbers:
            result = craft.cut(number)
            craft.write(number, place(result))
            yield number, result
        return
    with _Crew(craft, min(workers, len(numbers))) as crew:
        yield from crew.run(numbers, place)


@dataclass
class _Worker:
    """One process, and what it has before it."""

    process: BaseProcess
    pipe: Connection
    is_idle: bool = True
    held: int = 0
    writes: deque[tuple[int, int]] = field(default_factory=deque)


class _Crew(Generic[Result]):
    """Worker processes that end with this one."""

    def __init__(self, craft: Craft[Result], count: int) -> None:
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
                _give_work(worker, waiting)
            for worker, (step, number, result) in self._hear():
                if step == "written":
                    written.add(number)
                    worker.held -= 1
                else:
                    results[number] = worker, result
            while to_place and to_place[0] in results:
                number = to_place.popleft()
                worker, result = results[number]
                worker.writes.append((number, place(result)))
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
                    f"a worker was ended from outside (exit code {worker.process.exitcode}), perhaps for want of memory; "
                    "give the same command again, with fewer --workers: what is done is kept"
                ) from error
            if answer[0] == "failed":
                raise FiresegError(*answer[2])
            worker.is_idle = True
            yield worker, answer


def _give_work(worker: _Worker, waiting: deque[int]) -> None:
    if not worker.is_idle:
        return
    if worker.writes:
        worker.pipe.send(("write", *worker.writes.popleft()))
    elif waiting and worker.held < _MOST_HELD:
        worker.held += 1
        worker.pipe.send(("cut", waiting.popleft(), 0))
    else:
        return
    worker.is_idle = False


def _serve(pipe: Connection, craft: Craft[Any]) -> None:
    """What a worker does until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    _end_with_parent()
    while True:
        try:
            step, number, first = pipe.recv()
        except EOFError:
            return
        try:
            if step == "cut":
                pipe.send(("cut", number, craft.cut(number)))
            else:
                craft.write(number, first)
                pipe.send(("written", number, None))
        except FiresegError as error:
            pipe.send(("failed", number, error.faults))


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on with what it is at."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
