"""The lines at the end, and what the tracker learns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fireseg.evaluate.summary import format_summary, list_metrics


def make_interval(mean: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "num": 3}


def make_method(name: str, iou: float) -> dict[str, Any]:
    return {
        **{"name": name, "label": name, "note": "needs B12", "is_there": True},
        "pixels": {"fire_iou": iou, "fire_precision": 0.75, "fire_recall": None},
        "fires": {"iou": make_interval(iou, iou - 0.1, iou + 0.1)},
        "edges": {"boundary_f1_2px": 0.5},
        "area": {"relative_error": -0.125},
    }


@pytest.fixture
def content() -> dict[str, Any]:
    return {
        "split": "test",
        "run": {"name": "ours", "checkpoint": "best_model.pt", "epoch": 7},
        "data": {"fingerprint": "ab12", "trained_on": "ab12", "fires": 3, "labelled_pixels": 123456},
        "decision": {"is_optimistic": False},
        "methods": [make_method("model", 0.8), make_method("index_tuned", 0.7)],
        "gain": {
            "pooled": 0.1,
            "per_fire": {"difference": make_interval(0.09, 0.05, 0.12), "wins": 3, "losses": 0, "p_value": 0.25},
        },
        "calibration": {"after": {"ece": 0.01, "brier": 0.02, "nll": 0.03, "average_precision": 0.9}},
        "detection": {"rule": {"detection_f1": 0.95}},
        "against": None,
    }


def test_the_gain_over_the_index_comes_first(content: dict[str, Any]):
    lines = list(format_summary(content))

    assert lines[0] == "ours, best_model.pt of epoch 7, on test: 3 fires, 123,456 labelled pixels"
    assert lines[1].startswith("gain over the index: +0.100 fire IoU over all pixels; +0.090 [+0.050, +0.120]")
    assert lines[1].endswith("better on 3, worse on 0 (p = 0.25)")


def test_a_line_a_method_says_how_good_it_is(content: dict[str, Any]):
    lines = list(format_summary(content))

    assert lines[3].split() == ["model", "0.800", "0.800", "[0.700,", "0.900]", "0.750", "-", "-12.5", "%"]
    assert len(lines) == 5


def test_an_index_without_its_bands_says_so(content: dict[str, Any]):
    content["methods"][1] |= dict.fromkeys(("pixels", "fires", "edges", "area")) | {"is_there": False}
    content["gain"] = {"pooled": None, "per_fire": None}

    lines = list(format_summary(content))

    assert lines[1] == "gain over the index: unknown (needs B12)"
    assert lines[4].split(maxsplit=1) == ["index_tuned", "needs B12"]


def test_a_comparison_is_the_last_line(content: dict[str, Any]):
    pairs = {"difference": make_interval(None), "wins": 0, "losses": 0, "p_value": None}
    content["against"] = {"name": "theirs", "pooled": {"ours": 0.8, "theirs": 0.75}, **pairs}

    assert list(format_summary(content))[-1] == "against theirs: fire IoU 0.800 to 0.750; no fire to compare"


def test_what_was_chosen_on_the_same_patches_is_said_to_flatter(content: dict[str, Any]):
    content["decision"]["is_optimistic"] = True

    assert "--split test" in list(format_summary(content))[-1]


def test_the_tracker_learns_the_fire_iou_first(content: dict[str, Any]):
    metrics = list_metrics(content)

    assert next(iter(metrics.items())) == ("test/fire_iou", 0.8)
    assert metrics["test/mean_fire_iou"] == 0.8
    assert metrics["test/gain_over_index"] == 0.1
    assert metrics["test/index_fire_iou"] == 0.7
    assert metrics["test/detection_f1"] == 0.95


def test_what_training_wrote_down_of_val_is_not_overwritten(content: dict[str, Any]):
    of_val = {**copy.deepcopy(content), "split": "val"}

    assert all(name.startswith("evaluation_val/") for name in list_metrics(of_val))
