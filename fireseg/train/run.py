"""One training run, from its settings to its finished folder."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from fireseg.batch import Batch
from fireseg.console import format_epoch, progress_bar
from fireseg.engine import Interrupted, Interrupts
from fireseg.engine.checkpoint import BEST
from fireseg.files import load_tensors
from fireseg.model import FireSegmentationModel
from fireseg.plots import render_batch, render_curves, render_samples
from fireseg.runs import folder as provenance
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.runs.sync import finish_tracking, list_files, note_run_ids, start_tracking
from fireseg.train.build import Settings, Training, build_training

log = logging.getLogger("fireseg")

NUM_SAMPLES = 6


def train(
    settings: Settings,
    folder: RunFolder,
    *,
    point: ResumePoint,
    interrupts: Interrupts,
    run_name: str = "",
    tags: dict[str, str] | None = None,
) -> None:
    """Trains a model and leaves the run's folder complete.

    Args:
        settings: The checked settings.
        folder: The run's own folder.
        point: Where to go on from.
        interrupts: What Ctrl-C and SIGTERM reach.
        run_name: What the tracker shows; the folder's name where empty.
        tags: Further tags for the tracker, as the sweep that the run belongs to.

    Raises:
        FiresegError: If something is wrong that the user can mend.
        Interrupted: If a signal came.
    """
    folder.write_config(settings)
    log.info("run folder: %s", folder.path)
    training = build_training(settings, folder, point)
    name = run_name or folder.path.name
    start_tracking(training.tracker, folder, name=name, tags=tags or {}, num_epochs_done=training.state.epoch)
    training.tracker.artifact(folder.config)
    status = "FAILED"
    try:
        if training.state.epoch == 0:
            _draw_batch(training)
        with interrupts.deferred():
            run_epochs(training, interrupts)
        finish(training)
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        log.warning("stopped; go on with resume=%s", folder.path)
        raise
    finally:
        finish_tracking(training.tracker, folder, status)


def run_epochs(training: Training, interrupts: Interrupts) -> None:
    """Trains until the epochs or the patience are used up, writing down each epoch as it comes.

    The order matters: `last.pt` is written after all else, so that whatever a killed process left
    of a later epoch is done again, to the bit.
    """
    t = training
    first, total, begin = t.state.epoch, t.engine.epochs, time.perf_counter()
    if first >= total or t.stopping.is_over:
        log.info("nothing is left to do after epoch %d; raise engine.epochs or stopping.patience to go on", first)
        return
    for epoch in t.engine.run(
        t.state,
        t.data,
        loss=t.loss,
        metrics=t.metrics,
        seed=t.settings["seed"],
        interrupts=interrupts,
        watch=progress_bar,
    ):
        is_best = t.stopping.update(epoch.number, epoch.val["fire_iou"])
        pace = (time.perf_counter() - begin) / (epoch.number - first)
        row = {"epoch": epoch.number, **epoch.row(), "best": is_best}
        log.info(format_epoch(row, total=total, seconds_left=pace * (total - epoch.number)))
        t.folder.append_metrics(row)
        t.tracker.sync()
        note_run_ids(t.tracker, t.folder)
        if is_best:
            t.checkpoints.save_best(_kept(t, epoch.number, epoch.val["fire_iou"]))
        t.checkpoints.save_state(epoch.number, _whole(t))
        if t.stopping.is_over:
            log.info("no better fire_iou for %d epochs: stopped early", t.stopping.waited)
            break


def finish(training: Training) -> None:
    """Writes the final model and the pictures, and hands over what is worth keeping."""
    t = training
    t.checkpoints.save_final(_kept(t, t.state.epoch, None))
    if t.stopping.best_epoch == 0:
        t.checkpoints.save_best(_kept(t, t.state.epoch, None))
        log.warning("val/fire_iou was never a number: %s is the last model, not a chosen one", BEST)
    else:
        log.info("best: epoch %d, val/fire_iou %.4f", t.stopping.best_epoch, t.stopping.best_score)
    draw_results(t)
    for path, subfolder in list_files(t.folder):
        t.tracker.artifact(path, subfolder)
    log.info("pictures: %s", ", ".join(str(path) for path in (t.folder.batch, t.folder.samples, t.folder.curves)))


def draw_results(training: Training) -> None:
    """Draws the curves, and what the best model makes of some validation patches."""
    t = training
    render_curves(t.folder.read_metrics(), t.folder.curves)
    model, best = t.state.eval_model, load_tensors(t.folder.checkpoints / BEST)
    assert isinstance(model, FireSegmentationModel)
    model.load_state_dict(best["model"])
    batch = t.data.sample_validation(NUM_SAMPLES)
    with torch.inference_mode():
        prediction = model.predict_segmentation(batch.image.to(t.engine.device)).cpu()
    render_samples(
        batch.image,
        batch.mask,
        prediction,
        batch.names,
        bands=t.data.bands,
        task=t.task,
        path=t.folder.samples,
        epoch=best["epoch"],
        scores={"fire_iou": best["val/fire_iou"]} if best["val/fire_iou"] is not None else None,
    )


def _draw_batch(t: Training) -> None:
    batch: Batch = next(iter(t.data.train_dataloader(1)))
    render_batch(batch, bands=t.data.bands, task=t.task, path=t.folder.batch)
    t.tracker.artifact(t.folder.batch)


def _kept(t: Training, epoch: int, score: float | None) -> dict[str, Any]:
    """Weights, and what is needed to use them alone."""
    return {**_identity(t), "model": t.state.eval_model.state_dict(), "epoch": epoch, "val/fire_iou": score}


def _whole(t: Training) -> dict[str, Any]:
    """The whole state of the training, enough to go on to the bit."""
    return {**_identity(t), **t.state.state_dict(), "stopping": t.stopping.state_dict()}


def _identity(t: Training) -> dict[str, Any]:
    return {
        "format": 1,
        "config": t.settings,
        "class_names": list(t.task.class_names),
        "bands": list(t.data.bands),
        "fingerprint": t.data.fingerprint,
        "versions": provenance.versions(),
    }
