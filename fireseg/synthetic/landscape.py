"""Ground before the fire: relief in the light of the sun, with all that lies on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.synthetic.noise import Plane, RandomFields, blur, ramp

Shares = dict[str, Plane]
"""Share of every material of `spectra` in a pixel, `(H, W)` each, adding up to 1."""


def mix_shares(shares: Shares, mix: Mapping[str, float | Plane], cover: Plane) -> None:
    """Lays a mix of materials over what is there, in place.

    Args:
        shares: What is there.
        mix: Share of each material in what is laid, adding up to 1.
        cover: How much of the pixel it covers, 0 to 1.
    """
    for name in shares:
        shares[name] = shares[name] * (1 - cover)
    for name, share in mix.items():
        shares[name] = shares.get(name, 0.0) + share * cover


def draw_vegetation(fields: RandomFields, *, valley: Plane, light: Plane) -> tuple[Shares, Plane]:
    """Forest, shrub, grass, bare and stony ground, mixed at their edges and inside every pixel.

    Args:
        fields: Draws of this part of the scene.
        valley: Distance from the valley beds, 0 in them: the lower, the damper.
        light: Sunlight on the slope, 1 on level ground: the darker, the damper.

    Returns:
        The materials, and how well they burn, 0 to 1.
    """
    damp = 0.45 * fields(70) + 0.30 * fields(16, 2.8) + 0.9 * (0.5 - valley) + 1.1 * (1 - light)
    damp = damp + fields.uniform(-1.3, 0.9)
    part = _share_ground(fields, damp)
    forest, shrub, grass, bare, stony = (part[name] for name in ("forest", "shrub", "grass", "bare", "stony"))
    dense = ramp(0.6 * damp + 0.5 * fields(9, 2.6), -1.2, 1.2)
    green = ramp(0.5 * fields(30) + 0.6 * damp + fields.uniform(-1.2, 0.2), -0.5, 2.0)
    pale = 0.6 * ramp(fields(22), -1.5, 1.5)
    shares = {
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
    return shares, forest + 0.9 * shrub + (0.9 - 0.5 * green) * grass + 0.12 * bare + 0.25 * stony


def _share_ground(fields: RandomFields, damp: Plane) -> Shares:
    """Which of the five grows where: the better suited, the more of it."""
    scores = {
        "forest": 1.3 * damp + 0.5 * fields(25),
        "shrub": 0.25 * damp + 0.5 * fields(30) + fields.uniform(-0.6, 0.6),
        "grass": -0.8 * damp + 0.6 * fields(40) + fields.uniform(-0.8, 0.6),
        "bare": -1.1 * damp + 0.6 * fields(28) + fields.uniform(-2.0, 0.0),
        "stony": -0.5 * damp + 0.7 * fields(35) + fields.uniform(-2.4, -0.8),
    }
    # Single crowns and bushes: no pixel is what its neighbour is.
    weights = {name: np.exp(2.6 * score + 1.0 * fields(1.4, 2.6)) for name, score in scores.items()}
    total = sum(weights.values(), np.zeros_like(damp))
    return {name: weight / total for name, weight in weights.items()}


_CROPS = (
    (0.26, {"canopy_dense": 0.62, "canopy_mid": 0.20, "soil_mid": 0.10, "shade": 0.08}),
    (0.20, {"canopy_open": 0.45, "soil_mid": 0.40, "shade": 0.15}),
    (0.28, {"grass_dry": 0.75, "soil_mid": 0.25}),
    (0.14, {"soil_mid": 0.60, "soil_bright": 0.40}),
    (0.09, {"soil_dark": 0.75, "litter": 0.15, "shade": 0.10}),
    # Burnt stubble, or peat under the plough: dark, straight-edged, and no wildfire.
    (0.03, {"char_soil": 0.45, "soil_dark": 0.40, "grass_dry": 0.15}),
)

_LABELS = 1 << 16
"""Parcels are told apart by a number below this; two that share one are alike, and far apart."""


@dataclass(frozen=True, kw_only=True)
class _Parcels:
    label: NDArray[np.int64]
    is_inside: NDArray[np.bool_]


def draw_parcels(fields: RandomFields, shares: Shares, plain: Plane) -> Plane:
    """Lays whole parcels over the plants of the plain.

    Args:
        fields: Draws of this part of the scene.
        shares: What grows there; changed in place.
        plain: How level the ground is, 0 to 1.

    Returns:
        Share of the pixel that is farmed.
    """
    parcels = _survey_parcels(fields)
    # Farmed or not is read off once a parcel, from how level it is on the whole.
    level = ramp(plain + 0.15 * fields(30), 0.45, 0.6)
    count = np.bincount(parcels.label.ravel(), minlength=_LABELS)
    mean_level = np.bincount(parcels.label.ravel(), weights=level.ravel(), minlength=_LABELS) / np.maximum(count, 1)
    is_farmed = (mean_level > 0.75) & (fields.rng.random(_LABELS) < 0.85)
    inside = blur((is_farmed[parcels.label] & parcels.is_inside).astype(np.float64), 0.5)
    thickness = np.clip(1 + 0.10 * fields(6, 2.6) + 0.10 * fields.noise(), 0.5, 1.0)
    pick = fields.rng.random(_LABELS)
    low = 0.0
    for share, mix in _CROPS:
        chosen = ((pick >= low) & (pick < low + share))[parcels.label]
        mix_shares(shares, mix, inside * thickness * blur(chosen.astype(np.float64), 0.5))
        low += share
    return inside


def _survey_parcels(fields: RandomFields) -> _Parcels:
    """Strips of uneven width at an angle, a little bent by the ground; in each the parcels begin elsewhere."""
    rows, cols = np.mgrid[: fields.height, : fields.width].astype(np.float64)
    turn = fields.uniform(0.0, math.pi)
    along = math.cos(turn) * cols + math.sin(turn) * rows + 5 * fields(80, 4.0)
    across = math.cos(turn) * rows - math.sin(turn) * cols + 5 * fields(80, 4.0)
    narrowest_px = 12
    most_strips = 2 + int(across.max() - across.min()) // narrowest_px
    borders = np.cumsum(fields.rng.uniform(narrowest_px, 36, most_strips)) + across.min()
    strip = np.searchsorted(borders, across)
    to_border = np.minimum(np.abs(borders[strip] - across), np.abs(across - borders[np.maximum(strip - 1, 0)]))
    along = along / fields.uniform(16, 50) + fields.rng.random(len(borders))[strip]
    label = (strip * 40_503 + np.floor(along).astype(np.int64) * 9_973) % _LABELS
    return _Parcels(label=label, is_inside=(to_border > 0.9) & (np.abs(along % 1 - 0.5) < 0.47))


PIXEL_M = 10.0
"""Ground distance between pixels."""


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Where the light comes from: a unit vector, x to the east, y down the rows, z up."""

    x: float
    y: float
    z: float


@dataclass(frozen=True, kw_only=True)
class Land:
    """A landscape.

    Attributes:
        shares: Share of every material in a pixel, `(H, W)` each, adding up to 1.
        light: Sunlight on the slope relative to that on level ground.
        height_m: Height above the mean.
        fuel: How well it burns, 0 (water, bare rock) to 1 (dense and dry).
    """

    shares: Shares
    light: Plane
    height_m: Plane
    fuel: Plane


def make_sun(fields: RandomFields) -> Sun:
    """A late morning of a northern summer: the sun in the south-east, 40 to 65 degrees high."""
    azimuth = math.radians(fields.uniform(125, 165))
    elevation = math.radians(fields.uniform(40, 65))
    level = math.cos(elevation)
    return Sun(x=level * math.sin(azimuth), y=-level * math.cos(azimuth), z=math.sin(elevation))


def make_land(fields: RandomFields, sun: Sun) -> Land:
    """Relief first, then plants by moisture, then water, parcels and roads, then light."""
    relief, valley = _relief(fields)
    # Plains are where the relief is drowned in what it shed.
    floor = fields.uniform(-0.4, 0.9)
    plain = 1 - ramp(relief, floor - 0.2, floor + 0.6)
    steep_m = 25 + 230 * fields.uniform(0.0, 1.0) ** 1.5
    height_m = steep_m * (relief * (1 - plain) + (floor + 0.1 * (relief - floor)) * plain)
    light = _hill_shade(blur(height_m, 1.0), sun)
    shares, fuel = draw_vegetation(fields, valley=valley, light=light)
    if fields.chance(0.5):
        fuel = fuel * (1 - 0.75 * draw_parcels(fields, shares, plain))
    if fields.chance(0.05):
        flow = ramp(fields(45, 3.6) + 0.15 * fields(8, 2.8), 1.5, 1.7)
        mix_shares(shares, {"lava": 0.75, "soil_dark": 0.25}, flow)
        fuel = fuel * (1 - flow)
    fuel = fuel * (1 - _lay_water(fields, shares, relief=relief, plain=plain))
    for _ in range(int(fields.rng.integers(0, 3))):
        mix_shares(shares, {"dirt": 0.8, "soil_bright": 0.2}, 0.75 * _line(fields(110, 4.6), 0.55))
    return Land(shares=shares, light=light, height_m=height_m, fuel=np.clip(fuel, 0.0, 1.0))


def _relief(fields: RandomFields) -> tuple[Plane, Plane]:
    """Hills cut by valleys, the valleys' sides by gullies; and the distance from the valleys, 0 in their beds."""
    relief, standing = 0.55 * fields(90, 4.2), np.ones((fields.height, fields.width))
    valley = standing
    for length, share in ((46, 0.80), (20, 0.34), (9, 0.13)):
        # The zero line of a smooth field is a bed, its rounded distance from 0 the slopes; the smaller
        # ones cut only into what stands above the larger.
        cut = np.sqrt(fields(length, 5.0) ** 2 + 0.02)
        relief = relief + share * cut * standing
        standing = np.clip(standing * (0.15 + cut), 0.0, 1.3)
        valley = cut if length == 46 else valley
    return relief, valley


def _hill_shade(height_m: Plane, sun: Sun) -> Plane:
    """Direct light by the angle to the slope, and a fifth of skylight that reaches every slope."""
    down, east = np.gradient(height_m, PIXEL_M)
    across = (sun.z - east * sun.x - down * sun.y) / np.sqrt(1 + east**2 + down**2)
    return 0.2 + 0.8 * np.clip(across / sun.z, 0.0, 1.8)


def _lay_water(fields: RandomFields, shares: Shares, *, relief: Plane, plain: Plane) -> Plane:
    """Lakes on the lowest ground, streams with green banks across the plain; returns the share under water."""
    water = np.zeros_like(relief)
    if fields.chance(0.55):
        surface = fields.uniform(-0.9, 0.0)
        water = 1 - ramp(relief + 0.10 * fields(20), surface - 0.05, surface)
    if fields.chance(0.6):
        stream = _line(fields(130, 4.4) + fields.uniform(-0.5, 0.5), fields.uniform(0.4, 1.3))
        stream = stream * ramp(plain, 0.0, 0.4)
        banks = np.clip(1.6 * blur(stream, 2.2), 0.0, 0.8)
        mix_shares(shares, {"canopy_mid": 0.6, "canopy_dense": 0.2, "shade": 0.2}, banks)
        water = np.maximum(water, stream)
    muddy = ramp(fields(60) + fields.uniform(-1.5, 1.0), -0.6, 1.4)
    mix_shares(shares, {"water": 1 - muddy, "turbid": muddy}, water)
    return water


def _line(field: Plane, half_width_px: float) -> Plane:
    """Share of a pixel under a line of even width along the zero line of a field."""
    down, east = np.gradient(field)
    distance = np.abs(field) / np.sqrt(down**2 + east**2 + 1e-12)
    return np.clip(half_width_px + 0.5 - distance, 0.0, 1.0)
