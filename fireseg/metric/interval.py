"""Means over fires with confidence intervals, and paired comparison of two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_FIRES = 5
"""Smallest number of fires with an interval; for fewer, the values themselves say more."""

_LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over fires with its 95 % confidence interval, or with the values if they are fewer than `MIN_FIRES`.

    Attributes:
        mean: Mean of the values; NaN without values.
        low: Lower end of the interval; NaN with fewer than `MIN_FIRES` values.
        high: Upper end of the interval; NaN with fewer than `MIN_FIRES` values.
        num: Number of values.
        values: The values in the order given if they are fewer than `MIN_FIRES`, else None.
    """

    mean: float
    low: float
    high: float
    num: int
    values: tuple[float, ...] | None


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


def estimate_mean(values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Computes a mean over fires with its 95 % t interval on the logit scale of the possible range.

    The mean m and its standard error, brought to 0 to 1, give logit(m) +- t s / (m (1 - m)), transformed back; so the
    interval stays inside the range. Fires are the units rather than pixels, because pixels of a fire are correlated.

    Coverage of the nominal 95 %, measured on 2,000 draws of n scores from each of five distributions of IoU per fire:
    Beta of mean and standard deviation 0.74 and 0.16 (five fires of the sample), 0.85 and 0.10, 0.60 and 0.25, 0.49 and
    0.11, and 0.80 and 0.10 with one fire in ten failed at 0.10 and 0.08. Mean over the five, lowest in brackets:

    ```
    n                            3            5            7           10           21
    this interval         94.6 (92.6)  93.3 (88.0)  93.2 (84.3)  92.9 (84.9)  94.2 (89.8)
    Student's t           92.1 (87.7)  91.0 (82.8)  91.6 (80.5)  91.5 (82.1)  93.7 (89.7)
    bootstrap-t           79.4 (73.5)  92.9 (87.6)  93.3 (85.4)  93.8 (86.4)  94.6 (90.4)
    BCa bootstrap         69.6 (60.9)  80.9 (70.9)  85.7 (73.9)  88.4 (78.6)  92.5 (88.7)
    percentile bootstrap  71.9 (63.3)  80.0 (69.4)  84.4 (71.9)  87.6 (77.5)  92.0 (88.9)
    ```

    The bootstraps drew 2,000 resamples. The bootstrap-t is up to 32 % wider than this interval. The lowest values are
    those of the failed fires: no interval knows of a failure that the sample does not contain.

    Args:
        values: One score per fire; NaN values are left out.
        bounds: Smallest and largest possible score.

    Raises:
        ValueError: If a value is outside the bounds.

    Example:
        >>> estimate_mean([0.8, 0.7, float("nan")])
        Interval(mean=0.75, low=nan, high=nan, num=2, values=(0.8, 0.7))
    """
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    bottom, top = bounds
    if array.size and not (bottom <= array.min() and array.max() <= top):
        raise ValueError(f"values {array.min():g} to {array.max():g}: expected values from {bottom:g} to {top:g}")
    mean = float(array.mean()) if array.size else math.nan
    if array.size < MIN_FIRES:
        return Interval(mean, math.nan, math.nan, array.size, tuple(array.tolist()))
    return Interval(mean, *_find_ends((array - bottom) / (top - bottom), bottom, top), array.size, None)


def _find_ends(shares: NDArray[np.float64], bottom: float, top: float) -> tuple[float, float]:
    from scipy.special import expit, logit
    from scipy.stats import t

    mean = float(shares.mean())
    error = float(shares.std(ddof=1)) / math.sqrt(shares.size)
    if error == 0 or not 0 < mean < 1:
        end = bottom + mean * (top - bottom)
        return end, end
    half = float(t.ppf((1 + _LEVEL) / 2, shares.size - 1)) * error / (mean * (1 - mean))
    low, high = (bottom + float(expit(logit(mean) + way * half)) * (top - bottom) for way in (-1, 1))
    return low, high


def compare_paired(ours: Sequence[float], theirs: Sequence[float]) -> PairedComparison:
    """Compares two runs on the same fires by the mean difference of scores and an exact sign test.

    The interval of the mean difference estimates its size. The sign test, ties left out, assumes nothing
    about the distribution of the differences.

    Args:
        ours: One score per fire, 0 to 1.
        theirs: Scores of the same fires in the same order; pairs with a NaN are left out.

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
    interval = estimate_mean(differences.tolist(), bounds=(-1.0, 1.0))
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = float(binomtest(min(wins, losses), wins + losses).pvalue) if wins + losses else 1.0
    return PairedComparison(interval, wins, losses, interval.num - wins - losses, p_value if interval.num else math.nan)
