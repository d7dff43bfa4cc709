"""Builds all parts of a training run from its settings."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fireseg.batch import Sharding
from fireseg.config import make
from fireseg.console import format_override
from fireseg.data import WildfireDataModule
from fireseg.data.reader import open_splits
from fireseg.engine import SINGLE_PROCESS, Checkpoints, EarlyStopping, Engine, Processes, TrainingState
from fireseg.engine.device import DeviceName
from fireseg.engine.loop import derive_seed
from fireseg.errors import FiresegError, SettingError
from fireseg.files import BEST_CHECKPOINT, find_run_folder, load_tensors
from fireseg.loss import AuxiliaryLoss, CombinedLoss
from fireseg.metric import CombinedMetrics
from fireseg.model import FireSegmentationModel
from fireseg.runs.checkpoint import SelfTraining
from fireseg.runs.folder import ResumePoint, RunFolder, git_commit, host, versions
from fireseg.task import Task
from fireseg.tracker import Tracker
from fireseg.train.pseudo_labels import label_patches, open_teacher, warn_of_other_patches

log = logging.getLogger("fireseg")

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """The parts that train, which each process of a run has."""

    settings: Settings
    task: Task
    engine: Engine
    data: WildfireDataModule
    state: TrainingState
    loss: CombinedLoss | AuxiliaryLoss
    metrics: CombinedMetrics
    stopping: EarlyStopping
    self_training: SelfTraining | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """All parts of a training run."""

    settings: Settings
    folder: RunFolder
    task: Task
    engine: Engine
    data: WildfireDataModule
    state: TrainingState
    loss: CombinedLoss | AuxiliaryLoss
    metrics: CombinedMetrics
    stopping: EarlyStopping
    checkpoints: Checkpoints
    tracker: Tracker
    self_training: SelfTraining | None = None


def build_training(
    settings: Settings, folder: RunFolder, point: ResumePoint, processes: Processes = SINGLE_PROCESS
) -> Training:
    """Builds all parts of a run, and prepares its folder.

    Args:
        settings: Checked settings.
        folder: Folder of the run.
        point: Checkpoint to resume from, if any.
        processes: Processes that train together; the others call `build_learner`.

    Raises:
        FiresegError: If a part cannot be built.
    """
    learner = build_learner(settings, point, processes)
    checkpoints = make(settings["checkpoint"], Checkpoints, folder=folder.checkpoints)
    tracker = make(settings["tracker"], Tracker)
    if point.checkpoint is None:
        folder.cut_metrics(0)
    else:
        _restore_folder(folder, point, learner.stopping, learner.state.epoch)
    _write_provenance(folder, learner, point)
    return Training(folder=folder, checkpoints=checkpoints, tracker=tracker, **vars(learner))


def build_learner(settings: Settings, point: ResumePoint, processes: Processes) -> Learner:
    """Builds the parts that train. The model comes first: if it fails, no time was spent on reading the data.

    Missing patches are reported together with a model that cannot be built.

    Args:
        settings: Checked settings.
        point: Checkpoint to resume from, if any.
        processes: Processes that train together.

    Raises:
        FiresegError: If a part cannot be built, or the processes have different patches.
    """
    saved = read_state(point)
    task = make(settings["task"], Task)
    engine = make(settings["engine"], Engine)
    stopping = make(settings["stopping"], EarlyStopping)
    if engine.swa_epochs and stopping.patience:
        raise SettingError(
            f"engine.swa_epochs: {engine.swa_epochs} averages the weights of the last epochs, which early stopping "
            "does not know before; set stopping.patience=0"
        )
    if saved is not None:
        engine.keep_precision(saved.get("precision"))
    try:
        model = _make_model(settings, is_resumed=saved is not None)
    except FiresegError as error:
        faults = [*error.faults, *_find_data_faults(settings, task)]
        raise (SettingError if isinstance(error, SettingError) else FiresegError)(*faults) from error
    processes.check_device(engine.device)
    with processes.main_first():
        sharding = Sharding(engine.shards, processes.rank, processes.size)
        data, self_training = _make_data(settings, task, engine, sharding, saved)
    roots = " and ".join(map(str, data.roots))
    processes.check_same(
        data.fingerprint + (self_training.fingerprint if self_training else ""),
        FiresegError(f"data.root: {roots} holds other patches on one host than on another; copy them there"),
    )
    if not model.is_normalised:
        model.set_normalisation(data.mean, data.std)
    processes.share_weights(model)
    state = _make_state(settings, engine, model)
    if saved is not None:
        _check_same_data(data, saved, point)
        _check_same_labels(self_training, saved, point)
        _restore_state(state, stopping, saved, point)
    return Learner(
        settings=settings,
        task=task,
        engine=engine,
        data=data,
        state=state,
        loss=_make_loss(settings, task, _get_class_counts(data, point)).to(engine.device),
        metrics=CombinedMetrics(task.num_classes, class_names=task.class_names, ignore_index=task.ignore_index),
        stopping=stopping,
        self_training=self_training,
    )


def read_state(point: ResumePoint) -> dict[str, Any] | None:
    """Reads the state of the training to resume, or returns None for a new run.

    Raises:
        FiresegError: If the file cannot be read, or contains only weights.
    """
    if point.checkpoint is None:
        return None
    content = load_tensors(point.checkpoint)
    if "optimizer" not in content:
        raise SettingError(
            f"resume: {point.checkpoint} contains only weights, not the state of a training; resume from last.pt, "
            f"or start a new run from these weights: {format_override('model.weights', point.checkpoint)}"
        )
    return content


def _make_model(settings: Settings, *, is_resumed: bool) -> FireSegmentationModel:
    torch.manual_seed(derive_seed(settings["seed"], 0))
    # A resumed run overwrites its initial weights; the file they came from need not exist any more.
    node = settings["model"] | ({"weights": "none"} if is_resumed else {})
    return make(node, FireSegmentationModel)


def _find_data_faults(settings: Settings, task: Task) -> list[str]:
    """Finds missing patches without reading any, so that they are reported together with missing weights."""
    data = make(settings["data"], WildfireDataModule, task=task)
    if data.maker is not None:  # would create them
        return []
    try:
        open_splits(data.patches_root, task.name)
    except FiresegError as error:
        return list(error.faults)
    return []


def _make_data(
    settings: Settings, task: Task, engine: Engine, sharding: Sharding, saved: dict[str, Any] | None
) -> tuple[WildfireDataModule, SelfTraining | None]:
    """Makes and checks the data, and has the teacher label unlabelled patches."""
    given = {"task": task, "seed": settings["seed"], "pin_memory": engine.device.type == "cuda"}
    data = make(settings["data"], WildfireDataModule, **given, sharding=sharding)
    device: DeviceName = engine.device.type  # pyright: ignore[reportAssignmentType]
    # Before the patches are read: if it does not fit, no time was spent on them.
    teacher = open_teacher(data, device, (saved or {}).get("self_training")) if data.unlabelled_roots else None
    data.setup()
    for note in data.notes:
        log.warning(note)
    return data, None if teacher is None else label_patches(data, teacher, device)


def _make_state(settings: Settings, engine: Engine, model: FireSegmentationModel) -> TrainingState:
    engine.to_device(model)
    optimizer = make(settings["optimizer"], Optimizer, parameters=model.parameters())
    scheduler = None
    if settings["scheduler"] is not None:
        scheduler = make(settings["scheduler"], LRScheduler, optimizer=optimizer, epochs=engine.epochs)
    return engine.create_state(model, optimizer, scheduler)


def _get_class_counts(data: WildfireDataModule, point: ResumePoint) -> tuple[int, ...]:
    """Returns the counts that the loss is weighted by: those a resumed run began with, else those of the patches.

    Earlier versions counted pixels of overlapping patches more than once, and the loss of a run must not change.
    """
    folder = find_run_folder(point.checkpoint) if point.checkpoint else None
    counts = RunFolder(folder).read_provenance().get("data", {}).get("class_counts", ()) if folder else ()
    return tuple(counts) if len(counts) == len(data.class_counts) else data.class_counts


def _make_loss(settings: Settings, task: Task, counts: Sequence[int]) -> CombinedLoss | AuxiliaryLoss:
    if absent := [name for name, count in zip(task.class_names, counts, strict=True) if count == 0]:
        log.warning("the training split has no pixel of %s; the loss weight is 1", ", ".join(absent))
    loss = make(settings["loss"], CombinedLoss, class_counts=counts, ignore_index=task.ignore_index)
    if loss.class_weights is not None:
        weights = zip(task.class_names, loss.class_weights.tolist(), strict=True)
        log.info("class weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in weights))
    return AuxiliaryLoss(loss, task.auxiliary_weight) if task.auxiliary else loss


def _restore_state(state: TrainingState, stopping: EarlyStopping, saved: dict[str, Any], point: ResumePoint) -> None:
    try:
        state.load_state_dict(saved)
        stopping.load_state_dict(saved["stopping"])
    except (FiresegError, LookupError, TypeError) as error:
        raise FiresegError(
            f"{point.checkpoint}: {error}, so the training cannot be resumed; resume from a numbered checkpoint, or "
            f"start a new run with {format_override('model.weights', point.checkpoint or '')}"
        ) from error


def _check_same_data(data: WildfireDataModule, saved: dict[str, Any], point: ResumePoint) -> None:
    if data.fingerprint != (fingerprint := str(saved.get("fingerprint"))):
        assert point.checkpoint is not None
        raise FiresegError(
            f"data.root: {' and '.join(map(str, data.roots))} holds other patches than those {point.checkpoint} was "
            f"trained on (fingerprint {data.fingerprint[:12]}, not {fingerprint[:12]}); restore the old ones, "
            f"or start a new run with {format_override('model.weights', point.checkpoint)}"
        )


def _check_same_labels(labels: SelfTraining | None, saved: dict[str, Any], point: ResumePoint) -> None:
    before = (saved.get("self_training") or {}).get("fingerprint")
    if (labels.fingerprint if labels else None) != before:
        raise FiresegError(
            f"data.unlabelled: other patches, or other labels of the teacher, than those that {point.checkpoint} was "
            "trained on; restore them, with the folder pseudo_labels in them, or start a new run"
        )


def _restore_folder(folder: RunFolder, point: ResumePoint, stopping: EarlyStopping, epoch: int) -> None:
    """Restores the metrics and the best model of the folder to the epoch of the checkpoint."""
    parent = point.parent
    folder.cut_metrics(epoch, parent=parent)
    if not stopping.best_epoch:
        return
    source = (parent.checkpoints if parent else None) if point.is_branch else folder.checkpoints
    if not (source and _has_best(source / BEST_CHECKPOINT, stopping.best_epoch if point.is_branch else None)):
        log.warning("the best model up to epoch %d is not available; the search for the best starts again", epoch)
        stopping.best_score, stopping.best_loss, stopping.best_epoch = math.nan, math.nan, 0
    elif point.is_branch:
        shutil.copyfile(source / BEST_CHECKPOINT, folder.checkpoints / BEST_CHECKPOINT)


def _has_best(path: Path, epoch: int | None) -> bool:
    """Returns True if a best model is there, undamaged, and of the epoch, if one is given.

    That of a run that is resumed in place may be of the epoch that was killed, which is trained again.
    """
    try:
        content = load_tensors(path)
    except FiresegError as error:
        log.warning("%s", error)
        return False
    return epoch is None or content.get("epoch") == epoch


def _write_provenance(folder: RunFolder, learner: Learner, point: ResumePoint) -> None:
    data, model = learner.data, learner.state.model
    assert isinstance(model, FireSegmentationModel)
    roots = [str(root.resolve()) for root in data.roots]
    weights = {} if point.checkpoint else {"weights": model.provenance}
    folder.write_provenance(
        {
            "versions": versions(),
            "git_commit": git_commit(),
            "host": host(),
            "precision": learner.engine.precision,
            "data": {
                "root": roots if len(roots) > 1 else roots[0],
                "fingerprint": data.fingerprint,
                "bands": list(data.bands),
                "indices": list(data.indices),
                "mean": list(data.mean),
                "std": list(data.std),
                "class_counts": list(_get_class_counts(data, point)),
                "pixel_m": data.summary.pixel_m,
                "level": data.summary.level,
            },
            "model": {"num_parameters": sum(parameter.numel() for parameter in model.parameters())},
            **({"self_training": asdict(learner.self_training)} if learner.self_training else {}),
            **weights,
        }
    )
    if weights:
        source, sha256, note = (model.provenance[key] for key in ("source", "sha256", "note"))
        parts = (source, f"sha256 {sha256[:12]}" if sha256 else "", note)
        log.info("weights: %s", ", ".join(part for part in parts if part))
        if trained_on := model.provenance.get("fingerprint"):
            warn_of_other_patches("model.weights", source, trained_on, data)
