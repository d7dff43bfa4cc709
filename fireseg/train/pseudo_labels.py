"""Pseudo-labels: a trained model, the teacher, labels the unlabelled patches of a run (self-training)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from fireseg.batch import Batch
from fireseg.console import format_count, progress_bar
from fireseg.data import WildfireDataModule, WildfirePatchDataset
from fireseg.data.loader import stack_samples
from fireseg.data.reader import open_unlabelled
from fireseg.data.scene_normalisation import compute_split_scalings
from fireseg.data.unlabelled import PseudoLabels, UnlabelledPatches, compare_images, read_pseudo_labels
from fireseg.decision import argmax_classes, class_probabilities
from fireseg.engine.device import DeviceName
from fireseg.errors import FiresegError, shorten
from fireseg.files import atomic_write, convert_disk_errors
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runs.checkpoint import SelfTraining
from fireseg.task import IGNORE_INDEX, Task

log = logging.getLogger("fireseg")

PSEUDO_LABELS = "pseudo_labels"
"""Folder of the labels within a folder of unlabelled patches: one file for each teacher and confidence."""

_PIXELS_PER_BATCH = 2**20

_MIN_SHARE = 0.001
"""Share of burned, or of unburned, among the labelled pixels below which the teacher seems to be of no use."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The model that labels.

    Args:
        name: `data.teacher`.
        sha256: SHA-256 of its checkpoint.
        model: The model; None of a resumed run, which needs it only if its labels are lost.
    """

    name: str
    sha256: str
    model: TrainedModel | None = None


def open_teacher(data: WildfireDataModule, device: DeviceName, saved: Mapping[str, Any] | None = None) -> Teacher:
    """Opens the teacher of a run, before its patches are read.

    Args:
        data: The data of the run.
        device: Device of the run.
        saved: `self_training` of the run that is resumed: it keeps its teacher, which need not exist any more.

    Raises:
        FiresegError: If it cannot be read, or does not fit the run or its unlabelled patches; with all faults.
    """
    name = data.teacher or ""
    if saved is not None:
        kept = saved["teacher"]
        return Teacher(name=kept if Path(kept).exists() else name, sha256=saved["teacher_sha256"])
    try:
        model = load_trained_model(name, device=device, build=False)
    except FiresegError as error:
        raise FiresegError(*(f"data.teacher: {fault}" for fault in error.faults)) from error
    faults = _find_differences(model, data)
    for root in data.unlabelled_roots:
        try:
            _, manifest = open_unlabelled(root)
        except FiresegError as error:
            faults += error.faults
            continue
        images = compare_images(manifest, model.pixel_m, model.level, "the teacher's training")
        faults += [f"data.teacher: {root} has {fault}" for fault in images]
    if faults:
        raise FiresegError(*shorten(faults))
    # A link such as outputs/latest points elsewhere as soon as this run has begun.
    resolved = str(Path(name).resolve()) if Path(name).exists() else name
    return Teacher(name=resolved, sha256=model.sha256, model=model)


def warn_of_other_patches(setting: str, run: str, trained_on: str, data: WildfireDataModule) -> None:
    """Warns if a run that this one builds on was trained on other patches, since it may have seen tiles of val or test.

    Args:
        setting: Setting that names the run.
        run: Name of the run.
        trained_on: Fingerprint of its patches.
        data: The data of this run, after `setup`.
    """
    if trained_on != data.fingerprint:
        log.warning(
            "%s: %s was trained on other patches (fingerprint %s, not %s); if tiles of val or test were among them, "
            "scores there are better than they would be on new fires",
            *(setting, run, trained_on[:12], data.fingerprint[:12]),
        )


def label_patches(data: WildfireDataModule, teacher: Teacher, device: DeviceName) -> SelfTraining:
    """Labels the unlabelled patches and adds them to the training patches.

    A pixel gets the teacher's likeliest class if its probability, without temperature, is at least
    `data.pseudo_confidence`; all other pixels, and those that are not clear, stay unlabelled (Lee, Pseudo-Label, ICML
    workshop 2013). The labels are kept in `pseudo_labels/` in the folder of the patches, so that other runs and a
    resumed one find them; only one process labels a folder at a time.

    Args:
        data: The data of the run, after `setup`.
        teacher: The model that labels.
        device: Device of the run.

    Returns:
        What was labelled.

    Raises:
        FiresegError: If no pixel is labelled, or the labels cannot be written.
    """
    labels = [_label_folder(pool, data, teacher, device) for pool in data.unlabelled.folders]
    data.add_pseudo_labels(labels)
    result = _summarize(labels, data, teacher)
    log.info("self-training: %s", result)
    if teacher.model is not None:
        warn_of_other_patches("data.teacher", teacher.name, teacher.model.fingerprint, data)
    if not _MIN_SHARE <= result.burned_share <= 1 - _MIN_SHARE:
        kind = "burned" if result.burned_share > _MIN_SHARE else "unburned"
        log.warning(
            "data.teacher: (almost) all pixels that %s labelled are %s; check it on such images, or change "
            "data.pseudo_confidence (%g)",
            *(teacher.name, kind, data.pseudo_confidence),
        )
    return result


def select_labels(probabilities: Tensor, confidence: float) -> Tensor:
    """Returns the likeliest class of the pixels whose probability is at least a limit, else 255.

    Args:
        probabilities: `(B, K, H, W)`, which sum to 1 over K.
        confidence: The limit, 0.5 to 1.

    Returns:
        `(B, H, W)` uint8.
    """
    labels = argmax_classes(probabilities)
    return labels.masked_fill_(probabilities.amax(1) < confidence, IGNORE_INDEX)


def _find_differences(model: TrainedModel, data: WildfireDataModule) -> list[str]:
    """Lists what the teacher must have in common with the run."""
    faults = []
    if _describe_task(model.task) != _describe_task(data.task):
        faults.append(
            f"data.teacher: {data.teacher} has the task {_describe_task(model.task)}, but the run has "
            f"{_describe_task(data.task)}; name a run of the same task"
        )
    if model.bands != data.bands:
        faults.append(
            f"data.teacher: {data.teacher} has the bands {' '.join(model.bands)}, but the run has "
            f"{' '.join(data.bands)}; name a run of the same bands, or set data.bands and data.pre as it has them"
        )
    return faults


def _describe_task(task: Task) -> str:
    return f"{task.name} ({', '.join(task.class_names)})"


def _label_folder(
    pool: UnlabelledPatches, data: WildfireDataModule, teacher: Teacher, device: DeviceName
) -> PseudoLabels:
    """Returns the labels of a folder from its cache, or has the teacher make them."""
    key = f"1 {teacher.sha256} {pool.fingerprint} {data.pseudo_confidence!r}"
    path = pool.root / PSEUDO_LABELS / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    with convert_disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                _write_labels(path, pool, data, teacher, device)
    return read_pseudo_labels(pool, path, data.task.num_classes)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock, and says so if another process has it; the lock of a killed process is released by the system."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process labels these patches; waiting for it", path.parents[1])
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_labels(
    path: Path, pool: UnlabelledPatches, data: WildfireDataModule, teacher: Teacher, device: DeviceName
) -> None:
    model = teacher.model or _open_again(teacher, device)
    reader, (height, width) = pool.reader, pool.scan.patches[0].mask_shape
    scalings = compute_split_scalings(reader, data.bands) if model.is_scene_relative else None
    patches = WildfirePatchDataset(reader, bands=data.bands, scalings=scalings)
    size = max(_PIXELS_PER_BATCH // (height * width), 1)
    starts = range(0, len(reader), size)
    with atomic_write(path) as part:
        labels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(reader), height, width))
        for start in progress_bar(starts, f"labelling {pool.root}"):
            batch = stack_samples([patches[index] for index in range(start, min(start + size, len(reader)))])
            labels[start : start + size] = _predict(model, batch, data.pseudo_confidence)
        labels.flush()


def _predict(model: TrainedModel, batch: Batch, confidence: float) -> NDArray[np.uint8]:
    """Labels a batch whose masks are 1 where a pixel is clear."""
    labels = select_labels(class_probabilities(model.predict_logits(batch.image)), confidence).cpu().numpy()
    labels[batch.mask.numpy() == 0] = IGNORE_INDEX
    return labels


def _open_again(teacher: Teacher, device: DeviceName) -> TrainedModel:
    """Opens the teacher of a resumed run whose labels are lost."""
    model = load_trained_model(teacher.name, device=device)
    if model.sha256 != teacher.sha256:
        raise FiresegError(
            f"data.teacher: {teacher.name} has another checkpoint (sha256 {model.sha256[:12]}) than the one that "
            f"labelled for this run ({teacher.sha256[:12]}), and its labels are lost; restore one of both"
        )
    return model


def _summarize(labels: Sequence[PseudoLabels], data: WildfireDataModule, teacher: Teacher) -> SelfTraining:
    patches = [patch for one in labels for patch in one.patches]
    num_patches = sum(len(pool.reader) for pool in data.unlabelled.folders)
    if not patches:
        raise FiresegError(
            f"data.teacher: {teacher.name} is sure of no pixel of {format_count(num_patches, 'patch', 'patches')}; "
            f"lower data.pseudo_confidence ({data.pseudo_confidence:g}), or check that the images are like those that "
            "it was trained on"
        )
    num_pixels = sum(patch.num_labelled(IGNORE_INDEX) for patch in patches)
    digests = sorted(one.fingerprint for one in labels)
    return SelfTraining(
        teacher=teacher.name,
        teacher_sha256=teacher.sha256,
        confidence=data.pseudo_confidence,
        patches=len(patches),
        left_out=num_patches - len(patches),
        pixels=num_pixels,
        labelled_share=num_pixels / sum(one.num_clear for one in labels),
        burned_share=sum(patch.num_burned(IGNORE_INDEX) for patch in patches) / num_pixels,
        fingerprint=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        leaks=data.unlabelled.leaks,
    )
