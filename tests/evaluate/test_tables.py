"""Tables over fires, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fireseg.evaluate.scores import (
    FireScores,
    compare_to_index,
    decide_fire,
    describe_fire,
    group_fires,
    measure_fire,
    name_size,
    score_method,
    sum_area,
)
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.geo.grid import Grid
from tests.evaluate.drawn_fires import draw_fire

NAMES = ("background", "fire")
GROUND = Grid(height=1, width=4, crs="EPSG:32633", transform=(100.0, 0.0, 500_000.0, 0.0, -100.0, 4_649_776.0))


def measure(truth: str, burned: str, index: str | None = None, **about: Any) -> FireScores:
    """A fire in one row: 1 burned, 0 not, x unlabelled."""
    ratio = None if index is None else [[-1.0 if pixel == "1" else 1.0 for pixel in index]]
    odds = [[1.0 if pixel == "1" else -1.0 for pixel in burned]]
    fire = draw_fire([[{"0": 0, "1": 1, "x": 255}[pixel] for pixel in truth]], odds, ratio=ratio, **about)
    return measure_fire(fire, decide_fire(fire, OperatingPoint(), 0.0), num_classes=2)


LARGE = measure("11110000", "11100000", "11000000", name="large")  # IoU 3/4, index 2/4
SMALL = measure("10", "11", "10", name="small")  # IoU 1/2, index 1
QUIET = measure("00", "00", "01", name="quiet")  # IoU nothing to read, index 0


def test_pooled_scores_weigh_pixels_and_means_weigh_fires():
    scores = score_method("model", [LARGE, SMALL, QUIET], NAMES)

    assert scores["pixels"]["fire_iou"] == pytest.approx(4 / 6)
    interval = scores["fires"]["iou"]
    assert (interval.mean, interval.num) == (pytest.approx((3 / 4 + 1 / 2) / 2), 2)
    assert interval.low <= interval.mean <= interval.high


def test_an_index_has_scores_of_fire_alone():
    assert set(score_method("index_tuned", [LARGE], NAMES)["pixels"]) == {
        *("fire_iou", "fire_dice", "fire_precision", "fire_recall")
    }
    assert "iou_background" in score_method("model", [LARGE], NAMES)["pixels"]


def test_the_gain_is_the_model_less_the_index():
    gain = compare_to_index([LARGE, SMALL, QUIET])

    # Hits and all that either calls burned: the model 4 of 6, the index 3 of 6.
    assert gain["pooled"] == pytest.approx(4 / 6 - 3 / 6)
    pairs = gain["per_fire"]
    assert (pairs.wins, pairs.losses, pairs.ties) == (1, 1, 0)
    assert pairs.difference.mean == pytest.approx((1 / 4 - 1 / 2) / 2)


def test_without_an_index_there_is_no_gain():
    assert compare_to_index([LARGE, measure("10", "10")]) == {"pooled": None, "per_fire": None}


def test_area_is_summed_over_the_fires_whose_ground_is_known():
    known = measure("1110", "1001", ground=GROUND)

    area = sum_area("model", [known, SMALL])

    hectare = pytest.approx(1 / 0.9996**2, rel=1e-4)
    assert area["true_ha"] / 3 == hectare
    assert area["predicted_ha"] / 2 == hectare
    assert area["relative_error"] == pytest.approx(-1 / 3)
    assert all(math.isnan(value) for value in sum_area("model", [SMALL]).values())


@pytest.mark.parametrize(
    ("share", "name"),
    [
        *((0.0, "< 1 %"), (0.0099, "< 1 %"), (0.01, "1-10 %"), (0.0999, "1-10 %"), (0.1, "10-30 %")),
        *((0.3, "10-30 %"), (0.301, "> 30 %"), (math.nan, "< 1 %")),
    ],
)
def test_the_size_of_a_fire_is_its_burned_share(share: float, name: str):
    assert name_size(share) == name


def test_a_row_says_how_a_fire_was_met():
    row = describe_fire(measure("1100x", "1010x", "1000x", name="T", country="Spain", date="2019-08-28"))

    assert (row["name"], row["country"], row["climate"], row["size"]) == ("T", "Spain", None, "> 30 %")
    assert (row["burned_share"], row["labelled_pixels"]) == (0.5, 4)
    assert (row["iou"], row["precision"], row["recall"]) == (pytest.approx(1 / 3), 0.5, 0.5)
    assert row["index_tuned_iou"] == 0.5
    assert math.isnan(row["index_fixed_iou"])
    assert row["true_ha"] is None


def test_groups_are_those_that_the_metadata_has():
    rows = [
        describe_fire(measure("1100", "1000", "1100", name="a", country="Spain", date="2019-08-28")),
        describe_fire(measure("1100", "1100", "1000", name="b", country="Italy", date="2019-01-01")),
        describe_fire(measure("1000", "1000", "0000", name="c")),
    ]

    groups = group_fires(rows)

    assert set(groups) == {"size", "country", "year"}
    assert [(group["name"], group["num"]) for group in groups["country"]] == [("Italy", 1), ("Spain", 1)]
    (year,) = groups["year"]
    assert (year["name"], year["num"], year["iou"].mean, year["index_tuned_iou"].mean) == ("2019", 2, 0.75, 0.75)
    assert [group["name"] for group in groups["size"]] == ["10-30 %", "> 30 %"]


def test_edges_of_many_fires_are_pooled():
    square = np.zeros((8, 8), int)
    square[2:6, 2:6] = 1
    exact = draw_fire(square, np.where(square, 1.0, -1.0))
    shifted = draw_fire(square, np.where(np.roll(square, 1, axis=1), 1.0, -1.0))
    measured = [
        measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=2) for fire in (exact, shifted)
    ]

    edges = score_method("model", measured, NAMES)["edges"]

    assert edges["boundary_f1_1px"] == 1.0
    assert 0 < edges["boundary_iou_1px"] < 1
    assert edges["hausdorff_95_px"] == pytest.approx(0.5)  # the median of 0 and 1
