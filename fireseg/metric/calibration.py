"""Calibration of the fire probability from log-odds histograms: temperature, threshold, reliability, scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX

NUM_LOG_ODDS_BINS = 3200

LOG_ODDS_RANGE = 16.0

LOG_ODDS_EDGES = np.linspace(-LOG_ODDS_RANGE, LOG_ODDS_RANGE, NUM_LOG_ODDS_BINS + 1)
"""Edges of bins of width 0.01, one at 0; the outermost bins also hold values beyond (p within 2e-7 of 0 or 1)."""

TEMPERATURE_RANGE = (0.05, 20.0)

NUM_RELIABILITY_BINS = 15

_BINS_PER_UNIT = NUM_LOG_ODDS_BINS / (2 * LOG_ODDS_RANGE)

_CENTRES = (LOG_ODDS_EDGES[1:] + LOG_ODDS_EDGES[:-1]) / 2

_NUM_BISECTIONS = 60

_MIN_FIRES_TO_CHOOSE = 3


def count_log_odds(
    log_odds: NDArray[np.floating], truth: NDArray[np.uint8], *, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.int64]:
    """Computes the histograms of log-odds over unburned and burned pixels; those of several images can be added.

    Args:
        log_odds: Log-odds from `fireseg.decision.fire_log_odds`, of any shape; values of unlabelled pixels are ignored.
        truth: Class of every pixel, of the same shape; above 0 is burned.
        ignore_index: Truth of unlabelled pixels.

    Returns:
        `(2, NUM_LOG_ODDS_BINS)`: numbers of unburned and burned pixels in each bin of `LOG_ODDS_EDGES`.

    Raises:
        FiresegError: If the log-odds of a labelled pixel are NaN.
        ValueError: If the shapes differ.
    """
    if log_odds.shape != truth.shape:
        raise ValueError(f"log_odds {log_odds.shape}, truth {truth.shape}: the shapes must be equal")
    is_labelled = truth != ignore_index
    labelled = log_odds[is_labelled]
    if num_nan := int(np.isnan(labelled).sum()):
        raise FiresegError(
            f"log_odds: {num_nan} of {labelled.size} labelled pixels are NaN, because the logits are not finite; "
            "use a checkpoint from before the training diverged"
        )
    # Floor after scaling keeps the sign of values just below 0.
    bins = (
        np.floor(np.clip(labelled, -LOG_ODDS_RANGE, LOG_ODDS_RANGE) * _BINS_PER_UNIT).astype(np.int64)
        + NUM_LOG_ODDS_BINS // 2
    )
    flat = np.minimum(bins, NUM_LOG_ODDS_BINS - 1) + NUM_LOG_ODDS_BINS * (truth[is_labelled] > 0)
    return np.bincount(flat, minlength=2 * NUM_LOG_ODDS_BINS).reshape(2, NUM_LOG_ODDS_BINS)


class Reliability(NamedTuple):
    """Reliability diagram: observed frequency of fire by predicted probability.

    Attributes:
        edges: Edges of the bins of fire probability, `(n + 1,)`, 0 to 1.
        confidence: Mean probability in each bin, `(n,)`; NaN in an empty bin.
        frequency: Share of truly burned pixels in each bin, `(n,)`; NaN in an empty bin.
        pixels: Number of pixels in each bin, `(n,)` int64.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    pixels: NDArray[np.int64]


class PrecisionRecall(NamedTuple):
    """Precision-recall curve over thresholds on the fire probability.

    Attributes:
        threshold: Probability from which on a pixel is burned, `(n,)`, descending.
        precision: Precision at each threshold, `(n,)`, 0 to 1.
        recall: Recall at each threshold, `(n,)`, 0 to 1, ascending; NaN if no pixel is truly burned.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def fit_temperature(counts: NDArray[np.int64]) -> float:
    """Fits the temperature T with which sigmoid(log_odds / T) is the best calibrated probability of fire.

    It minimises the mean negative log-likelihood, which is convex in 1 / T, by bisection. Log-odds
    beyond `LOG_ODDS_RANGE` count as the outermost bin.

    Args:
        counts: Histograms of a validation split, from `count_log_odds`.

    Returns:
        Temperature, 0.05 to 20; above 1 for an overconfident model. 1.0 without burned or without unburned pixels.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    if not counts.any(axis=1).all():
        return 1.0
    low, high = TEMPERATURE_RANGE
    for _ in range(_NUM_BISECTIONS):
        middle = math.sqrt(low * high)
        gradient = (counts.sum(axis=0) * _probability(_CENTRES, middle) - counts[1]) * _CENTRES
        # Derivative of the loss with respect to 1 / T: above 0 where a higher temperature fits better.
        low, high = (middle, high) if gradient.sum() > 0 else (low, middle)
    return float(np.clip(math.sqrt(low * high), *TEMPERATURE_RANGE))


def select_threshold(counts: NDArray[np.int64], *, temperature: float) -> float:
    """Selects the threshold on the calibrated fire probability with the best fire IoU.

    Of equally good thresholds the middle one is taken, the furthest from the pixels on either side.

    Args:
        counts: Histograms of a validation split, from `count_log_odds`.
        temperature: Temperature, as from `fit_temperature`.

    Returns:
        Threshold, above 0 and below 1; a pixel is burned if its probability is at least this. 0.5 if no pixel is
        truly burned.
    """
    if not counts[1].any():
        return 0.5
    threshold = _probability(LOG_ODDS_EDGES, temperature)[_find_best_bin(counts)]
    return float(np.clip(threshold, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0)))


class ThresholdGain(NamedTuple):
    """Gain in fire IoU of a chosen threshold over probability 0.5, cross-validated over fires.

    Attributes:
        gain: Pooled IoU with the chosen threshold minus that with 0.5; NaN with fewer than three fires.
        low: Lower end of the 95 % interval of the gain; NaN with fewer than three fires.
        high: Upper end; NaN with fewer than three fires.
        num: Number of tiles on which something burned.
    """

    gain: float
    low: float
    high: float
    num: int

    @property
    def is_certain(self) -> bool:
        """True if the whole interval is above 0; always False with fewer than three fires."""
        return self.low > 0


def cross_validate_threshold(counts: Sequence[NDArray[np.int64]]) -> ThresholdGain:
    """Estimates whether the threshold of `select_threshold` is better than probability 0.5 on other fires.

    For each tile, the threshold is chosen on all other tiles and applied to it; the pixels of all tiles together give
    the IoU. Scored on the pixels that it was chosen on, a threshold would always seem to gain. The interval is
    that of Student's t with the jackknife standard error over tiles. With fewer than three fires there are one or none
    to choose on and the error has no meaning, so that the gain is unknown.

    Args:
        counts: Histograms of each tile of a validation split, from `count_log_odds`.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 11.
    """
    tiles = np.array([each for each in counts if each.any()])
    num_fires = sum(bool(each[1].any()) for each in tiles)
    if num_fires < _MIN_FIRES_TO_CHOOSE:
        return ThresholdGain(math.nan, math.nan, math.nan, num_fires)
    from scipy.stats import t

    total, half = tiles.sum(axis=0), NUM_LOG_ODDS_BINS // 2
    # Hits, false alarms and burned pixels of each tile, with the chosen threshold and with 0.5.
    chosen = np.array([_count_from(each, _find_best_bin(total - each)) for each in tiles])
    plain = np.array([_count_from(each, half) for each in tiles])
    gain = float(_iou(chosen.sum(0)) - _iou(plain.sum(0)))
    without = _iou(chosen.sum(0) - chosen) - _iou(plain.sum(0) - plain)
    num = len(tiles)
    error = math.sqrt((num - 1) / num * float(((without - without.mean()) ** 2).sum()))
    reach = float(t.ppf(0.975, num - 1)) * error
    return ThresholdGain(gain, gain - reach, gain + reach, num_fires)


def _count_from(counts: NDArray[np.int64], first_bin: int) -> tuple[int, int, int]:
    return int(counts[1, first_bin:].sum()), int(counts[0, first_bin:].sum()), int(counts[1].sum())


def _iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Computes the IoU of hits, false alarms and burned pixels, `(..., 3)`."""
    hits, false_alarms, burned = np.moveaxis(counts, -1, 0)
    return hits / (burned + false_alarms)


def _find_best_bin(counts: NDArray[np.int64]) -> int:
    """Finds the first bin that counts as burned with the best IoU; the middle one of equally good bins."""
    unburned, burned = counts[:, ::-1].cumsum(axis=1)[:, -2::-1]
    iou = burned / (counts[1].sum() + unburned)
    best = np.flatnonzero(iou == iou.max())
    return int(best[len(best) // 2]) + 1


def score_calibration(counts: NDArray[np.int64], *, temperature: float) -> dict[str, float]:
    """Computes calibration scores of the fire probability; undefined scores are NaN.

    Args:
        counts: Histograms from `count_log_odds`.
        temperature: Temperature, as from `fit_temperature`; 1 for the uncalibrated model.

    Returns:
        `ece`: expected calibration error, |burned share - mean probability| over 15 equal bins of fire
        probability, weighted by their pixels, 0 to 1.
        `brier`: mean squared difference of probability and truth, 0 to 1.
        `nll`: mean negative log-likelihood, nats, from 0.
        `average_precision`: sum over descending thresholds of precision times gain in recall, 0 to 1; NaN if no
        pixel is truly burned.

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
    """Computes the share of truly burned pixels in bins of fire probability of equal width.

    Args:
        counts: Histograms from `count_log_odds`.
        temperature: Temperature, as from `fit_temperature`; 1 for the uncalibrated model.
        num_bins: Number of bins n, at least 1.
    """
    fire, pixels = _probability(_CENTRES, temperature), counts.sum(axis=0)
    number = np.minimum((fire * num_bins).astype(np.int64), num_bins - 1)
    total, expected, burned = (
        np.bincount(number, weights=weights, minlength=num_bins) for weights in (pixels, pixels * fire, counts[1])
    )
    shares = [np.divide(part, total, out=np.full(num_bins, np.nan), where=total > 0) for part in (expected, burned)]
    return Reliability(np.linspace(0.0, 1.0, num_bins + 1), shares[0], shares[1], total.astype(np.int64))


def precision_recall(counts: NDArray[np.int64], *, temperature: float) -> PrecisionRecall:
    """Computes precision and recall at every threshold at which they change.

    Args:
        counts: Histograms from `count_log_odds`.
        temperature: Temperature, as from `fit_temperature`; it changes the thresholds, not the curve.

    Returns:
        One point for each non-empty bin of log-odds, at its lower edge; empty without pixels.
    """
    occupied = np.flatnonzero(counts.any(axis=0))[::-1]
    unburned, burned = counts[:, occupied].cumsum(axis=1)
    truly_burned = counts[1].sum()
    recall = burned / truly_burned if truly_burned else np.full(len(occupied), np.nan)
    return PrecisionRecall(_probability(LOG_ODDS_EDGES[occupied], temperature), burned / (burned + unburned), recall)


def _log_probability(log_odds: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be above 0")
    return -np.logaddexp(0.0, -log_odds / temperature)


def _probability(log_odds: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    return np.exp(_log_probability(log_odds, temperature))
