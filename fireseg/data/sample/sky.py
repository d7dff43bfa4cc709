"""What stands between the ground and the satellite: haze, clouds, and the shadows of clouds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.data.sample.fields import Fields, Plane, blur, ramp
from fireseg.data.sample.landscape import PIXEL_M, Sun

CLEAR, CLOUD, LIGHT_CLOUD, SHADOW = range(4)
"""Values of a CEMS cloud mask."""


@dataclass(frozen=True, kw_only=True)
class Sky:
    """The air over a scene.

    Attributes:
        cloud: Share of the light that comes from cloud, 0 to 1.
        shadow: Share of the sunlight that a cloud keeps from the ground, 0 to 1.
        haze: Light scattered by clear air at 492 nm, as reflectance.
        mask: uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, as an analyst draws it.
    """

    cloud: Plane
    shadow: Plane
    haze: Plane
    mask: NDArray[np.uint8]


def make_sky(fields: Fields, sun: Sun, *, cloudy: bool) -> Sky:
    """Clear air, or clouds with their shadows away from the sun.

    Args:
        fields: Draws of this part of the scene.
        sun: Throws the shadows.
        cloudy: Whether there are clouds at all.
    """
    haze = fields.uniform(0.002, 0.030) * (1 + 0.15 * np.clip(fields(90, 3.8), -3.0, 3.0))
    empty = np.zeros((fields.height, fields.width))
    if not cloudy:
        return Sky(cloud=empty, shadow=empty, haze=haze, mask=empty.astype(np.uint8))
    height_m = fields.uniform(400, 1500)
    # Far enough beyond the edge that a cloud outside the scene can shade it.
    lift = height_m / PIXEL_M / sun.z
    down, right = round(-sun.y * lift), round(-sun.x * lift)
    wide = Fields((int(fields.rng.integers(2**31)),), fields.height + abs(down), fields.width + abs(right))
    length = fields.uniform(12, 40)
    # Heaps: a smooth core frayed by ever smaller curls, thin at the rim.
    heaps = wide(length, 3.6) + 0.30 * wide(7, 3.0)
    depth = np.clip((heaps - fields.uniform(1.2, 2.2)) / 1.5, 0.0, 1.0)
    veil = 0.28 * ramp(wide(60, 3.6), 0.8, 2.2) if fields.chance(0.25) else 0.0
    thick = blur(1 - (1 - ramp(depth, 0.0, 0.8) * 0.97) * (1 - veil), 1.0)
    # The sun lies towards (x, y); a cloud at (row, col) shades the ground on the far side of it.
    top, left = max(down, 0), max(right, 0)
    rows, cols = slice(top, top + fields.height), slice(left, left + fields.width)
    cloud = thick[rows, cols]
    shaded = slice(top - down, top - down + fields.height), slice(left - right, left - right + fields.width)
    # Light crosses a cloud at an angle and so more of it than the satellite's line of sight does.
    shadow = 0.85 * blur(1 - (1 - thick[shaded]) ** 2, 1.2)
    return Sky(cloud=cloud, shadow=shadow, haze=haze, mask=_map_clouds(cloud, shadow))


def _map_clouds(cloud: Plane, shadow: Plane) -> NDArray[np.uint8]:
    """A cloud mask with the smooth outlines of one that was filtered."""
    seen, dark = blur(cloud, 1.5), blur(shadow, 1.5)
    mask = np.where(dark > 0.30, SHADOW, CLEAR)
    mask = np.where(seen > 0.15, LIGHT_CLOUD, mask)
    return np.where(seen > 0.45, CLOUD, mask).astype(np.uint8)
