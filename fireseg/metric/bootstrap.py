"""How far a mean over fires can be trusted, and a difference between two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean over fires and where it may lie.

    Attributes:
        mean: NaN without a value.
        low: Lower end of the interval; NaN with fewer than two values.
        high: Upper end; NaN with fewer than two values.
        num: Values that went in.
    """

    mean: float
    low: float
    high: float
    num: int


class PairedComparison(NamedTuple):
    """Ours against theirs, fire by fire.

    Attributes:
        difference: Ours less theirs, mean over fires.
        wins: Fires on which ours is higher.
        losses: Fires on which theirs is higher.
        ties: Fires on which they are equal.
        p_value: Two-sided sign test, 0 to 1; NaN without a pair.
    """

    difference: Interval
    wins: int
    losses: int
    ties: int
    p_value: float


def bootstrap_mean(values: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95) -> Interval:
    """Mean over fires with a percentile bootstrap interval; the same seed gives the same interval.

    Fires are drawn with replacement, because pixels of one fire resemble one another and the next fire is the one
    that is asked about.

    Args:
        values: One a fire; NaN is left out.
        seed: Of the draws.
        draws: How many resampled means; memory grows with draws times values.
        level: Share of the means inside the interval, above 0 and below 1.

    Raises:
        ValueError: If `draws` or `level` is out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 13.

    Example:
        >>> bootstrap_mean([0.8, 0.8, float("nan")])
        Interval(mean=0.8, low=0.8, high=0.8, num=2)
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws {draws}, level {level}: want draws from 1 and a level between 0 and 1")
    return _bootstrap(_drop_nan(np.asarray(values, np.float64)), seed, draws, level)


def compare_paired(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0, draws: int = 2000
) -> PairedComparison:
    """Whether a difference is real, paired over fires.

    A bootstrap interval of the mean difference says how large it is; the exact sign test, ties left out, whether
    wins and losses could be tosses of a coin: it asks nothing of how the differences are spread.

    Args:
        ours: One score a fire.
        theirs: Of the same fires in the same order; a pair with NaN on either side is left out.
        seed: Of the draws.
        draws: How many resampled means.

    Raises:
        ValueError: If the two are not equally many.

    References:
        Dixon and Mood, The statistical sign test, JASA 41(236), 1946.

    Example:
        >>> compare_pairs([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]).p_value
        0.25
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} scores against {len(theirs)}: want one each of the same fires")
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
