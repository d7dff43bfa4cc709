"""What covers the ground: plants by moisture, and how one cover is laid over another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fireseg.data.sample.fields import Fields, Plane, ramp

Shares = dict[str, Plane]
"""Share of every material of `spectra` in a pixel, `(H, W)` each, adding up to 1."""


def lay(shares: Shares, mix: Mapping[str, float | Plane], cover: Plane) -> None:
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


def grow_plants(fields: Fields, *, valley: Plane, light: Plane) -> tuple[Shares, Plane]:
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


def _share_ground(fields: Fields, damp: Plane) -> Shares:
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
