"""One synthetic Sentinel-2 scene of a wildfire, with its masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import CEMS_BANDS
from fireseg.data.sample.burn import lay_burn, make_burn
from fireseg.data.sample.fields import Fields, Plane, coarsen, refine
from fireseg.data.sample.landscape import make_land, make_sun
from fireseg.data.sample.sky import Sky, make_sky
from fireseg.data.sample.spectra import WAVELENGTH_NM, vary_spectra

_DETECTOR_PX = {"B01": 6, "B09": 6} | dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 2)
"""Bands that are measured at 60 m or 20 m, in pixels of 10 m."""

PIXEL_DEGREES = 9e-5
"""Side of a pixel: 10 m of a meridian."""

_KIND, _SUN, _LAND, _BURN, _REMAINS, _SKY, _SPECTRA, _DETECTOR = range(8)
"""Streams of random numbers: a part that draws more leaves the others as they are."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a CEMS tile holds.

    Attributes:
        reflectance: `(H, W, 12)` float32 in the order of `CEMS_BANDS`, in steps of 0.0001, 0 to about 1.
        delineation: `(H, W)` uint8, 1 burned, 0 not.
        grading: `(H, W)` uint8, 0 no damage to 4 destroyed; like the real ones it does not agree with the
            delineation to the pixel.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud or haze, 3 shadow of a cloud.
    """

    reflectance: NDArray[np.float32]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8]
    cloud: NDArray[np.uint8]


def make_scene(seed: int, number: int, *, height: int = 256, width: int = 256, fire_share: float = 0.85) -> Scene:
    """Makes one scene: ground, fire, air and instrument, each from its own stream of random numbers.

    Everything is float64 and free of matrix products until the last rounding to 0.0001, so that the
    bytes are the same on every processor.

    Args:
        seed: Seed of the data set.
        number: Number of the scene in it.
        height: Rows of 10 m.
        width: Columns of 10 m.
        fire_share: Probability that anything burned.

    Example:
        >>> make_scene(0, 0, height=32, width=40).reflectance.shape
        (32, 40, 12)
    """

    def draws(part: int) -> Fields:
        return Fields((seed, number, part), height, width)

    kind = draws(_KIND)
    # One fire in the smallest scenes, up to eight in those of the size of a CEMS tile.
    most = 1 + int(math.sqrt(height * width) / 300)
    num_fires = int(kind.rng.integers(1, most + 1)) if kind.chance(fire_share) else 0
    sun = make_sun(draws(_SUN))
    land = make_land(draws(_LAND), sun)
    burn = make_burn(draws(_BURN), land, num_fires=num_fires)
    sky = make_sky(draws(_SKY), sun, cloudy=kind.chance(0.35))
    shares = lay_burn(draws(_REMAINS), land, burn)
    spectra = vary_spectra(draws(_SPECTRA).rng)
    reflectance = _expose(draws(_DETECTOR), shares, spectra, land.light, sky)
    return Scene(reflectance=reflectance, delineation=burn.delineation, grading=burn.grading, cloud=sky.mask)


def get_tile_name(number: int) -> str:
    """Like that of a CEMS tile, but unmistakable.

    Example:
        >>> get_tile_name(12)
        'SAMPLE0012_AOI01_01'
    """
    return f"SAMPLE{number:04d}_AOI01_01"


def get_footprint(
    number: int, *, top: int = 0, left: int = 0, height: int, width: int
) -> tuple[float, float, float, float]:
    """Where a scene, or a window of it, pretends to be: west, south, east, north in EPSG:4326.

    The scenes lie 0.25 degrees apart in the open Atlantic, so none overlaps another and none is taken
    for a real fire.

    Args:
        number: Number of the scene, 0 to 2999.
        top: First row of the window.
        left: First column of the window.
        height: Rows of the window.
        width: Columns of the window.
    """
    west = -45.0 + 0.25 * (number % 100) + left * PIXEL_DEGREES
    north = 20.0 + 0.25 * (number // 100) - top * PIXEL_DEGREES
    south, east = north - height * PIXEL_DEGREES, west + width * PIXEL_DEGREES
    return round(west, 6), round(south, 6), round(east, 6), round(north, 6)


def _expose(
    detector: Fields, shares: Mapping[str, Plane], spectra: Mapping[str, Plane], light: Plane, sky: Sky
) -> NDArray[np.float32]:
    """What the instrument measures, `(H, W, 12)`."""
    height, width = light.shape
    # Roughness below a pixel: its own small shadows, the same in every band.
    light = light * np.exp(0.10 * detector(1.2, 2.4) + 0.05 * detector(3.0, 2.6))
    image = np.empty((height, width, len(CEMS_BANDS)), np.float32)
    for channel, band in enumerate(CEMS_BANDS):
        blue = (492 / WAVELENGTH_NM[band]) ** 2.5
        ground = sum((share * spectra[name][channel] for name, share in shares.items()), np.zeros_like(light))
        # In shadow only skylight is left, and skylight is blue.
        ground = ground * light * (1 - sky.shadow * (1 - 0.22 * min(blue, 1.3)))
        seen = ground * (1 - 0.6 * sky.haze * blue) + sky.haze * blue
        seen = seen * (1 - sky.cloud) + spectra["cloud"][channel] * sky.cloud
        image[..., channel] = _measure(detector, seen, _DETECTOR_PX.get(band, 1))
    return image


def _measure(detector: Fields, seen: Plane, pixels: int) -> NDArray[np.float32]:
    """Noise at the size of the detector, then the 10 m grid, in steps of 0.0001."""
    height, width = seen.shape
    cell = coarsen(seen, pixels) if pixels > 1 else seen
    cell = cell + (0.0025 + 0.012 * cell) * detector.rng.standard_normal(cell.shape)
    if pixels > 1:
        cell = refine(cell, pixels, height, width)
    steps = np.clip(np.rint(cell * 10_000), 1, 20_000)
    # Divided in float32, as readers of the packed form do: the same bits either way.
    return steps.astype(np.float32) / np.float32(10_000)
