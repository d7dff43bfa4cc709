"""Which patches cannot be learnt from, and what would mend them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fireseg.data.bands import select_bands
from fireseg.data.measure import PatchFacts
from fireseg.data.patches import Fault, PatchSource
from fireseg.data.scan import SplitScan
from fireseg.errors import FiresegError
from fireseg.task import Task

LOWEST, HIGHEST = -0.2, 2.0
"""Reflectance outside of this is none: correction errors reach a little below 0, bright cloud above 1."""


def judge_patches(scan: SplitScan, task: Task) -> list[Fault]:
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


def judge_split(folder: Path, patches: Sequence[PatchFacts], task: Task) -> list[str]:
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


def judge_bands(source: PatchSource, patches: Sequence[PatchFacts], bands: Sequence[str]) -> list[str]:
    """A fault if the channels of a split do not hold the bands wanted."""
    try:
        select_bands(patches[0].image_shape[2], bands, source.bands)
    except FiresegError as error:
        return [f"{source.folder}: {error}"]
    return []


def _image_form(facts: PatchFacts) -> Iterator[str]:
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


def _mask_form(facts: PatchFacts) -> Iterator[str]:
    if facts.mask_dtype != "uint8":
        yield f"{facts.mask_dtype}, but a mask is uint8; save mask.astype(np.uint8)"
    if len(facts.mask_shape) != 2:
        yield f"shape {facts.mask_shape}, but a mask is (height, width)"


def _odd_size(facts: PatchFacts, usual: tuple[tuple[int, ...], int], num_patches: int) -> str:
    shape, count = usual
    return f"shape {facts.image_shape}, but {count} of the {num_patches} patches here have {shape}; cut all to one size"


def _image_values(facts: PatchFacts) -> Iterator[str]:
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


def _mask_values(facts: PatchFacts, task: Task) -> Iterator[str]:
    strange = [value for value in facts.pixels if value >= task.num_classes and value != task.ignore_index]
    if strange:
        came = ("value " if len(strange) == 1 else "values ") + ", ".join(map(str, strange[:5]))
        yield (
            f"{came}{', …' * (len(strange) > 5)}, but task {task.name} has classes 0 to {task.num_classes - 1} and "
            f"{task.ignore_index}; was it made for another task?"
        )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"
