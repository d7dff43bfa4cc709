"""Tests of the burn ratio, the water index and their thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fireseg.errors import FiresegError
from fireseg.evaluate.baseline import (
    count_ratios,
    fixed_rule,
    iou_at,
    normalised_burn_ratio,
    normalised_difference_water_index,
    tune_threshold,
)


def test_burn_ratio_prefers_b8a_and_is_zero_where_both_bands_are_zero():
    image = np.array([[[0.9, 0.0]], [[0.3, 0.0]], [[0.1, 0.0]]], np.float32)

    ratio = normalised_burn_ratio(image, ["B08", "B8A", "B12"])

    np.testing.assert_allclose(ratio, [[0.5, 0.0]], rtol=1e-6)


def test_burn_ratio_names_missing_bands():
    with pytest.raises(FiresegError, match=r"B02 B03.*needs B8A or B08, and B12"):
        normalised_burn_ratio(np.zeros((2, 1, 1), np.float32), ["B02", "B03"])


def test_threshold_separates_burned_from_unburned():
    ratio = np.array([-0.5, -0.4, 0.3, 0.4], np.float32)
    counts = count_ratios(ratio, np.array([1, 1, 0, 0], np.uint8))

    threshold = tune_threshold(counts)

    assert -0.4 < threshold <= 0.3
    assert iou_at(counts, threshold) == 1.0


def test_iou_is_hits_over_hits_misses_and_false_alarms():
    ratio = np.array([-0.5, -0.5, -0.5, 0.5], np.float32)
    counts = count_ratios(ratio, np.array([1, 1, 0, 1], np.uint8))

    assert iou_at(counts, 0.0) == pytest.approx(2 / 4)


def test_unlabelled_pixels_are_not_counted():
    assert count_ratios(np.zeros(3, np.float32), np.array([255, 0, 1], np.uint8)).sum() == 2


def test_without_burned_pixels_threshold_and_iou_are_undefined():
    counts = count_ratios(np.full(2, 0.9, np.float32), np.zeros(2, np.uint8))

    assert math.isnan(iou_at(counts, -0.5))
    with pytest.raises(FiresegError, match="no burned pixel"):
        tune_threshold(counts)


def test_water_index_prefers_b08_and_is_zero_where_both_bands_are_zero():
    image = np.array([[[0.3, 0.0]], [[0.1, 0.0]], [[0.9, 0.0]]], np.float32)

    np.testing.assert_allclose(normalised_difference_water_index(image, ["B03", "B08", "B8A"]), [[0.5, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(normalised_difference_water_index(image, ["B03", "B11", "B8A"]), [[-0.5, 0]], rtol=1e-6)


def test_water_index_names_missing_bands():
    with pytest.raises(FiresegError, match=r"B03 B12.*needs B03, and B08 or B8A"):
        normalised_difference_water_index(np.zeros((2, 1, 1), np.float32), ["B03", "B12"])


def test_fixed_rule_requires_a_low_burn_ratio_and_no_water():
    # B03, B08, B12 of char (NBR -0.33, NDWI -0.2), green plants (0.6, -0.8), turbid water (-0.33, 0.33), and of a
    # pixel whose burn ratio is low, but not low enough (-0.05, -0.3).
    columns = [[0.08, 0.12, 0.24], [0.05, 0.45, 0.11], [0.08, 0.04, 0.08], [0.10, 0.19, 0.21]]
    image = np.array(columns, np.float32).T.reshape(3, 2, 2)

    burned = fixed_rule(image, ["B03", "B08", "B12"])

    assert burned.dtype == bool
    assert burned.tolist() == [[True, False], [False, False]]


def test_fixed_rule_accepts_a_water_index_of_exactly_0():
    assert fixed_rule(np.array([0.1, 0.1, 0.4], np.float32), ["B03", "B8A", "B12"]).item()


def test_fixed_rule_rejects_pixels_of_zero_reflectance():
    assert not fixed_rule(np.zeros(3, np.float32), ["B03", "B08", "B12"]).item()


@pytest.mark.parametrize(
    ("bands", "lacking"),
    [(["B02"], "B03, B12, B08 or B8A$"), (["B03", "B8A"], "needs B12$"), (["B08", "B12"], "needs B03$")],
)
def test_fixed_rule_names_all_missing_bands(bands: list[str], lacking: str):
    with pytest.raises(FiresegError, match=lacking):
        fixed_rule(np.zeros((len(bands), 1, 1), np.float32), bands)
