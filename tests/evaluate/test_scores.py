"""Tests of the scores of fires, methods and groups."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fireseg.evaluate.scores import (
    METHODS,
    FireScores,
    compare_to_baseline,
    decide_fire,
    describe_fire,
    get_size_class,
    group_fires,
    measure_fire,
    score_method,
    sum_area,
)
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.geo.grid import Grid, Transform
from tests.evaluate.builders import make_mosaic

TRUTH = [[0, 0, 1, 1, 1, 255]]
ODDS = [[-1.0, 1.0, -1.0, 0.5, 2.0, 2.0]]
RATIO = [[0.5, 0.5, -0.5, -0.5, 0.5, -0.5]]
FIXED = [[1, 0, 0, 0, 1, 1]]
ABOVE_LOG_ODDS_1 = OperatingPoint(threshold=1 / (1 + np.exp(-1)))


def make_grid(crs: str, transform: Transform) -> Grid:
    return Grid(height=1, width=6, crs=crs, transform=transform)


def test_each_method_classifies_pixels():
    fire = make_mosaic(TRUTH, ODDS, nbr=RATIO, fixed_rule=FIXED)

    maps = decide_fire(fire, ABOVE_LOG_ODDS_1, 0.1)

    assert tuple(maps) == METHODS
    assert {name: classes.tolist()[0] for name, classes in maps.items()} == {
        "model": [0, 1, 0, 0, 1, 1],
        "model_argmax": [0, 1, 0, 1, 1, 1],
        "index_tuned": [0, 0, 1, 1, 0, 1],
        "index_fixed": [1, 0, 0, 0, 1, 1],
    }


def test_threshold_one_half_without_temperature_equals_argmax():
    odds = np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32)
    maps = decide_fire(make_mosaic(np.zeros((9, 9)), odds), OperatingPoint(), None)

    np.testing.assert_array_equal(maps["model"], maps["model_argmax"])


def test_pixels_above_the_threshold_get_their_severity_class():
    fire = make_mosaic([[0, 4, 4]], [[-0.5, -0.5, -2.0]], severity=[[3, 4, 2]])

    maps = decide_fire(fire, OperatingPoint(threshold=0.3), None)

    assert maps["model"].tolist() == [[3, 4, 0]]


def test_without_a_band_or_threshold_there_is_no_baseline():
    assert set(decide_fire(make_mosaic(TRUTH, ODDS), OperatingPoint(), 0.1)) == {"model", "model_argmax"}
    assert "index_tuned" not in decide_fire(make_mosaic(TRUTH, ODDS, nbr=RATIO), OperatingPoint(), None)


def test_unlabelled_pixels_are_not_counted():
    fire = make_mosaic(TRUTH, ODDS, nbr=RATIO, fixed_rule=FIXED)

    scores = measure_fire(fire, decide_fire(fire, ABOVE_LOG_ODDS_1, 0.1), num_classes=2)

    confusions = {name: one.confusion.tolist() for name, one in scores.methods.items()}
    assert confusions == {
        "model": [[1, 1], [2, 1]],
        "model_argmax": [[1, 1], [1, 2]],
        "index_tuned": [[2, 0], [1, 2]],
        "index_fixed": [[1, 1], [2, 1]],
    }
    assert scores.log_odds_counts.sum(1).tolist() == [2, 3]
    assert (scores.labelled_pixels, scores.burned_share) == (5, 0.6)


def test_baselines_are_compared_with_burned_or_not():
    fire = make_mosaic([[0, 1, 4, 255]], [[1.0, 1.0, 1.0, 1.0]], severity=4, fixed_rule=[[0, 1, 0, 1]])

    scores = measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=5)

    assert scores.methods["index_fixed"].confusion.tolist() == [[1, 0], [1, 1]]
    assert scores.methods["model"].confusion[:, 4].tolist() == [1, 1, 0, 0, 1]


def test_a_fire_of_severity_has_the_scores_of_its_grades():
    # Grade 4 everywhere: one hit, two false alarms of grade 4, one miss of grade 1, which is off by three grades.
    fire = make_mosaic([[0, 1, 4, 255]], [[1.0, 1.0, 1.0, 1.0]], severity=4)
    row = describe_fire(measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=5))
    assert (row["severity_iou"], row["grade_mae"], row["grade_kappa"]) == (0.25, 1.5, 0.0)
    assert "severity_iou" not in describe_fire(SMALL)


def test_areas_are_geodesic():
    fire = make_mosaic(TRUTH, ODDS, grid=make_grid("EPSG:32633", (100.0, 0.0, 500_000.0, 0.0, -100.0, 4_649_776.0)))

    scores = measure_fire(fire, decide_fire(fire, ABOVE_LOG_ODDS_1, None), num_classes=2)

    # On the central meridian a metre of the map is 1 / 0.9996 m of the ground.
    assert scores.true_ha == pytest.approx(3 / 0.9996**2, rel=1e-4)
    assert scores.methods["model"].predicted_ha == pytest.approx(2 / 0.9996**2, rel=1e-4)


@pytest.mark.parametrize("grid", [None, make_grid("EPSG:0", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))])
def test_areas_are_unknown_without_a_usable_grid(grid: Grid | None):
    fire = make_mosaic(TRUTH, ODDS, grid=grid)

    scores = measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=2)

    assert scores.true_ha is None
    assert scores.methods["model"].predicted_ha is None


def test_the_hash_depends_on_the_labels_only():
    def digest(truth: list[list[int]], odds: float) -> str:
        fire = make_mosaic(truth, np.full((1, len(truth[0])), odds))
        return measure_fire(fire, {}, num_classes=2).truth_sha256

    assert digest([[0, 1]], 1.0) == digest([[0, 1]], 2.0)
    assert len({digest([[0, 1]], 1.0), digest([[1, 0]], 1.0), digest([[0, 1, 255]], 1.0)}) == 3


NAMES = ("background", "fire")
GRID = Grid(height=1, width=4, crs="EPSG:32633", transform=(100.0, 0.0, 500_000.0, 0.0, -100.0, 4_649_776.0))


def measure(truth: str, burned: str, index: str | None = None, **about: Any) -> FireScores:
    """A fire in one row: 1 burned, 0 not, x unlabelled."""
    ratio = None if index is None else [[-1.0 if pixel == "1" else 1.0 for pixel in index]]
    odds = [[1.0 if pixel == "1" else -1.0 for pixel in burned]]
    fire = make_mosaic([[{"0": 0, "1": 1, "x": 255}[pixel] for pixel in truth]], odds, nbr=ratio, **about)
    return measure_fire(fire, decide_fire(fire, OperatingPoint(), 0.0), num_classes=2)


LARGE = measure("11110000", "11100000", "11000000", name="large")  # IoU 3/4, index 2/4
SMALL = measure("10", "11", "10", name="small")  # IoU 1/2, index 1
QUIET = measure("00", "00", "01", name="quiet")  # IoU nothing to read, index 0


def test_pooled_scores_weight_pixels_and_means_weight_fires():
    scores = score_method("model", [LARGE, SMALL, QUIET], NAMES)

    assert scores["pixels"]["fire_iou"] == pytest.approx(4 / 6)
    interval = scores["fires"]["iou"]
    assert (interval.mean, interval.num) == (pytest.approx((3 / 4 + 1 / 2) / 2), 2)
    assert interval.values == (3 / 4, 1 / 2)


def test_a_tile_on_which_nothing_burned_is_no_fire():
    tiles = [measure("0000", "0100", grid=GRID), measure("00xx", "0011", grid=GRID)]
    fires = [LARGE, SMALL, *tiles]

    scores = score_method("model", fires, NAMES)

    assert scores["fires"] == score_method("model", [LARGE, SMALL], NAMES)["fires"]
    assert scores["fires"]["precision"].num == 2
    alarms = scores["unburned"]
    assert (alarms["num"], alarms["num_false_alarms"], alarms["predicted_pixels"]) == (2, 1, 1)
    hectare = pytest.approx(1 / 0.9996**2, rel=1e-4)
    assert alarms["predicted_ha"] == hectare
    # One of six labelled pixels of equal area.
    assert alarms["ha_per_1000_km2"] == pytest.approx(1e5 / 6, rel=1e-4)
    assert score_method("model", [LARGE, QUIET], NAMES)["unburned"]["predicted_ha"] is None
    groups = group_fires([describe_fire(fire) for fire in fires])
    assert sum(group["num"] for group in groups["size"]) == 2


def test_baselines_have_fire_scores_only():
    assert set(score_method("index_tuned", [LARGE], NAMES)["pixels"]) == {
        *("fire_iou", "fire_dice", "fire_precision", "fire_recall")
    }
    assert "iou_background" in score_method("model", [LARGE], NAMES)["pixels"]


def test_the_gain_is_model_minus_baseline():
    gain = compare_to_baseline([LARGE, SMALL, QUIET])

    # Hits and all that either calls burned: the model 4 of 6, the index 3 of 6.
    assert gain["pooled"] == pytest.approx(4 / 6 - 3 / 6)
    pairs = gain["per_fire"]
    assert (pairs.wins, pairs.losses, pairs.ties) == (1, 1, 0)
    assert pairs.difference.mean == pytest.approx((1 / 4 - 1 / 2) / 2)


def test_without_a_baseline_there_is_no_gain():
    assert compare_to_baseline([LARGE, measure("10", "10")]) == {"pooled": None, "per_fire": None}


def test_areas_are_summed_over_georeferenced_fires():
    known = measure("1110", "1001", grid=GRID)

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
def test_the_size_class_follows_the_burned_share(share: float, name: str):
    assert get_size_class(share) == name


def test_a_fire_is_described_by_its_scores_and_metadata():
    row = describe_fire(measure("1100x", "1010x", "1000x", name="T", country="Spain", date="2019-08-28"))

    assert (row["name"], row["country"], row["climate"], row["size"]) == ("T", "Spain", None, "> 30 %")
    assert (row["burned_share"], row["labelled_pixels"]) == (0.5, 4)
    assert (row["iou"], row["precision"], row["recall"]) == (pytest.approx(1 / 3), 0.5, 0.5)
    assert row["index_tuned_iou"] == 0.5
    assert math.isnan(row["index_fixed_iou"])
    assert row["true_ha"] is None


def test_a_fire_of_a_pair_has_the_iou_of_each_rule_over_the_change():
    # IoU 1/2 where dNBR is above its threshold; the other two rules are those of other bands.
    fire = make_mosaic([[1, 1, 0, 0]], [[1.0, 1.0, 1.0, -1.0]])
    layers = {**fire.layers, "dNBR": np.array([[0.3, 0.1, 0.0, 0.0]], np.float32)}
    fire = replace(fire, layers=layers)
    row = describe_fire(measure_fire(fire, decide_fire(fire, OperatingPoint(), None, {"dNBR": 0.2}), num_classes=2))
    assert (row["index_dnbr_iou"], row["iou"]) == (0.5, pytest.approx(2 / 3))
    assert "index_rbr_iou" not in row
    assert not any("dnbr" in key for key in describe_fire(SMALL))


def test_fires_are_grouped_by_known_metadata():
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


def test_boundary_scores_are_pooled_over_fires():
    square = np.zeros((8, 8), int)
    square[2:6, 2:6] = 1
    exact = make_mosaic(square, np.where(square, 1.0, -1.0))
    shifted = make_mosaic(square, np.where(np.roll(square, 1, axis=1), 1.0, -1.0))
    measured = [
        measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=2) for fire in (exact, shifted)
    ]

    edges = score_method("model", measured, NAMES)["edges"]

    assert edges["boundary_f1_1px"] == 1.0
    assert 0 < edges["boundary_iou_1px"] < 1
    assert edges["hausdorff_95_px"] == pytest.approx(0.5)  # the median of 0 and 1
