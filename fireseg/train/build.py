"""Settings in, a training with all its parts in place out."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fireseg.config import make
from fireseg.data import WildfireDataModule
from fireseg.engine import Checkpoints, EarlyStopping, Engine, TrainingState
from fireseg.engine.checkpoint import BEST
from fireseg.engine.loop import derive_seed
from fireseg.errors import FiresegError, SettingError
from fireseg.files import load_tensors
from fireseg.loss import CombinedLoss
from fireseg.metric import CombinedMetrics
from fireseg.model import FireSegmentationModel
from fireseg.runs import folder as provenance
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.task import Task
from fireseg.tracker import Tracker

log = logging.getLogger("fireseg")

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that a run is made of, built and in place."""

    settings: Settings
    folder: RunFolder
    task: Task
    engine: Engine
    data: WildfireDataModule
    state: TrainingState
    loss: CombinedLoss
    metrics: CombinedMetrics
    stopping: EarlyStopping
    checkpoints: Checkpoints
    tracker: Tracker


def build_training(settings: Settings, folder: RunFolder, point: ResumePoint) -> Training:
    """Builds every part of a run: the model first, so that a wrong one costs no reading of data.

    Args:
        settings: The checked settings.
        folder: The run's own folder.
        point: Where to go on from.

    Raises:
        FiresegError: If a part cannot be built.
    """
    content = read_state(point)
    task = make(settings["task"], Task)
    engine = make(settings["engine"], Engine)
    model = _make_model(settings, is_resumed=content is not None)
    data = _open_data(settings, task, pin_memory=engine.device.type == "cuda")
    if not model.is_normalised:
        model.set_normalisation(data.mean, data.std)
    state = _begin(settings, engine, model)
    stopping = make(settings["stopping"], EarlyStopping)
    if content is not None:
        _check_same_data(data, content, point)
        state.load_state_dict(content)
        stopping.load_state_dict(content["stopping"])
        _inherit(folder, point, stopping, state.epoch)
    else:
        folder.cut_metrics(0)
    _record(folder, model, data, point)
    return Training(
        settings=settings,
        folder=folder,
        task=task,
        engine=engine,
        data=data,
        state=state,
        loss=_make_loss(settings, task, data).to(engine.device),
        metrics=CombinedMetrics(task.num_classes, class_names=task.class_names, ignore_index=task.ignore_index),
        stopping=stopping,
        checkpoints=make(settings["checkpoint"], Checkpoints, folder=folder.checkpoints),
        tracker=make(settings["tracker"], Tracker),
    )


def read_state(point: ResumePoint) -> dict[str, Any] | None:
    """The state of a training to go on from, or None for a fresh start.

    Raises:
        FiresegError: If the file cannot be read, or holds weights alone.
    """
    if point.checkpoint is None:
        return None
    content = load_tensors(point.checkpoint)
    if "optimizer" not in content:
        raise SettingError(
            f"resume: {point.checkpoint} holds weights alone, not the state of a training; resume from last.pt, "
            f"or begin a new run with these weights: model.weights={point.checkpoint}"
        )
    return content


def _make_model(settings: Settings, *, is_resumed: bool) -> FireSegmentationModel:
    torch.manual_seed(derive_seed(settings["seed"], 0))
    # What a resumed run began with is overwritten by its state, and need not be there any more.
    node = settings["model"] | ({"weights": "none"} if is_resumed else {})
    return make(node, FireSegmentationModel)


def _open_data(settings: Settings, task: Task, *, pin_memory: bool) -> WildfireDataModule:
    data = make(settings["data"], WildfireDataModule, task=task, seed=settings["seed"], pin_memory=pin_memory)
    data.setup()
    for note in data.notes:
        log.warning(note)
    return data


def _begin(settings: Settings, engine: Engine, model: FireSegmentationModel) -> TrainingState:
    engine.to_device(model)
    optimizer = make(settings["optimizer"], Optimizer, parameters=model.parameters())
    scheduler = None
    if settings["scheduler"] is not None:
        scheduler = make(settings["scheduler"], LRScheduler, optimizer=optimizer, epochs=engine.epochs)
    return engine.create_state(model, optimizer, scheduler)


def _make_loss(settings: Settings, task: Task, data: WildfireDataModule) -> CombinedLoss:
    counts = data.class_counts
    if absent := [name for name, count in zip(task.class_names, counts, strict=True) if count == 0]:
        log.warning("the training split has no pixel of %s; it weighs 1 in the loss", ", ".join(absent))
    loss = make(settings["loss"], CombinedLoss, class_counts=counts, ignore_index=task.ignore_index)
    if loss.class_weights is not None:
        weights = zip(task.class_names, loss.class_weights.tolist(), strict=True)
        log.info("class weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in weights))
    return loss


def _check_same_data(data: WildfireDataModule, content: dict[str, Any], point: ResumePoint) -> None:
    if data.fingerprint != content["fingerprint"]:
        raise FiresegError(
            f"data.root: {data.patches_root} holds other patches than {point.checkpoint} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, then {content['fingerprint'][:12]}); bring the old ones back, "
            f"or begin a new run with model.weights={point.checkpoint}"
        )


def _inherit(folder: RunFolder, point: ResumePoint, stopping: EarlyStopping, epoch: int) -> None:
    """Brings a folder to the state of the checkpoint: no later rows, and the best model so far."""
    parent = point.parent
    if parent is not None:
        rows = [row for row in parent.read_metrics() if row["epoch"] <= epoch]
        for row in rows:
            folder.append_metrics(row)
    folder.cut_metrics(epoch)
    if point.folder is None and stopping.best_epoch:
        best = parent.checkpoints / BEST if parent else None
        if best is not None and best.exists() and load_tensors(best)["epoch"] == stopping.best_epoch:
            folder.checkpoints.mkdir(exist_ok=True)
            shutil.copyfile(best, folder.checkpoints / BEST)
        else:
            log.info("the best model up to epoch %d is not at hand: the best one is sought anew", epoch)
            stopping.best_score, stopping.best_epoch = math.nan, 0


def _record(folder: RunFolder, model: FireSegmentationModel, data: WildfireDataModule, point: ResumePoint) -> None:
    weights = {} if point.checkpoint else {"weights": model.provenance}
    folder.write_provenance(
        {
            "versions": provenance.versions(),
            "git_commit": provenance.git_commit(),
            "host": provenance.host(),
            "data": {
                "root": str(data.patches_root.resolve()),
                "fingerprint": data.fingerprint,
                "bands": list(data.bands),
                "mean": list(data.mean),
                "std": list(data.std),
                "class_counts": list(data.class_counts),
            },
            **weights,
            **({"parent": str(point.checkpoint)} if point.folder is None and point.checkpoint else {}),
        }
    )
    if weights:
        known = (
            f"sha256 {model.provenance['sha256'][:12]}" if model.provenance["sha256"] else "",
            model.provenance["note"],
        )
        log.info("weights: %s", ", ".join(part for part in (model.provenance["source"], *known) if part))
