"""One synthetic Sentinel-2 scene of a wildfire, with its masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import CEMS_BANDS
from fireseg.synthetic.burn import apply_burn, make_burn
from fireseg.synthetic.landscape import PIXEL_M, Sun, make_land, make_sun
from fireseg.synthetic.noise import Plane, RandomFields, blur, coarsen, ramp, refine
from fireseg.task import CLEAR, CLOUD, LIGHT_CLOUD, SHADOW


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


def make_sky(fields: RandomFields, sun: Sun, *, cloudy: bool) -> Sky:
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
    wide = RandomFields((int(fields.rng.integers(2**31)),), fields.height + abs(down), fields.width + abs(right))
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


# Land: earthlib 1.1.0 (MIT), field, laboratory and PROSAIL spectra averaged over the pass bands of
# Sentinel-2A. B02 B03 B04 B08 B8A B11 B12 are medians of a class or of a part of it; B01 B05 B06 B07
# B09 are the straight line through these seven by wavelength, times what the five library spectra
# nearest to them have over their own straight line (a leaf's red edge is no straight line).
# Water and cloud: after the literature, between the seven by wavelength.
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

WAVELENGTH_NM = dict(
    zip(CEMS_BANDS, (443, 492, 560, 665, 704, 740, 783, 833, 865, 945, 1614, 2202), strict=True),
)
"""Centre of every level-2A band of Sentinel-2A, in nanometres."""


def read_spectra() -> dict[str, NDArray[np.float64]]:
    """Reflectance of every material in the twelve level-2A bands, in the order of `CEMS_BANDS`."""
    header, *rows = (line.split() for line in _TABLE.strip().splitlines())
    assert tuple(header) == CEMS_BANDS
    return {name: np.array([float(value) for value in values]) for name, *values in rows}


def vary_spectra(rng: np.random.Generator, *, brightness: float = 0.14) -> dict[str, NDArray[np.float64]]:
    """The spectra of one scene: each material a little brighter or darker, redder or bluer than its kind.

    Args:
        rng: Where the draws come from: three a material.
        brightness: Standard deviation of the logarithm of the factor on all bands; the tilt from B01 to
            B12 and the bend at the near infrared have half of it.

    Returns:
        As `read_spectra`, values 0 to 1.
    """
    span = np.log(np.array([WAVELENGTH_NM[band] for band in CEMS_BANDS], np.float64))
    tilt = 2 * (span - span[0]) / (span[-1] - span[0]) - 1
    bend = 1 - 2 * tilt**2
    varied = {}
    for name, spectrum in read_spectra().items():
        level, slope, bow = rng.normal(0.0, brightness, 3)
        varied[name] = np.clip(spectrum * np.exp(level + 0.5 * slope * tilt + 0.5 * bow * bend), 0.0, 1.0)
    return varied


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

    def draws(part: int) -> RandomFields:
        return RandomFields((seed, number, part), height, width)

    kind = draws(_KIND)
    # One fire in the smallest scenes, up to eight in those of the size of a CEMS tile.
    most = 1 + int(math.sqrt(height * width) / 300)
    num_fires = int(kind.rng.integers(1, most + 1)) if kind.chance(fire_share) else 0
    sun = make_sun(draws(_SUN))
    land = make_land(draws(_LAND), sun)
    burn = make_burn(draws(_BURN), land, num_fires=num_fires)
    sky = make_sky(draws(_SKY), sun, cloudy=kind.chance(0.35))
    shares = apply_burn(draws(_REMAINS), land, burn)
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
    detector: RandomFields, shares: Mapping[str, Plane], spectra: Mapping[str, Plane], light: Plane, sky: Sky
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


def _measure(detector: RandomFields, seen: Plane, pixels: int) -> NDArray[np.float32]:
    """Noise at the size of the detector, then the 10 m grid, in steps of 0.0001."""
    height, width = seen.shape
    cell = coarsen(seen, pixels) if pixels > 1 else seen
    cell = cell + (0.0025 + 0.012 * cell) * detector.rng.standard_normal(cell.shape)
    if pixels > 1:
        cell = refine(cell, pixels, height, width)
    steps = np.clip(np.rint(cell * 10_000), 1, 20_000)
    # Divided in float32, as readers of the packed form do: the same bits either way.
    return steps.astype(np.float32) / np.float32(10_000)
