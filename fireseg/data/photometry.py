"""What light, air and sensor do to reflectance, within bounds that leave a dark scar a scar."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Gain = Annotated[float, Field(ge=0.0, le=0.3)]
BandGain = Annotated[float, Field(ge=0.0, le=0.05)]
Haze = Annotated[float, Field(ge=0.0, le=0.03)]
Noise = Annotated[float, Field(ge=0.0, le=0.01)]

NOISE_LIMIT = 3.0
"""Noise is cut at so many standard deviations: a bound that holds, not one that mostly holds."""

_HAZE_LEAST = 0.25
_BANK_SIZE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """Changes reflectance `x` of band `b` to `gain · band_gain[b] · x + haze[b] + noise`.

    The gain is the sun and the slope: one for the patch, and a small one for every band. Haze adds
    most to the shortest wavelength and a quarter of that to the longest; it may be negative, as where
    the atmosphere was corrected too much. Noise is the sensor's, one draw a pixel and band.

    A gain common to all bands leaves every band ratio as it is. Under the widest bounds that the
    types allow, char keeps a normalised burn ratio below -0.1 and green canopy one above 0.4. The result
    is not clipped: bright cloud is above 1 in the real data, atmospheric correction gives small values
    below 0, and a clipped dark pixel would lose the noise that it should have.

    Args:
        light: Probability of gain and haze.
        noise: Probability of noise.
        max_gain: Largest relative change of all bands together.
        max_band_gain: Largest relative change of one band beside the others.
        max_haze: Largest reflectance that haze adds to, or takes from, the first band.
        max_noise: Largest standard deviation of the noise, in reflectance.

    Raises:
        pydantic.ValidationError: If a number is outside its range.
    """

    light: Probability = 0.5
    noise: Probability = 0.3
    max_gain: Gain = 0.1
    max_band_gain: BandGain = 0.02
    max_haze: Haze = 0.01
    max_noise: Noise = 0.005

    def __call__(self, image: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Changes a patch in place.

        Args:
            image: Reflectance, `(C, H, W)` float32, bands in order of wavelength, contiguous.
            rng: Where the draws come from. How many are taken does not depend on their outcome.
        """
        is_light, is_noise = rng.random() < self.light, rng.random() < self.noise
        num_bands = image.shape[0]
        gain = 1.0 + rng.uniform(-self.max_gain, self.max_gain)
        band_gain = 1.0 + rng.uniform(-self.max_band_gain, self.max_band_gain, num_bands)
        haze = rng.uniform(-self.max_haze, self.max_haze) * np.linspace(1.0, _HAZE_LEAST, num_bands)
        sigma, start = rng.uniform(0.0, self.max_noise), rng.random()
        if is_light:
            image *= (gain * band_gain).astype(np.float32)[:, None, None]
            image += haze.astype(np.float32)[:, None, None]
        if is_noise:
            image += _noise(image.size, start, sigma).reshape(image.shape)


def _noise(size: int, start: float, sigma: float) -> NDArray[np.float32]:
    """A stretch of the noise bank. Drawing it anew would cost 3.5 ms a patch, this costs 0.1."""
    bank = _noise_bank(max(_BANK_SIZE, 2 * size))
    first = int(start * (bank.size - size))
    return bank[first : first + size] * np.float32(sigma)


@cache
def _noise_bank(size: int) -> NDArray[np.float32]:
    """Standard normal noise, cut at `NOISE_LIMIT`: the same in every process, drawn once in each."""
    rng = np.random.Generator(np.random.SFC64(20150623))
    bank = rng.standard_normal(size, dtype=np.float32)
    return np.clip(bank, -NOISE_LIMIT, NOISE_LIMIT, out=bank)
