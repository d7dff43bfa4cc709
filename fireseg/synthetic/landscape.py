"""Synthetic landscapes before the fire: relief, illumination, vegetation, cropland, water and roads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.synthetic.noise import NoiseGenerator, Plane, blur, ramp

Fractions = dict[str, Plane]
"""Fraction of every material in each pixel, `(H, W)` by name, adding up to 1; names as in `read_spectra`."""

PIXEL_M = 10.0
"""Pixel size in metres."""

_CROPS = (
    (0.26, {"canopy_dense": 0.62, "canopy_mid": 0.20, "soil_mid": 0.10, "shade": 0.08}),
    (0.20, {"canopy_open": 0.45, "soil_mid": 0.40, "shade": 0.15}),
    (0.28, {"grass_dry": 0.75, "soil_mid": 0.25}),
    (0.14, {"soil_mid": 0.60, "soil_bright": 0.40}),
    (0.09, {"soil_dark": 0.75, "litter": 0.15, "shade": 0.10}),
    # Burnt stubble or ploughed peat: dark and straight-edged, but not a wildfire.
    (0.03, {"char_soil": 0.45, "soil_dark": 0.40, "grass_dry": 0.15}),
)

_NUM_LABELS = 1 << 16
"""Number of parcel labels; parcels that share a label have the same crop and are far apart."""


def blend_materials(fractions: Fractions, mixture: Mapping[str, float | Plane], cover: Plane) -> None:
    """Covers a part of each pixel with a mixture of materials, in place.

    Args:
        fractions: Material fractions, changed in place.
        mixture: Fraction of each material in the cover, adding up to 1.
        cover: Covered part of each pixel, 0 to 1.
    """
    for name in fractions:
        fractions[name] = fractions[name] * (1 - cover)
    for name, fraction in mixture.items():
        fractions[name] = fractions.get(name, 0.0) + fraction * cover


def make_vegetation(noise: NoiseGenerator, *, valley: Plane, light: Plane) -> tuple[Fractions, Plane]:
    """Makes forest, shrub, grass, bare and stony ground, mixed at their edges and within pixels.

    Args:
        noise: Random stream of this part of the scene.
        valley: Distance from the valley floors, 0 on them; low ground is moister.
        light: Relative illumination of the slope, 1 on level ground; shaded slopes are moister.

    Returns:
        Material fractions and fuel, 0 to 1.
    """
    moisture = 0.45 * noise.field(70) + 0.30 * noise.field(16, 2.8) + 0.9 * (0.5 - valley) + 1.1 * (1 - light)
    moisture = moisture + noise.uniform(-1.3, 0.9)
    cover = _vegetation_cover(noise, moisture)
    forest, shrub, grass, bare, stony = (cover[name] for name in ("forest", "shrub", "grass", "bare", "stony"))
    dense = ramp(0.6 * moisture + 0.5 * noise.field(9, 2.6), -1.2, 1.2)
    green = ramp(0.5 * noise.field(30) + 0.6 * moisture + noise.uniform(-1.2, 0.2), -0.5, 2.0)
    pale = 0.6 * ramp(noise.field(22), -1.5, 1.5)
    fractions = {
        "canopy_dense": forest * (0.30 + 0.32 * dense),
        "canopy_mid": forest * (0.20 - 0.20 * dense) + grass * 0.55 * green,
        # Crowns shade one another, which is why a forest is darker than its leaves.
        "shade": forest * (0.22 + 0.10 * dense) + shrub * 0.12,
        "litter": forest * (0.28 - 0.22 * dense) + shrub * 0.20,
        "canopy_open": shrub * (0.26 + 0.24 * dense),
        "wood": shrub * 0.08,
        "grass_dry": shrub * (0.20 - 0.10 * dense) + grass * (0.80 - 0.55 * green),
        "soil_mid": shrub * (0.14 - 0.14 * dense) + grass * 0.20 + bare * (1 - pale) * 0.6,
        "soil_bright": bare * pale,
        "dirt": bare * (1 - pale) * 0.4,
        "soil_dark": stony * 0.72,
        "lava": stony * 0.28,
    }
    return fractions, forest + 0.9 * shrub + (0.9 - 0.5 * green) * grass + 0.12 * bare + 0.25 * stony


def _vegetation_cover(noise: NoiseGenerator, moisture: Plane) -> Fractions:
    """Fraction of each of the five cover types, larger where moisture suits it better."""
    scores = {
        "forest": 1.3 * moisture + 0.5 * noise.field(25),
        "shrub": 0.25 * moisture + 0.5 * noise.field(30) + noise.uniform(-0.6, 0.6),
        "grass": -0.8 * moisture + 0.6 * noise.field(40) + noise.uniform(-0.8, 0.6),
        "bare": -1.1 * moisture + 0.6 * noise.field(28) + noise.uniform(-2.0, 0.0),
        "stony": -0.5 * moisture + 0.7 * noise.field(35) + noise.uniform(-2.4, -0.8),
    }
    # Pixel-scale variation from single crowns and bushes.
    weights = {name: np.exp(2.6 * score + 1.0 * noise.field(1.4, 2.6)) for name, score in scores.items()}
    total = sum(weights.values(), np.zeros_like(moisture))
    return {name: weight / total for name, weight in weights.items()}


@dataclass(frozen=True, kw_only=True)
class _Parcels:
    label: NDArray[np.int64]
    is_inside: NDArray[np.bool_]


def add_cropland(noise: NoiseGenerator, fractions: Fractions, plain: Plane) -> Plane:
    """Replaces natural vegetation on plains with whole parcels of crops.

    Args:
        noise: Random stream of this part of the scene.
        fractions: Material fractions, changed in place.
        plain: Levelness of the ground, 0 to 1.

    Returns:
        Cultivated share of each pixel, 0 to 1.
    """
    parcels = _make_parcels(noise)
    # Decided once for each parcel, from its mean levelness.
    level = ramp(plain + 0.15 * noise.field(30), 0.45, 0.6)
    count = np.bincount(parcels.label.ravel(), minlength=_NUM_LABELS)
    mean_level = np.bincount(parcels.label.ravel(), weights=level.ravel(), minlength=_NUM_LABELS) / np.maximum(count, 1)
    is_farmed = (mean_level > 0.75) & (noise.rng.random(_NUM_LABELS) < 0.85)
    inside = blur((is_farmed[parcels.label] & parcels.is_inside).astype(np.float64), 0.5)
    density = np.clip(1 + 0.10 * noise.field(6, 2.6) + 0.10 * noise.white(), 0.5, 1.0)
    crop_draw = noise.rng.random(_NUM_LABELS)
    low = 0.0
    for share, mixture in _CROPS:
        has_crop = ((crop_draw >= low) & (crop_draw < low + share))[parcels.label]
        blend_materials(fractions, mixture, inside * density * blur(has_crop.astype(np.float64), 0.5))
        low += share
    return inside


def _make_parcels(noise: NoiseGenerator) -> _Parcels:
    """Divides the scene into slightly curved strips at a random angle, and each strip into parcels."""
    rows, cols = np.mgrid[: noise.height, : noise.width].astype(np.float64)
    angle = noise.uniform(0.0, math.pi)
    along = math.cos(angle) * cols + math.sin(angle) * rows + 5 * noise.field(80, 4.0)
    across = math.cos(angle) * rows - math.sin(angle) * cols + 5 * noise.field(80, 4.0)
    narrowest_px = 12
    max_strips = 2 + int(across.max() - across.min()) // narrowest_px
    borders = np.cumsum(noise.rng.uniform(narrowest_px, 36, max_strips)) + across.min()
    strip = np.searchsorted(borders, across)
    to_border = np.minimum(np.abs(borders[strip] - across), np.abs(across - borders[np.maximum(strip - 1, 0)]))
    along = along / noise.uniform(16, 50) + noise.rng.random(len(borders))[strip]
    label = (strip * 40_503 + np.floor(along).astype(np.int64) * 9_973) % _NUM_LABELS
    return _Parcels(label=label, is_inside=(to_border > 0.9) & (np.abs(along % 1 - 0.5) < 0.47))


@dataclass(frozen=True, kw_only=True)
class SunDirection:
    """Unit vector towards the sun: x to the east, y down the rows (south), z up."""

    x: float
    y: float
    z: float


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A landscape before the fire.

    Attributes:
        fractions: Fraction of every material in each pixel, `(H, W)` by name, adding up to 1.
        light: Illumination of the slope relative to level ground.
        height_m: Height above the mean in metres.
        fuel: Flammability, 0 (water, bare rock) to 1 (dense and dry vegetation).
    """

    fractions: Fractions
    light: Plane
    height_m: Plane
    fuel: Plane


def draw_sun(noise: NoiseGenerator) -> SunDirection:
    """Draws a late-morning sun of a northern summer: in the south-east, 40 to 65 degrees high."""
    azimuth = math.radians(noise.uniform(125, 165))
    elevation = math.radians(noise.uniform(40, 65))
    level = math.cos(elevation)
    return SunDirection(x=level * math.sin(azimuth), y=-level * math.cos(azimuth), z=math.sin(elevation))


def make_landscape(noise: NoiseGenerator, sun: SunDirection) -> Landscape:
    """Makes relief and illumination, then vegetation by moisture, then cropland, lava, water and roads."""
    relief, valley = _make_relief(noise)
    # Sediment fills the low parts of the relief to plains.
    floor = noise.uniform(-0.4, 0.9)
    plain = 1 - ramp(relief, floor - 0.2, floor + 0.6)
    steep_m = 25 + 230 * noise.uniform(0.0, 1.0) ** 1.5
    height_m = steep_m * (relief * (1 - plain) + (floor + 0.1 * (relief - floor)) * plain)
    light = _hill_shade(blur(height_m, 1.0), sun)
    fractions, fuel = make_vegetation(noise, valley=valley, light=light)
    if noise.chance(0.5):
        fuel = fuel * (1 - 0.75 * add_cropland(noise, fractions, plain))
    if noise.chance(0.05):
        flow = ramp(noise.field(45, 3.6) + 0.15 * noise.field(8, 2.8), 1.5, 1.7)
        blend_materials(fractions, {"lava": 0.75, "soil_dark": 0.25}, flow)
        fuel = fuel * (1 - flow)
    fuel = fuel * (1 - _add_water(noise, fractions, relief=relief, plain=plain))
    for _ in range(int(noise.rng.integers(0, 3))):
        blend_materials(fractions, {"dirt": 0.8, "soil_bright": 0.2}, 0.75 * _draw_line(noise.field(110, 4.6), 0.55))
    return Landscape(fractions=fractions, light=light, height_m=height_m, fuel=np.clip(fuel, 0.0, 1.0))


def _make_relief(noise: NoiseGenerator) -> tuple[Plane, Plane]:
    """Makes hills cut by valleys and gullies; also returns the distance from the valley floors, 0 on them."""
    relief, standing = 0.55 * noise.field(90, 4.2), np.ones((noise.height, noise.width))
    valley = standing
    for length, depth in ((46, 0.80), (20, 0.34), (9, 0.13)):
        # The zero line of a smooth field is the valley floor, its rounded absolute value the slopes; smaller
        # valleys cut only into ground above the larger ones.
        cut = np.sqrt(noise.field(length, 5.0) ** 2 + 0.02)
        relief = relief + depth * cut * standing
        standing = np.clip(standing * (0.15 + cut), 0.0, 1.3)
        valley = cut if length == 46 else valley
    return relief, valley


def _hill_shade(height_m: Plane, sun: SunDirection) -> Plane:
    """Illumination of slopes: direct light by the angle of incidence, plus 20 % diffuse skylight."""
    down, east = np.gradient(height_m, PIXEL_M)
    across = (sun.z - east * sun.x - down * sun.y) / np.sqrt(1 + east**2 + down**2)
    return 0.2 + 0.8 * np.clip(across / sun.z, 0.0, 1.8)


def _add_water(noise: NoiseGenerator, fractions: Fractions, *, relief: Plane, plain: Plane) -> Plane:
    """Adds lakes on the lowest ground and streams with green banks on plains; returns the water fraction."""
    water = np.zeros_like(relief)
    if noise.chance(0.55):
        surface = noise.uniform(-0.9, 0.0)
        water = 1 - ramp(relief + 0.10 * noise.field(20), surface - 0.05, surface)
    if noise.chance(0.6):
        stream = _draw_line(noise.field(130, 4.4) + noise.uniform(-0.5, 0.5), noise.uniform(0.4, 1.3))
        stream = stream * ramp(plain, 0.0, 0.4)
        banks = np.clip(1.6 * blur(stream, 2.2), 0.0, 0.8)
        blend_materials(fractions, {"canopy_mid": 0.6, "canopy_dense": 0.2, "shade": 0.2}, banks)
        water = np.maximum(water, stream)
    muddy = ramp(noise.field(60) + noise.uniform(-1.5, 1.0), -0.6, 1.4)
    blend_materials(fractions, {"water": 1 - muddy, "turbid": muddy}, water)
    return water


def _draw_line(field: Plane, half_width_px: float) -> Plane:
    """Covered share of each pixel under a line of constant width along the zero line of a field."""
    down, east = np.gradient(field)
    distance = np.abs(field) / np.sqrt(down**2 + east**2 + 1e-12)
    return np.clip(half_width_px + 0.5 - distance, 0.0, 1.0)
