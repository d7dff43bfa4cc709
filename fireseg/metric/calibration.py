"""What counts of log-odds say about the probability of fire: is it honest, and where to cut it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX

NUM_LOG_ODDS_BINS = 3200

LOG_ODDS_RANGE = 16.0

LOG_ODDS_EDGES = np.linspace(-LOG_ODDS_RANGE, LOG_ODDS_RANGE, NUM_LOG_ODDS_BINS + 1)
"""Bins of 0.01, one edge at even odds; the outermost take what is beyond: probabilities within 2e-7 of 0 or 1."""

_BINS_PER_UNIT = NUM_LOG_ODDS_BINS / (2 * LOG_ODDS_RANGE)


def count_log_odds(
    odds: NDArray[np.floating], truth: NDArray[np.uint8], *, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.int64]:
    """Counts labelled pixels by burned or not and by log-odds; counts of several images add up.

    Args:
        odds: Of any shape, from `fireseg.decision.fire_log_odds`; whatever it is where nobody labelled.
        truth: Class of every pixel, of the same shape; above 0 is burned.
        ignore_index: Truth of unlabelled pixels.

    Returns:
        `(2, NUM_ODDS_BINS)`: unburned and burned pixels in each bin of `LOG_ODDS_EDGES`.

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
    bins = (
        np.floor(np.clip(labelled, -LOG_ODDS_RANGE, LOG_ODDS_RANGE) * _BINS_PER_UNIT).astype(np.int64)
        + NUM_LOG_ODDS_BINS // 2
    )
    flat = np.minimum(bins, NUM_LOG_ODDS_BINS - 1) + NUM_LOG_ODDS_BINS * (truth[is_labelled] > 0)
    return np.bincount(flat, minlength=2 * NUM_LOG_ODDS_BINS).reshape(2, NUM_LOG_ODDS_BINS)


TEMPERATURE_RANGE = (0.05, 20.0)

NUM_RELIABILITY_BINS = 15

_CENTRES = (LOG_ODDS_EDGES[1:] + LOG_ODDS_EDGES[:-1]) / 2

_NUM_HALVINGS = 60


class Reliability(NamedTuple):
    """How often it burned where the model said so, by what it said.

    Attributes:
        edges: Of the bins of fire probability, `(n + 1,)`, 0 to 1.
        confidence: Mean probability in each bin, `(n,)`; NaN in an empty one.
        frequency: Share of truly burned pixels in each bin, `(n,)`; NaN in an empty one.
        pixels: In each bin, `(n,)` int64.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    pixels: NDArray[np.int64]


class PrecisionRecall(NamedTuple):
    """Precision and recall of the rule "burned where the probability is at least this".

    Attributes:
        threshold: Probability, `(n,)`, descending.
        precision: `(n,)`, 0 to 1.
        recall: `(n,)`, 0 to 1, rising; NaN if nothing truly burns.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def fit_temperature(counts: NDArray[np.int64]) -> float:
    """The temperature T that makes sigmoid(odds / T) the most honest probability of fire.

    It minimises the mean negative log-likelihood, which is convex in 1 / T: halving the interval finds the
    one minimum. Odds beyond `LOG_ODDS_RANGE` count as the outermost bin.

    Args:
        counts: From `count_log_odds`, over a validation split.

    Returns:
        0.05 to 20; above 1 tones an overconfident model down. 1.0 where burned or unburned pixels are missing.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    if not counts.any(axis=1).all():
        return 1.0
    low, high = TEMPERATURE_RANGE
    for _ in range(_NUM_HALVINGS):
        middle = math.sqrt(low * high)
        surplus = (counts.sum(axis=0) * _probability(_CENTRES, middle) - counts[1]) * _CENTRES
        # The slope of the loss along 1 / T: above 0 where smaller odds, so a higher temperature, fit better.
        low, high = (middle, high) if surplus.sum() > 0 else (low, middle)
    return float(np.clip(math.sqrt(low * high), *TEMPERATURE_RANGE))


def select_threshold(counts: NDArray[np.int64], *, temperature: float) -> float:
    """The probability from which on calling a pixel burned gives the best fire IoU.

    Of equally good thresholds the middle one, furthest from the pixels on either side.

    Args:
        counts: From `count_log_odds`, over a validation split.
        temperature: As from `fit_temperature`.

    Returns:
        Above 0, below 1: burned where the calibrated probability is at least this. 0.5 where nothing burns.
    """
    if not counts[1].any():
        return 0.5
    unburned, burned = counts[:, ::-1].cumsum(axis=1)[:, -2::-1]
    iou = burned / (counts[1].sum() + unburned)
    best = np.flatnonzero(iou == iou.max())
    threshold = _probability(LOG_ODDS_EDGES[1:-1], temperature)[best[len(best) // 2]]
    return float(np.clip(threshold, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0)))


def score_calibration(counts: NDArray[np.int64], *, temperature: float) -> dict[str, float]:
    """How honest the calibrated probability of fire is; NaN where there is nothing to read.

    Args:
        counts: From `count_log_odds`.
        temperature: As from `fit_temperature`; 1 for the model as it is.

    Returns:
        `ece`: expected calibration error, |burned share - mean probability| over 15 equal bins of fire
        probability, weighted by their pixels, 0 to 1.
        `brier`: mean squared difference of probability and truth, 0 to 1.
        `nll`: mean negative log-likelihood, nats, from 0.
        `average_precision`: sum of precision times gain in recall down the thresholds, 0 to 1; NaN if nothing burns.

    References:
        Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
        Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78(1), 1950.
    """
    total = int(counts.sum())
    if not total:
        return dict.fromkeys(("ece", "brier", "nll", "average_precision"), math.nan)
    unburned, burned = counts
    fire = _probability(_CENTRES, temperature)
    bins, curve = reliability(counts, temperature=temperature), precision_recall(counts, temperature=temperature)
    loss = burned * -_log_probability(_CENTRES, temperature) + unburned * -_log_probability(-_CENTRES, temperature)
    return {
        "ece": float(np.nansum(bins.pixels * np.abs(bins.frequency - bins.confidence)) / total),
        "brier": float((burned * (1 - fire) ** 2 + unburned * fire**2).sum() / total),
        "nll": float(loss.sum() / total),
        "average_precision": float((np.diff(curve.recall, prepend=0.0) * curve.precision).sum()),
    }


def reliability(counts: NDArray[np.int64], *, temperature: float, num_bins: int = NUM_RELIABILITY_BINS) -> Reliability:
    """Share of truly burned pixels by the probability of fire, in bins of equal width.

    Args:
        counts: From `count_log_odds`.
        temperature: As from `fit_temperature`; 1 for the model as it is.
        num_bins: n, at least 1.
    """
    fire, pixels = _probability(_CENTRES, temperature), counts.sum(axis=0)
    number = np.minimum((fire * num_bins).astype(np.int64), num_bins - 1)
    total, promised, burned = (
        np.bincount(number, weights=weights, minlength=num_bins) for weights in (pixels, pixels * fire, counts[1])
    )
    shares = [np.divide(part, total, out=np.full(num_bins, np.nan), where=total > 0) for part in (promised, burned)]
    return Reliability(np.linspace(0.0, 1.0, num_bins + 1), shares[0], shares[1], total.astype(np.int64))


def precision_recall(counts: NDArray[np.int64], *, temperature: float) -> PrecisionRecall:
    """Precision and recall at every threshold at which they change.

    Args:
        counts: From `count_log_odds`.
        temperature: As from `fit_temperature`; it moves the thresholds, not the curve.

    Returns:
        One point for each bin of odds that holds a pixel, at its lower edge; empty without pixels.
    """
    taken = np.flatnonzero(counts.any(axis=0))[::-1]
    unburned, burned = counts[:, taken].cumsum(axis=1)
    truly_burned = counts[1].sum()
    recall = burned / truly_burned if truly_burned else np.full(len(taken), np.nan)
    return PrecisionRecall(_probability(LOG_ODDS_EDGES[taken], temperature), burned / (burned + unburned), recall)


def _log_probability(odds: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: want a number above 0")
    return -np.logaddexp(0.0, -odds / temperature)


def _probability(odds: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    return np.exp(_log_probability(odds, temperature))
