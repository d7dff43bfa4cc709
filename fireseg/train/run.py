"""One training run: trains epoch by epoch and writes the run folder."""

from __future__ import annotations

import copy
import logging
import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fireseg.batch import Batch
from fireseg.console import format_command, format_epoch, format_score, progress_bar
from fireseg.engine import SINGLE_PROCESS, Interrupted, Interrupts, LostProcessError, Processes
from fireseg.errors import FiresegError
from fireseg.files import BEST_CHECKPOINT, load_tensors
from fireseg.model import FireSegmentationModel, drop_auxiliary_head
from fireseg.plots import render_batch, render_curves, render_samples
from fireseg.runs.checkpoint import FORMAT
from fireseg.runs.folder import ResumePoint, RunFolder, link_latest, versions
from fireseg.runs.sync import finish_tracking, name_run, note_run_ids, send_files, start_tracking
from fireseg.tracker import describe_charts
from fireseg.train.build import Settings, Training, build_learner, build_training

log = logging.getLogger("fireseg")

NUM_SAMPLES = 6


def train(
    settings: Settings,
    folder: RunFolder,
    *,
    point: ResumePoint,
    interrupts: Interrupts,
    processes: Processes = SINGLE_PROCESS,
    run_name: str = "",
    sweep: str = "",
    should_prune: Callable[[int], bool] = lambda _: False,
) -> None:
    """Trains a model and writes all files of its run folder.

    If several processes train together, this is the main one; the others call `train_along`.

    Args:
        settings: Checked settings.
        folder: Folder of the run.
        point: Checkpoint to resume from, if any.
        interrupts: Handler of Ctrl-C, SIGTERM and SIGHUP.
        processes: Processes that train together.
        run_name: Settings by which the tracker names the run, as `seed=1`; the name of the folder if empty.
        sweep: Name of the sweep that the run is a job of; empty for a single run.
        should_prune: Called with each epoch when it is saved; True ends the training, as for a job that is behind.

    Raises:
        FiresegError: If something fails that the user can fix.
        Interrupted: If a signal was received.
    """
    processes.broadcast((settings, point))
    if point.is_branch:  # first of all: a branch that is killed before its first last.pt starts from there again
        assert point.checkpoint is not None
        folder.write_provenance({"parent": str(point.checkpoint.absolute())})
    folder.write_config(settings)
    try:
        run = build_training(settings, folder, point, processes)
        tags = {"sweep": sweep} if sweep else {}
        name = name_run(run_name) or folder.path.name
        start_tracking(run.tracker, folder, name=name, tags=tags, num_epochs_done=run.state.epoch)
    except BaseException:
        if point.folder is None:  # a new folder without run.json: the command removes it
            folder.provenance.unlink(missing_ok=True)
        raise
    log.info("run folder: %s", folder.path)
    if not sweep and folder.path.resolve().parent == Path(settings["output_dir"]).resolve():
        link_latest(folder.path)
    run.tracker.artifact(folder.config)
    status = "FAILED"
    try:
        if run.state.epoch == 0:
            _plot_first_batch(run)
        with interrupts.deferred():
            run_epochs(run, interrupts, processes, should_prune)
            if run.engine.swa_epochs and run.state.epoch == run.engine.epochs:
                _judge_average(run, interrupts)
        _save_results(run)
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt, LostProcessError):
        status = "KILLED"
        log.warning("stopped; continue with: %s", format_command("train", settings={"resume": folder.path}))
        raise
    finally:
        with suppress(FiresegError):  # a full disk: the error that ended the run is the one to report
            _note_peak_memory(run)
        with interrupts.deferred():  # torchrun sends SIGTERM as soon as another process has ended
            finish_tracking(run.tracker, folder, status)
    if not sweep:
        _log_next_steps(run)


def train_along(interrupts: Interrupts, processes: Processes) -> None:
    """Trains together with the main process, which writes the run folder and decides when to stop.

    Args:
        interrupts: Handler of Ctrl-C, SIGTERM and SIGHUP.
        processes: Processes that train together.

    Raises:
        FiresegError: If something fails that the user can fix.
        Interrupted: If a process received a signal.
    """
    settings, point = processes.broadcast()
    run = build_learner(settings, point, processes)
    with interrupts.deferred():
        if processes.broadcast():
            return
        for _ in run.engine.run(
            run.state,
            run.data,
            loss=run.loss,
            metrics=run.metrics,
            seed=settings["seed"],
            interrupts=interrupts,
            processes=processes,
        ):
            if processes.broadcast():
                return


def run_epochs(
    run: Training,
    interrupts: Interrupts,
    processes: Processes = SINGLE_PROCESS,
    should_prune: Callable[[int], bool] = lambda _: False,
) -> None:
    """Trains until the last epoch, early stopping or pruning, and records each epoch as it ends.

    `last.pt` is written after all other files of an epoch. If the process is killed before, the epoch
    is trained again when the run is resumed, and its files are overwritten with the same content.
    """
    first, total, start = run.state.epoch, run.engine.epochs, time.perf_counter()
    is_pruned = should_prune(first)
    if processes.broadcast(first >= total or run.stopping.should_stop or is_pruned):
        if is_pruned:
            return
        log.info("already finished after epoch %d; raise engine.epochs or stopping.patience to continue", first)
        return
    for epoch in run.engine.run(
        run.state,
        run.data,
        loss=run.loss,
        metrics=run.metrics,
        seed=run.settings["seed"],
        interrupts=interrupts,
        processes=processes,
        progress_bar=progress_bar,
    ):
        fire_iou = epoch.val["fire_iou"]
        is_best = run.stopping.update(epoch.number, fire_iou, loss=epoch.val["loss"])
        row = {"epoch": epoch.number, **epoch.row(), "best": is_best}
        seconds_per_epoch = (time.perf_counter() - start) / (epoch.number - first)
        log.info(format_epoch(row, total=total, seconds_left=seconds_per_epoch * (total - epoch.number)))
        run.folder.append_metrics(row)
        run.tracker.sync()
        note_run_ids(run.tracker, run.folder)
        if is_best:
            run.checkpoints.save_best(_model_checkpoint(run, epoch.number, fire_iou))
        run.checkpoints.save_state(epoch.number, _state_checkpoint(run))
        is_pruned = epoch.number < total and should_prune(epoch.number)
        if processes.broadcast(run.stopping.should_stop or is_pruned):
            if not is_pruned:
                log.info("no better fire_iou for %d epochs: stopped early", run.stopping.waited)
            break
        if epoch.number < total:
            interrupts.check(is_epoch_end=True)


def _judge_average(run: Training, interrupts: Interrupts) -> None:
    """Validates the mean of the weights of the last epochs, which becomes the best model if no epoch was better.

    A run that is killed before `run.json` notes the outcome judges it again when it is resumed, with the same result.
    """
    if "swa" in run.folder.read_provenance():
        return
    val = run.engine.validate_average(
        run.state,
        run.data,
        loss=run.loss,
        metrics=run.metrics,
        seed=run.settings["seed"],
        interrupts=interrupts,
        progress_bar=progress_bar,
    )
    fire_iou, epoch, num_epochs = val["fire_iou"], run.state.epoch, run.engine.swa_epochs
    # On a copy: last.pt keeps the best epoch.
    is_best = copy.copy(run.stopping).update(epoch, fire_iou, loss=val["loss"])
    if is_best:
        assert run.state.swa_model is not None
        run.checkpoints.save_best(_model_checkpoint(run, epoch, fire_iou, model=run.state.swa_model.module))
    scores = {f"val/{name}": value if math.isfinite(value) else None for name, value in val.items()}
    run.folder.write_provenance({"swa": {"epochs": num_epochs, "epoch": epoch, "is_best": is_best, **scores}})


def _save_results(run: Training) -> None:
    """Writes the final model and the plots, and passes the files of the run to the tracker."""
    run.checkpoints.save_final(_model_checkpoint(run, run.state.epoch, None))
    swa = run.folder.read_provenance().get("swa", {})
    if swa:
        log.info(
            "mean of the weights after the last %d epochs: val/fire_iou %s; %s",
            swa["epochs"],
            format_score(swa["val/fire_iou"], undefined="undefined"),
            "it is the best model" if swa["is_best"] else "an epoch was better",
        )
    if not swa.get("is_best"):
        _settle_best_epoch(run)
    _plot_results(run)
    send_files(run.tracker, run.folder)


def _settle_best_epoch(run: Training) -> None:
    """Logs the best epoch; if there is none, the last model is written as the best."""
    if run.stopping.best_epoch == 0:
        run.checkpoints.save_best(_model_checkpoint(run, run.state.epoch, None))
        log.warning("no validation loss was a number: %s is the last model, not the best", BEST_CHECKPOINT)
    elif math.isnan(run.stopping.best_score):
        reason = "the validation split has no burned pixel, so that val/fire_iou is undefined"
        log.warning("best: epoch %d, by val/loss %.4f: %s", run.stopping.best_epoch, run.stopping.best_loss, reason)
    else:
        log.info("best: epoch %d, val/fire_iou %.4f", run.stopping.best_epoch, run.stopping.best_score)


def _note_peak_memory(run: Training) -> None:
    """Writes the peak memory of this process, and on CUDA that of the tensors on the device, to `run.json`.

    Processes that load patches are not counted. A resumed run keeps the higher value.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if run.engine.device.type == "cuda":
        peak["device_bytes"] = torch.cuda.max_memory_allocated(run.engine.device)
    earlier = run.folder.read_provenance().get("peak_memory", {})
    run.folder.write_provenance(
        {"peak_memory": {**earlier, **{name: max(value, earlier.get(name, 0)) for name, value in peak.items()}}}
    )


def _log_next_steps(run: Training) -> None:
    """Logs where the results are, and the commands to type next."""
    folder, tracker = run.folder, run.settings["tracker"]
    is_tracked_by_mlflow = "mlflow" in tracker["_target_"]
    split = () if run.data.test is not None else ("--split", "val")
    lines = [
        f"run folder: {folder.path}",
        f"best model: {folder.checkpoints / BEST_CHECKPOINT}",
        f"plots: {', '.join(str(path) for path in (folder.batch, folder.samples, folder.curves))}",
        *([f"charts: {describe_charts(tracker.get('uri'))}"] if is_tracked_by_mlflow else []),
        "next:",
        f"  {format_command('evaluate', folder.path, *split)}",
        f"  {format_command('predict', folder.path, Path('SCENE.tif'))}",
        f"  {format_command('evaluate', folder.path, *split, '--against', 'OTHER_RUN')}",
    ]
    for line in lines:
        log.info("%s", line)


def _plot_results(run: Training) -> None:
    """Plots the metrics by epoch, and the prediction of the best model for some validation patches."""
    render_curves(run.folder.read_metrics(), run.folder.curves)
    model, best = run.state.eval_model, load_tensors(run.folder.checkpoints / BEST_CHECKPOINT)
    assert isinstance(model, FireSegmentationModel)
    model.load_task_state(best["model"])
    batch = run.data.sample_validation(NUM_SAMPLES)
    with torch.inference_mode():
        prediction = model.predict_segmentation(batch.image.to(run.engine.device)).cpu()
    render_samples(
        batch.image,
        batch.mask,
        prediction,
        batch.names,
        bands=run.data.bands,
        task=run.task,
        path=run.folder.samples,
        epoch=best["epoch"],
        scores={"fire_iou": best["val/fire_iou"]} if best["val/fire_iou"] is not None else None,
    )


def _plot_first_batch(run: Training) -> None:
    batch: Batch = next(iter(run.data.train_dataloader(1)))
    if batch.mask.ndim == 4:  # with an auxiliary task
        batch = batch._replace(mask=batch.mask[:, 0])
    render_batch(batch, bands=run.data.bands, indices=run.data.indices, task=run.task, path=run.folder.batch)
    run.tracker.artifact(run.folder.batch)


def _model_checkpoint(
    run: Training, epoch: int, score: float | None, *, model: nn.Module | None = None
) -> dict[str, Any]:
    """Returns the weights for inference, with all that is needed to use them; those of the run if no model is given."""
    state = drop_auxiliary_head((model or run.state.eval_model).state_dict(), run.task.num_classes)
    return {**_describe_run(run), "model": state, "epoch": epoch, "val/fire_iou": score}


def _state_checkpoint(run: Training) -> dict[str, Any]:
    """Returns the state of the training, which is enough to resume it bit by bit."""
    return {**_describe_run(run), **run.state.state_dict(), "stopping": run.stopping.state_dict()}


def _describe_run(run: Training) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "config": run.settings,
        "class_names": list(run.task.class_names),
        "bands": list(run.data.bands),
        "fingerprint": run.data.fingerprint,
        "pixel_m": run.data.summary.pixel_m,
        "level": run.data.summary.level,
        "self_training": asdict(run.self_training) if run.self_training else None,
        "precision": run.engine.precision,
        "versions": versions(),
    }
