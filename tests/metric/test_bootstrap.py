"""Bootstrap intervals over fires and paired comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fireseg.metric import bootstrap_mean, compare_paired

SCORES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=20)


def test_the_seed_determines_the_interval():
    values = np.random.default_rng(0).random(30).tolist()
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


@given(values=SCORES)
def test_nan_is_left_out(values: list[float]):
    defined = [value for value in values if not math.isnan(value)]
    result = bootstrap_mean(values, draws=50)
    assert result == pytest.approx(bootstrap_mean(defined, draws=50), nan_ok=True, abs=0)
    assert result.num == len(defined)
    if len(defined) >= 2:
        assert min(defined) - 1e-12 <= result.low <= result.high <= max(defined) + 1e-12


def test_with_fewer_than_two_values_there_is_no_interval():
    assert bootstrap_mean([math.nan]) == pytest.approx((math.nan, math.nan, math.nan, 0), nan_ok=True)
    assert bootstrap_mean([0.25]) == pytest.approx((0.25, math.nan, math.nan, 1), nan_ok=True)


def test_the_interval_of_two_fires_spans_both():
    # Each is drawn twice with probability 1/4, far more than the 2.5 % cut off at each end.
    assert bootstrap_mean([0.0, 1.0]) == (0.5, 0.0, 1.0, 2)


def test_many_fires_give_the_normal_interval():
    values = np.random.default_rng(0).normal(0.7, 0.1, 400)
    result = bootstrap_mean(values.tolist(), draws=4000)
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert result.mean == pytest.approx(values.mean())
    assert result.low == pytest.approx(values.mean() - half_width, abs=0.001)
    assert result.high == pytest.approx(values.mean() + half_width, abs=0.001)


def test_a_lower_level_gives_a_narrower_interval():
    values = np.linspace(0, 1, 30).tolist()
    wide, narrow = bootstrap_mean(values), bootstrap_mean(values, level=0.5)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


@pytest.mark.parametrize("options", [{"draws": 0}, {"level": 1.0}, {"level": 0.0}])
def test_invalid_draws_and_levels_are_an_error(options: dict):
    with pytest.raises(ValueError, match="draws"):
        bootstrap_mean([0.1, 0.2], **options)


def test_wins_losses_and_ties_by_hand():
    # Three wins and a loss: p is the probability of 0, 1, 3 or 4 heads in 4 tosses, 2 (1 + 4) / 16.
    result = compare_paired([0.5, 0.6, 0.7, 0.2, 0.4], [0.4, 0.5, 0.6, 0.3, 0.4])
    assert (result.wins, result.losses, result.ties) == (3, 1, 1)
    assert result.p_value == 2 * 5 / 16
    assert result.difference.mean == pytest.approx((0.3 - 0.1) / 5)


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
def test_the_sign_test_equals_that_of_scipy(wins: int, losses: int):
    result = compare_paired([1.0] * wins + [0.0] * losses + [0.5], [0.0] * wins + [1.0] * losses + [0.5], draws=2)
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert result.p_value == pytest.approx(expected)
    assert result.ties == 1


def test_the_sign_test_of_thousands_of_fires_does_not_overflow():
    assert compare_paired([1.0] * 3000, [0.0] * 3000, draws=2).p_value == 0.0


@given(scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_swapping_the_runs_swaps_wins_and_losses(scores: list[tuple[float, float]]):
    ours, theirs = map(list, zip(*scores, strict=True))
    comparison, swapped = compare_paired(ours, theirs, draws=20), compare_paired(theirs, ours, draws=20)
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
