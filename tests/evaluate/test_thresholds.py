"""Temperature, threshold and rule, chosen on val."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fireseg.decision import min_log_odds
from fireseg.evaluate.mosaic import Mosaic
from fireseg.evaluate.thresholds import OperatingPoint, select_operating_point
from fireseg.metric import DetectionRule
from tests.evaluate.builders import make_mosaic


def test_the_threshold_separates_burned_from_unburned():
    fire = make_mosaic([[0, 0, 0, 1, 1, 255]], [[-3.0, -2.0, 1.0, 2.0, 4.0, 9.0]])

    decision = select_operating_point([fire] * 3)

    assert decision.is_chosen
    assert 1.0 < decision.min_log_odds <= 2.0
    # Each fire has an IoU of 1 instead of 2 / 3, whatever the others are.
    assert decision.gain == pytest.approx((1 / 3, 1 / 3, 1 / 3, 3))
    assert "chosen on val" in decision.threshold_reason


def test_a_threshold_without_a_certain_gain_gives_way_to_a_half(log_text: pytest.LogCaptureFixture):
    # At probability 0.5 the middle pixel is a false alarm for two fires and a hit for the third.
    strict, lenient = ([[0, 0, 1]], [[-3.0, 1.0, 2.0]]), ([[0, 1, 1]], [[-3.0, 1.0, 2.0]])

    decision = select_operating_point([make_mosaic(*pair) for pair in (strict, strict, lenient)])

    assert decision.threshold == 0.5 != decision.best_threshold
    assert decision.gain is not None
    assert decision.gain.low < 0
    assert "threshold 0.5: default, because the best threshold on val" in log_text.text


@pytest.mark.parametrize("num", [1, 2])
def test_one_or_two_fires_are_too_few_to_leave_a_half(num: int):
    fire = make_mosaic([[0, 0, 0, 1, 1, 255]], [[-3.0, -2.0, 1.0, 2.0, 4.0, 9.0]])

    decision = select_operating_point([fire] * num)

    assert decision.threshold == 0.5
    assert decision.best_threshold is not None
    assert decision.best_threshold > 0.5
    assert f"val has only {num} fire" in decision.threshold_reason


def test_fires_are_weighted_by_their_pixels():
    quiet = make_mosaic([[0] * 50], [[1.5] * 50])
    burning = make_mosaic([[1, 1]], [[1.0, 3.0]])

    def best_log_odds(*fires: Mosaic) -> float:
        point = select_operating_point(fires)
        assert point.best_threshold is not None
        return min_log_odds(point.best_threshold, point.temperature)

    assert best_log_odds(burning) <= 1.0
    assert best_log_odds(quiet, burning) > 1.5


def test_the_rule_may_require_several_pixels():
    speckle = make_mosaic([[0, 0, 0, 0]], [[5.0, -1.0, -1.0, -1.0]])
    burning = make_mosaic([[1, 1, 1, 0]], [[2.0, 2.0, 2.0, -1.0]])

    assert select_operating_point([speckle, burning]).rule == DetectionRule(3, 0.0)


def test_without_burned_pixels_defaults_are_used_with_a_warning(log_text: pytest.LogCaptureFixture):
    decision = select_operating_point([make_mosaic([[0, 255]], [[1.0, 2.0]])])

    assert decision == OperatingPoint(temperature=1.0, threshold=0.5, rule=DetectionRule(1, 0.0), is_chosen=False)
    assert "no burned pixel" in log_text.text


def test_min_log_odds_follow_from_the_threshold():
    decision = OperatingPoint(temperature=2.0, threshold=0.8, rule=DetectionRule(4, 3.0))

    assert decision.min_log_odds == pytest.approx(2 * math.log(4))
    assert 1 / (1 + np.exp(-decision.min_log_odds / 2)) == pytest.approx(0.8)
    assert decision.min_probability == pytest.approx(1 / (1 + math.exp(-1.5)))
