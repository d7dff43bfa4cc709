"""Synthetic Sentinel-2 scenes of wildfires with their masks: atmosphere, spectra and sensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import CEMS_BANDS, SCALE, WAVELENGTH_NM
from fireseg.synthetic.burn import apply_burn, make_burn
from fireseg.synthetic.landscape import PIXEL_M, SunDirection, draw_sun, make_landscape
from fireseg.synthetic.noise import NoiseGenerator, Plane, blur, coarsen, ramp, refine
from fireseg.task import CLEAR, CLOUD, LIGHT_CLOUD, SHADOW

# Land: earthlib 1.1.0 (MIT), field, laboratory and PROSAIL spectra averaged over the pass bands of
# Sentinel-2A. B02 B03 B04 B08 B8A B11 B12 are medians of a class or of a part of it. B01 B05 B06 B07 B09 are
# interpolated linearly by wavelength between these seven, times the mean ratio of the five nearest library
# spectra to their own linear interpolation (which keeps the red edge of leaves).
# Water and cloud: from the literature, interpolated by wavelength between the seven.
_TABLE = """
              B01  B02  B03  B04  B05  B06  B07  B08  B8A  B09  B11  B12
canopy_dense .019 .022 .040 .018 .085 .352 .441 .442 .449 .428 .144 .041
canopy_mid   .024 .033 .071 .028 .124 .392 .459 .460 .467 .449 .168 .051
canopy_open  .047 .057 .105 .065 .151 .307 .342 .352 .359 .366 .243 .124
grass_dry    .042 .060 .090 .145 .168 .189 .214 .235 .248 .270 .295 .181
litter       .038 .047 .061 .093 .111 .127 .147 .164 .177 .200 .351 .231
wood         .063 .083 .120 .177 .197 .214 .234 .252 .265 .292 .407 .299
soil_bright  .133 .160 .235 .346 .379 .405 .428 .436 .439 .454 .539 .451
soil_mid     .062 .077 .127 .211 .233 .250 .264 .268 .270 .278 .333 .300
soil_dark    .035 .042 .069 .143 .163 .178 .188 .187 .184 .189 .250 .216
dirt         .088 .104 .140 .184 .199 .214 .231 .244 .253 .271 .403 .419
lava         .024 .025 .028 .033 .035 .036 .038 .040 .042 .043 .095 .113
char         .022 .023 .024 .027 .029 .032 .035 .038 .040 .049 .158 .207
char_soil    .041 .044 .052 .064 .069 .074 .080 .086 .090 .102 .231 .302
ash          .088 .096 .112 .133 .143 .152 .163 .173 .180 .194 .338 .381
scorched     .031 .042 .061 .122 .154 .182 .211 .235 .250 .270 .242 .134
water        .048 .045 .038 .022 .018 .015 .013 .010 .009 .008 .005 .004
turbid       .066 .075 .095 .080 .069 .059 .050 .040 .036 .031 .012 .009
cloud        .630 .620 .600 .610 .616 .623 .631 .640 .650 .620 .460 .340
shade        .000 .000 .000 .000 .000 .000 .000 .000 .000 .000 .000 .000
"""

_DETECTOR_PX = {"B01": 6, "B09": 6} | dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 2)
"""Native pixel size of the 60 m and 20 m bands, in pixels of 10 m."""

PIXEL_DEGREES = 9e-5
"""Pixel size in degrees: 10 m along a meridian."""

_LAYOUT, _SUN, _LANDSCAPE, _BURN, _REMAINS, _ATMOSPHERE, _SPECTRA, _SENSOR = range(8)
"""Random streams of the parts of a scene; more draws in one do not change the others."""


@dataclass(frozen=True, kw_only=True)
class Atmosphere:
    """Clouds, cloud shadows and haze over a scene.

    Attributes:
        cloud: Cloud opacity, 0 to 1.
        shadow: Share of the direct sunlight that clouds block, 0 to 1.
        haze: Path reflectance of clear air at 492 nm.
        mask: Cloud mask, uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow.
    """

    cloud: Plane
    shadow: Plane
    haze: Plane
    mask: NDArray[np.uint8]


def make_atmosphere(noise: NoiseGenerator, sun: SunDirection, *, cloudy: bool) -> Atmosphere:
    """Makes haze and, if cloudy, clouds with their shadows on the side away from the sun.

    Args:
        noise: Random stream of this part of the scene.
        sun: Direction of the sun, which gives the offset of the shadows.
        cloudy: True for a scene with clouds.
    """
    haze = noise.uniform(0.002, 0.030) * (1 + 0.15 * np.clip(noise.field(90, 3.8), -3.0, 3.0))
    empty = np.zeros((noise.height, noise.width))
    if not cloudy:
        return Atmosphere(cloud=empty, shadow=empty, haze=haze, mask=empty.astype(np.uint8))
    height_m = noise.uniform(400, 1500)
    # The cloud field extends beyond the scene, so that clouds outside it can cast shadows into it.
    lift = height_m / PIXEL_M / sun.z
    down, right = round(-sun.y * lift), round(-sun.x * lift)
    wide = NoiseGenerator((int(noise.rng.integers(2**31)),), noise.height + abs(down), noise.width + abs(right))
    length = noise.uniform(12, 40)
    # Cumulus: a smooth core with smaller curls, thin at the rim.
    cumulus = wide.field(length, 3.6) + 0.30 * wide.field(7, 3.0)
    depth = np.clip((cumulus - noise.uniform(1.2, 2.2)) / 1.5, 0.0, 1.0)
    veil = 0.28 * ramp(wide.field(60, 3.6), 0.8, 2.2) if noise.chance(0.25) else 0.0
    thick = blur(1 - (1 - ramp(depth, 0.0, 0.8) * 0.97) * (1 - veil), 1.0)
    # The shadow of a cloud lies on the side away from the sun.
    top, left = max(down, 0), max(right, 0)
    rows, cols = slice(top, top + noise.height), slice(left, left + noise.width)
    cloud = thick[rows, cols]
    shaded = slice(top - down, top - down + noise.height), slice(left - right, left - right + noise.width)
    # Sunlight crosses a cloud at an angle, so its path through the cloud is longer than the line of sight.
    shadow = 0.85 * blur(1 - (1 - thick[shaded]) ** 2, 1.2)
    return Atmosphere(cloud=cloud, shadow=shadow, haze=haze, mask=_cloud_mask(cloud, shadow))


def _cloud_mask(cloud: Plane, shadow: Plane) -> NDArray[np.uint8]:
    cloud, shadow = blur(cloud, 1.5), blur(shadow, 1.5)
    mask = np.where(shadow > 0.30, SHADOW, CLEAR)
    mask = np.where(cloud > 0.15, LIGHT_CLOUD, mask)
    return np.where(cloud > 0.45, CLOUD, mask).astype(np.uint8)


def read_spectra() -> dict[str, NDArray[np.float64]]:
    """Reads the reflectance of every material in the twelve level-2A bands, in the order of `CEMS_BANDS`."""
    header, *rows = (line.split() for line in _TABLE.strip().splitlines())
    assert tuple(header) == CEMS_BANDS
    return {name: np.array([float(value) for value in values]) for name, *values in rows}


def vary_spectra(rng: np.random.Generator, *, brightness: float = 0.14) -> dict[str, NDArray[np.float64]]:
    """Draws the spectra of one scene, each slightly different from the library spectrum.

    Args:
        rng: Random generator; three numbers are drawn for each material.
        brightness: Standard deviation of the logarithm of the common factor of all bands; that of the tilt from
            B01 to B12 and of the curvature is half as large.

    Returns:
        Reflectance by material as from `read_spectra`, 0 to 1.
    """
    log_wavelength = np.log(np.array([WAVELENGTH_NM[band] for band in CEMS_BANDS], np.float64))
    tilt = 2 * (log_wavelength - log_wavelength[0]) / (log_wavelength[-1] - log_wavelength[0]) - 1
    curvature = 1 - 2 * tilt**2
    varied = {}
    for name, spectrum in read_spectra().items():
        level, slope, bend = rng.normal(0.0, brightness, 3)
        varied[name] = np.clip(spectrum * np.exp(level + 0.5 * slope * tilt + 0.5 * bend * curvature), 0.0, 1.0)
    return varied


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A synthetic scene with the content of a CEMS tile.

    Attributes:
        reflectance: `(H, W, 12)` float32 in the order of `CEMS_BANDS`, in steps of 0.0001, 0 to about 1.
        delineation: `(H, W)` uint8, 1 burned, 0 not.
        grading: `(H, W)` uint8, 0 no damage to 4 destroyed; as in real tiles, its outline deviates slightly from
            the delineation.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud or haze, 3 shadow of a cloud.
    """

    reflectance: NDArray[np.float32]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8]
    cloud: NDArray[np.uint8]


def make_scene(seed: int, number: int, *, height: int = 256, width: int = 256, fire_share: float = 0.85) -> Scene:
    """Makes one scene: landscape, fire, atmosphere and sensor, each from its own random stream.

    All computations are float64 without matrix products up to the final rounding to 0.0001, so that the
    result is the same to the byte on every processor.

    Args:
        seed: Seed of the data set.
        number: Number of the scene in the data set.
        height: Height in pixels of 10 m.
        width: Width in pixels of 10 m.
        fire_share: Probability that the scene has a fire.

    Example:
        >>> make_scene(0, 0, height=32, width=40).reflectance.shape
        (32, 40, 12)
    """

    def stream(part: int) -> NoiseGenerator:
        return NoiseGenerator((seed, number, part), height, width)

    layout = stream(_LAYOUT)
    # One fire in the smallest scenes, up to eight at the size of a CEMS tile.
    max_fires = 1 + int(math.sqrt(height * width) / 300)
    num_fires = int(layout.rng.integers(1, max_fires + 1)) if layout.chance(fire_share) else 0
    sun = draw_sun(stream(_SUN))
    landscape = make_landscape(stream(_LANDSCAPE), sun)
    burn = make_burn(stream(_BURN), landscape, num_fires=num_fires)
    atmosphere = make_atmosphere(stream(_ATMOSPHERE), sun, cloudy=layout.chance(0.35))
    fractions = apply_burn(stream(_REMAINS), landscape, burn)
    spectra = vary_spectra(stream(_SPECTRA).rng)
    reflectance = _simulate_sensor(stream(_SENSOR), fractions, spectra, landscape.light, atmosphere)
    return Scene(reflectance=reflectance, delineation=burn.delineation, grading=burn.grading, cloud=atmosphere.mask)


def get_tile_name(number: int) -> str:
    """Formats the name of a synthetic tile, like that of a CEMS tile but with the prefix SAMPLE.

    Example:
        >>> get_tile_name(12)
        'SAMPLE0012_AOI01_01'
    """
    return f"SAMPLE{number:04d}_AOI01_01"


def get_footprint(
    number: int, *, top: int = 0, left: int = 0, height: int, width: int
) -> tuple[float, float, float, float]:
    """Returns the invented bounds of a scene or of a window in it.

    Scenes are 0.25 degrees apart in the open Atlantic, so that they neither overlap nor resemble a real fire.

    Args:
        number: Number of the scene, 0 to 3000.
        top: First row of the window.
        left: First column of the window.
        height: Height of the window in pixels.
        width: Width of the window in pixels.

    Returns:
        West, south, east, north in EPSG:4326.
    """
    west = -45.0 + 0.25 * (number % 100) + left * PIXEL_DEGREES
    north = 20.0 + 0.25 * (number // 100) - top * PIXEL_DEGREES
    south, east = north - height * PIXEL_DEGREES, west + width * PIXEL_DEGREES
    return round(west, 6), round(south, 6), round(east, 6), round(north, 6)


def _simulate_sensor(
    noise: NoiseGenerator,
    fractions: Mapping[str, Plane],
    spectra: Mapping[str, Plane],
    light: Plane,
    atmosphere: Atmosphere,
) -> NDArray[np.float32]:
    """Simulates the measured reflectance, `(H, W, 12)`."""
    height, width = light.shape
    # Roughness below the pixel size casts small shadows, equal in all bands.
    light = light * np.exp(0.10 * noise.field(1.2, 2.4) + 0.05 * noise.field(3.0, 2.6))
    image = np.empty((height, width, len(CEMS_BANDS)), np.float32)
    for channel, band in enumerate(CEMS_BANDS):
        blue = (492 / WAVELENGTH_NM[band]) ** 2.5
        ground = sum((fraction * spectra[name][channel] for name, fraction in fractions.items()), np.zeros_like(light))
        # Shadows are lit by skylight only, which is blue.
        ground = ground * light * (1 - atmosphere.shadow * (1 - 0.22 * min(blue, 1.3)))
        plane = ground * (1 - 0.6 * atmosphere.haze * blue) + atmosphere.haze * blue
        plane = plane * (1 - atmosphere.cloud) + spectra["cloud"][channel] * atmosphere.cloud
        image[..., channel] = _measure(noise, plane, _DETECTOR_PX.get(band, 1))
    return image


def _measure(noise: NoiseGenerator, plane: Plane, detector_px: int) -> NDArray[np.float32]:
    """Adds noise at the resolution of the detector, resamples to 10 m and rounds to steps of 0.0001."""
    height, width = plane.shape
    if detector_px > 1:
        plane = coarsen(plane, detector_px)
    plane = plane + (0.0025 + 0.012 * plane) * noise.rng.standard_normal(plane.shape)
    if detector_px > 1:
        plane = refine(plane, detector_px, height, width)
    steps = np.clip(np.rint(plane * SCALE), 1, 20_000)
    # Divided in float32 like readers of packed patches do, so that both give the same bits.
    return steps.astype(np.float32) / np.float32(SCALE)
