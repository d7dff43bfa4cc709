"""Burned hectares of a fire: geodesic, by the ground that each of its pixels covers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.evaluating.fires import Fire

log = logging.getLogger("fireseg")

_STRIP_ROWS = 256
_M2_A_HECTARE = 1e4


def sum_hectares(fire: Fire, maps: Mapping[str, NDArray[np.bool_]]) -> dict[str, float] | None:
    """Hectares that are True in some maps of a fire.

    Args:
        fire: Which one.
        maps: `(H, W)` each, by name.

    Returns:
        Hectares by name; None where nobody wrote down where the fire lies.
    """
    if fire.ground is None:
        return None
    from fireseg.scene.areas import PixelAreas

    try:
        areas = PixelAreas(fire.ground.crs, fire.ground.transform, fire.height, fire.width)
    except FiresegError as error:
        log.warning("%s: its hectares are unknown (%s)", fire.name, error)
        return None
    sums = dict.fromkeys(maps, 0.0)
    for top in range(0, fire.height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, fire.height))
        strip = areas.of_rows(rows.start, rows.stop - rows.start).astype(np.float64)
        for name, is_there in maps.items():
            sums[name] += float(np.where(is_there[rows], strip, 0.0).sum()) / _M2_A_HECTARE
    return sums
