"""The burn ratio and the threshold on it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fireseg.burn_index import count_ratios, iou_at, normalised_burn_ratio, tune_threshold
from fireseg.errors import FiresegError


def test_ratio_takes_b8a_before_b08_and_is_zero_without_light():
    image = np.array([[[0.9, 0.0]], [[0.3, 0.0]], [[0.1, 0.0]]], np.float32)

    ratio = normalised_burn_ratio(image, ["B08", "B8A", "B12"])

    np.testing.assert_allclose(ratio, [[0.5, 0.0]], rtol=1e-6)


def test_ratio_names_the_bands_that_it_lacks():
    with pytest.raises(FiresegError, match=r"B02 B03.*needs B8A or B08, and B12"):
        normalised_burn_ratio(np.zeros((2, 1, 1), np.float32), ["B02", "B03"])


def test_threshold_separates_what_can_be_separated():
    ratio = np.array([-0.5, -0.4, 0.3, 0.4], np.float32)
    counts = count_ratios(ratio, np.array([1, 1, 0, 0], np.uint8))

    threshold = tune_threshold(counts)

    assert -0.4 < threshold <= 0.3
    assert iou_at(counts, threshold) == 1.0


def test_iou_is_hits_by_hits_misses_and_false_alarms():
    ratio = np.array([-0.5, -0.5, -0.5, 0.5], np.float32)
    counts = count_ratios(ratio, np.array([1, 1, 0, 1], np.uint8))

    assert iou_at(counts, 0.0) == pytest.approx(2 / 4)


def test_unlabelled_pixels_are_not_counted():
    assert count_ratios(np.zeros(3, np.float32), np.array([255, 0, 1], np.uint8)).sum() == 2


def test_without_fire_there_is_no_threshold_and_no_iou():
    counts = count_ratios(np.full(2, 0.9, np.float32), np.zeros(2, np.uint8))

    assert math.isnan(iou_at(counts, -0.5))
    with pytest.raises(FiresegError, match="no burned pixel"):
        tune_threshold(counts)
