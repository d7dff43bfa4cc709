"""Runs the model and the NBR baseline on every patch of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.batch import Batch
from fireseg.decision import argmax_classes, fire_log_odds, severity_classes
from fireseg.evaluate.baseline import (
    count_ratios,
    fixed_rule,
    missing_for_fixed_rule,
    missing_for_nbr,
    normalised_burn_ratio,
)
from fireseg.evaluate.mosaic import Layers, Mosaic, PatchPrediction, summarize_patch
from fireseg.metric import find_components
from fireseg.runs import TrainedModel
from fireseg.task import IGNORE_INDEX

LOG_ODDS, ARGMAX, SEVERITY, NBR, FIXED_RULE = "log_odds", "argmax", "severity", "nbr", "fixed_rule"
"""Layers: log-odds of fire, argmax class, argmax over the classes above 0, burn ratio, burned by the fixed rule."""


class MissingBands(NamedTuple):
    """Bands that the baseline rules need and a model does not have.

    Attributes:
        nbr: Reason why there is no burn ratio; empty if there is one.
        fixed_rule: Reason why the fixed rule cannot be applied; empty if it can.
    """

    nbr: str
    fixed_rule: str


def find_missing_bands(bands: Sequence[str]) -> MissingBands:
    """Finds the bands that each baseline rule lacks."""
    return MissingBands(missing_for_nbr(bands), missing_for_fixed_rule(bands))


def predict_patches(trained: TrainedModel, batches: Iterable[Batch]) -> Iterator[PatchPrediction]:
    """Predicts every patch with the model and the baseline rules, in order.

    Args:
        trained: Model to run.
        batches: All patches of a split, with the bands of the model.

    Raises:
        FiresegError: If a batch does not fit in memory.
    """
    missing = find_missing_bands(trained.bands)
    for batch in batches:
        predictions = predict_batch(trained, batch)
        for number in range(len(batch.names)):
            image, mask = batch.image[number].numpy(), batch.mask[number].numpy()
            truth = _fill_unlabelled(mask, trained.task.ignore_index)
            layers = {name: values[number] for name, values in predictions.items()}
            if not missing.nbr:
                layers[NBR] = normalised_burn_ratio(image, trained.bands)
            if not missing.fixed_rule:
                layers[FIXED_RULE] = fixed_rule(image, trained.bands)
            summary = summarize_patch(
                truth,
                log_odds=layers[LOG_ODDS],
                argmax=layers[ARGMAX],
                nbr=layers.get(NBR),
                fixed_rule=layers.get(FIXED_RULE),
                components=find_components(layers[LOG_ODDS], truth != IGNORE_INDEX),
            )
            yield PatchPrediction(image, truth, layers, summary)


@torch.inference_mode()
def predict_batch(trained: TrainedModel, batch: Batch) -> Layers:
    """Predicts a batch with the model.

    Returns:
        `log_odds` float32, `argmax` uint8 and `severity` uint8, `(B, H, W)` each.

    Raises:
        SettingError: If the batch does not fit in memory.
    """
    logits = trained.predict_logits(batch.image)
    layers = {LOG_ODDS: fire_log_odds(logits), ARGMAX: argmax_classes(logits), SEVERITY: severity_classes(logits)}
    return {name: values.cpu().numpy() for name, values in layers.items()}


def compute_nbr(batches: Iterable[Batch], bands: Sequence[str], *, ignore_index: int) -> Iterator[PatchPrediction]:
    """Computes the burn ratio of every patch, in order, without running a model.

    Args:
        batches: All patches of a split.
        bands: Bands of the patches; those of the ratio must be among them.
        ignore_index: Mask value of unlabelled pixels.
    """
    for batch in batches:
        for image, mask in zip(batch.image.numpy(), batch.mask.numpy(), strict=True):
            truth = _fill_unlabelled(mask, ignore_index)
            yield PatchPrediction(image[:0], truth, {NBR: normalised_burn_ratio(image, bands)})


def count_nbr(mosaics: Iterable[Mosaic]) -> NDArray[np.int64]:
    """Counts burned and unburned pixels by burn ratio, for `baseline.tune_threshold`; each pixel counts once.

    Args:
        mosaics: All fires of a split, at least one.
    """
    return np.sum([count_ratios(mosaic.layers[NBR], mosaic.truth) for mosaic in mosaics], axis=0)


def _fill_unlabelled(mask: NDArray[np.uint8], ignore_index: int) -> NDArray[np.uint8]:
    """Replaces the ignore value of the task by 255."""
    return np.where(mask == ignore_index, np.uint8(IGNORE_INDEX), mask)
