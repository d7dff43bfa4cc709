"""One pass over a split, many files at a time; a second pass reads only what has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fireseg.data.patches import Fault, PatchSource, Stamp, UnreadableError
from fireseg.errors import FiresegError
from fireseg.files import atomic_write
from fireseg.task import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True)
class PatchStatistics:
    """One patch in numbers. Those about pixels are there only where image and mask fit together.

    Args:
        name: Its name.
        image_shape: As stored, `(H, W, C)` where all is well.
        image_dtype: As stored, `float32` where all is well.
        mask_shape: As stored, `(H, W)` where all is well.
        mask_dtype: As stored, `uint8` where all is well.
        low: Smallest finite value of the image.
        high: Largest finite value of the image.
        num_not_finite: How many values of the image are NaN or infinite.
        pixels: How many pixels of the mask have each value that occurs, the ignored one included.
        band_sums: Sum of each channel over the labelled pixels, in float64.
        band_squares: Sum of squares of each channel over the labelled pixels, in float64.
        digest: SHA-256 of the values: the same however they are stored.
    """

    name: str
    image_shape: tuple[int, ...]
    image_dtype: str
    mask_shape: tuple[int, ...]
    mask_dtype: str
    low: float = 0.0
    high: float = 0.0
    num_not_finite: int = 0
    pixels: dict[int, int] = field(default_factory=dict)
    band_sums: tuple[float, ...] = ()
    band_squares: tuple[float, ...] = ()
    digest: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether image and mask have the types wanted and fit together, so that their pixels were counted."""
        return bool(self.digest)

    def num_labelled(self, ignore_index: int) -> int:
        """How many pixels somebody labelled."""
        return sum(count for value, count in self.pixels.items() if value != ignore_index)

    def num_burned(self, ignore_index: int) -> int:
        """How many labelled pixels are burned, whatever the grade."""
        return sum(count for value, count in self.pixels.items() if value not in (0, ignore_index))

    def burned_share(self, ignore_index: int) -> float:
        """Share of burned among labelled pixels, 0 where nothing is labelled."""
        return self.num_burned(ignore_index) / max(self.num_labelled(ignore_index), 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> PatchStatistics:
        """The facts that `to_json` wrote."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        values["pixels"] = {int(value): count for value, count in record["pixels"].items()}
        return cls(**values)


def count_values(mask: NDArray[np.uint8]) -> dict[int, int]:
    """How many pixels have each value that occurs."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def measure_patch(name: str, image: NDArray[Any], mask: NDArray[Any], ignore_index: int) -> PatchStatistics:
    """Counts and sums of one patch.

    Args:
        name: Its name.
        image: What the image file holds.
        mask: What the mask file holds.
        ignore_index: Pixels of this value stay out of the sums.
    """
    facts: dict[str, Any] = {
        "name": name,
        "image_shape": image.shape,
        "image_dtype": str(image.dtype),
        "mask_shape": mask.shape,
        "mask_dtype": str(mask.dtype),
    }
    types_fit = image.dtype == np.float32 and mask.dtype == np.uint8
    if not types_fit or image.ndim != 3 or image.shape[:2] != mask.shape or image.size == 0:
        return PatchStatistics(**facts)
    facts |= _extent(image)
    if not facts["num_not_finite"]:
        facts |= _sums(image, mask, ignore_index)
    return PatchStatistics(**facts, pixels=count_values(mask), digest=_digest(image, mask))


def _extent(image: NDArray[np.float32]) -> dict[str, Any]:
    low, high, num_not_finite = float(image.min()), float(image.max()), 0
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN and infinity come through min and max
        finite = image[np.isfinite(image)]
        num_not_finite = image.size - finite.size
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return {"low": low, "high": high, "num_not_finite": num_not_finite}


def _sums(image: NDArray[np.float32], mask: NDArray[np.uint8], ignore_index: int) -> dict[str, Any]:
    labelled = mask != ignore_index
    pixels = image.reshape(-1, image.shape[2]) if labelled.all() else image[labelled]
    bands = pixels.T.astype(np.float64, order="C")
    return {
        "band_sums": tuple(float(total) for total in bands.sum(axis=1)),
        "band_squares": tuple(float(total) for total in np.square(bands, out=bands).sum(axis=1)),
    }


def _digest(image: NDArray[np.float32], mask: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()


CACHE_VERSION = 1


@dataclass(frozen=True)
class SplitStatistics:
    """What lies in a split folder.

    Args:
        source: Where the patches are read from.
        patches: Facts of every patch that could be read, sorted by name.
        faults: Files that could not be read, and halves of patches.
        notes: What the user should know though it stops nothing.
    """

    source: PatchSource
    patches: tuple[PatchStatistics, ...]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The split folder."""
        return self.source.folder


def scan_split(
    source: PatchSource, *, ignore_index: int = IGNORE_INDEX, num_threads: int | None = None
) -> SplitStatistics:
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
                if isinstance(found, PatchStatistics):
                    facts[name] = found
                else:
                    faults.append(found)
        finally:  # an interrupted pass goes on where it was
            notes += _write_cache(cache, ignore_index, stamps, facts)
    patches = tuple(facts[name] for name in stamps if name in facts)
    return SplitStatistics(source, patches, tuple(sorted(faults)), tuple(notes))


class _Bar(tqdm):
    """A bar without tqdm's watching thread, which worker processes would be forked beside."""

    monitor_interval = 0


def _measure_all(
    source: PatchSource, ignore_index: int, num_threads: int | None
) -> Iterator[tuple[str, PatchStatistics | Fault]]:
    """Facts or a fault for each, in the order of the names, whatever the number of threads."""
    names, title = source.names, f"checking {source.folder}"

    def look(index: int) -> PatchStatistics | Fault:
        try:
            image, mask = source.read(index)
        except UnreadableError as error:
            return error.fault
        return measure_patch(names[index], image, mask, ignore_index)

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


def _read_cache(path: Path, ignore_index: int) -> dict[str, tuple[Stamp, PatchStatistics]]:
    """What an earlier pass found; nothing where there was none, or it was another version's, or is not readable."""
    try:
        content = json.loads(path.read_text())
        if (content["version"], content["ignore_index"]) != (CACHE_VERSION, ignore_index):
            return {}
        return {
            record["name"]: (tuple(stamp), PatchStatistics.from_json(record)) for stamp, record in content["patches"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_cache(
    path: Path, ignore_index: int, stamps: Mapping[str, Stamp], facts: Mapping[str, PatchStatistics]
) -> list[str]:
    """Keeps what was found; returns a note if the folder cannot be written."""
    patches = [(stamps[name], facts[name].to_json()) for name in stamps if name in facts]
    content = {"version": CACHE_VERSION, "ignore_index": ignore_index, "patches": patches}
    try:
        with atomic_write(path) as part:
            part.write_text(json.dumps(content))
    except FiresegError as error:
        return [f"{error}; until then all its patches are read again at each start"]
    return []
