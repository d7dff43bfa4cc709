"""Jobs spread over processes that end with their parent."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from fireseg.data.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int) -> Iterator[Result]:
    """Yields what the jobs give, in whatever order they are done.

    Args:
        work: A function of a module, so that another process can find it.
        jobs: What it is called with.
        workers: Processes; with 1 the calling process does the work itself.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    # Spawned, because the process that asks has threads by now, and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=end_with_parent) as pool:
        try:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)
