"""One pass over a split, many files at a time; a second pass reads only what has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fireseg.data.measure import PatchFacts, measure
from fireseg.data.patches import Fault, PatchSource, Stamp, UnreadableError
from fireseg.disk import replacing
from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX

CACHE_VERSION = 1


@dataclass(frozen=True)
class SplitScan:
    """What lies in a split folder.

    Args:
        source: Where the patches are read from.
        patches: Facts of every patch that could be read, sorted by name.
        faults: Files that could not be read, and halves of patches.
        notes: What the user should know though it stops nothing.
    """

    source: PatchSource
    patches: tuple[PatchFacts, ...]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The split folder."""
        return self.source.folder


def scan_split(source: PatchSource, *, ignore_index: int = IGNORE_INDEX, num_threads: int | None = None) -> SplitScan:
    """Reads every patch of a split once, ever.

    What is found does not depend on the task, but for the ignored value, nor on the number of
    threads. It is kept in the folder by file name, size and time; a folder that cannot be written
    is read again at each start.

    Args:
        source: The patches of a split, by whatever names they have.
        ignore_index: Mask value that stays out of the sums.
        num_threads: How many files are read at a time; by default twice the cores allowed, at most 16.
    """
    stamps, faults = source.list_stamps()
    cache = source.folder / source.cache_name
    known = _read_cache(cache, ignore_index)
    facts = {name: known[name][1] for name, stamp in stamps.items() if name in known and known[name][0] == stamp}
    notes: list[str] = []
    if fresh := [name for name in stamps if name not in facts]:
        try:
            for name, found in _measure_all(source.take(fresh), ignore_index, num_threads):
                if isinstance(found, PatchFacts):
                    facts[name] = found
                else:
                    faults.append(found)
        finally:  # an interrupted pass goes on where it was
            notes += _write_cache(cache, ignore_index, stamps, facts)
    patches = tuple(facts[name] for name in stamps if name in facts)
    return SplitScan(source, patches, tuple(sorted(faults)), tuple(notes))


class _Bar(tqdm):
    """A bar without tqdm's watching thread, which worker processes would be forked beside."""

    monitor_interval = 0


def _measure_all(
    source: PatchSource, ignore_index: int, num_threads: int | None
) -> Iterator[tuple[str, PatchFacts | Fault]]:
    """Facts or a fault for each, in the order of the names, whatever the number of threads."""
    names, title = source.names, f"checking {source.folder}"

    def look(index: int) -> PatchFacts | Fault:
        try:
            image, mask = source.read(index)
        except UnreadableError as error:
            return error.fault
        return measure(names[index], image, mask, ignore_index)

    with _threads(num_threads) as pool:
        found = pool.map(look, range(len(names)))
        yield from zip(names, _Bar(found, title, len(names), disable=None, unit="patch"), strict=True)


@contextmanager
def _threads(num_threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what they have not begun as soon as someone presses Ctrl-C."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(num_threads or min(2 * cores, 16))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _read_cache(path: Path, ignore_index: int) -> dict[str, tuple[Stamp, PatchFacts]]:
    """What an earlier pass found; nothing where there was none, or it was another version's, or is not readable."""
    try:
        content = json.loads(path.read_text())
        if (content["version"], content["ignore_index"]) != (CACHE_VERSION, ignore_index):
            return {}
        return {record["name"]: (tuple(stamp), PatchFacts.from_json(record)) for stamp, record in content["patches"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_cache(
    path: Path, ignore_index: int, stamps: Mapping[str, Stamp], facts: Mapping[str, PatchFacts]
) -> list[str]:
    """Keeps what was found; returns a note if the folder cannot be written."""
    patches = [(stamps[name], facts[name].to_json()) for name in stamps if name in facts]
    content = {"version": CACHE_VERSION, "ignore_index": ignore_index, "patches": patches}
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(content))
    except FiresegError as error:
        return [f"{error}; until then all its patches are read again at each start"]
    return []
