"""Predicts the same validation patches with the best models of a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fireseg.batch import Batch
from fireseg.console import format_score
from fireseg.data import WildfireDataModule
from fireseg.engine.device import set_threads
from fireseg.errors import FiresegError
from fireseg.metric import image_counts, segmentation_scores
from fireseg.plots import choose_composite, colour_classes, colour_errors, render_composite
from fireseg.plots.html import Picture, Strip, encode_pixels
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runs.leaderboard import Entry, Table
from fireseg.runs.patches import find_patches_root, open_data_module
from fireseg.runs.summary import RunSummary

_NUM_PATCHES, _NUM_ENTRIES = 3, 4

_FIRE_THRESHOLD = 0.01


@dataclass(frozen=True)
class Samples:
    """Pictures of patches with the predictions of several models.

    Attributes:
        strips: One for each patch: image, true mask, and the errors of each model.
        composite: Bands that the images show.
        classes: Class labels and their colours.
        entries: Number of entries whose predictions are shown.
    """

    strips: list[Strip]
    composite: str
    classes: list[tuple[str, str]]
    entries: int


def predict_samples(table: Table, data: Path | None = None) -> Samples:
    """Predicts three patches of val with the best run of each of the first four entries, by argmax as in training.

    Models with other bands read the same patches in their bands.

    Args:
        table: Ranked entries.
        data: Folder of the patches, if they have moved since the training.

    Raises:
        FiresegError: If a model or the patches cannot be read, or the patches have changed.
    """
    set_threads(None)
    entries = table.entries[:_NUM_ENTRIES]
    batches: dict[tuple[bool, tuple[str, ...]], Batch] = {}
    first: TrainedModel | None = None
    columns: list[list[Picture]] = []
    for rank, entry in enumerate(entries, start=1):
        trained = load_trained_model(entry.best_run.path)
        key = trained.is_scene_relative, trained.bands
        if key not in batches:
            module = _open_val(entry.best_run, trained, table, data)
            batches[key] = module.sample_validation(_NUM_PATCHES)
        batch = batches[key]
        if first is None:
            first = trained
            columns = [_draw_truth(batch, index, trained) for index in range(len(batch.names))]
        predictions = trained.predict_logits(batch.image).argmax(dim=1).cpu()
        for index, column in enumerate(columns):
            column.append(_draw_errors(batch, index, predictions[index], trained, f"{rank}", entry))
    assert first is not None  # a table has at least one entry
    task = first.task
    names = next(iter(batches.values())).names
    return Samples(
        strips=[Strip(name, "", column) for name, column in zip(names, columns, strict=True)],
        composite=choose_composite(first.bands).caption,
        classes=list(zip(task.labels, task.colours, strict=True)),
        entries=len(entries),
    )


def _open_val(run: RunSummary, trained: TrainedModel, table: Table, data: Path | None) -> WildfireDataModule:
    # The same threshold for all runs, so that the same patches are chosen.
    settings: dict[str, Any] = {**run.settings, "data": {**run.settings["data"], "fire_threshold": _FIRE_THRESHOLD}}
    root = find_patches_root(settings, run.provenance, data)
    module = open_data_module(settings, root, task=trained.task, required="val", num_workers=0)
    if module.fingerprint != table.fingerprint:
        raise FiresegError(
            f"{module.patches_root}: other patches than the runs were trained on (fingerprint "
            f"{module.fingerprint[:12]}, not {table.fingerprint[:12]}); restore those, or name their folder with --data"
        )
    return module


def _draw_truth(batch: Batch, index: int, trained: TrainedModel) -> list[Picture]:
    name, image, mask = batch.names[index], batch.image[index], batch.mask[index]
    composite = encode_pixels(render_composite(image, trained.bands), "jpeg")
    return [
        Picture("image", composite, f"Satellite image of patch {name}"),
        Picture("truth", encode_pixels(colour_classes(mask, trained.task), "png"), f"True mask of patch {name}"),
    ]


def _draw_errors(
    batch: Batch, index: int, prediction: Tensor, trained: TrainedModel, rank: str, entry: Entry
) -> Picture:
    name, mask, task = batch.names[index], batch.mask[index], trained.task
    counts = image_counts(prediction[None], mask[None], task.num_classes, ignore_index=task.ignore_index)[0]
    iou = format_score(segmentation_scores(counts, task.class_names)["fire_iou"], undefined="undefined")
    pixels = encode_pixels(colour_errors(mask, prediction, task), "png")
    return Picture(f"{rank}: IoU {iou}", pixels, f"Errors of {entry.label} on patch {name}, IoU {iou}")
