"""Where a fire lies on the map, rebuilt from the boxes of its patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

Transform = tuple[float, float, float, float, float, float]
"""x = a col + b row + c, y = d col + e row + f."""

_SAME = 0.01
"""Pixels by which boxes may miss what a grid without rotation says."""


class Box(NamedTuple):
    """A patch on the map.

    Attributes:
        row, col: Its first row and column, in pixels.
        x_min, y_min, x_max, y_max: Of its four corners, in the units of the reference system.
    """

    row: int
    col: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @classmethod
    def read(cls, row: int, col: int, about: Mapping[str, str]) -> Self | None:
        """The box in a row of metadata.csv; None where it has none."""
        try:
            x_min, y_min, x_max, y_max = (float(about[key]) for key in ("x_min", "y_min", "x_max", "y_max"))
        except (KeyError, TypeError, ValueError):
            return None
        is_one = math.isfinite(x_min + y_min + x_max + y_max) and x_min < x_max and y_min < y_max
        return cls(row, col, x_min, y_min, x_max, y_max) if is_one else None


class Ground(NamedTuple):
    """A grid on the map.

    Attributes:
        crs: Its reference system, as metadata.csv has it.
        transform: From pixels to the reference system.
    """

    crs: str
    transform: Transform


def find_ground(crs: str, boxes: Sequence[Box], *, size: int) -> Ground | None:
    """The grid that the boxes of some patches lie on.

    A grid that is not rotated follows from one box. Of a rotated one the boxes are wider than the patches, but
    their places still move by the grid's own steps: three patches that are not in one line tell them all.

    Args:
        crs: The reference system; nothing is known without.
        boxes: Of the patches of one tile, rows and columns counted from where the grid begins.
        size: Side of a patch in pixels.

    Returns:
        None where the reference system or the boxes are unknown, or boxes contradict each other.
    """
    if not crs or not boxes:
        return None
    first = boxes[0]
    step_x, step_y = (first.x_max - first.x_min) / size, (first.y_max - first.y_min) / size
    upright = (
        *(step_x, 0.0, first.x_min - first.col * step_x),
        *(0.0, -step_y, first.y_max + first.row * step_y),
    )
    if _fits(upright, boxes, size):
        return Ground(crs, upright)
    rotated = _solve(boxes, size)
    return Ground(crs, rotated) if rotated is not None and _fits(rotated, boxes, size) else None


def _solve(boxes: Sequence[Box], size: int) -> Transform | None:
    """The grid by whose steps the boxes move; None where they lie in one line."""
    places = np.array([(box.col, box.row, 1.0) for box in boxes])
    if np.linalg.matrix_rank(places) < 3:
        return None
    (a, d), (b, e), (left, low) = np.linalg.lstsq(places, np.array([(box.x_min, box.y_min) for box in boxes]))[0]
    # The smallest x and y of a patch belong to whichever of its corners lies furthest that way.
    c, f = left - size * (min(a, 0.0) + min(b, 0.0)), low - size * (min(d, 0.0) + min(e, 0.0))
    return (float(a), float(b), float(c), float(d), float(e), float(f))


def _fits(transform: Transform, boxes: Sequence[Box], size: int) -> bool:
    a, b, c, d, e, f = transform
    for box in boxes:
        corners = [(box.row + down, box.col + right) for down in (0, size) for right in (0, size)]
        xs, ys = zip(*((a * col + b * row + c, d * col + e * row + f) for row, col in corners), strict=True)
        told = np.array([min(xs), min(ys), max(xs), max(ys)]) - box[2:]
        limits = _SAME * np.array([abs(a) + abs(b), abs(d) + abs(e)] * 2)
        if (np.abs(told) > limits).any():
            return False
    return True
