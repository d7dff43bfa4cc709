"""Log-odds histograms and calibration: by hand, and against scikit-learn on raw probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fireseg.errors import FiresegError
from fireseg.metric import (
    count_log_odds,
    fit_temperature,
    precision_recall,
    reliability,
    score_calibration,
    select_threshold,
)
from fireseg.metric.calibration import LOG_ODDS_EDGES, NUM_LOG_ODDS_BINS

MIDDLE = NUM_LOG_ODDS_BINS // 2
EMPTY = np.zeros((2, NUM_LOG_ODDS_BINS), np.int64)
TEMPERATURES = st.sampled_from([0.5, 1.0, 1.7, 3.0])


def find_bin(odds: float) -> int:
    """Index of the bin of a single burned pixel."""
    return int(count_log_odds(np.array([odds]), np.array([1], np.uint8))[1].argmax())


def test_a_bin_contains_its_lower_edge_and_0_is_an_edge():
    assert LOG_ODDS_EDGES[MIDDLE] == 0.0
    assert [find_bin(odds) for odds in (-1e-30, 0.0, 0.0099, 0.0101)] == [MIDDLE - 1, MIDDLE, MIDDLE, MIDDLE + 1]


def test_the_outermost_bins_contain_values_beyond_the_range():
    assert [find_bin(odds) for odds in (-math.inf, -16.0, -15.995, 15.995, 16.0, math.inf)] == [
        *(0, 0, 0),
        *(NUM_LOG_ODDS_BINS - 1,) * 3,
    ]


@given(seed=st.integers(0, 10**6))
def test_counts_equal_numpy_histograms(seed: int):
    rng = np.random.default_rng(seed)
    odds, truth = rng.normal(0, 6, 300), rng.choice(np.array([0, 1, 4, 255], np.uint8), 300)
    inside = np.clip(odds, -15.995, 15.995)
    counts = count_log_odds(odds, truth)
    assert counts[0].tolist() == np.histogram(inside[truth == 0], LOG_ODDS_EDGES)[0].tolist()
    assert counts[1].tolist() == np.histogram(inside[(truth > 0) & (truth < 255)], LOG_ODDS_EDGES)[0].tolist()


def test_counts_of_images_add_up_without_unlabelled_pixels():
    odds = np.array([[1.0, -2.0], [np.nan, 0.5]], np.float32)
    truth = np.array([[1, 0], [255, 0]], np.uint8)
    counts = count_log_odds(odds, truth)
    assert counts.sum(axis=1).tolist() == [2, 1]
    assert np.array_equal(counts, count_log_odds(odds[:1], truth[:1]) + count_log_odds(odds[1:], truth[1:]))


def test_nan_in_labelled_pixels_is_an_error():
    with pytest.raises(FiresegError, match=r"log_odds: 1 of 2 labelled pixels are NaN.*checkpoint"):
        count_log_odds(np.array([np.nan, 1.0]), np.array([0, 1], np.uint8))


def test_a_truth_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"log_odds .*truth .*shape"):
        count_log_odds(np.zeros((2, 2)), np.zeros(4, np.uint8))


def sigmoid(odds: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(odds, np.float64)))


def draw_odds(seed: int, num: int, *, temperature: float = 1.0, spread: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Draws log-odds, mostly of unburned pixels, and a truth that is burned with sigmoid(odds / temperature)."""
    rng = np.random.default_rng(seed)
    odds = np.clip(rng.normal(-2, spread, num), -15.9, 15.9)
    return odds, (rng.random(num) < sigmoid(odds / temperature)).astype(np.uint8)


def count_pixels(*pixels: tuple[float, int]) -> np.ndarray:
    odds, truth = zip(*pixels, strict=True)
    return count_log_odds(np.array(odds, np.float64), np.array(truth, np.uint8))


def calibration_error(fire: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error over 15 equal bins, from single pixels."""
    number = np.minimum((fire * 15).astype(int), 14)
    gaps = [abs((truth[number == each] - fire[number == each]).sum()) for each in range(15)]
    return sum(gaps) / len(fire)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), true=st.sampled_from([0.6, 1.0, 2.5]), temperature=TEMPERATURES)
def test_scores_equal_those_of_raw_probabilities(seed: int, true: float, temperature: float):
    odds, truth = draw_odds(seed, 20_000, temperature=true)
    fire = sigmoid(odds / temperature)
    scores = score_calibration(count_log_odds(odds, truth), temperature=temperature)
    assert scores == pytest.approx(
        {
            "ece": calibration_error(fire, truth),
            "brier": sklearn_metrics.brier_score_loss(truth, fire),
            "nll": sklearn_metrics.log_loss(truth, fire),
            "average_precision": sklearn_metrics.average_precision_score(truth, fire),
        },
        abs=2e-3,
    )


def test_scores_of_four_pixels_by_hand():
    # Probability 3/4 twice, burned once; 1/4 twice, never burned.
    odds = math.log(3) + 0.001
    scores = score_calibration(count_pixels((odds, 1), (odds, 0), (-odds, 0), (-odds, 0)), temperature=1.0)
    assert scores["ece"] == pytest.approx((2 * 0.25 + 2 * 0.25) / 4, abs=2e-3)
    assert scores["brier"] == pytest.approx((1 / 16 + 9 / 16 + 1 / 16 + 1 / 16) / 4, abs=2e-3)
    assert scores["nll"] == pytest.approx((3 * -math.log(0.75) - math.log(0.25)) / 4, abs=5e-3)
    assert scores["average_precision"] == 0.5


def test_without_pixels_all_scores_are_nan():
    assert all(math.isnan(score) for score in score_calibration(EMPTY, temperature=1.0).values())


def test_without_fire_only_the_average_precision_is_nan():
    scores = score_calibration(count_pixels((-1.0, 0), (2.0, 0)), temperature=1.0)
    assert [name for name, score in scores.items() if math.isnan(score)] == ["average_precision"]


@pytest.mark.parametrize("true", [0.3, 0.8, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_recovered(true: float):
    odds, truth = draw_odds(7, 400_000, temperature=true, spread=5.0)
    assert fit_temperature(count_log_odds(odds, truth)) == pytest.approx(true, rel=0.02)


@given(seed=st.integers(0, 10**6), factor=st.sampled_from([0.7, 1.4, 3.0]))
def test_the_fitted_temperature_has_the_smallest_nll(seed: int, factor: float):
    counts = count_log_odds(*draw_odds(seed, 3_000, temperature=2.0))
    fitted = fit_temperature(counts)
    best = score_calibration(counts, temperature=fitted)["nll"]
    for other in (fitted * 0.99, fitted * 1.01, fitted * factor):
        assert best <= score_calibration(counts, temperature=other)["nll"] + 1e-12


def test_separable_and_reversed_pixels_give_the_limits_of_the_range():
    assert fit_temperature(count_pixels((5.0, 1), (-5.0, 0))) == pytest.approx(0.05)
    assert fit_temperature(count_pixels((5.0, 0), (-5.0, 1))) == pytest.approx(20.0)


@pytest.mark.parametrize("counts", [EMPTY, count_pixels((1.0, 1), (-2.0, 1)), count_pixels((1.0, 0))])
def test_with_one_class_only_the_temperature_is_1(counts: np.ndarray):
    assert fit_temperature(counts) == 1.0


@given(seed=st.integers(0, 10**6), temperature=TEMPERATURES)
def test_the_selected_threshold_has_the_best_iou(seed: int, temperature: float):
    odds, truth = draw_odds(seed, 400, temperature=3.0)
    fire = sigmoid(odds / temperature)

    def iou(thresholds: np.ndarray) -> np.ndarray:
        predicted = fire >= thresholds[:, None]
        return (predicted & (truth == 1)).sum(axis=1) / (predicted | (truth == 1)).sum(axis=1)

    selected = select_threshold(count_log_odds(odds, truth), temperature=temperature)
    # Only the edges of bins are candidates.
    assert iou(np.array([selected]))[0] == iou(sigmoid(LOG_ODDS_EDGES[1:-1] / temperature)).max()


def test_the_middle_of_equal_thresholds_is_selected():
    selected = select_threshold(count_pixels((5.0, 1), (1.0, 0)), temperature=1.0)
    assert selected == pytest.approx(float(sigmoid(3.0)), abs=1e-3)


def test_the_temperature_scales_the_log_odds_of_the_threshold():
    counts = count_pixels((5.0, 1), (1.0, 0))
    assert select_threshold(counts, temperature=2.0) == pytest.approx(float(sigmoid(1.5)), abs=2e-3)


@pytest.mark.parametrize("odds", [-16.0, 16.0])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_a_threshold_is_above_0_and_below_1(odds: float, temperature: float):
    assert 0 < select_threshold(count_pixels((odds, 1)), temperature=temperature) < 1


def test_without_fire_the_threshold_is_one_half():
    assert select_threshold(count_pixels((3.0, 0)), temperature=1.0) == 0.5


def test_reliability_of_two_bins_by_hand():
    result = reliability(count_pixels((-2.0, 0), (-2.0, 1), (2.0, 1), (2.0, 1), (2.0, 0)), temperature=2.0, num_bins=2)
    assert result.edges.tolist() == [0.0, 0.5, 1.0]
    assert result.pixels.tolist() == [2, 3]
    np.testing.assert_allclose(result.frequency, [1 / 2, 2 / 3])
    np.testing.assert_allclose(result.confidence, sigmoid(np.array([-1.0, 1.0])), atol=1e-3)


def test_empty_bins_of_reliability_are_nan():
    result = reliability(count_pixels((-12.0, 0), (12.0, 1)), temperature=1.0)
    assert result.pixels.dtype == np.int64
    assert result.pixels.tolist() == [1, *[0] * 13, 1]
    assert np.isnan(result.confidence[1:-1]).all()
    assert np.isnan(result.frequency[1:-1]).all()


def test_a_probability_of_1_is_in_the_last_bin():
    assert reliability(count_pixels((16.0, 1)), temperature=0.05).pixels.tolist() == [*[0] * 14, 1]


@given(seed=st.integers(0, 10**6), temperature=TEMPERATURES)
def test_precision_and_recall_equal_those_at_each_threshold(seed: int, temperature: float):
    odds, truth = draw_odds(seed, 60)
    odds = np.round(odds, 1) + 0.005  # centre of a bin; some bins have several pixels
    fire = sigmoid(odds / temperature)
    curve = precision_recall(count_log_odds(odds, truth), temperature=temperature)
    assert (np.diff(curve.threshold) < 0).all()
    assert len(curve.threshold) == len(np.unique(odds))
    for threshold, precision, recall in zip(*curve, strict=True):
        predicted = fire >= threshold
        assert precision == pytest.approx(truth[predicted].mean())
        assert recall == pytest.approx(truth[predicted].sum() / truth.sum())


def test_without_fire_recall_is_nan_and_without_pixels_the_curve_is_empty():
    curve = precision_recall(count_pixels((1.0, 0)), temperature=1.0)
    assert curve.precision.tolist() == [0.0]
    assert np.isnan(curve.recall).all()
    assert [len(part) for part in precision_recall(EMPTY, temperature=1.0)] == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_not_above_0_is_an_error(temperature: float):
    with pytest.raises(ValueError, match=r"temperature .*above 0"):
        score_calibration(count_pixels((1.0, 1)), temperature=temperature)
