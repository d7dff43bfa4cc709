"""Counts of one fire, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.evaluate.scores import METHODS, decide_fire, measure_fire
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.geo.grid import Grid, Transform
from tests.evaluate.drawn_fires import draw_fire

TRUTH = [[0, 0, 1, 1, 1, 255]]
ODDS = [[-1.0, 1.0, -1.0, 0.5, 2.0, 2.0]]
RATIO = [[0.5, 0.5, -0.5, -0.5, 0.5, -0.5]]
FIXED = [[1, 0, 0, 0, 1, 1]]
LEAST_ODDS_1 = OperatingPoint(threshold=1 / (1 + np.exp(-1)))


def make_grid(crs: str, transform: Transform) -> Grid:
    return Grid(height=1, width=6, crs=crs, transform=transform)


def test_each_method_draws_its_own_map():
    fire = draw_fire(TRUTH, ODDS, ratio=RATIO, fixed=FIXED)

    maps = decide_fire(fire, LEAST_ODDS_1, 0.1)

    assert tuple(maps) == METHODS
    assert {name: classes.tolist()[0] for name, classes in maps.items()} == {
        "model": [0, 1, 0, 0, 1, 1],
        "model_argmax": [0, 1, 0, 1, 1, 1],
        "index_tuned": [0, 0, 1, 1, 0, 1],
        "index_fixed": [1, 0, 0, 0, 1, 1],
    }


def test_a_threshold_of_one_half_without_temperature_is_the_likeliest_class():
    odds = np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32)
    maps = decide_fire(draw_fire(np.zeros((9, 9)), odds), OperatingPoint(), None)

    np.testing.assert_array_equal(maps["model"], maps["model_argmax"])


def test_what_burned_by_the_threshold_is_graded_by_the_largest_of_the_grades():
    fire = draw_fire([[0, 4, 4]], [[-0.5, -0.5, -2.0]], grade=[[3, 4, 2]])

    maps = decide_fire(fire, OperatingPoint(threshold=0.3), None)

    assert maps["model"].tolist() == [[3, 4, 0]]


def test_without_a_band_or_a_threshold_there_is_no_index():
    assert set(decide_fire(draw_fire(TRUTH, ODDS), OperatingPoint(), 0.1)) == {"model", "model_argmax"}
    assert "index_tuned" not in decide_fire(draw_fire(TRUTH, ODDS, ratio=RATIO), OperatingPoint(), None)


def test_unlabelled_pixels_count_nowhere():
    fire = draw_fire(TRUTH, ODDS, ratio=RATIO, fixed=FIXED)

    scores = measure_fire(fire, decide_fire(fire, LEAST_ODDS_1, 0.1), num_classes=2)

    confusions = {name: one.confusion.tolist() for name, one in scores.methods.items()}
    assert confusions == {
        "model": [[1, 1], [2, 1]],
        "model_argmax": [[1, 1], [1, 2]],
        "index_tuned": [[2, 0], [1, 2]],
        "index_fixed": [[1, 1], [2, 1]],
    }
    assert scores.odds.sum(1).tolist() == [2, 3]
    assert (scores.labelled_pixels, scores.burned_share) == (5, 0.6)


def test_an_index_is_held_against_burned_or_not_whatever_the_grade():
    fire = draw_fire([[0, 1, 4, 255]], [[1.0, 1.0, 1.0, 1.0]], grade=4, fixed=[[0, 1, 0, 1]])

    scores = measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=5)

    assert scores.methods["index_fixed"].confusion.tolist() == [[1, 0], [1, 1]]
    assert scores.methods["model"].confusion[:, 4].tolist() == [1, 1, 0, 0, 1]


def test_hectares_are_those_of_the_ground():
    fire = draw_fire(TRUTH, ODDS, ground=make_grid("EPSG:32633", (100.0, 0.0, 500_000.0, 0.0, -100.0, 4_649_776.0)))

    scores = measure_fire(fire, decide_fire(fire, LEAST_ODDS_1, None), num_classes=2)

    # On the central meridian a metre of the map is 1 / 0.9996 m of the ground.
    assert scores.true_ha == pytest.approx(3 / 0.9996**2, rel=1e-4)
    assert scores.methods["model"].predicted_ha == pytest.approx(2 / 0.9996**2, rel=1e-4)


@pytest.mark.parametrize("ground", [None, make_grid("EPSG:0", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))])
def test_hectares_are_unknown_where_nobody_knows_the_ground(ground: Grid | None):
    fire = draw_fire(TRUTH, ODDS, ground=ground)

    scores = measure_fire(fire, decide_fire(fire, OperatingPoint(), None), num_classes=2)

    assert scores.true_ha is None
    assert scores.methods["model"].predicted_ha is None


def test_the_digest_is_that_of_the_labels():
    def digest(truth: list[list[int]], odds: float) -> str:
        fire = draw_fire(truth, np.full((1, len(truth[0])), odds))
        return measure_fire(fire, {}, num_classes=2).truth_sha256

    assert digest([[0, 1]], 1.0) == digest([[0, 1]], 2.0)
    assert len({digest([[0, 1]], 1.0), digest([[1, 0]], 1.0), digest([[0, 1, 255]], 1.0)}) == 3
