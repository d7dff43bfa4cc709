"""Readings of counted odds: against scikit-learn and direct computation from raw probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from fireseg.metric import (
    LOG_ODDS_EDGES,
    NUM_LOG_ODDS_BINS,
    count_log_odds,
    fit_temperature,
    precision_recall,
    reliability,
    score_calibration,
    select_threshold,
)

NOTHING = np.zeros((2, NUM_LOG_ODDS_BINS), np.int64)
TEMPERATURES = st.sampled_from([0.5, 1.0, 1.7, 3.0])


def sigmoid(odds: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(odds, np.float64)))


def draw(seed: int, num: int, *, temperature: float = 1.0, spread: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Odds, most of them for unburned ground, and a truth that burns with probability sigmoid(odds / temperature)."""
    rng = np.random.default_rng(seed)
    odds = np.clip(rng.normal(-2, spread, num), -15.9, 15.9)
    return odds, (rng.random(num) < sigmoid(odds / temperature)).astype(np.uint8)


def count(*pixels: tuple[float, int]) -> np.ndarray:
    odds, truth = zip(*pixels, strict=True)
    return count_log_odds(np.array(odds, np.float64), np.array(truth, np.uint8))


def error_by_hand(fire: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error over 15 equal bins, pixel by pixel."""
    number = np.minimum((fire * 15).astype(int), 14)
    gaps = [abs((truth[number == each] - fire[number == each]).sum()) for each in range(15)]
    return sum(gaps) / len(fire)


@given(seed=st.integers(0, 10**6), true=st.sampled_from([0.6, 1.0, 2.5]), temperature=TEMPERATURES)
def test_scores_agree_with_those_of_raw_probabilities(seed: int, true: float, temperature: float):
    odds, truth = draw(seed, 20_000, temperature=true)
    fire = sigmoid(odds / temperature)
    scores = score_calibration(count_log_odds(odds, truth), temperature=temperature)
    assert scores == pytest.approx(
        {
            "ece": error_by_hand(fire, truth),
            "brier": theirs.brier_score_loss(truth, fire),
            "nll": theirs.log_loss(truth, fire),
            "average_precision": theirs.average_precision_score(truth, fire),
        },
        abs=2e-3,
    )


def test_scores_of_four_pixels_by_hand():
    # Probability 3/4 twice, burned once; 1/4 twice, never burned.
    third = math.log(3) + 0.001
    scores = score_calibration(count((third, 1), (third, 0), (-third, 0), (-third, 0)), temperature=1.0)
    assert scores["ece"] == pytest.approx((2 * 0.25 + 2 * 0.25) / 4, abs=2e-3)
    assert scores["brier"] == pytest.approx((1 / 16 + 9 / 16 + 1 / 16 + 1 / 16) / 4, abs=2e-3)
    assert scores["nll"] == pytest.approx((3 * -math.log(0.75) - math.log(0.25)) / 4, abs=5e-3)
    assert scores["average_precision"] == 0.5


def test_nothing_to_read_is_nan():
    assert all(math.isnan(score) for score in score_calibration(NOTHING, temperature=1.0).values())


def test_without_fire_only_the_average_precision_is_nan():
    scores = score_calibration(count((-1.0, 0), (2.0, 0)), temperature=1.0)
    assert [name for name, score in scores.items() if math.isnan(score)] == ["average_precision"]


@pytest.mark.parametrize("true", [0.3, 0.8, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_found_again(true: float):
    odds, truth = draw(7, 400_000, temperature=true, spread=5.0)
    assert fit_temperature(count_log_odds(odds, truth)) == pytest.approx(true, rel=0.02)


@given(seed=st.integers(0, 10**6), factor=st.sampled_from([0.7, 1.4, 3.0]))
def test_no_temperature_nearby_is_likelier_than_the_fitted_one(seed: int, factor: float):
    counts = count_log_odds(*draw(seed, 3_000, temperature=2.0))
    fitted = fit_temperature(counts)
    best = score_calibration(counts, temperature=fitted)["nll"]
    for other in (fitted * 0.99, fitted * 1.01, fitted * factor):
        assert best <= score_calibration(counts, temperature=other)["nll"] + 1e-12


def test_pixels_that_odds_separate_or_turn_round_end_at_the_ends_of_the_range():
    assert fit_temperature(count((5.0, 1), (-5.0, 0))) == pytest.approx(0.05)
    assert fit_temperature(count((5.0, 0), (-5.0, 1))) == pytest.approx(20.0)


@pytest.mark.parametrize("counts", [NOTHING, count((1.0, 1), (-2.0, 1)), count((1.0, 0))])
def test_one_kind_alone_leaves_the_temperature_at_1(counts: np.ndarray):
    assert fit_temperature(counts) == 1.0


@given(seed=st.integers(0, 10**6), temperature=TEMPERATURES)
def test_no_threshold_gives_a_better_iou_than_the_picked_one(seed: int, temperature: float):
    odds, truth = draw(seed, 400, temperature=3.0)
    fire = sigmoid(odds / temperature)

    def iou(threshold: float) -> float:
        called = fire >= threshold
        return float((called & (truth == 1)).sum() / (called | (truth == 1)).sum())

    picked = select_threshold(count_log_odds(odds, truth), temperature=temperature)
    # Between edges of bins nothing is counted, so those are all that there is to choose from.
    assert iou(picked) == max(iou(float(sigmoid(edge / temperature))) for edge in LOG_ODDS_EDGES[1:-1])


def test_of_equal_thresholds_the_middle_one_is_picked():
    picked = select_threshold(count((5.0, 1), (1.0, 0)), temperature=1.0)
    assert picked == pytest.approx(float(sigmoid(3.0)), abs=1e-3)


def test_what_the_temperature_does_to_odds_it_does_to_the_threshold():
    counts = count((5.0, 1), (1.0, 0))
    assert select_threshold(counts, temperature=2.0) == pytest.approx(float(sigmoid(1.5)), abs=2e-3)


@pytest.mark.parametrize("odds", [-16.0, 16.0])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_a_threshold_is_above_0_and_below_1(odds: float, temperature: float):
    assert 0 < select_threshold(count((odds, 1)), temperature=temperature) < 1


def test_where_nothing_burns_the_threshold_is_one_half():
    assert select_threshold(count((3.0, 0)), temperature=1.0) == 0.5


def test_reliability_of_two_bins_by_hand():
    result = reliability(count((-2.0, 0), (-2.0, 1), (2.0, 1), (2.0, 1), (2.0, 0)), temperature=2.0, num_bins=2)
    assert result.edges.tolist() == [0.0, 0.5, 1.0]
    assert result.pixels.tolist() == [2, 3]
    np.testing.assert_allclose(result.frequency, [1 / 2, 2 / 3])
    np.testing.assert_allclose(result.confidence, sigmoid(np.array([-1.0, 1.0])), atol=1e-3)


def test_empty_bins_of_reliability_are_nan():
    result = reliability(count((-12.0, 0), (12.0, 1)), temperature=1.0)
    assert result.pixels.dtype == np.int64
    assert result.pixels.tolist() == [1, *[0] * 13, 1]
    assert np.isnan(result.confidence[1:-1]).all()
    assert np.isnan(result.frequency[1:-1]).all()


def test_a_probability_that_rounds_to_1_is_in_the_last_bin():
    assert reliability(count((16.0, 1)), temperature=0.05).pixels.tolist() == [*[0] * 14, 1]


@given(seed=st.integers(0, 10**6), temperature=TEMPERATURES)
def test_precision_and_recall_are_those_of_the_rule_at_each_threshold(seed: int, temperature: float):
    odds, truth = draw(seed, 60)
    odds = np.round(odds, 1) + 0.005  # the middle of a bin, several pixels in some
    fire = sigmoid(odds / temperature)
    curve = precision_recall(count_log_odds(odds, truth), temperature=temperature)
    assert (np.diff(curve.threshold) < 0).all()
    assert len(curve.threshold) == len(np.unique(odds))
    for threshold, precision, recall in zip(*curve, strict=True):
        called = fire >= threshold
        assert precision == pytest.approx(truth[called].mean())
        assert recall == pytest.approx(truth[called].sum() / truth.sum())


def test_without_fire_recall_is_nan_and_without_pixels_the_curve_is_empty():
    curve = precision_recall(count((1.0, 0)), temperature=1.0)
    assert curve.precision.tolist() == [0.0]
    assert np.isnan(curve.recall).all()
    assert [len(part) for part in precision_recall(NOTHING, temperature=1.0)] == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float):
    with pytest.raises(ValueError, match="want a number above 0"):
        score_calibration(count((1.0, 1)), temperature=temperature)
