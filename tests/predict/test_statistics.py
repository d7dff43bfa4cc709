"""Classes and fire probability of pixels, and the totals of a map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.predict.statistics import MapStatistics, PixelPrediction, classify


def make_probabilities(*pixels: tuple[float, ...]) -> np.ndarray:
    """One row of pixels, `(K, 1, W)`."""
    return np.array(pixels, np.float32).T[:, None]


def known(width: int) -> np.ndarray:
    return np.zeros((1, width), bool)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_two_classes_at_a_threshold_of_one_half_are_the_argmax(fire: list[float]) -> None:
    probabilities = make_probabilities(*((float(np.float32(1) - np.float32(p)), p) for p in fire))
    differs = probabilities[0] != probabilities[1]
    classes = classify(probabilities, known(len(fire))).classes
    np.testing.assert_array_equal(classes[differs], probabilities.argmax(0)[differs])


def test_a_pixel_burned_if_its_probability_reaches_the_threshold() -> None:
    probabilities = make_probabilities((0.75, 0.25), (0.7, 0.3), (0.65, 0.35))
    assert classify(probabilities, known(3), threshold=0.28).classes.tolist() == [[0, 1, 1]]
    assert classify(make_probabilities((0.5, 0.5)), known(1), threshold=0.5).classes.tolist() == [[1]]


def test_a_temperature_of_two_halves_the_log_odds() -> None:
    # Odds of 9 to 1 become 3 to 1.
    fire = classify(make_probabilities((0.1, 0.9), (0.9, 0.1)), known(2), temperature=2.0).fire
    np.testing.assert_allclose(fire, [[0.75, 0.25]], rtol=1e-5)


def test_the_threshold_applies_to_the_calibrated_probability() -> None:
    probabilities = make_probabilities((0.1, 0.9))
    assert classify(probabilities, known(1), temperature=2.0, threshold=0.74).classes.item() == 1
    assert classify(probabilities, known(1), temperature=2.0, threshold=0.76).classes.item() == 0


def test_fire_is_the_sum_of_the_fire_classes_and_the_class_is_the_likeliest_of_them() -> None:
    probabilities = make_probabilities((0.4, 0.1, 0.3, 0.2, 0.0), (0.6, 0.0, 0.1, 0.3, 0.0))
    classes, fire = classify(probabilities, known(2))
    assert classes.tolist() == [[2, 0]]
    np.testing.assert_allclose(fire, [[0.6, 0.4]], rtol=1e-5)


def test_of_equal_fire_classes_the_lower_is_taken() -> None:
    assert classify(make_probabilities((0.2, 0.2, 0.3, 0.3, 0.0)), known(1)).classes.item() == 2


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_certain_probabilities_stay_certain(temperature: float) -> None:
    probabilities = make_probabilities((1.0, 0.0), (0.0, 1.0))
    classes, fire = classify(probabilities, known(2), temperature=temperature)
    assert classes.tolist() == [[0, 1]]
    assert fire.tolist() == [[0.0, 1.0]]


def test_unknown_pixels_have_neither_class_nor_probability() -> None:
    classes, fire = classify(make_probabilities((0.1, 0.9), (0.1, 0.9)), np.array([[True, False]]))
    assert classes.tolist() == [[255, 1]]
    assert np.isnan(fire).tolist() == [[True, False]]


def test_probabilities_are_not_modified() -> None:
    probabilities = make_probabilities((0.1, 0.9), (0.5, 0.5))
    before = probabilities.copy()
    classify(probabilities, known(2), temperature=3.0)
    np.testing.assert_array_equal(probabilities, before)


CLASSES = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
FIRE = np.array([[0.1, 0.6, 0.7], [np.nan, 0.9, 0.8]], np.float32)


def test_pixels_and_areas_add_up_over_rows() -> None:
    statistics = MapStatistics(3)
    area_m2 = np.array([[100, 200, 300], [400, 500, 600]], np.float32)
    for row in range(2):
        statistics.add(PixelPrediction(CLASSES[row : row + 1], FIRE[row : row + 1]), area_m2[row : row + 1])
    assert statistics.pixels.tolist() == [1, 1, 3]
    assert statistics.hectares == pytest.approx([0.01, 0.02, 0.14])
    assert statistics.burned_ha == pytest.approx(0.16)
    assert statistics.burned_fraction == pytest.approx(4 / 5)
    assert statistics.unknown_share == pytest.approx(1 / 6)
    assert statistics.max_probability == pytest.approx(0.9)
    assert statistics.has_fire


def test_one_area_per_row_applies_to_all_its_pixels() -> None:
    statistics = MapStatistics(3)
    statistics.add(PixelPrediction(CLASSES, FIRE), np.array([[100], [200]], np.float32))
    assert statistics.hectares == pytest.approx([0.01, 0.01, 0.05])


def test_statistics_of_unknown_pixels_are_zero() -> None:
    statistics = MapStatistics(2)
    statistics.add(
        PixelPrediction(np.full((2, 2), 255, np.uint8), np.full((2, 2), np.nan, np.float32)),
        np.ones((2, 2), np.float32),
    )
    assert (statistics.has_fire, statistics.max_probability, statistics.burned_fraction, statistics.unknown_share) == (
        False,
        0.0,
        0.0,
        1.0,
    )
    assert statistics.hectares == [0.0, 0.0]
