"""Bootstrap confidence intervals of means over fires and paired comparisons of two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean over fires with its confidence interval.

    Attributes:
        mean: Mean; NaN without values.
        low: Lower end of the interval; NaN with fewer than two values.
        high: Upper end of the interval; NaN with fewer than two values.
        num: Number of values.
    """

    mean: float
    low: float
    high: float
    num: int


class PairedComparison(NamedTuple):
    """Comparison of two runs, paired by fire.

    Attributes:
        difference: Mean over fires of ours minus theirs.
        wins: Number of fires on which ours is higher.
        losses: Number of fires on which theirs is higher.
        ties: Number of fires on which both are equal.
        p_value: p-value of the two-sided sign test, 0 to 1; NaN without pairs.
    """

    difference: Interval
    wins: int
    losses: int
    ties: int
    p_value: float


def bootstrap_mean(values: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95) -> Interval:
    """Computes a mean over fires with a percentile bootstrap interval.

    Fires are resampled, not pixels: pixels of one fire are correlated, and the score of an unseen fire is of
    interest.

    Args:
        values: One value for each fire; NaN is left out.
        seed: Random seed; the same seed gives the same interval.
        draws: Number of resampled means; memory grows with draws times values.
        level: Confidence level, above 0 and below 1.

    Raises:
        ValueError: If `draws` or `level` is out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 13.

    Example:
        >>> bootstrap_mean([0.8, 0.8, float("nan")])
        Interval(mean=0.8, low=0.8, high=0.8, num=2)
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws {draws}, level {level}: draws must be at least 1 and level between 0 and 1")
    return _bootstrap(_drop_nan(np.asarray(values, np.float64)), seed, draws, level)


def compare_paired(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0, draws: int = 2000
) -> PairedComparison:
    """Compares two runs on the same fires by a bootstrap interval and a sign test.

    The bootstrap interval of the mean difference measures its size. The exact sign test, without ties, tests
    whether wins and losses are equally likely; it makes no assumption on the distribution of the differences.

    Args:
        ours: One score for each fire.
        theirs: Scores of the same fires in the same order; a pair with NaN on either side is left out.
        seed: Random seed of the bootstrap.
        draws: Number of resampled means.

    Raises:
        ValueError: If the numbers of scores differ.

    References:
        Dixon and Mood, The statistical sign test, JASA 41(236), 1946.

    Example:
        >>> compare_paired([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]).p_value
        0.25
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} scores: both runs need one score for each fire")
    difference = _drop_nan(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    p_value = _sign_test(wins, losses) if difference.size else math.nan
    return PairedComparison(
        _bootstrap(difference, seed, draws, 0.95), wins, losses, difference.size - wins - losses, p_value
    )


def _drop_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _bootstrap(values: NDArray[np.float64], seed: int, draws: int, level: float) -> Interval:
    mean = float(values.mean()) if values.size else math.nan
    if values.size < 2:
        return Interval(mean, math.nan, math.nan, values.size)
    chosen = np.random.default_rng(seed).integers(0, values.size, (draws, values.size))
    low, high = np.quantile(values[chosen].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), values.size)


def _sign_test(wins: int, losses: int) -> float:
    """Probability that a fair coin falls at least as unevenly; whole numbers, so exact for any many fires."""
    num = wins + losses
    return min(2 * sum(math.comb(num, few) for few in range(min(wins, losses) + 1)) / 2**num, 1.0)
