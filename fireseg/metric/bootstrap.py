"""Bootstrap confidence intervals of means over fires, and paired comparison of two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean over fires with its confidence interval.

    Attributes:
        mean: Mean of the values; NaN without values.
        low: Lower end of the interval; NaN with fewer than two values.
        high: Upper end of the interval; NaN with fewer than two values.
        num: Number of values.
    """

    mean: float
    low: float
    high: float
    num: int


class PairedComparison(NamedTuple):
    """Comparison of our scores with theirs, fire by fire.

    Attributes:
        difference: Mean over fires of ours minus theirs, with its interval.
        wins: Number of fires with a higher score of ours.
        losses: Number of fires with a higher score of theirs.
        ties: Number of fires with equal scores.
        p_value: Two-sided sign test, 0 to 1; NaN without pairs.
    """

    difference: Interval
    wins: int
    losses: int
    ties: int
    p_value: float


def bootstrap_mean(values: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95) -> Interval:
    """Computes a mean over fires with its percentile bootstrap interval; deterministic for a seed.

    Fires are resampled rather than pixels, because pixels of the same fire are correlated.

    Args:
        values: One score per fire; NaN values are left out.
        seed: Seed of the resampling.
        draws: Number of resamples; memory grows with draws times values.
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
        raise ValueError(f"draws {draws}, level {level}: expected draws of at least 1 and a level between 0 and 1")
    return _bootstrap(np.asarray(values, np.float64), seed, draws, level)


def compare_paired(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0, draws: int = 2000
) -> PairedComparison:
    """Compares two runs on the same fires by the mean difference of scores and an exact sign test.

    The bootstrap interval of the mean difference estimates its size. The sign test, ties left out, assumes nothing
    about the distribution of the differences.

    Args:
        ours: One score per fire.
        theirs: Scores of the same fires in the same order; pairs with a NaN are left out.
        seed: Seed of the resampling.
        draws: Number of resamples.

    Raises:
        ValueError: If the numbers of scores differ.

    References:
        Dixon and Mood, The statistical sign test, JASA 41(236), 1946.

    Example:
        >>> compare_paired([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]).p_value
        0.25
    """
    from scipy.stats import binomtest

    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} scores against {len(theirs)}: expected one score of each run per fire")
    differences = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    interval = _bootstrap(differences, seed, draws, 0.95)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = float(binomtest(min(wins, losses), wins + losses).pvalue) if wins + losses else 1.0
    return PairedComparison(interval, wins, losses, interval.num - wins - losses, p_value if interval.num else math.nan)


def _bootstrap(values: NDArray[np.float64], seed: int, draws: int, level: float) -> Interval:
    values = values[~np.isnan(values)]
    mean = float(values.mean()) if values.size else math.nan
    if values.size < 2:
        return Interval(mean, math.nan, math.nan, values.size)
    from scipy.stats import bootstrap

    means = bootstrap(
        (values,), np.mean, n_resamples=draws, method="percentile", rng=np.random.default_rng(seed)
    ).bootstrap_distribution
    # Not scipy's own interval: it rounds the quantiles differently in the last digit from results already on disk.
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), values.size)
