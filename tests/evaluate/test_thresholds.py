"""Temperature, threshold and rule, chosen on val."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fireseg.evaluate.thresholds import OperatingPoint, select_operating_point
from fireseg.metric import DetectionRule
from tests.evaluate.builders import make_mosaic


def test_the_threshold_separates_burned_from_unburned():
    fire = make_mosaic([[0, 0, 0, 1, 1, 255]], [[-3.0, -2.0, 1.0, 2.0, 4.0, 9.0]])

    decision = select_operating_point([fire])

    assert decision.is_chosen
    assert 1.0 < decision.min_log_odds <= 2.0


def test_fires_are_weighted_by_their_pixels():
    quiet = make_mosaic([[0] * 50], [[1.5] * 50])
    burning = make_mosaic([[1, 1]], [[1.0, 3.0]])

    assert select_operating_point([burning]).min_log_odds <= 1.0
    assert select_operating_point([quiet, burning]).min_log_odds > 1.5


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
