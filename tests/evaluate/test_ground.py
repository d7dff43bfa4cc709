"""Grids rebuilt from boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.evaluate.fires import PatchBox, infer_grid
from fireseg.geo.grid import Transform
from fireseg.prepare.tiling import Window, get_bounds

SIZE = {"height": 89, "width": 64}

PLACES = ((0, 0), (0, 32), (32, 0), (57, 32))


def make_boxes(transform: Transform, places: tuple[tuple[int, int], ...] = PLACES, size: int = 32) -> list[PatchBox]:
    return [PatchBox(row, col, *get_bounds(transform, Window(row, col), size)) for row, col in places]


def test_one_box_tells_a_grid_that_is_not_rotated():
    box = PatchBox(2, 3, x_min=530.0, y_min=840.0, x_max=570.0, y_max=880.0)

    ground = infer_grid("EPSG:32633", [box], size=4, height=8, width=8)

    assert ground is not None
    assert ground.transform == (10.0, 0.0, 500.0, 0.0, -10.0, 900.0)


@given(
    turn=st.floats(-3.1, 3.1), pixel=st.sampled_from([1e-4, 10.0]), x=st.floats(-170, 170), is_mirrored=st.booleans()
)
def test_a_rotated_grid_is_told_by_boxes_that_are_not_in_one_line(
    turn: float, pixel: float, x: float, is_mirrored: bool
):
    cos, sin, sign = np.cos(turn) * pixel, np.sin(turn) * pixel, 1 if is_mirrored else -1
    transform = (float(cos), float(sin), x, float(sin), float(sign * cos), 40.0)

    ground = infer_grid("EPSG:4326", make_boxes(transform), size=32, **SIZE)

    assert ground is not None
    a, b, _, d, e, _ = ground.transform
    assert abs(a * e - b * d) == pytest.approx(abs(cos * sign * cos - sin * sin), rel=1e-3, abs=1e-3 * pixel**2)


def test_boxes_that_fit_no_grid_tell_none():
    boxes = make_boxes((10.0, 0.0, 500.0, 0.0, -10.0, 900.0))
    moved = boxes[3]._replace(x_min=boxes[3].x_min + 40, x_max=boxes[3].x_max + 40)

    assert infer_grid("EPSG:32633", [*boxes[:3], moved], size=32, **SIZE) is None


def test_a_rotated_grid_in_one_line_is_unknown_rather_than_too_large():
    boxes = make_boxes((8.0, 6.0, 0.0, 6.0, -8.0, 0.0), ((0, 0), (0, 32)))

    assert infer_grid("EPSG:32633", boxes, size=32, **SIZE) is None


def test_nothing_is_known_without_a_reference_system():
    assert infer_grid("", make_boxes((10.0, 0.0, 500.0, 0.0, -10.0, 900.0)), size=32, **SIZE) is None


@pytest.mark.parametrize("text", ["", "nan", "east"])
def test_a_box_that_is_none_is_not_read(text: str):
    assert PatchBox.read(0, 0, {"x_min": text, "y_min": "0", "x_max": "1", "y_max": "1"}) is None
    assert PatchBox.read(0, 0, {}) is None
