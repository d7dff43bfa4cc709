"""Validation of a data set before training, with its summary statistics."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fireseg.console import format_count
from fireseg.data.bands import MAX_REFLECTANCE, MIN_DIGITAL_NUMBER, MIN_REFLECTANCE, select_bands
from fireseg.data.folds import check_fold, select_fold
from fireseg.data.format import Manifest
from fireseg.data.joined import join_scans
from fireseg.data.patches import ALL, DATA_ROOT_HELP, Fault, SplitReader, get_tile_name
from fireseg.data.positions import count_classes_once
from fireseg.data.reader import open_splits
from fireseg.data.statistics import PatchStatistics, SplitStatistics, channel_statistics, scan_split
from fireseg.data.subset import select_fraction
from fireseg.errors import MAX_FAULTS_SHOWN, FiresegError, join_names
from fireseg.task import IGNORE_INDEX, Task

_MIN_STD = 1e-6

OnBad = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """Readers and statistics of a validated data set.

    Args:
        splits: Statistics of the patches in use, by split, sorted by name.
        readers: Reader of each split.
        mean: Mean reflectance of each requested band over the labelled training pixels.
        std: Standard deviation of the same.
        class_counts: Number of labelled training pixels of each class; where patches of a tile overlap, each pixel
            counts once.
        fingerprint: SHA-256 over the names and contents of all patches; equal for all fractions of the training
            patches, so that their scores on the same validation and test patches can be compared.
        notes: Remarks for the user that do not stop the run.
        leaks: Patches that are in two splits.
        pixel_m: Pixel size of the training tiles in metres; None if unknown.
        level: Their processing level, `1C` or `2A`; None if unknown.
    """

    splits: Mapping[str, tuple[PatchStatistics, ...]]
    readers: Mapping[str, SplitReader]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_counts: tuple[int, ...]
    fingerprint: str
    notes: tuple[str, ...]
    leaks: tuple[str, ...] = ()
    pixel_m: float | None = None
    level: str | None = None


def validate_dataset(
    root: Path | Sequence[Path],
    *,
    task: Task,
    bands: Sequence[str],
    on_bad: OnBad = "stop",
    required: Sequence[str] = ("train", "val"),
    fold: int | None = None,
    fraction: float = 1.0,
    seed: int = 0,
    allow_leaks: bool = False,
) -> DatasetSummary:
    """Checks every patch under a root and computes the statistics that training needs.

    Args:
        root: Folder with train, val and perhaps test; or several, whose patches are joined.
        task: Task of the masks.
        bands: Bands of the model.
        on_bad: Treatment of patches with a fault: `stop`, or `skip` them and note how many.
        required: Splits that must be there; the statistics are empty without train.
        fold: Fold of the patches, from 0; None if they have none.
        fraction: Share of the training patches to use, see `select_fraction`.
        seed: Seed of their selection.
        allow_leaks: If True, patches that are in two splits are noted. They are also noted if train is not required,
            because nothing is trained then.

    Raises:
        FiresegError: With all faults, if there is one that may not be skipped.
    """
    scans, manifests = _scan_roots([root] if isinstance(root, Path) else root, task, fold, required)
    notes = [note for one, manifest in manifests.items() for note in _note_leaks(one, manifest)]
    notes += [note for scan in scans.values() for note in scan.notes]
    faults = {split: _find_patch_faults(scan, task) for split, scan in scans.items()}
    splits = {split: _select_valid(scan, faults[split]) for split, scan in scans.items()}
    if any(manifests.values()) and task.name == "gra":
        splits, ungraded = _drop_ungraded(scans, splits, required)
        notes += ungraded
    fingerprint = _compute_fingerprint(splits)
    if fraction < 1 and "train" in splits:
        splits, part = _select_part(splits, fraction, seed, task.ignore_index)
        notes += part
    patch_faults = [] if on_bad == "skip" else [fault for split_faults in faults.values() for fault in split_faults]
    other_faults = _find_split_faults(scans, splits, faults, task, bands)
    if "train" in required and splits["train"]:
        other_faults += _find_label_faults(scans["train"], splits["train"], task)
    # A prepared folder was checked for leaks when it was made, by the place of its tiles as well.
    is_checked = len(manifests) == 1 and all(manifests.values())
    leaks = [] if is_checked else _find_leaks(scans)
    if leaks and not allow_leaks and "train" in required:
        other_faults.append(_describe_leaks(leaks))
    elif leaks:
        notes.append(f"{_describe_leaks(leaks)}; scores on val and test are better than they would be on new fires")
    if patch_faults or other_faults:
        raise FiresegError(*other_faults, *_format_faults(patch_faults))
    notes += _note_skipped(scans, faults)
    train = splits.get("train", ())
    bands_stored = scans["train"].reader.bands if train else None
    mean, std = channel_statistics(train, bands, task.ignore_index, bands_stored) if train else ((), ())
    notes += _note_constant_bands(bands, std) if train else []
    if "val" in splits and not any(patch.num_burned(task.ignore_index) for patch in splits["val"]):
        notes.append(
            f"{scans['val']}: no burned pixel, so val/fire_iou is undefined: best_model.pt will be that "
            "of the lowest val/loss, and training does not stop early; move patches with fire there"
        )
    return DatasetSummary(
        splits=splits,
        readers={split: scan.reader for split, scan in scans.items()},
        mean=mean,
        std=tuple(value if value > _MIN_STD else 1.0 for value in std),
        class_counts=(
            count_classes_once(scans["train"].reader, train, task.num_classes) if train else (0,) * task.num_classes
        ),
        fingerprint=fingerprint,
        notes=tuple(notes),
        leaks=tuple(leaks),
        pixel_m=_get_common([manifest and manifest.pixel_m for manifest in manifests.values()]),
        level=_get_common([manifest and manifest.level for manifest in manifests.values()]),
    )


def _get_common(values: Sequence[Any]) -> Any:
    """Returns the value of all data sets; None if they differ."""
    return values[0] if len(set(values)) == 1 else None


def _scan_roots(
    roots: Sequence[Path], task: Task, fold: int | None, required: Sequence[str]
) -> tuple[dict[str, SplitStatistics], dict[Path, Manifest | None]]:
    """Opens and scans data sets, and joins them if there are several."""
    scans: dict[Path, dict[str, SplitStatistics]] = {}
    manifests: dict[Path, Manifest | None] = {}
    faults: list[str] = []
    for root in roots:
        try:
            readers, manifests[root] = open_splits(root, task.name, required=required)
            check_fold(root, fold, manifests[root])
        except FiresegError as error:
            faults += error.faults
            continue
        scans[root] = {split: scan_split(one, ignore_index=task.ignore_index) for split, one in readers.items()}
        if fold is not None:
            scans[root] = select_fold(root, fold, scans[root][ALL])
    if faults:
        raise FiresegError(*faults)
    return (join_scans(scans) if len(scans) > 1 else scans[roots[0]]), manifests


def _find_patch_faults(scan: SplitStatistics, task: Task) -> list[Fault]:
    """Returns every fault of every patch of a split, sorted by path.

    Args:
        scan: Statistics of the split.
        task: Task of the masks.
    """
    fault = scan.reader.fault
    usual = Counter(patch.image_shape for patch in scan.patches if patch.is_valid).most_common(1)
    faults = list(scan.faults)
    for patch in scan.patches:
        if not patch.is_valid:
            faults += [fault(patch.name, "image", message) for message in _check_image_type(patch)]
            faults += [fault(patch.name, "mask", message) for message in _check_mask_type(patch)]
            continue
        if patch.image_shape != usual[0][0]:
            shape, count = usual[0]
            message = f"shape {patch.image_shape}, but {count} of the {len(scan.patches)} patches here have {shape}"
            faults.append(fault(patch.name, "image", f"{message}; cut all to one size"))
        faults += [fault(patch.name, "image", message) for message in _check_image_values(patch)]
        faults += [fault(patch.name, "mask", message) for message in _check_mask_values(patch, task)]
    return sorted(faults)


def _check_image_type(patch: PatchStatistics) -> Iterator[str]:
    shape = patch.image_shape
    if patch.image_dtype != "float32":
        is_integer = patch.image_dtype.lstrip("u").startswith("int")
        cure = "divide digital numbers by 10000 and save" if is_integer else "save with"
        yield f"{patch.image_dtype}, but an image must be float32 reflectance; {cure} image.astype(np.float32)"
    if len(shape) != 3 or 0 in shape:
        yield f"shape {shape}, but an image must be (height, width, bands)"
    elif shape[1:] == patch.mask_shape:
        yield f"shape {shape} has its bands first, expected (height, width, bands); image.transpose(1, 2, 0)"
    elif len(patch.mask_shape) == 2 and shape[:2] != patch.mask_shape:
        image_size, mask_size = (f"{size[0]} x {size[1]}" for size in (shape, patch.mask_shape))
        yield f"{image_size} pixels, but its mask has {mask_size}; cut both from the same window"


def _check_mask_type(patch: PatchStatistics) -> Iterator[str]:
    if patch.mask_dtype != "uint8":
        yield f"{patch.mask_dtype}, but a mask must be uint8; save mask.astype(np.uint8)"
    if len(patch.mask_shape) != 2:
        yield f"shape {patch.mask_shape}, but a mask must be (height, width)"


def _check_image_values(patch: PatchStatistics) -> Iterator[str]:
    values = f"values from {patch.low:.4g} to {patch.high:.4g}"
    if patch.num_not_finite:
        yield f"{patch.num_not_finite} values are NaN or infinite; set them to 0, and the mask there to 255"
    if patch.high > MIN_DIGITAL_NUMBER:
        yield (
            f"{values} look like digital numbers, expected reflectance, mostly 0 to 1; "
            "divide by 10000 (subtract 1000 first if the processing baseline is 04.00 or later)"
        )
    elif patch.low < MIN_REFLECTANCE:
        yield (
            f"{values} look normalised by mean and standard deviation, expected reflectance, mostly 0 to 1; "
            "undo the normalisation, which is part of the model"
        )
    elif patch.high > MAX_REFLECTANCE:
        yield f"{values}, expected reflectance, mostly 0 to 1; divide by the scale factor"


def _check_mask_values(patch: PatchStatistics, task: Task) -> Iterator[str]:
    unknown = [value for value in patch.pixels if value >= task.num_classes and value != task.ignore_index]
    if unknown:
        values = ("value " if len(unknown) == 1 else "values ") + join_names([str(value) for value in unknown], 5)
        yield (
            f"{values}, but task {task.name} has classes 0 to {task.num_classes - 1} and "
            f"{task.ignore_index}; was it made for another task?"
        )


def _find_split_faults(
    scans: Mapping[str, SplitStatistics],
    splits: Mapping[str, tuple[PatchStatistics, ...]],
    faults: Mapping[str, list[Fault]],
    task: Task,
    bands: Sequence[str],
) -> list[str]:
    messages = []
    for split, patches in splits.items():
        if patches:
            try:
                select_bands(patches[0].image_shape[2], bands, scans[split].reader.bands)
            except FiresegError as error:
                messages.append(f"{scans[split]}: {error}")
        elif not scans[split].patches and not scans[split].faults:
            messages.append(f"{scans[split]}: no patch in it; {DATA_ROOT_HELP}")
        elif faults[split]:
            messages.append(
                f"{scans[split]}: no patch without a fault; fix the files listed, or prepare the patches again"
            )
        else:
            messages.append(f"{scans[split]}: no patch in it has a grading; train with task=del")
    return messages


def _find_label_faults(split: SplitStatistics, patches: Sequence[PatchStatistics], task: Task) -> list[str]:
    """Faults of the labels of the training split as a whole."""
    faults = []
    values = {value for patch in patches for value in patch.pixels} - {task.ignore_index}
    if not values:
        faults.append(f"{split}: every pixel is {task.ignore_index}, so there is nothing to learn; label some")
    elif values == {0}:
        faults.append(
            f"{split}: no burned pixel, so there is nothing to learn; check the masks: in them {task.ignore_index} "
            f"means unlabelled, and if it marks what burned, prepare again with --classes {task.ignore_index}=1"
        )
    elif task.num_classes > 2 and max(values) <= 1:
        faults.append(
            f"{split}: no mask has a value above 1, but task {task.name} has grades up to {task.num_classes - 1}; "
            "these look like delineations: train with task=del, or provide grading masks"
        )
    return faults


def _select_valid(scan: SplitStatistics, faults: Sequence[Fault]) -> tuple[PatchStatistics, ...]:
    invalid = {fault.patch for fault in faults}
    return tuple(patch for patch in scan.patches if patch.name not in invalid)


def _drop_ungraded(
    scans: Mapping[str, SplitStatistics], splits: Mapping[str, tuple[PatchStatistics, ...]], required: Sequence[str]
) -> tuple[dict[str, tuple[PatchStatistics, ...]], list[str]]:
    """Removes the patches of tiles without grading, and a split that is not required if none is left; notes both."""
    remaining, notes = {}, []
    for split, patches in splits.items():
        graded = tuple(patch for patch in patches if patch.pixels.keys() != {IGNORE_INDEX})
        if graded or split in required:
            remaining[split] = graded
        if num_ungraded := len(patches) - len(graded):
            notes.append(f"{scans[split]}: {num_ungraded} of {len(patches)} patches have no grading and are left out")
    return remaining, notes


def _select_part(
    splits: Mapping[str, tuple[PatchStatistics, ...]], fraction: float, seed: int, ignore_index: int
) -> tuple[dict[str, tuple[PatchStatistics, ...]], list[str]]:
    """Selects a part of the training patches; notes their number."""
    train = splits["train"]
    part = select_fraction(train, fraction, seed=seed, ignore_index=ignore_index) if train else ()
    fires, all_fires = ({get_tile_name(patch.name) for patch in patches} for patches in (part, train))
    note = (
        f"data.fraction={fraction:g}: {len(part):,} of {len(train):,} training patches are used, of "
        f"{len(fires)} of {format_count(len(all_fires), 'tile')}"
    )
    return {**splits, "train": part}, [note]


def _format_faults(faults: Sequence[Fault]) -> list[str]:
    if not faults:
        return []
    more = f"and {len(faults) - MAX_FAULTS_SHOWN} more; " if len(faults) > MAX_FAULTS_SHOWN else ""
    return [*map(str, faults[:MAX_FAULTS_SHOWN]), f"{more}data.on_bad=skip leaves such patches out"]


def _note_skipped(scans: Mapping[str, SplitStatistics], faults: Mapping[str, list[Fault]]) -> list[str]:
    notes = []
    for split, split_faults in faults.items():
        if split_faults:
            count = len({fault.patch for fault in split_faults})
            noun = "patch was" if count == 1 else "patches were"
            notes.append(f"{scans[split]}: {count} {noun} left out (data.on_bad=skip); first {split_faults[0]}")
    return notes


def _note_leaks(root: Path, manifest: Manifest | None) -> list[str]:
    if manifest is None or not manifest.leaks:
        return []
    count = len(manifest.leaks)
    more = f" and {count - 1} more" if count > 1 else ""
    return [
        f"{root}: prepared with --allow-leaks, its splits share data ({manifest.leaks[0]}{more}); "
        "scores on val and test are better than they would be on new fires"
    ]


def _find_leaks(scans: Mapping[str, SplitStatistics]) -> list[str]:
    """Finds patches with the same name or the same content in two splits."""
    leaks: list[str] = []
    first_by_name: dict[str, str] = {}
    first_by_digest: dict[str, tuple[str, str]] = {}
    for split, scan in scans.items():
        for patch in scan.patches:
            # Patches of one value, as at the edge of the data, are equal by chance.
            content = patch.digest if patch.low < patch.high else ""
            by_name = first_by_name.setdefault(patch.name, split)
            by_content, name = first_by_digest.setdefault(content, (split, patch.name)) if content else (split, "")
            if by_content != split:
                leaks.append(f"same content: {by_content} {name} and {split} {patch.name}")
            elif by_name != split:
                leaks.append(f"same name: {by_name} and {split} {patch.name}")
    return leaks


def _describe_leaks(leaks: Sequence[str]) -> str:
    more = f" and {len(leaks) - 1:,} more" if len(leaks) > 1 else ""
    noun = "patch is" if len(leaks) == 1 else "patches are"
    return (
        f"data.root: {len(leaks):,} {noun} in two splits ({leaks[0]}{more}); remove them from one of both, rename "
        "those that are different, or accept them with data.allow_leaks=true"
    )


def _note_constant_bands(bands: Sequence[str], std: Sequence[float]) -> list[str]:
    constant = [band for band, value in zip(bands, std, strict=True) if value <= _MIN_STD]
    if not constant:
        return []
    return [f"data.bands: {' '.join(constant)} has the same value in all training pixels; leave it out"]


def _compute_fingerprint(splits: Mapping[str, tuple[PatchStatistics, ...]]) -> str:
    digest = hashlib.sha256()
    for split, patches in splits.items():
        for patch in patches:
            digest.update(f"{split} {patch.name} {patch.digest}\n".encode())
    return digest.hexdigest()
