"""Intervals over fires and paired comparisons: the same for a seed, NaN left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fireseg.metric import bootstrap_mean, compare_paired

SCORES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=20)


def test_a_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).random(30).tolist()
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


@given(values=SCORES)
def test_nan_is_left_out(values: list[float]):
    read = [value for value in values if not math.isnan(value)]
    result = bootstrap_mean(values, draws=50)
    assert result == pytest.approx(bootstrap_mean(read, draws=50), nan_ok=True, abs=0)
    assert result.num == len(read)
    if len(read) >= 2:
        assert min(read) - 1e-12 <= result.low <= result.high <= max(read) + 1e-12


def test_without_values_all_is_nan_and_with_one_the_ends():
    assert bootstrap_mean([math.nan]) == pytest.approx((math.nan, math.nan, math.nan, 0), nan_ok=True)
    assert bootstrap_mean([0.25]) == pytest.approx((0.25, math.nan, math.nan, 1), nan_ok=True)


def test_of_two_fires_the_interval_reaches_from_one_to_the_other():
    # Each is drawn twice a quarter of the time, far more than the 2.5 % that are cut off.
    assert bootstrap_mean([0.0, 1.0]) == (0.5, 0.0, 1.0, 2)


def test_many_fires_give_the_interval_of_the_central_limit():
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
def test_draws_and_level_out_of_range_are_rejected(options: dict):
    with pytest.raises(ValueError, match="draws"):
        bootstrap_mean([0.1, 0.2], **options)


def test_wins_losses_and_ties_by_hand():
    # Three wins and a loss: as uneven as 1, 0, 3 or 4 heads of 4, so p = 2 (1 + 4) / 16.
    result = compare_paired([0.5, 0.6, 0.7, 0.2, 0.4], [0.4, 0.5, 0.6, 0.3, 0.4])
    assert (result.wins, result.losses, result.ties) == (3, 1, 1)
    assert result.p_value == 2 * 5 / 16
    assert result.difference.mean == pytest.approx((0.3 - 0.1) / 5)


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
def test_the_sign_test_is_that_of_scipy(wins: int, losses: int):
    result = compare_paired([1.0] * wins + [0.0] * losses + [0.5], [0.0] * wins + [1.0] * losses + [0.5], draws=2)
    theirs = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert result.p_value == pytest.approx(theirs)
    assert result.ties == 1


def test_the_sign_test_of_thousands_of_fires_does_not_overflow():
    assert compare_paired([1.0] * 3000, [0.0] * 3000, draws=2).p_value == 0.0


@given(scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_other_way_round_wins_are_losses(scores: list[tuple[float, float]]):
    ours, theirs = map(list, zip(*scores, strict=True))
    there, back = compare_paired(ours, theirs, draws=20), compare_paired(theirs, ours, draws=20)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.p_value == back.p_value
    assert there.difference.mean == -back.difference.mean


def test_a_pair_with_nan_on_either_side_is_left_out():
    result = compare_paired([math.nan, 0.5, 0.6], [0.5, math.nan, 0.4])
    assert (result.wins, result.losses, result.ties, result.difference.num) == (1, 0, 0, 1)


def test_without_pairs_nothing_is_said_and_with_ties_alone_no_difference_is_seen():
    assert math.isnan(compare_paired([], []).p_value)
    assert compare_paired([0.5], [0.5]).p_value == 1.0


def test_pairing_makes_a_small_steady_gain_visible():
    # Fires differ by far more than the two runs do, and each run alone could not tell.
    theirs = np.linspace(0.2, 0.9, 20)
    result = compare_paired((theirs + 0.01).tolist(), theirs.tolist())
    assert result.difference.low > 0.009
    assert result.p_value == pytest.approx(2 / 2**20)


def test_scores_of_other_fires_are_refused():
    with pytest.raises(ValueError, match="2 scores against 1"):
        compare_paired([0.1, 0.2], [0.1])
