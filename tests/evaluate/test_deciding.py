"""Temperature, threshold and rule, chosen on val."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from fireseg.evaluate.thresholds import OperatingPoint, select_operating_point
from fireseg.metric import DetectionRule
from tests.evaluate.drawn_fires import draw_fire


def test_the_threshold_lies_between_what_burned_and_what_did_not():
    fire = draw_fire([[0, 0, 0, 1, 1, 255]], [[-3.0, -2.0, 1.0, 2.0, 4.0, 9.0]])

    decision = select_operating_point([fire])

    assert decision.is_chosen
    assert 1.0 < decision.least_odds <= 2.0


def test_each_fire_weighs_by_its_pixels():
    quiet = draw_fire([[0] * 50], [[1.5] * 50])
    burning = draw_fire([[1, 1]], [[1.0, 3.0]])

    assert select_operating_point([burning]).least_odds <= 1.0
    assert select_operating_point([quiet, burning]).least_odds > 1.5


def test_a_rule_may_ask_for_more_than_one_pixel():
    speckle = draw_fire([[0, 0, 0, 0]], [[5.0, -1.0, -1.0, -1.0]])
    burning = draw_fire([[1, 1, 1, 0]], [[2.0, 2.0, 2.0, -1.0]])

    assert select_operating_point([speckle, burning]).rule == DetectionRule(3, 0.0)


def test_without_fire_nothing_is_chosen_and_that_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)

    decision = select_operating_point([draw_fire([[0, 255]], [[1.0, 2.0]])])

    assert decision == OperatingPoint(temperature=1.0, threshold=0.5, rule=DetectionRule(1, 0.0), is_chosen=False)
    assert "no burned pixel" in caplog.text


def test_the_least_odds_are_those_of_the_threshold():
    decision = OperatingPoint(temperature=2.0, threshold=0.8, rule=DetectionRule(4, 3.0))

    assert decision.least_odds == pytest.approx(2 * math.log(4))
    assert 1 / (1 + np.exp(-decision.least_odds / 2)) == pytest.approx(0.8)
    assert decision.least_peak == pytest.approx(1 / (1 + math.exp(-1.5)))
