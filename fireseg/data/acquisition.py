"""Augmentation that imitates other acquisitions: another date, site, sun, atmosphere or processing."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from fireseg.data.augment import Augmentation, Image, Mask, Probability
from fireseg.data.bands import BAND_NAMES, SCALE, WAVELENGTH_NM, check_bands
from fireseg.errors import FiresegError
from fireseg.pairs import split_pair

ANGSTROM_EXPONENT = 1.3
"""Decrease of haze with wavelength, as (492 nm / wavelength) to this power: typical of continental aerosol."""

MEAN_SUN_ZENITH_DEG = 45.0

_MIN_KNOWN = np.float32(1 / SCALE)
"""Smallest reflectance of a known pixel, one step of the product: 0 in all bands means unknown, and an index of bands
that are all 0 has no value."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(arbitrary_types_allowed=True))
class AcquisitionAugmentation:
    """Applies an augmentation, then changes the reflectance `x` of the whole patch as another acquisition would.

    Band `b` becomes `sun · (1 + gain) · (1 + gain[b]) · x + offset + offset[b] + haze · (492 nm / wavelength[b])^1.3`.
    Gain and offset are thus correlated between bands: one part is common to all, one is of each band by itself. The
    common factors leave normalised differences of bands unchanged, all other parts change them. Finally a band may be
    lost. All this is drawn for each of the two scenes of a pair by itself, which differ in date. The result is within 0
    and 1; pixels that are 0 in all bands, which are unknown, stay so, also where the first augmentation would add haze
    or noise to them, and known pixels stay above 0.

    Args:
        base: Augmentation that is applied first.
        bands: Bands of the patches, in order.
        probability: Probability of all the changes that follow.
        strength: Factor of all the largest values that follow, so that one number makes the change weaker or stronger.
        max_gain: Largest relative change of all bands together.
        max_band_gain: Largest relative change of each band by itself.
        max_offset: Largest reflectance that is added to, or subtracted from, all bands together.
        max_band_offset: Largest reflectance that is added to, or subtracted from, each band by itself.
        max_haze: Largest reflectance that haze adds at 492 nm, the wavelength of B02.
        max_sun_deg: Largest change of the sun's zenith angle from 45°, in degrees; brightness follows its cosine.
        drop: Probability that one band is lost: it gets the mean of its known pixels. A single band is never lost.

    Raises:
        pydantic.ValidationError: If a value is outside its range.
    """

    base: Augmentation
    bands: Annotated[tuple[str, ...], AfterValidator(check_bands)] = BAND_NAMES
    probability: Probability = 0.8
    strength: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    max_gain: Annotated[float, Field(ge=0.0, le=0.4)] = 0.15
    max_band_gain: Annotated[float, Field(ge=0.0, le=0.3)] = 0.1
    max_offset: Annotated[float, Field(ge=0.0, le=0.05)] = 0.01
    max_band_offset: Annotated[float, Field(ge=0.0, le=0.05)] = 0.01
    max_haze: Annotated[float, Field(ge=0.0, le=0.2)] = 0.04
    max_sun_deg: Annotated[float, Field(ge=0.0, le=15.0)] = 10.0
    drop: Probability = 0.1

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """Augments a patch, see `Augmentation`."""
        if image.shape[2] != len(self.bands):
            raise FiresegError(
                f"data.augment.bands: {len(self.bands)} bands ({' '.join(self.bands)}), but the patches have "
                f"{image.shape[2]}; name the bands of the patches"
            )
        is_unknown = ~image.any(axis=2)
        if is_unknown.any():
            image = image.copy()
            image[is_unknown] = np.nan  # moves with the pixel, and a pixel interpolated from it is unknown, too
        image, mask = self.base(image, mask, rng, is_fire=is_fire)
        is_known = ~np.isnan(image[0])
        first = 0
        for bands in filter(None, split_pair(self.bands)):
            self._change_scene(image[first : first + len(bands)], is_known, bands, rng)
            first += len(bands)
        return image, mask

    def _change_scene(
        self, image: Image, is_known: NDArray[np.bool_], bands: tuple[str, ...], rng: np.random.Generator
    ) -> None:
        """Changes the bands of one scene in place, `(C, H, W)`."""
        gain, offset, dropped = self._draw(bands, rng)
        image *= gain[:, None, None]
        image += offset[:, None, None]
        np.clip(image, _MIN_KNOWN, 1.0, out=image)
        image[:, ~is_known] = 0.0
        if dropped is not None and is_known.any():
            image[dropped, is_known] = image[dropped, is_known].mean(dtype=np.float64)

    def _draw(
        self, bands: tuple[str, ...], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], int | None]:
        """Draws the gain and the offset of each band, and the band to drop; always as many random numbers."""
        num_bands = len(bands)
        is_changed, is_dropped = rng.random(2) < (self.probability, self.drop)
        common_gain, common_offset, sun = rng.uniform(-1, 1, 3)
        band_gain, band_offset = rng.uniform(-1, 1, (2, num_bands))
        haze, dropped = rng.random(), int(rng.integers(num_bands))
        if not is_changed:
            return np.ones(num_bands, np.float32), np.zeros(num_bands, np.float32), None
        zenith_deg = MEAN_SUN_ZENITH_DEG + self.strength * self.max_sun_deg * sun
        brightness = math.cos(math.radians(zenith_deg)) / math.cos(math.radians(MEAN_SUN_ZENITH_DEG))
        gain = (
            brightness
            * (1 + self.strength * self.max_gain * common_gain)
            * (1 + self.strength * self.max_band_gain * band_gain)
        )
        wavelength = np.array([WAVELENGTH_NM[band] for band in bands])
        offset = self.strength * (
            self.max_offset * common_offset
            + self.max_band_offset * band_offset
            + self.max_haze * haze * (WAVELENGTH_NM["B02"] / wavelength) ** ANGSTROM_EXPONENT
        )
        is_dropped = is_dropped and num_bands > 1
        return gain.astype(np.float32), offset.astype(np.float32), dropped if is_dropped else None
