"""Synthetic wildfires: perimeter, severity, burned materials and the masks that an analyst would draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.synthetic.landscape import Fractions, Landscape, blend_materials
from fireseg.synthetic.noise import NoiseGenerator, Plane, blur, ramp

SEVERITY_THRESHOLDS = (0.30, 0.52, 0.74)
"""Severities that separate the grades negligible, moderate, high and destroyed."""


@dataclass(frozen=True, kw_only=True)
class Burn:
    """The burned area of a scene, as it is and as an analyst maps it.

    Attributes:
        burned: Burned share of each pixel, 0 to 1.
        severity: Burn severity, 0 to 1, smooth, also defined where nothing burned.
        delineation: Burned-area mask, uint8, 1 burned, 0 not.
        grading: Severity grades, uint8, 0 no damage, 1 negligible, 2 moderate, 3 high, 4 destroyed.
    """

    burned: Plane
    severity: Plane
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8]


def make_burn(noise: NoiseGenerator, landscape: Landscape, *, num_fires: int) -> Burn:
    """Makes the burned area of several fires of different sizes.

    Args:
        noise: Random stream of this part of the scene.
        landscape: Landscape that burns; fires stop where there is little fuel and leave unburned islands.
        num_fires: Number of fires; 0 for a scene without fire.
    """
    level_set = np.full(landscape.fuel.shape, -9.0)
    roughness = 0.11 * noise.field(13, 3.0) + 0.04 * noise.field(4, 2.6)
    fuel = blur(landscape.fuel, 2.0)
    for _ in range(num_fires):
        level_set = np.maximum(level_set, _fire_level_set(noise) + roughness + 0.6 * np.minimum(fuel - 0.40, 0.10))
    # Unburned islands: damp or sparse areas that the front bypassed.
    islands = ramp(noise.field(11, 3.0) - 1.1 * (fuel - 0.6), 1.55, 1.75) * ramp(level_set, 0.04, 0.12)
    burned = ramp(level_set, -0.015, 0.015) * (1 - islands) * ramp(landscape.fuel, 0.05, 0.25)
    severity = (
        noise.uniform(0.45, 0.72)
        + 0.20 * noise.field(26, 3.6)
        + 0.05 * noise.field(10, 3.4)
        + 0.22 * (np.clip(level_set / 0.45, 0.0, 1.0) - 0.6)
        + 0.25 * (fuel - 0.7)
    )
    severity = np.clip(blur(severity, 1.2), 0.0, 1.0)
    return Burn(
        burned=burned,
        severity=severity,
        delineation=(blur(burned, 1.8) > 0.5).astype(np.uint8),
        grading=_grade_severity(noise, burned, severity),
    )


def _fire_level_set(noise: NoiseGenerator) -> Plane:
    """Level-set function of a fire perimeter: a wind-elongated teardrop (> 0 inside), perturbed by noise."""
    height, width = noise.height, noise.width
    largest = 0.48 * math.sqrt(height * width)
    radius = math.exp(noise.uniform(math.log(min(40.0, largest)), math.log(largest)))
    stretch = math.exp(noise.uniform(0.0, 0.55))
    wind = noise.uniform(0.0, 2 * math.pi)
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    rows -= noise.uniform(0.18, 0.82) * height
    cols -= noise.uniform(0.18, 0.82) * width
    along = (math.cos(wind) * cols + math.sin(wind) * rows) / (radius * stretch)
    across = (math.cos(wind) * rows - math.sin(wind) * cols) / (radius / stretch)
    # Narrow at the ignition point, wide at the head.
    across = across / (0.55 + 0.45 * ramp(along, -1.2, 0.6))
    perturbation = 0.34 * noise.field(min(max(0.7 * radius, 8.0), 80.0), 3.2)
    return 1 - np.sqrt(along**2 + across**2) + np.clip(perturbation, -0.7, 0.7)


def _grade_severity(noise: NoiseGenerator, burned: Plane, severity: Plane) -> NDArray[np.uint8]:
    """Grades severity in patches; the outline deviates slightly from the delineation, as between two analysts."""
    outline_level = 0.5 + 0.10 * np.clip(noise.field(18, 3.2), -2.0, 2.0)
    level = blur(severity, 2.0)
    grade = 1 + sum((level > bound).astype(np.uint8) for bound in SEVERITY_THRESHOLDS)
    return np.where(blur(burned, 1.3) > outline_level, grade, 0).astype(np.uint8)


def apply_burn(noise: NoiseGenerator, landscape: Landscape, burn: Burn) -> Fractions:
    """Replaces the burned part of the vegetation with char, ash, charred soil and scorched leaves.

    Char covers hot areas, ash the hottest, charred soil sparse vegetation, scorched leaves low-severity forest;
    patches of one or two pixels stay unburned. Older scars have less char, washed or blown away.

    Returns:
        Fraction of every material in each pixel, adding up to 1.
    """
    freshness = noise.uniform(0.45, 1.0)
    patchiness = 0.36 * noise.field(1.8, 2.8) + 0.16 * noise.white()
    consumed = burn.burned * np.clip(0.60 + 0.42 * burn.severity + patchiness, 0.0, 1.0)
    hot = ramp(burn.severity + 0.10 * noise.field(5, 2.8), 0.25, 0.85)
    mild = 1 - ramp(burn.severity, 0.20, 0.55)
    woody = ramp(landscape.fuel, 0.45, 0.95)
    ash = 0.30 * ramp(noise.field(4, 2.8) + 2.0 * burn.severity, 2.2, 3.6)
    scorched = 0.50 * mild * woody
    char = (1 - ash - scorched) * np.clip(freshness * (0.42 + 0.45 * hot * woody), 0.0, 1.0)
    rest = 1 - ash - scorched - char
    remains = {
        "ash": ash,
        "scorched": scorched,
        "char": char,
        "char_soil": 0.62 * rest,
        "soil_dark": 0.22 * rest,
        "soil_mid": 0.16 * rest,
    }
    fractions = dict(landscape.fractions)
    blend_materials(fractions, remains, consumed)
    return fractions
