"""Statistics of patches, computed in one pass over a split and cached in its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.console import ProgressBar
from fireseg.data.bands import select_bands
from fireseg.data.patches import CacheKey, Fault, SplitReader, UnreadableError
from fireseg.errors import FiresegError
from fireseg.files import atomic_write, count_cores
from fireseg.task import IGNORE_INDEX

CACHE_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class PatchStatistics:
    """Statistics of one patch. Pixels are counted only if image and mask have the expected types and shapes.

    Args:
        name: Name of the patch.
        image_shape: Shape as stored; `(H, W, C)` is expected.
        image_dtype: Type as stored; `float32` is expected.
        mask_shape: Shape as stored; `(H, W)` is expected.
        mask_dtype: Type as stored; `uint8` is expected.
        low: Smallest finite value of the image.
        high: Largest finite value of the image.
        num_not_finite: Number of values of the image that are NaN or infinite.
        pixels: Number of pixels of each value of the mask, the ignored one included.
        band_sums: Sum of each channel over the labelled pixels, in float64.
        band_squares: Sum of squares of each channel over the labelled pixels, in float64.
        digest: SHA-256 of the values, independent of their layout on disk.
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
    def is_valid(self) -> bool:
        """True if image and mask have the expected types and shapes, so that their pixels were counted."""
        return bool(self.digest)

    def num_labelled(self, ignore_index: int) -> int:
        """Returns the number of labelled pixels."""
        return sum(count for value, count in self.pixels.items() if value != ignore_index)

    def num_burned(self, ignore_index: int) -> int:
        """Returns the number of labelled pixels of any burned class."""
        return sum(count for value, count in self.pixels.items() if value not in (0, ignore_index))

    def burned_share(self, ignore_index: int) -> float:
        """Returns the share of burned among labelled pixels, 0 if none is labelled."""
        return self.num_burned(ignore_index) / max(self.num_labelled(ignore_index), 1)

    def to_json(self) -> dict[str, Any]:
        """Returns the statistics as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> PatchStatistics:
        """Creates statistics from the values of `to_json`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        values["pixels"] = {int(value): count for value, count in record["pixels"].items()}
        return cls(**values)


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of a split.

    Args:
        reader: Reader of the split.
        patches: Statistics of every readable patch, sorted by name.
        faults: Faults of unreadable files and incomplete patches.
        notes: Remarks for the user that do not stop the run.
        place: Name of the split in messages; its folder by default.
    """

    reader: SplitReader
    patches: tuple[PatchStatistics, ...]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    place: str = ""

    def __str__(self) -> str:
        return self.place or str(self.reader.folder)


def scan_split(
    reader: SplitReader, *, ignore_index: int = IGNORE_INDEX, num_threads: int | None = None
) -> SplitStatistics:
    """Computes the statistics of every patch of a split, or reads them from the cache.

    The result depends neither on the task, except for the ignored value, nor on the number of
    threads. It is cached in the folder by file name, size and modification time; a folder that is not
    writable is read again at each start.

    Args:
        reader: Reader of the split; all patches of its folder are scanned.
        ignore_index: Mask value that is left out of the sums.
        num_threads: Number of files read in parallel; by default twice the available cores, at most 16.
    """
    keys, faults = reader.list_cache_keys()
    cache_path = reader.folder / reader.cache_name
    cached = _read_cache(cache_path, ignore_index)
    statistics = {name: cached[name][1] for name, key in keys.items() if name in cached and cached[name][0] == key}
    notes: list[str] = []
    if changed := [name for name in keys if name not in statistics]:
        try:
            for name, result in _scan_patches(reader.select(changed), ignore_index, num_threads):
                if isinstance(result, PatchStatistics):
                    statistics[name] = result
                else:
                    faults.append(result)
        finally:  # an interrupted pass continues at the next start
            notes += _write_cache(cache_path, ignore_index, keys, statistics)
    patches = tuple(statistics[name] for name in keys if name in statistics)
    return SplitStatistics(reader, patches, tuple(sorted(faults)), tuple(notes))


def compute_patch_statistics(name: str, image: NDArray[Any], mask: NDArray[Any], ignore_index: int) -> PatchStatistics:
    """Computes the statistics of one patch.

    Args:
        name: Name of the patch.
        image: Image of any shape and type.
        mask: Mask of any shape and type.
        ignore_index: Mask value that is left out of the sums.
    """
    values: dict[str, Any] = {
        "name": name,
        "image_shape": image.shape,
        "image_dtype": str(image.dtype),
        "mask_shape": mask.shape,
        "mask_dtype": str(mask.dtype),
    }
    is_typed = image.dtype == np.float32 and mask.dtype == np.uint8
    if not is_typed or image.ndim != 3 or image.shape[:2] != mask.shape or image.size == 0:
        return PatchStatistics(**values)
    values |= _compute_range(image)
    if not values["num_not_finite"]:
        values |= _compute_band_sums(image, mask, ignore_index)
    return PatchStatistics(**values, pixels=count_values(mask), digest=_compute_digest(image, mask))


def count_values(mask: NDArray[np.uint8]) -> dict[int, int]:
    """Returns the number of pixels of each value that occurs."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def channel_statistics(
    patches: Sequence[PatchStatistics], bands: Sequence[str], ignore_index: int, stored: Sequence[str] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation of each band over all labelled pixels.

    The sums are added in the order of the patches, in float64, so that the result is the same to the bit
    for any number of threads.

    Args:
        patches: Valid patches with the same channels.
        bands: Requested bands.
        ignore_index: Mask value of unlabelled pixels.
        stored: Band of each channel, or None if not recorded.
    """
    channels = select_bands(patches[0].image_shape[2], bands, stored)
    selection = slice(None) if channels is None else channels
    count = sum(patch.num_labelled(ignore_index) for patch in patches)
    sums = np.sum([patch.band_sums for patch in patches], axis=0)[selection]
    squares = np.sum([patch.band_squares for patch in patches], axis=0)[selection]
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(std.tolist())


def _compute_range(image: NDArray[np.float32]) -> dict[str, Any]:
    low, high, num_not_finite = float(image.min()), float(image.max()), 0
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max propagate NaN and infinity
        finite = image[np.isfinite(image)]
        num_not_finite = image.size - finite.size
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return {"low": low, "high": high, "num_not_finite": num_not_finite}


def _compute_band_sums(image: NDArray[np.float32], mask: NDArray[np.uint8], ignore_index: int) -> dict[str, Any]:
    labelled = mask != ignore_index
    pixels = image.reshape(-1, image.shape[2]) if labelled.all() else image[labelled]
    bands = pixels.T.astype(np.float64, order="C")
    return {
        "band_sums": tuple(float(total) for total in bands.sum(axis=1)),
        "band_squares": tuple(float(total) for total in np.square(bands, out=bands).sum(axis=1)),
    }


def _compute_digest(image: NDArray[np.float32], mask: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()


def _scan_patches(
    reader: SplitReader, ignore_index: int, num_threads: int | None
) -> Iterator[tuple[str, PatchStatistics | Fault]]:
    """Yields name and statistics, or a fault, of each patch in order."""
    names, title = reader.names, f"checking {reader.folder}"

    def scan(index: int) -> PatchStatistics | Fault:
        try:
            image, mask = reader.read(index)
        except UnreadableError as error:
            return error.fault
        return compute_patch_statistics(names[index], image, mask, ignore_index)

    with _open_thread_pool(num_threads) as pool:
        results = pool.map(scan, range(len(names)))
        yield from zip(names, ProgressBar(results, title, len(names), disable=None, unit="patch"), strict=True)


@contextmanager
def _open_thread_pool(num_threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Opens a thread pool that cancels pending work when the block is left, as on Ctrl-C."""
    pool = ThreadPoolExecutor(num_threads or min(2 * count_cores(), 16))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _read_cache(path: Path, ignore_index: int) -> dict[str, tuple[CacheKey, PatchStatistics]]:
    """Reads cached statistics; returns nothing if the file is missing, damaged, or of another version."""
    if not path.is_file():  # a pipe would be read forever
        return {}
    try:
        content = json.loads(path.read_text())
        if (content["version"], content["ignore_index"]) != (CACHE_VERSION, ignore_index):
            return {}
        if content["sha256"] != _hash_records(content["patches"]):
            return {}
        return {record["name"]: (tuple(key), PatchStatistics.from_json(record)) for key, record in content["patches"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _hash_records(patches: Sequence[Any]) -> str:
    """Returns the SHA-256 of cached statistics: one changed digit would change the normalisation of a model."""
    return hashlib.sha256(json.dumps(patches).encode()).hexdigest()


def _write_cache(
    path: Path, ignore_index: int, keys: Mapping[str, CacheKey], statistics: Mapping[str, PatchStatistics]
) -> list[str]:
    """Writes the cache; returns a note if the folder is not writable."""
    patches = [(keys[name], statistics[name].to_json()) for name in keys if name in statistics]
    content = {
        "version": CACHE_VERSION,
        "ignore_index": ignore_index,
        "sha256": _hash_records(patches),
        "patches": patches,
    }
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content))
    except FiresegError as error:
        return [f"{error}; until then all patches are read again at each start"]
    return []
