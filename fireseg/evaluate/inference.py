"""Every patch of a split past the model and past the burn ratio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.batch import Batch
from fireseg.decision import argmax_classes, fire_log_odds, severity_classes
from fireseg.errors import FiresegError
from fireseg.evaluate.baseline import count_ratios, fixed_rule, normalised_burn_ratio
from fireseg.evaluate.mosaic import Layers, Mosaic, PatchPrediction, PatchSummary, summarize_patch
from fireseg.metric import find_components
from fireseg.runs import TrainedModel
from fireseg.task import IGNORE_INDEX

LOG_ODDS, ARGMAX, SEVERITY, RATIO, FIXED = "odds", "argmax", "grade", "ratio", "fixed"
"""Layers: log-odds of fire, likeliest class, likeliest class above 0, burn ratio, the fixed rule."""


class AvailableIndices(NamedTuple):
    """Which rules can be applied to some bands, and what those lack.

    Attributes:
        ratio: Why there is no burn ratio; empty where there is one.
        fixed: Why there is no fixed rule; empty where there is one.
    """

    ratio: str
    fixed: str

    @classmethod
    def of(cls, bands: Sequence[str]) -> AvailableIndices:
        """What the bands allow."""
        pixel = np.zeros((len(bands), 1), np.float32)
        reasons = []
        for rule in (normalised_burn_ratio, fixed_rule):
            try:
                rule(pixel, bands)
            except FiresegError as error:
                reasons.append(str(error).partition(", but ")[2] or str(error))
            else:
                reasons.append("")
        return cls(*reasons)


def predict_patches(trained: TrainedModel, batches: Iterable[Batch]) -> Iterator[PatchPrediction]:
    """What is said of every patch, in order.

    Args:
        trained: The model.
        batches: All patches of a split, with the bands of the model.

    Raises:
        FiresegError: If memory does not suffice.
    """
    indices = AvailableIndices.of(trained.bands)
    for batch in batches:
        said = predict_batch(trained, batch)
        for number in range(len(batch.names)):
            image, mask = batch.image[number].numpy(), batch.mask[number].numpy()
            truth = _settle(mask, trained.task.ignore_index)
            layers = {name: values[number] for name, values in said.items()}
            if not indices.ratio:
                layers[RATIO] = normalised_burn_ratio(image, trained.bands)
            if not indices.fixed:
                layers[FIXED] = fixed_rule(image, trained.bands)
            yield PatchPrediction(image, truth, layers, _sum_up(truth, layers))


@torch.inference_mode()
def predict_batch(trained: TrainedModel, batch: Batch) -> Layers:
    """What the model says of a batch.

    Returns:
        `odds` float32, `argmax` uint8 and `grade` uint8, `(B, H, W)` each.

    Raises:
        SettingError: If the batch does not fit into memory.
    """
    logits = trained.predict_logits(batch.image)
    layers = {LOG_ODDS: fire_log_odds(logits), ARGMAX: argmax_classes(logits), SEVERITY: severity_classes(logits)}
    return {name: values.cpu().numpy() for name, values in layers.items()}


def compute_ratios(batches: Iterable[Batch], bands: Sequence[str], *, ignore_index: int) -> Iterator[PatchPrediction]:
    """The burn ratio of every patch, in order, and nothing else.

    Args:
        batches: All patches of a split.
        bands: Of the patches; those of the ratio among them.
        ignore_index: Mask value of unlabelled pixels.
    """
    for batch in batches:
        for image, mask in zip(batch.image.numpy(), batch.mask.numpy(), strict=True):
            yield PatchPrediction(image[:0], _settle(mask, ignore_index), {RATIO: normalised_burn_ratio(image, bands)})


def count_fire_ratios(fires: Iterable[Mosaic]) -> NDArray[np.int64]:
    """Burn ratios by burned or not, as `burn_index.tune_threshold` takes them; each pixel counts once.

    Args:
        fires: All fires of a split, at least one.
    """
    return np.sum([count_ratios(fire.layers[RATIO], fire.truth) for fire in fires], axis=0)


def _settle(mask: NDArray[np.uint8], ignore_index: int) -> NDArray[np.uint8]:
    """The mask with 255 where nobody labelled, whatever value a task has for that."""
    return np.where(mask == ignore_index, np.uint8(IGNORE_INDEX), mask)


def _sum_up(truth: NDArray[np.uint8], layers: Layers) -> PatchSummary:
    return summarize_patch(
        truth,
        odds=layers[LOG_ODDS],
        argmax=layers[ARGMAX],
        ratio=layers.get(RATIO),
        fixed=layers.get(FIXED),
        components=find_components(layers[LOG_ODDS], truth != IGNORE_INDEX),
    )
