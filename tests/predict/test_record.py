"""Where threshold and temperature of a map come from."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fireseg.predict.outputs import get_operating_point
from fireseg.runs import Calibration, TrainedModel
from tests.predict.stand_in import make_trained

CHOSEN = Calibration(
    temperature=2.0,
    threshold=0.8,
    rule_min_pixels=1,
    rule_min_odds=0.0,
    checkpoint_sha256="0" * 64,
    fingerprint="0" * 64,
)


@pytest.fixture
def trained() -> TrainedModel:
    return replace(make_trained(), calibration=CHOSEN)


def test_without_a_calibration_a_pixel_burns_from_one_half_on() -> None:
    decision = get_operating_point(make_trained())
    assert (decision.threshold, decision.temperature, decision.chosen_by) == (0.5, 1.0, "default")


def test_what_was_chosen_on_val_is_used(trained: TrainedModel) -> None:
    decision = get_operating_point(trained)
    assert (decision.threshold, decision.temperature, decision.chosen_by) == (0.8, 2.0, "calibration")


def test_the_users_threshold_goes_before_it(trained: TrainedModel) -> None:
    decision = get_operating_point(trained, threshold=0.3)
    assert (decision.threshold, decision.temperature, decision.chosen_by) == (0.3, 2.0, "user")


def test_another_temperature_alone_does_not_move_the_map(trained: TrainedModel) -> None:
    decision = get_operating_point(trained, temperature=1.0)
    # The same log-odds as before: 2 log(0.8 / 0.2) = log 16, that is 16 / 17.
    assert decision.threshold == pytest.approx(16 / 17)
    assert decision.temperature * math.log(decision.threshold / (1 - decision.threshold)) == pytest.approx(math.log(16))
