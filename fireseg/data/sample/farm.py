"""Farmland: parcels of a few crops on level ground."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.data.sample.cover import Shares, lay
from fireseg.data.sample.fields import Fields, Plane, blur, ramp

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


def lay_parcels(fields: Fields, shares: Shares, plain: Plane) -> Plane:
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
        lay(shares, mix, inside * thickness * blur(chosen.astype(np.float64), 0.5))
        low += share
    return inside


def _survey_parcels(fields: Fields) -> _Parcels:
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
