"""Figures of patches with their masks and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fireseg.console import format_score, format_share
from fireseg.plots.style import (
    ERROR_COLOURS,
    choose_composite,
    colour_classes,
    colour_errors,
    compose_figure,
    encode_errors,
    render_composite,
    save_figure,
    to_array,
)
from fireseg.task import Task

if TYPE_CHECKING:
    from fireseg.batch import Batch
    from fireseg.plots.style import Pixels


def render_batch(
    batch: Batch,
    *,
    bands: Sequence[str],
    indices: Sequence[str] = (),
    task: Task,
    path: Path,
    count: int = 8,
    title: str = "",
) -> None:
    """Draws the model input: augmented patches next to their masks.

    Args:
        batch: Augmented patches.
        bands: Bands of the images, in order.
        indices: Spectral indices that the model computes from them.
        task: Task of the masks.
        path: Path of the PNG file to write.
        count: Maximum number of patches, from the start of the batch.
        title: Title of the figure, if other than the default.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    masks = [to_array(mask) for mask in batch.mask[:count]]
    figure, blocks = compose_figure(
        [(name, _describe_mask(mask, task)) for name, mask in zip(batch.names, masks, strict=False)],
        panels=("image", "mask"),
        shape=masks[0].shape,
        title=title or f"Model input after augmentation (task {task.name})",
        notes=[
            f"Image: {choose_composite(bands).caption}.",
            f"Input bands of the model: {' '.join(bands)}{'; indices: ' if indices else ''}{' '.join(indices)}.",
        ],
        keys={"Mask": _class_key(task)},
    )
    for axes, image, mask in zip(blocks, batch.image, masks, strict=False):
        axes[0].imshow(render_composite(image, bands))
        axes[1].imshow(colour_classes(mask, task))
    save_figure(figure, path)


def render_samples(
    image: Pixels,
    mask: Pixels,
    prediction: Pixels,
    names: Sequence[str],
    *,
    bands: Sequence[str],
    task: Task,
    path: Path,
    epoch: int | None = None,
    scores: Mapping[str, float | None] | None = None,
) -> None:
    """Draws patches next to truth, prediction and the agreement of both on burned pixels.

    Args:
        image: Surface reflectance, `(B, C, H, W)`.
        mask: True class of every pixel, `(B, H, W)`.
        prediction: Predicted class of every pixel, `(B, H, W)`.
        names: B patch names.
        bands: Bands of the images, in order.
        task: Task of the masks.
        path: Path of the PNG file to write.
        epoch: Epoch of the prediction, for the title.
        scores: Scores of the whole split, for the notes; None if undefined.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    truths, predictions = to_array(mask), to_array(prediction)
    pairs = list(zip(truths, predictions, strict=True))
    split_scores = ", ".join(f"{name} {format_score(value)}" for name, value in (scores or {}).items())
    figure, blocks = compose_figure(
        [(name, _describe_pair(*pair, task)) for name, pair in zip(names, pairs, strict=True)],
        panels=("image", "truth", "prediction", "agreement"),
        shape=truths.shape[1:],
        title=f"Truth and prediction (task {task.name})" + (f" after epoch {epoch}" if epoch is not None else ""),
        notes=[f"Image: {choose_composite(bands).caption}.", f"Whole split: {split_scores}." if split_scores else ""],
        keys={"Classes": _class_key(task), "Agreement": ERROR_COLOURS},
    )
    for axes, reflectance, (truth, predicted) in zip(blocks, image, pairs, strict=True):
        axes[0].imshow(render_composite(reflectance, bands))
        axes[1].imshow(colour_classes(truth, task))
        axes[2].imshow(colour_classes(predicted, task))
        axes[3].imshow(colour_errors(truth, predicted, task))
    save_figure(figure, path)


def _describe_mask(mask: np.ndarray, task: Task) -> str:
    is_labelled = mask != task.ignore_index
    if not is_labelled.any():
        return "unlabelled"
    text = f"{format_share(float((mask[is_labelled] > 0).mean()))} burned"
    return text if is_labelled.all() else f"{text}, {format_share(float(1 - is_labelled.mean()))} unlabelled"


def _describe_pair(truth: np.ndarray, prediction: np.ndarray, task: Task) -> str:
    counts = np.bincount(encode_errors(truth, prediction, task).ravel(), minlength=4)
    if not counts[:4].any():
        return "unlabelled"
    union = counts[1:4].sum()
    return f"fire IoU {counts[3] / union:.2f}" if union else "no fire, none predicted"


def _class_key(task: Task) -> dict[str, str]:
    return dict(zip(task.labels, task.colours, strict=True))
