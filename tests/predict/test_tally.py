"""What a map says in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.predict.outputs import Classified, MapStatistics

CLASSES = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
FIRE = np.array([[0.1, 0.6, 0.7], [np.nan, 0.9, 0.8]], np.float32)


def test_pixels_and_hectares_add_up_over_rows() -> None:
    tally = MapStatistics(3)
    area_m2 = np.array([[100, 200, 300], [400, 500, 600]], np.float32)
    for row in range(2):
        tally.add(Classified(CLASSES[row : row + 1], FIRE[row : row + 1]), area_m2[row : row + 1])
    assert tally.pixels.tolist() == [1, 1, 3]
    assert tally.hectares == pytest.approx([0.01, 0.02, 0.14])
    assert tally.burned_ha == pytest.approx(0.16)
    assert tally.fraction == pytest.approx(4 / 5)
    assert tally.unknown_share == pytest.approx(1 / 6)
    assert tally.confidence == pytest.approx(0.9)
    assert tally.has_fire


def test_one_area_a_row_is_that_of_all_its_pixels() -> None:
    tally = MapStatistics(3)
    tally.add(Classified(CLASSES, FIRE), np.array([[100], [200]], np.float32))
    assert tally.hectares == pytest.approx([0.01, 0.01, 0.05])


def test_where_nothing_is_known_nothing_is_said() -> None:
    tally = MapStatistics(2)
    tally.add(
        Classified(np.full((2, 2), 255, np.uint8), np.full((2, 2), np.nan, np.float32)), np.ones((2, 2), np.float32)
    )
    assert (tally.has_fire, tally.confidence, tally.fraction, tally.unknown_share) == (False, 0.0, 0.0, 1.0)
    assert tally.hectares == [0.0, 0.0]
