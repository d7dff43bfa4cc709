"""The measured spectra that sample scenes are mixed from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import CEMS_BANDS

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
