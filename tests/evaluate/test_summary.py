"""Tests of the terminal summary and the metrics for the tracker."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fireseg.evaluate.summary import format_summary, list_metrics
from tests.runs.builders import SELF_TRAINING


def make_interval(mean: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "num": 7, "values": None}


def make_method(name: str, iou: float) -> dict[str, Any]:
    return {
        **{"name": name, "label": name, "note": "needs B12", "is_there": True},
        "pixels": {"fire_iou": iou, "fire_precision": 0.75, "fire_recall": None},
        "fires": {"iou": make_interval(iou, iou - 0.1, iou + 0.1)},
        "edges": {"boundary_f1_2px": 0.5},
        "area": {"relative_error": -0.125},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "split": "test",
        "run": {"name": "ours", "checkpoint": "best_model.pt", "epoch": 7},
        "data": {
            "fingerprint": "ab12",
            "trained_on": "ab12",
            "fires": 3,
            "unburned_tiles": 0,
            "labelled_pixels": 123456,
        },
        "decision": {"chosen_on": "val", "is_optimistic": False, "threshold": 0.5, "threshold_reason": "default"},
        "methods": [make_method("model", 0.8), make_method("index_tuned", 0.7)],
        "gain": {
            "pooled": 0.1,
            "per_fire": {"difference": make_interval(0.09, 0.05, 0.12), "wins": 3, "losses": 0, "p_value": 0.25},
        },
        "calibration": {"after": {"ece": 0.01, "brier": 0.02, "nll": 0.03, "average_precision": 0.9}},
        "detection": {"rule": {"detection_f1": 0.95}},
        "off_centre": None,
        "against": None,
    }


def test_the_gain_is_in_the_second_line(results: dict[str, Any]):
    lines = list(format_summary(results))

    assert lines[0] == "ours, best_model.pt of epoch 7, on test: 3 fires, 123,456 labelled pixels"
    assert lines[1].startswith("gain over index_tuned: fire_iou +0.100 pooled; +0.090 [+0.050, +0.120] (n = 7)")
    assert lines[1].endswith("wins 3, losses 0, p_value 0.25")


def test_a_self_trained_run_names_its_teacher(results: dict[str, Any]):
    results["run"]["self_training"] = SELF_TRAINING

    line = list(format_summary(results))[1]

    assert line.startswith("self-training: 12 unlabelled patches (3 left out) labelled by outputs/teacher")


def test_false_alarms_on_tiles_without_fire_have_their_own_line(results: dict[str, Any]):
    results["data"]["unburned_tiles"] = 2
    for method in results["methods"]:
        method["unburned"] = {"num": 2, "num_false_alarms": 1, "predicted_pixels": 1, "predicted_ha": None}
    results["methods"][0]["unburned"] |= {"predicted_ha": 4.2, "ha_per_1000_km2": 1.94}

    lines = list(format_summary(results))

    assert "3 fires, 2 tiles without fire, " in lines[0]
    assert "model: 2 tiles without fire: false alarms on 1, 4.2 ha, 1.9 ha per 1000 km²" in lines
    assert "index_tuned: 2 tiles without fire: false alarms on 1, 1 pixel" in lines


def test_each_method_has_a_row(results: dict[str, Any]):
    lines = list(format_summary(results))

    assert lines[3].split() == [
        "model",
        "0.800",
        "0.800",
        "[0.700,",
        "0.900]",
        "(n",
        "=",
        "7)",
        "0.750",
        "-",
        "-12.5",
        "%",
    ]
    assert len(lines) == 6
    assert lines[5] == "threshold 0.5: default"


def test_a_baseline_without_its_bands_gives_the_reason(results: dict[str, Any]):
    results["methods"][1] |= dict.fromkeys(("pixels", "fires", "edges", "area")) | {"is_there": False}
    results["gain"] = {"pooled": None, "per_fire": None}

    lines = list(format_summary(results))

    assert lines[1] == "gain over index_tuned: unknown (needs B12)"
    assert lines[4].split(maxsplit=1) == ["index_tuned", "needs B12"]


def test_scores_off_centre_are_told_with_advice(results: dict[str, Any]):
    pairs = {"difference": make_interval(-0.09, -0.12, -0.06), "wins": 0, "losses": 7, "p_value": 0.016}
    view = {"pooled": {"centred": 0.8, "off_centre": 0.71}, **pairs}
    results["off_centre"] = {"mirrored": view, "cropped": view, "advice": "drops 0.09 off centre: …; use data.crop=128"}

    lines = list(format_summary(results))

    assert any(
        line.startswith("off centre, corner crops: fire_iou 0.710 instead of 0.800; -0.090 [-0.120, -0.060]")
        for line in lines
    )
    assert results["off_centre"]["advice"] in lines


def test_the_comparison_is_the_last_line(results: dict[str, Any]):
    pairs = {"difference": make_interval(None), "wins": 0, "losses": 0, "p_value": None}
    results["against"] = {"name": "theirs", "pooled": {"ours": 0.8, "theirs": 0.75}, **pairs}

    assert list(format_summary(results))[-1] == "against theirs: fire_iou 0.800, theirs 0.750; no fire to compare"


def test_scores_on_val_are_marked_as_optimistic(results: dict[str, Any]):
    results["decision"]["is_optimistic"] = True

    assert "--split test" in list(format_summary(results))[-1]


def test_defaults_are_not_said_to_be_chosen_on_val(results: dict[str, Any]):
    results["decision"] |= {"chosen_on": None, "is_optimistic": True}

    assert not any("optimistic" in line for line in format_summary(results))


def test_metrics_start_with_the_fire_iou(results: dict[str, Any]):
    metrics = list_metrics(results)

    assert next(iter(metrics.items())) == ("test/fire_iou", 0.8)
    assert metrics["test/mean_fire_iou"] == 0.8
    assert metrics["z_details/test/gain_over_index"] == 0.1
    assert metrics["z_details/test/index_fire_iou"] == 0.7
    assert metrics["z_details/test/detection_f1"] == 0.95


def test_metrics_of_val_have_another_prefix_than_in_training(results: dict[str, Any]):
    of_val = {**copy.deepcopy(results), "split": "val"}

    assert all(name.startswith("z_details/evaluation_val/") for name in list_metrics(of_val))
