"""Intervals over fires and paired comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fireseg.metric import MIN_FIRES, compare_paired, estimate_mean

SCORES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=20)


@given(values=SCORES)
def test_nan_is_left_out_and_the_interval_stays_inside_the_range(values: list[float]):
    defined = [value for value in values if not math.isnan(value)]
    result = estimate_mean(values)
    assert result.num == len(defined)
    if len(defined) >= MIN_FIRES:
        assert result == estimate_mean(defined)
        assert -1e-12 <= result.low <= result.mean + 1e-12
        assert result.mean - 1e-12 <= result.high <= 1 + 1e-12


def test_the_interval_of_five_scores_by_hand():
    # Mean 0.5, standard deviation 0.1 sqrt(2.5), standard error 0.0707107; t of 4 degrees of freedom 2.776445.
    half = 2.776445 * 0.0707107 / 0.25
    result = estimate_mean([0.3, 0.4, 0.5, 0.6, 0.7])
    assert (result.mean, result.num, result.values) == (pytest.approx(0.5), 5, None)
    assert (result.low, result.high) == pytest.approx((1 / (1 + math.exp(half)), 1 / (1 + math.exp(-half))), abs=1e-6)


def test_fewer_than_five_fires_have_their_values_instead_of_an_interval():
    assert estimate_mean([math.nan])[3:] == (0, ())
    result = estimate_mean([0.5, math.nan, 0.25, 0.75, 0.5])
    assert math.isnan(result.low)
    assert math.isnan(result.high)
    assert (result.mean, result.num, result.values) == (0.5, 4, (0.5, 0.25, 0.75, 0.5))


def test_equal_scores_have_an_interval_of_no_width():
    assert estimate_mean([1.0] * 6)[:3] == (1.0, 1.0, 1.0)
    assert estimate_mean([0.0] * 6)[:3] == (0.0, 0.0, 0.0)


def test_many_fires_give_the_normal_interval():
    values = np.random.default_rng(0).normal(0.6, 0.1, 400)
    result = estimate_mean(values.tolist())
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert (result.low, result.high) == pytest.approx(
        (values.mean() - half_width, values.mean() + half_width), abs=2e-4
    )


def test_the_interval_covers_the_mean_of_five_fires_about_as_often_as_it_says():
    # Beta of mean 0.74 and standard deviation 0.16; the percentile bootstrap covers it 82 times in 100.
    draws = np.random.default_rng(0).beta(0.74 * 6.516, 0.26 * 6.516, (600, 5))
    intervals = [estimate_mean(values) for values in draws.tolist()]
    assert np.mean([each.low <= 0.74 <= each.high for each in intervals]) == pytest.approx(0.95, abs=0.025)


def test_values_outside_the_range_are_an_error():
    with pytest.raises(ValueError, match="expected values from 0 to 1"):
        estimate_mean([0.1, -0.2])
    assert estimate_mean([0.1, -0.2], bounds=(-1.0, 1.0)).mean == pytest.approx(-0.05)


def test_wins_losses_and_ties_by_hand():
    # Three wins and a loss: p is the probability of 0, 1, 3 or 4 heads in 4 tosses, 2 (1 + 4) / 16.
    result = compare_paired([0.5, 0.6, 0.7, 0.2, 0.4], [0.4, 0.5, 0.6, 0.3, 0.4])
    assert (result.wins, result.losses, result.ties) == (3, 1, 1)
    assert result.p_value == 2 * 5 / 16
    assert result.difference.mean == pytest.approx((0.3 - 0.1) / 5)


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
def test_the_sign_test_equals_that_of_scipy(wins: int, losses: int):
    result = compare_paired([1.0] * wins + [0.0] * losses + [0.5], [0.0] * wins + [1.0] * losses + [0.5])
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert result.p_value == pytest.approx(expected)
    assert result.ties == 1


def test_the_sign_test_of_thousands_of_fires_does_not_overflow():
    assert compare_paired([1.0] * 3000, [0.0] * 3000).p_value == 0.0


@given(scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_swapping_the_runs_swaps_wins_and_losses(scores: list[tuple[float, float]]):
    ours, theirs = map(list, zip(*scores, strict=True))
    comparison, swapped = compare_paired(ours, theirs), compare_paired(theirs, ours)
    assert (comparison.wins, comparison.losses, comparison.ties) == (swapped.losses, swapped.wins, swapped.ties)
    assert comparison.p_value == swapped.p_value
    assert comparison.difference.mean == -swapped.difference.mean


def test_a_pair_with_nan_on_either_side_is_left_out():
    result = compare_paired([math.nan, 0.5, 0.6], [0.5, math.nan, 0.4])
    assert (result.wins, result.losses, result.ties, result.difference.num) == (1, 0, 0, 1)


def test_without_pairs_p_is_nan_and_with_ties_only_it_is_1():
    assert math.isnan(compare_paired([], []).p_value)
    assert compare_paired([0.5], [0.5]).p_value == 1.0


def test_pairing_detects_a_small_constant_gain():
    # Fires differ far more than the two runs, so that unpaired intervals overlap.
    theirs = np.linspace(0.2, 0.9, 20)
    result = compare_paired((theirs + 0.01).tolist(), theirs.tolist())
    assert result.difference.low > 0.009
    assert result.p_value == pytest.approx(2 / 2**20)


def test_different_numbers_of_scores_are_an_error():
    with pytest.raises(ValueError, match="2 scores"):
        compare_paired([0.1, 0.2], [0.1])
