"""All splits of a data set, checked and summed up before anything learns from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fireseg.data.bands import select_bands
from fireseg.data.format import Manifest
from fireseg.data.patches import CURES, Fault, PatchSource
from fireseg.data.reader import find_sources
from fireseg.data.statistics import PatchStatistics, SplitStatistics, scan_split
from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX, Task

LOWEST, HIGHEST = -0.2, 2.0
"""Reflectance outside of this is none: correction errors reach a little below 0, bright cloud above 1."""


def judge_patches(scan: SplitStatistics, task: Task) -> list[Fault]:
    """Every fault of every patch of a split, sorted by path.

    Args:
        scan: What lies in the split folder.
        task: What the masks should hold.
    """
    fault = scan.source.fault
    usual = Counter(facts.image_shape for facts in scan.patches if facts.is_sound).most_common(1)
    faults = list(scan.faults)
    for facts in scan.patches:
        if not facts.is_sound:
            faults += [fault(facts.name, "image", what) for what in _image_form(facts)]
            faults += [fault(facts.name, "mask", what) for what in _mask_form(facts)]
            continue
        if facts.image_shape != usual[0][0]:
            faults.append(fault(facts.name, "image", _odd_size(facts, usual[0], len(scan.patches))))
        faults += [fault(facts.name, "image", what) for what in _image_values(facts)]
        faults += [fault(facts.name, "mask", what) for what in _mask_values(facts, task)]
    return sorted(faults)


def judge_split(folder: Path, patches: Sequence[PatchStatistics], task: Task) -> list[str]:
    """Faults of the training split as a whole, given the patches that have none themselves.

    Args:
        folder: The training split.
        patches: Its sound patches, at least one.
        task: What the masks should hold.
    """
    faults = []
    values = {value for facts in patches for value in facts.pixels} - {task.ignore_index}
    if not values:
        faults.append(f"{folder}: every pixel is {task.ignore_index}, so that there is nothing to learn; label some")
    elif task.num_classes > 2 and max(values) <= 1:
        faults.append(
            f"{folder}: no mask has a value above 1, but task {task.name} has grades up to {task.num_classes - 1}; "
            "these look like delineations: train with task=del, or give grading masks"
        )
    return faults


def judge_bands(source: PatchSource, patches: Sequence[PatchStatistics], bands: Sequence[str]) -> list[str]:
    """A fault if the channels of a split do not hold the bands wanted."""
    try:
        select_bands(patches[0].image_shape[2], bands, source.bands)
    except FiresegError as error:
        return [f"{source.folder}: {error}"]
    return []


def _image_form(facts: PatchStatistics) -> Iterator[str]:
    shape = facts.image_shape
    if facts.image_dtype != "float32":
        integers = facts.image_dtype.lstrip("u").startswith("int")
        cure = "divide digital numbers by 10000 and save" if integers else "save with"
        yield f"{facts.image_dtype}, but an image is float32 reflectance; {cure} image.astype(np.float32)"
    if len(shape) != 3 or 0 in shape:
        yield f"shape {shape}, but an image is (height, width, bands)"
    elif shape[1:] == facts.mask_shape:
        yield f"shape {shape} has its bands first, but an image is (height, width, bands); image.transpose(1, 2, 0)"
    elif len(facts.mask_shape) == 2 and shape[:2] != facts.mask_shape:
        yield f"{_size(shape)} pixels, but its mask has {_size(facts.mask_shape)}; cut both from the same window"


def _mask_form(facts: PatchStatistics) -> Iterator[str]:
    if facts.mask_dtype != "uint8":
        yield f"{facts.mask_dtype}, but a mask is uint8; save mask.astype(np.uint8)"
    if len(facts.mask_shape) != 2:
        yield f"shape {facts.mask_shape}, but a mask is (height, width)"


def _odd_size(facts: PatchStatistics, usual: tuple[tuple[int, ...], int], num_patches: int) -> str:
    shape, count = usual
    return f"shape {facts.image_shape}, but {count} of the {num_patches} patches here have {shape}; cut all to one size"


def _image_values(facts: PatchStatistics) -> Iterator[str]:
    span = f"values from {facts.low:.4g} to {facts.high:.4g}"
    if facts.num_not_finite:
        yield f"{facts.num_not_finite} values are NaN or infinite; set them to 0, and the mask there to 255"
    if facts.high > 255:
        yield (
            f"{span} look like digital numbers, but reflectance is wanted, mostly 0 to 1; "
            "divide by 10000 (subtract 1000 first if the processing baseline is 04.00 or later)"
        )
    elif facts.low < LOWEST:
        yield (
            f"{span} look normalised by mean and standard deviation, but reflectance is wanted, mostly 0 to 1; "
            "undo that, for the model normalises by itself"
        )
    elif facts.high > HIGHEST:
        yield f"{span}, but reflectance is wanted, mostly 0 to 1; divide by what the values were multiplied with"


def _mask_values(facts: PatchStatistics, task: Task) -> Iterator[str]:
    strange = [value for value in facts.pixels if value >= task.num_classes and value != task.ignore_index]
    if strange:
        came = ("value " if len(strange) == 1 else "values ") + ", ".join(map(str, strange[:5]))
        yield (
            f"{came}{', …' * (len(strange) > 5)}, but task {task.name} has classes 0 to {task.num_classes - 1} and "
            f"{task.ignore_index}; was it made for another task?"
        )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"


OnBad = Literal["stop", "skip"]

NUM_SHOWN = 20

_LEAST_STD = 1e-6


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A data set in numbers.

    Args:
        splits: Facts of the patches that take part, by split, sorted by name.
        sources: Where the patches are read from, by split.
        mean: Mean reflectance of each band wanted over the labelled training pixels.
        std: Standard deviation of the same.
        class_counts: Labelled training pixels of each class.
        fingerprint: SHA-256 over the names and contents of all patches that take part.
        notes: What the user should know though it stops nothing.
    """

    splits: Mapping[str, tuple[PatchStatistics, ...]]
    sources: Mapping[str, PatchSource]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_counts: tuple[int, ...]
    fingerprint: str
    notes: tuple[str, ...]


def survey(root: Path, *, task: Task, bands: Sequence[str], on_bad: OnBad = "stop") -> Survey:
    """Checks every file under a root and sums up what the training needs to know.

    Args:
        root: The folder with train, val and perhaps test.
        task: What the masks should hold.
        bands: What the model wants to see.
        on_bad: What to do with patches that have a fault: stop, or leave them out and note how many.

    Raises:
        FiresegError: With all faults at once, if there is one that may not be left out.
    """
    sources, manifest = find_sources(root, task.name)
    scans = {split: scan_split(source, ignore_index=task.ignore_index) for split, source in sources.items()}
    notes = _note_leaks(root, manifest) + [note for scan in scans.values() for note in scan.notes]
    bad = {split: judge_patches(scan, task) for split, scan in scans.items()}
    splits = {split: _sound(scan, bad[split]) for split, scan in scans.items()}
    if manifest is not None and task.name == "gra":
        splits, left_out = _leave_ungraded(scans, splits)
        notes += left_out
    faults = [] if on_bad == "skip" else [fault for found in bad.values() for fault in found]
    whole = _judge_whole(scans, splits, bad, task, bands)
    if faults or whole:
        raise FiresegError(*whole, *_first_of(faults))
    notes += _left_out(scans, bad)
    train = splits["train"]
    mean, std = channel_statistics(train, bands, task.ignore_index, sources["train"].bands)
    notes += _note_constant_bands(bands, std)
    if not any(facts.num_burned(task.ignore_index) for facts in splits["val"]):
        notes.append(
            f"{scans['val'].folder}: no burned pixel in it, so that val/fire_iou has nothing to read and no epoch "
            "counts as better than another; move patches with fire there"
        )
    return Survey(
        splits=splits,
        sources=sources,
        mean=mean,
        std=tuple(value if value > _LEAST_STD else 1.0 for value in std),
        class_counts=class_counts(train, task.num_classes),
        fingerprint=_fingerprint(splits),
        notes=tuple(notes),
    )


def channel_statistics(
    patches: Sequence[PatchStatistics], bands: Sequence[str], ignore_index: int, stored: Sequence[str] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band over all labelled pixels.

    The sums are added in the order of the patches, in float64: the result is the same to the bit
    however many threads made them.

    Args:
        patches: Sound patches with the same channels.
        bands: The bands wanted.
        ignore_index: The value of unlabelled pixels.
        stored: The band of each channel, where that is known.
    """
    channels = select_bands(patches[0].image_shape[2], bands, stored)
    chosen = slice(None) if channels is None else channels
    count = sum(facts.num_labelled(ignore_index) for facts in patches)
    sums = np.sum([facts.band_sums for facts in patches], axis=0)[chosen]
    squares = np.sum([facts.band_squares for facts in patches], axis=0)[chosen]
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(std.tolist())


def class_counts(patches: Sequence[PatchStatistics], num_classes: int) -> tuple[int, ...]:
    """Pixels of each class over all patches."""
    return tuple(sum(facts.pixels.get(value, 0) for facts in patches) for value in range(num_classes))


def _sound(scan: SplitStatistics, faults: Sequence[Fault]) -> tuple[PatchStatistics, ...]:
    bad = {fault.patch for fault in faults}
    return tuple(facts for facts in scan.patches if facts.name not in bad)


def _leave_ungraded(
    scans: Mapping[str, SplitStatistics], splits: Mapping[str, tuple[PatchStatistics, ...]]
) -> tuple[dict[str, tuple[PatchStatistics, ...]], list[str]]:
    """The patches of tiles that somebody graded, and notes of how many are none. The test split may go altogether."""
    graded, notes = {}, []
    for split, patches in splits.items():
        kept = tuple(facts for facts in patches if facts.pixels.keys() != {IGNORE_INDEX})
        if kept or split != "test":
            graded[split] = kept
        if num_ungraded := len(patches) - len(kept):
            notes.append(
                f"{scans[split].folder}: {num_ungraded} of {len(patches)} patches have no grading and are left out"
            )
    return graded, notes


def _judge_whole(
    scans: Mapping[str, SplitStatistics],
    splits: Mapping[str, tuple[PatchStatistics, ...]],
    bad: Mapping[str, list[Fault]],
    task: Task,
    bands: Sequence[str],
) -> list[str]:
    faults = []
    for split, patches in splits.items():
        folder = scans[split].folder
        if patches:
            faults += judge_bands(scans[split].source, patches, bands)
        elif not scans[split].patches and not scans[split].faults:
            faults.append(f"{folder}: no patch in it; {CURES}")
        elif bad[split]:
            faults.append(f"{folder}: no patch without a fault in it")
        else:
            faults.append(f"{folder}: no patch in it has a grading; train with task=del")
    if splits["train"]:
        faults += judge_split(scans["train"].folder, splits["train"], task)
    return faults


def _first_of(faults: Sequence[Fault]) -> list[str]:
    if not faults:
        return []
    more = f"and {len(faults) - NUM_SHOWN} more; " if len(faults) > NUM_SHOWN else ""
    return [*map(str, faults[:NUM_SHOWN]), f"{more}data.on_bad=skip leaves such patches out"]


def _left_out(scans: Mapping[str, SplitStatistics], bad: Mapping[str, list[Fault]]) -> list[str]:
    notes = []
    for split, faults in bad.items():
        if faults:
            count = len({fault.patch for fault in faults})
            noun = "patch was" if count == 1 else "patches were"
            notes.append(f"{scans[split].folder}: {count} {noun} left out (data.on_bad=skip); first {faults[0]}")
    return notes


def _note_leaks(root: Path, manifest: Manifest | None) -> list[str]:
    if manifest is None or not manifest.leaks:
        return []
    count = len(manifest.leaks)
    more = f" and {count - 1} more" if count > 1 else ""
    return [
        f"{root}: made with splits that know of each other ({manifest.leaks[0]}{more}), as --allow-leaks wanted; "
        "scores on val and test are better than they would be on new fires"
    ]


def _note_constant_bands(bands: Sequence[str], std: Sequence[float]) -> list[str]:
    flat = [band for band, value in zip(bands, std, strict=True) if value <= _LEAST_STD]
    if not flat:
        return []
    return [f"data.bands: {' '.join(flat)} has the same value in all training pixels; leave out what says nothing"]


def _fingerprint(splits: Mapping[str, tuple[PatchStatistics, ...]]) -> str:
    digest = hashlib.sha256()
    for split, patches in splits.items():
        for facts in patches:
            digest.update(f"{split} {facts.name} {facts.digest}\n".encode())
    return digest.hexdigest()
