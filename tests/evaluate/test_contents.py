"""The dict of an evaluation, as far as no other test looks at it."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.evaluate.mosaic import score_argmax_detection, score_rule
from fireseg.evaluate.results import describe_calibration
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.metric import DetectionRule, count_log_odds
from tests.evaluate.drawn_fires import draw_fire


def test_probabilities_are_judged_before_and_after_the_temperature():
    rng = np.random.default_rng(0)
    odds = rng.normal(scale=4.0, size=20_000).astype(np.float32)
    truth = (rng.random(20_000) < 1 / (1 + np.exp(-odds / 4))).astype(np.uint8)
    pixels = {"fire_precision": 0.7, "fire_recall": 0.6}

    said = describe_calibration(count_log_odds(odds, truth), OperatingPoint(temperature=4.0, threshold=0.6), pixels)

    assert said["after"]["ece"] < 0.02 < 0.1 < said["before"]["ece"]
    assert said["after"]["average_precision"] == said["before"]["average_precision"]
    assert said["operating_point"] == {"threshold": 0.6, "precision": 0.7, "recall": 0.6}
    curve = said["precision_recall"]
    assert len(curve["threshold"]) == len(curve["precision"]) == len(curve["recall"]) == 200
    assert (np.diff(curve["threshold"]) < 0).all()
    assert curve["recall"][-1] == 1.0
    assert set(said["reliability"]) == {"before", "after"}


def test_a_short_curve_is_shown_whole():
    counts = count_log_odds(np.array([1.0, 2.0], np.float32), np.array([0, 1], np.uint8))

    said = describe_calibration(counts, OperatingPoint(), {"fire_precision": 1.0, "fire_recall": 1.0})

    assert said["precision_recall"]["precision"].tolist() == [1.0, 0.5]


def test_a_patch_is_detected_by_any_pixel_or_by_a_rule():
    speckle = draw_fire([[0, 0, 0]], [[3.0, -1.0, -1.0]]).facts[0]
    burning = draw_fire([[1, 1, 0]], [[2.0, 1.0, -1.0]]).facts[0]
    missed = draw_fire([[1, 255, 0]], [[-2.0, 5.0, -1.0]]).facts[0]
    patches = [speckle, burning, missed]

    plain = score_argmax_detection(patches, [patch.peak_odds >= 0 for patch in patches])
    ruled = score_rule(patches, DetectionRule(2, 0.0))

    assert [plain[key] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 0]
    assert [ruled[key] for key in ("tp", "fp", "fn", "tn")] == [1, 0, 1, 1]
    assert ruled["detection_accuracy"] == pytest.approx(2 / 3)
