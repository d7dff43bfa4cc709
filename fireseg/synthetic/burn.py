"""A wildfire: where it went, how hard it burned, what it left, and what an analyst maps of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.synthetic.landscape import Land, Shares, mix_shares
from fireseg.synthetic.noise import Plane, RandomFields, blur, ramp

GRADE_BOUNDS = (0.30, 0.52, 0.74)
"""Severities at which negligible, moderate, high and destroyed part."""


@dataclass(frozen=True, kw_only=True)
class Burn:
    """What a fire did.

    Attributes:
        burned: Share of the pixel that the fire went over.
        severity: How hard, 0 to 1, smooth, also where nothing burned.
        delineation: What an analyst outlines: uint8, 1 burned, 0 not.
        grading: uint8, 0 no damage, 1 negligible, 2 moderate, 3 high, 4 destroyed.
    """

    burned: Plane
    severity: Plane
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8]


def make_burn(fields: RandomFields, land: Land, *, num_fires: int) -> Burn:
    """Fires of different sizes in one landscape.

    Args:
        fields: Draws of this part of the scene.
        land: Where it burns; fronts stop where there is little fuel, and go around islands of it.
        num_fires: How many, 0 for a scene without.
    """
    reach = np.full(land.fuel.shape, -9.0)
    rough = 0.11 * fields(13, 3.0) + 0.04 * fields(4, 2.6)
    fuel = blur(land.fuel, 2.0)
    for _ in range(num_fires):
        reach = np.maximum(reach, _one_fire(fields) + rough + 0.6 * np.minimum(fuel - 0.40, 0.10))
    # Islands: damp or thin places that the front went around.
    islands = ramp(fields(11, 3.0) - 1.1 * (fuel - 0.6), 1.55, 1.75) * ramp(reach, 0.04, 0.12)
    burned = ramp(reach, -0.015, 0.015) * (1 - islands) * ramp(land.fuel, 0.05, 0.25)
    severity = (
        fields.uniform(0.45, 0.72)
        + 0.20 * fields(26, 3.6)
        + 0.05 * fields(10, 3.4)
        + 0.22 * (np.clip(reach / 0.45, 0.0, 1.0) - 0.6)
        + 0.25 * (fuel - 0.7)
    )
    severity = np.clip(blur(severity, 1.2), 0.0, 1.0)
    return Burn(
        burned=burned,
        severity=severity,
        delineation=(blur(burned, 1.8) > 0.5).astype(np.uint8),
        grading=_grade(fields, burned, severity),
    )


def _one_fire(fields: RandomFields) -> Plane:
    """A drop drawn out by the wind from where it began, above 0 inside, frayed by ground and gusts."""
    height, width = fields.height, fields.width
    largest = 0.48 * math.sqrt(height * width)
    radius = math.exp(fields.uniform(math.log(min(40.0, largest)), math.log(largest)))
    stretch = math.exp(fields.uniform(0.0, 0.55))
    wind = fields.uniform(0.0, 2 * math.pi)
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    rows -= fields.uniform(0.18, 0.82) * height
    cols -= fields.uniform(0.18, 0.82) * width
    along = (math.cos(wind) * cols + math.sin(wind) * rows) / (radius * stretch)
    across = (math.cos(wind) * rows - math.sin(wind) * cols) / (radius / stretch)
    # Narrow behind, wide ahead.
    across = across / (0.55 + 0.45 * ramp(along, -1.2, 0.6))
    fray = 0.34 * fields(min(max(0.7 * radius, 8.0), 80.0), 3.2)
    return 1 - np.sqrt(along**2 + across**2) + np.clip(fray, -0.7, 0.7)


def _grade(fields: RandomFields, burned: Plane, severity: Plane) -> NDArray[np.uint8]:
    """Grades in patches, their outer line drawn by another hand than the delineation's."""
    hand = 0.5 + 0.10 * np.clip(fields(18, 3.2), -2.0, 2.0)
    level = blur(severity, 2.0)
    grade = 1 + sum((level > bound).astype(np.uint8) for bound in GRADE_BOUNDS)
    return np.where(blur(burned, 1.3) > hand, grade, 0).astype(np.uint8)


def apply_burn(fields: RandomFields, land: Land, burn: Burn) -> Shares:
    """The materials of the landscape after the fire.

    Char where it was hot, ash where it was hottest, charred soil where little stood, scorched leaves
    where it only ran underneath; patches of a pixel or two escape. An older scar has lost char to wind
    and rain.

    Returns:
        Share of every material in a pixel, adding up to 1.
    """
    fresh = fields.uniform(0.45, 1.0)
    patchy = 0.36 * fields(1.8, 2.8) + 0.16 * fields.noise()
    consumed = burn.burned * np.clip(0.60 + 0.42 * burn.severity + patchy, 0.0, 1.0)
    hot = ramp(burn.severity + 0.10 * fields(5, 2.8), 0.25, 0.85)
    mild = 1 - ramp(burn.severity, 0.20, 0.55)
    woody = ramp(land.fuel, 0.45, 0.95)
    ash = 0.30 * ramp(fields(4, 2.8) + 2.0 * burn.severity, 2.2, 3.6)
    scorched = 0.50 * mild * woody
    char = (1 - ash - scorched) * np.clip(fresh * (0.42 + 0.45 * hot * woody), 0.0, 1.0)
    rest = 1 - ash - scorched - char
    left = {
        "ash": ash,
        "scorched": scorched,
        "char": char,
        "char_soil": 0.62 * rest,
        "soil_dark": 0.22 * rest,
        "soil_mid": 0.16 * rest,
    }
    shares = dict(land.shares)
    mix_shares(shares, left, consumed)
    return shares
