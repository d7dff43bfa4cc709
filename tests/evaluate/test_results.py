"""Tests of the results: contents, JSON values and files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fireseg.evaluate.mosaic import score_any_pixel_detection, score_rule_detection
from fireseg.evaluate.results import describe_calibration, to_dict, write_results
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.metric import DetectionRule, Interval, count_log_odds
from fireseg.runs.summary import read_evaluation
from tests.evaluate.builders import make_mosaic, read_json


def test_nan_and_infinity_become_null():
    plain = to_dict({"a": math.nan, "b": np.array([1.5, np.inf]), "c": (np.float32(0.5), -math.inf), "d": np.True_})

    assert plain == {"a": None, "b": [1.5, None], "c": [0.5, None], "d": True}


def test_named_tuples_become_dicts():
    assert to_dict({"iou": Interval(0.5, math.nan, math.nan, 1, (0.5,))}) == {
        "iou": {"mean": 0.5, "low": None, "high": None, "num": 1, "values": [0.5]}
    }


def make_results() -> dict[str, Any]:
    """Makes the part of an evaluation that a comparison reads."""
    return {
        "format": 4,
        "split": "test",
        "run": {"name": "São Tomé", "sha256": "0" * 64, "task": "del", "class_names": ["background", "fire"]},
        "data": {"fingerprint": "f" * 64},
        "methods": [{"pixels": {"fire_iou": 0.5}, "unburned": {"num": 0, "predicted_ha": None}}],
        "fires": [{"name": "a", "iou": None, "truth_sha256": "1" * 64}],
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fires", [{"name": "a", "iou": 1e300, "truth_sha256": "1"}]),
        ("methods", []),
        ("methods", [{"pixels": {}, "unburned": {}}]),
        ("run", {"name": "a"}),
        ("split", 3),
    ],
)
def test_a_damaged_evaluation_is_not_read(tmp_path: Path, key: str, value: Any):
    path = tmp_path / "evaluation_test.json"
    path.write_text(json.dumps({**make_results(), key: value}))
    assert read_evaluation(path) is None


def test_written_results_are_read_back(tmp_path: Path):
    results = make_results()
    write_results(results, tmp_path / "evaluation_test.json")

    assert read_json(tmp_path / "evaluation_test.json") == results
    assert read_evaluation(tmp_path / "evaluation_test.json") == results


def test_other_files_and_formats_are_not_read(tmp_path: Path):
    path = tmp_path / "evaluation_test.json"
    assert read_evaluation(path) is None
    for text in ("{", "[]", '{"format": 99}'):
        path.write_text(text)
        assert read_evaluation(path) is None


def test_calibration_is_described_before_and_after_the_temperature():
    rng = np.random.default_rng(0)
    odds = rng.normal(scale=4.0, size=20_000).astype(np.float32)
    truth = (rng.random(20_000) < 1 / (1 + np.exp(-odds / 4))).astype(np.uint8)
    pixels = {"fire_precision": 0.7, "fire_recall": 0.6}

    description = describe_calibration(
        count_log_odds(odds, truth), OperatingPoint(temperature=4.0, threshold=0.6), pixels
    )

    assert description["after"]["ece"] < 0.02 < 0.1 < description["before"]["ece"]
    assert description["after"]["average_precision"] == description["before"]["average_precision"]
    assert description["operating_point"] == {"threshold": 0.6, "precision": 0.7, "recall": 0.6}
    curve = description["precision_recall"]
    assert len(curve["threshold"]) == len(curve["precision"]) == len(curve["recall"]) == 200
    assert (np.diff(curve["threshold"]) < 0).all()
    assert curve["recall"][-1] == 1.0
    assert set(description["reliability"]) == {"before", "after"}


def test_a_short_curve_is_not_subsampled():
    counts = count_log_odds(np.array([1.0, 2.0], np.float32), np.array([0, 1], np.uint8))

    description = describe_calibration(counts, OperatingPoint(), {"fire_precision": 1.0, "fire_recall": 1.0})

    assert description["precision_recall"]["precision"].tolist() == [1.0, 0.5]


def test_detection_is_scored_by_any_pixel_and_by_a_rule():
    speckle = make_mosaic([[0, 0, 0]], [[3.0, -1.0, -1.0]]).patches[0]
    burning = make_mosaic([[1, 1, 0]], [[2.0, 1.0, -1.0]]).patches[0]
    missed = make_mosaic([[1, 255, 0]], [[-2.0, 5.0, -1.0]]).patches[0]
    patches = [speckle, burning, missed]

    plain = score_any_pixel_detection(patches, [patch.max_log_odds >= 0 for patch in patches])
    ruled = score_rule_detection(patches, DetectionRule(2, 0.0))

    assert [plain[key] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 0]
    assert [ruled[key] for key in ("tp", "fp", "fn", "tn")] == [1, 0, 1, 1]
    assert ruled["detection_accuracy"] == pytest.approx(2 / 3)
