"""Lays a synthetic 12-band image over real CEMS masks, as a test's helper and no more."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from fireseg.data.bands import CEMS_BANDS
from fireseg.synthetic.scene import read_spectra

# Land cover of the Esri 10 m map as these rasters number it (water, trees, grass, flooded, crops, scrub, built, bare).
_COVER: tuple[Mapping[str, float], ...] = (
    {"water": 1.0},
    {"canopy_mid": 0.8, "litter": 0.2},
    {"grass_dry": 0.8, "soil_mid": 0.2},
    {"canopy_open": 0.6, "turbid": 0.4},
    {"canopy_open": 0.5, "dirt": 0.5},
    {"canopy_open": 0.3, "litter": 0.4, "soil_mid": 0.3},
    {"soil_bright": 0.5, "dirt": 0.5},
    {"soil_mid": 0.6, "dirt": 0.4},
)
_REMAINS: Mapping[str, float] = {"char": 0.7, "char_soil": 0.2, "ash": 0.1}

_BURNED_SHARE = np.array([0.0, 0.25, 0.45, 0.70, 0.92])
"""How much of a pixel is char and ash, by grade."""

_CLOUD_SHARE, _LIGHT_CLOUD_SHARE, _SHADOW_LIGHT = 0.85, 0.30, 0.35


def overlay_cems(source: Path, target: Path, *, seed: int = 0) -> Path:
    """Makes a tile that is real but for its image: DEL, GRA, CM and json copied, S2L2A mixed from measured spectra.

    Args:
        source: A tile folder with DEL, GRA, CM, json and Esri10_LC.
        target: Where the tile goes.
        seed: Of the noise.

    Returns:
        Path of the image: float32, 12 bands without descriptions, 0 to about 1 in steps of 0.0001.
    """
    target.mkdir(parents=True)
    name = source.name
    for end in ("DEL.tif", "GRA.tif", "CM.tif", "S2L2A.json"):
        shutil.copyfile(source / f"{name}_{end}", target / f"{name}_{end}")
    masks: dict[str, NDArray[np.uint8]] = {}
    profile: dict[str, Any] = {}
    for kind in ("DEL", "GRA", "CM", "Esri10_LC"):
        with rasterio.open(source / f"{name}_{kind}.tif") as raster:
            masks[kind] = raster.read(1)
            if kind == "DEL":
                profile = {"crs": raster.crs, "transform": raster.transform}
    path = target / f"{name}_S2L2A.tif"
    height, width = masks["DEL"].shape
    profile |= {"driver": "GTiff", "height": height, "width": width, "count": 12, "dtype": "float32"}
    with rasterio.open(path, "w", **profile) as raster:
        for channel in range(len(CEMS_BANDS)):
            raster.write(_expose(masks, channel, np.random.default_rng((seed, channel))), channel + 1)
    return path


def _expose(masks: Mapping[str, NDArray[np.uint8]], channel: int, rng: np.random.Generator) -> NDArray[np.float32]:
    spectra = {name: float(values[channel]) for name, values in read_spectra().items()}
    cover = np.array([_mix(shares, spectra) for shares in _COVER])
    # Where the masks disagree the ground is what the one that knows more says, lightly burned if only delineated.
    grade = np.where((masks["DEL"] == 1) & (masks["GRA"] == 0), 1, masks["GRA"])
    burned = _BURNED_SHARE[grade]
    values = cover[masks["Esri10_LC"]] * (1 - burned) + _mix(_REMAINS, spectra) * burned
    values *= np.where(masks["CM"] == 3, _SHADOW_LIGHT, 1.0)
    cloud = np.array([0.0, _CLOUD_SHARE, _LIGHT_CLOUD_SHARE, 0.0])[masks["CM"]]
    values = values * (1 - cloud) + spectra["cloud"] * cloud
    values += (0.003 + 0.03 * values) * rng.standard_normal(values.shape)
    return (np.rint(values * 10_000).clip(1, 20_000) / 10_000).astype(np.float32)


def _mix(shares: Mapping[str, float], spectra: Mapping[str, float]) -> float:
    return sum(share * spectra[name] for name, share in shares.items())
