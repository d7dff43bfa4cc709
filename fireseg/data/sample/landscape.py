"""Ground before the fire: relief in the light of the sun, with all that lies on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fireseg.data.sample.cover import Shares, grow_plants, lay
from fireseg.data.sample.farm import lay_parcels
from fireseg.data.sample.fields import Fields, Plane, blur, ramp

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


def make_sun(fields: Fields) -> Sun:
    """A late morning of a northern summer: the sun in the south-east, 40 to 65 degrees high."""
    azimuth = math.radians(fields.uniform(125, 165))
    elevation = math.radians(fields.uniform(40, 65))
    level = math.cos(elevation)
    return Sun(x=level * math.sin(azimuth), y=-level * math.cos(azimuth), z=math.sin(elevation))


def make_land(fields: Fields, sun: Sun) -> Land:
    """Relief first, then plants by moisture, then water, parcels and roads, then light."""
    relief, valley = _relief(fields)
    # Plains are where the relief is drowned in what it shed.
    floor = fields.uniform(-0.4, 0.9)
    plain = 1 - ramp(relief, floor - 0.2, floor + 0.6)
    steep_m = 25 + 230 * fields.uniform(0.0, 1.0) ** 1.5
    height_m = steep_m * (relief * (1 - plain) + (floor + 0.1 * (relief - floor)) * plain)
    light = _hill_shade(blur(height_m, 1.0), sun)
    shares, fuel = grow_plants(fields, valley=valley, light=light)
    if fields.chance(0.5):
        fuel = fuel * (1 - 0.75 * lay_parcels(fields, shares, plain))
    if fields.chance(0.05):
        flow = ramp(fields(45, 3.6) + 0.15 * fields(8, 2.8), 1.5, 1.7)
        lay(shares, {"lava": 0.75, "soil_dark": 0.25}, flow)
        fuel = fuel * (1 - flow)
    fuel = fuel * (1 - _lay_water(fields, shares, relief=relief, plain=plain))
    for _ in range(int(fields.rng.integers(0, 3))):
        lay(shares, {"dirt": 0.8, "soil_bright": 0.2}, 0.75 * _line(fields(110, 4.6), 0.55))
    return Land(shares=shares, light=light, height_m=height_m, fuel=np.clip(fuel, 0.0, 1.0))


def _relief(fields: Fields) -> tuple[Plane, Plane]:
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


def _lay_water(fields: Fields, shares: Shares, *, relief: Plane, plain: Plane) -> Plane:
    """Lakes on the lowest ground, streams with green banks across the plain; returns the share under water."""
    water = np.zeros_like(relief)
    if fields.chance(0.55):
        surface = fields.uniform(-0.9, 0.0)
        water = 1 - ramp(relief + 0.10 * fields(20), surface - 0.05, surface)
    if fields.chance(0.6):
        stream = _line(fields(130, 4.4) + fields.uniform(-0.5, 0.5), fields.uniform(0.4, 1.3))
        stream = stream * ramp(plain, 0.0, 0.4)
        banks = np.clip(1.6 * blur(stream, 2.2), 0.0, 0.8)
        lay(shares, {"canopy_mid": 0.6, "canopy_dense": 0.2, "shade": 0.2}, banks)
        water = np.maximum(water, stream)
    muddy = ramp(fields(60) + fields.uniform(-1.5, 1.0), -0.6, 1.4)
    lay(shares, {"water": 1 - muddy, "turbid": muddy}, water)
    return water


def _line(field: Plane, half_width_px: float) -> Plane:
    """Share of a pixel under a line of even width along the zero line of a field."""
    down, east = np.gradient(field)
    distance = np.abs(field) / np.sqrt(down**2 + east**2 + 1e-12)
    return np.clip(half_width_px + 0.5 - distance, 0.0, 1.0)
