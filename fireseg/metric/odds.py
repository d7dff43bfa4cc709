"""How the log-odds of fire are spread over burned and unburned pixels."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX

NUM_ODDS_BINS = 3200
ODDS_RANGE = 16.0
ODDS_EDGES = np.linspace(-ODDS_RANGE, ODDS_RANGE, NUM_ODDS_BINS + 1)
"""Bins of 0.01, one edge at even odds; the outermost take what is beyond: probabilities within 2e-7 of 0 or 1."""

_BINS_PER_UNIT = NUM_ODDS_BINS / (2 * ODDS_RANGE)


def fire_odds(logits: Tensor) -> Tensor:
    """Log-odds of fire, log(p / (1 - p)) with p the sum of the softmax over the classes above 0.

    d = logsumexp(logits[1:]) - logits[0]. Unlike the probability it never saturates, and dividing it by a
    temperature T and taking sigmoid(d / T) is, for two classes, temperature scaling of the softmax.

    Args:
        logits: `(B, K, H, W)`, any floating dtype, K at least 2.

    Returns:
        `(B, H, W)` float32, above 0 where fire is the likelier; no NaN if the logits are finite.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Example:
        >>> fire_odds(torch.tensor([[[[1.0]], [[3.0]]]])).item()
        2.0
    """
    exact = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
    unburned, *burned = exact.unbind(1)
    # Pair by pair: for one burned class that costs nothing, and logsumexp a hundred times a subtraction.
    return (functools.reduce(torch.logaddexp, burned) - unburned).float()


def count_odds(
    odds: NDArray[np.floating], truth: NDArray[np.uint8], *, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.int64]:
    """Counts labelled pixels by burned or not and by log-odds; counts of several images add up.

    Args:
        odds: Of any shape, from `fire_odds`; whatever it is where nobody labelled.
        truth: Class of every pixel, of the same shape; above 0 is burned.
        ignore_index: Truth of unlabelled pixels.

    Returns:
        `(2, NUM_ODDS_BINS)`: unburned and burned pixels in each bin of `ODDS_EDGES`.

    Raises:
        FiresegError: If the odds of a labelled pixel are NaN.
        ValueError: If the shapes differ.
    """
    if odds.shape != truth.shape:
        raise ValueError(f"odds {odds.shape}, truth {truth.shape}: want the same shape")
    is_labelled = truth != ignore_index
    labelled = odds[is_labelled]
    if num_unreadable := int(np.isnan(labelled).sum()):
        given = f"odds: {num_unreadable} of {labelled.size} labelled pixels are NaN"
        raise FiresegError(f"{given}, but want finite logits; take a checkpoint from before the training diverged")
    # Floor after scaling keeps the sign: odds a hair below even stay below.
    bins = np.floor(np.clip(labelled, -ODDS_RANGE, ODDS_RANGE) * _BINS_PER_UNIT).astype(np.int64) + NUM_ODDS_BINS // 2
    flat = np.minimum(bins, NUM_ODDS_BINS - 1) + NUM_ODDS_BINS * (truth[is_labelled] > 0)
    return np.bincount(flat, minlength=2 * NUM_ODDS_BINS).reshape(2, NUM_ODDS_BINS)
