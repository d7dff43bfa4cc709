"""Patches side by side with their masks and what a model made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fireseg.batch import Batch
from fireseg.plots.style import (
    ERROR_COLOURS,
    Pixels,
    choose_composite,
    colour_classes,
    colour_errors,
    compare,
    compose_figure,
    render_composite,
    save_figure,
    to_array,
)
from fireseg.task import Task


def render_batch(
    batch: Batch, *, bands: Sequence[str], task: Task, path: Path, count: int = 8, title: str = ""
) -> None:
    """Draws what the model sees: augmented patches beside their masks.

    Args:
        batch: Patches as the model gets them.
        bands: The bands of the images, in order.
        task: What the masks mean.
        path: The PNG file to write.
        count: How many patches at most, the first ones of the batch.
        title: The heading, where it is to differ.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    shown = min(count, len(batch.names))
    masks = [to_array(mask) for mask in batch.mask[:shown]]
    figure, blocks = compose_figure(
        [(name, _describe_mask(mask, task)) for name, mask in zip(batch.names, masks, strict=False)],
        panels=("image", "mask"),
        shape=masks[0].shape,
        title=title or f"What the model sees, after augmentation (task {task.name})",
        notes=[f"Image: {choose_composite(bands).caption}.", f"The model gets {' '.join(bands)}."],
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
    """Draws patches beside truth, prediction and where the two agree on burned or not.

    Args:
        image: Surface reflectance, `(B, C, H, W)`.
        mask: True class of every pixel, `(B, H, W)`.
        prediction: Predicted class of every pixel, `(B, H, W)`.
        names: Patch names, B of them.
        bands: The bands of the images, in order.
        task: What the masks mean.
        path: The PNG file to write.
        epoch: After which epoch, for the heading.
        scores: Scores of the whole split, for the heading; None where there was nothing to read.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    truths, predictions = to_array(mask), to_array(prediction)
    pairs = list(zip(truths, predictions, strict=True))
    whole = ", ".join(f"{name} {_spell(value)}" for name, value in (scores or {}).items())
    figure, blocks = compose_figure(
        [(name, _describe_pair(*pair, task)) for name, pair in zip(names, pairs, strict=True)],
        panels=("image", "truth", "prediction", "agreement"),
        shape=truths.shape[1:],
        title=f"Truth and prediction (task {task.name})" + (f" after epoch {epoch}" if epoch is not None else ""),
        notes=[f"Image: {choose_composite(bands).caption}.", f"Whole split: {whole}." if whole else ""],
        keys={"Classes": _class_key(task), "Agreement": ERROR_COLOURS},
    )
    for axes, reflectance, (truth, predicted) in zip(blocks, image, pairs, strict=True):
        axes[0].imshow(render_composite(reflectance, bands))
        axes[1].imshow(colour_classes(truth, task))
        axes[2].imshow(colour_classes(predicted, task))
        axes[3].imshow(colour_errors(truth, predicted, task))
    save_figure(figure, path)


def _describe_mask(mask: np.ndarray, task: Task) -> str:
    labelled = mask != task.ignore_index
    if not labelled.any():
        return "nothing labelled"
    text = f"{_spell_share((mask[labelled] > 0).mean())} burned"
    return text if labelled.all() else f"{text}, {_spell_share(1 - labelled.mean())} unlabelled"


def _describe_pair(truth: np.ndarray, prediction: np.ndarray, task: Task) -> str:
    counts = np.bincount(compare(truth, prediction, task).ravel(), minlength=4)
    if not counts[:4].any():
        return "nothing labelled"
    fire = counts[1:4].sum()
    return f"fire IoU {counts[3] / fire:.2f}" if fire else "no fire, none predicted"


def _spell_share(share: float) -> str:
    """A few burned pixels are not none."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _spell(score: float | None) -> str:
    return "-" if score is None or np.isnan(score) else f"{score:.3f}"


def _class_key(task: Task) -> dict[str, str]:
    return dict(zip(task.class_names, task.colours, strict=True))
