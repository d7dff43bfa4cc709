"""The same ground seen another way: turned, flipped, warped, in other light."""

from __future__ import annotations

import dataclasses
import os
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Protocol, runtime_checkable

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


ShiftPx = Annotated[float, Field(ge=0.0, le=8.0)]

Image = NDArray[np.float32]

Mask = NDArray[np.uint8]

_KNOT_PX = 32
"""Distance between the draws of a warp. With shifts of at most 8 px no two pixels can change places."""


@runtime_checkable
class Augmentation(Protocol):
    """Makes another sample of the same ground. Must be picklable: workers may be spawned."""

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """Returns the image with its bands first, and the mask, both new and contiguous.

        Args:
            image: Reflectance, `(H, W, C)` float32. Left as it is.
            mask: Classes, `(H, W)` uint8. Left as it is.
            rng: Where all draws come from.
            is_fire: Whether the burned share of the patch is above `data.fire_threshold`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PatchAugmentation:
    """Flips, right-angle turns, a smooth warp, then light and noise.

    Args:
        flip: Probability of a flip, for each of the two directions.
        turn: Probability of a turn by one, two or three right angles; patches that are not square
            are turned by two only.
        elastic: Probability of a warp.
        max_shift_px: Largest shift of a warp, in pixels.
        photometry: What happens to the reflectance.
    """

    flip: Probability = 0.5
    turn: Probability = 0.5
    elastic: Probability = 0.0
    max_shift_px: ShiftPx = 4.0
    photometry: Photometry = dataclasses.field(default_factory=Photometry)

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """See `Augmentation`."""
        flips = rng.random(2) < self.flip
        turns = int(rng.integers(1, 4)) if rng.random() < self.turn else 0
        if rng.random() < self.elastic:
            image, mask = _warp(image, mask, self.max_shift_px, rng)
        image, mask = _flip_and_turn(image, mask, flips, turns)
        bands_first = image.transpose(2, 0, 1).copy()
        self.photometry(bands_first, rng)
        return bands_first, mask.copy()


@dataclasses.dataclass(frozen=True)
class FireAwareAugmentation:
    """Changes patches with fire strongly: they are few, and each must serve for many.

    Args:
        standard: For patches whose burned share is at most `data.fire_threshold`.
        strong: For those above.
    """

    standard: Augmentation
    strong: Augmentation

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """See `Augmentation`."""
        return (self.strong if is_fire else self.standard)(image, mask, rng, is_fire=is_fire)


def get_training_augmentation(
    *,
    flip: Probability = 0.5,
    turn: Probability = 0.5,
    elastic: Probability = 0.0,
    light: Probability = 0.5,
    noise: Probability = 0.3,
    max_shift_px: ShiftPx = 4.0,
    max_gain: Gain = 0.1,
    max_band_gain: BandGain = 0.02,
    max_haze: Haze = 0.01,
    max_noise: Noise = 0.005,
) -> PatchAugmentation:
    """What a patch goes through before the model sees it, for a start.

    Args:
        flip: Probability of a flip, for each of the two directions.
        turn: Probability of a turn by right angles.
        elastic: Probability of a smooth warp.
        light: Probability of gain and haze.
        noise: Probability of sensor noise.
        max_shift_px: Largest shift of a warp, in pixels.
        max_gain: Largest relative change of all bands together.
        max_band_gain: Largest relative change of one band beside the others.
        max_haze: Largest reflectance that haze adds to or takes from the shortest wavelength.
        max_noise: Largest standard deviation of the noise, in reflectance.

    Raises:
        pydantic.ValidationError: If a number of the photometry is outside its range.

    Example:
        >>> get_training_augmentation(noise=0.0).flip
        0.5
    """
    photometry = Photometry(
        light=light,
        noise=noise,
        max_gain=max_gain,
        max_band_gain=max_band_gain,
        max_haze=max_haze,
        max_noise=max_noise,
    )
    return PatchAugmentation(flip=flip, turn=turn, elastic=elastic, max_shift_px=max_shift_px, photometry=photometry)


def get_strong_augmentation(
    *,
    flip: Probability = 0.7,
    turn: Probability = 0.7,
    elastic: Probability = 0.3,
    light: Probability = 0.8,
    noise: Probability = 0.5,
    max_shift_px: ShiftPx = 4.0,
    max_gain: Gain = 0.2,
    max_band_gain: BandGain = 0.03,
    max_haze: Haze = 0.02,
    max_noise: Noise = 0.01,
) -> PatchAugmentation:
    """The same as `get_training_augmentation`, oftener and further, with warps: for patches with fire.

    Args:
        flip: Probability of a flip, for each of the two directions.
        turn: Probability of a turn by right angles.
        elastic: Probability of a smooth warp.
        light: Probability of gain and haze.
        noise: Probability of sensor noise.
        max_shift_px: Largest shift of a warp, in pixels.
        max_gain: Largest relative change of all bands together.
        max_band_gain: Largest relative change of one band beside the others.
        max_haze: Largest reflectance that haze adds to or takes from the shortest wavelength.
        max_noise: Largest standard deviation of the noise, in reflectance.

    Raises:
        pydantic.ValidationError: If a number of the photometry is outside its range.
    """
    return get_training_augmentation(
        flip=flip,
        turn=turn,
        elastic=elastic,
        light=light,
        noise=noise,
        max_shift_px=max_shift_px,
        max_gain=max_gain,
        max_band_gain=max_band_gain,
        max_haze=max_haze,
        max_noise=max_noise,
    )


def _flip_and_turn(image: Image, mask: Mask, flips: NDArray[np.bool_], turns: int) -> tuple[Image, Mask]:
    """Flips (top to bottom, left to right), then turns counter-clockwise.

    A flip costs a copy in albumentations; its turns and transposes are views, and make up every flip.
    """
    if mask.shape[0] != mask.shape[1]:
        turns = 2 if turns else 0
    top_to_bottom, left_to_right = flips
    geometry = _tools().geometry
    if top_to_bottom != left_to_right:
        image, mask = geometry.transpose(image), geometry.transpose(mask)
    turns = (turns + top_to_bottom + 3 * left_to_right - 2 * (top_to_bottom and left_to_right)) % 4
    return geometry.rot90(image, turns), geometry.rot90(mask, turns)


def _warp(image: Image, mask: Mask, max_shift_px: float, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Shifts every pixel by a smooth field; what comes from outside is the patch mirrored, mask and all.

    The field is drawn at knots and interpolated: drawn for every pixel and blurred, as the stock
    transform does, it costs 20 times that.
    """
    tools, (height, width) = _tools(), mask.shape
    cv2, remap = tools.cv2, tools.geometry.remap
    knots = rng.uniform(-max_shift_px, max_shift_px, (height // _KNOT_PX + 2, width // _KNOT_PX + 2, 2))
    shift = cv2.resize(knots.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    from_x = np.arange(width, dtype=np.float32)[None, :] + shift[..., 0]
    from_y = np.arange(height, dtype=np.float32)[:, None] + shift[..., 1]
    warped = np.empty_like(image, order="C")
    for first in range(0, image.shape[2], 4):  # OpenCV takes four channels at a time
        four = slice(first, first + 4)
        piece = remap(np.ascontiguousarray(image[..., four]), from_x, from_y, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
        warped[..., four] = piece.reshape(height, width, -1)
    return warped, remap(np.ascontiguousarray(mask), from_x, from_y, cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101)


@cache
def _tools() -> SimpleNamespace:
    """albumentations takes seconds to import, and asks a package index for its newest version unless told not to."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations.augmentations.geometric.functional as geometry
    import cv2

    cv2.setNumThreads(1)  # its pool of threads does not survive a fork
    return SimpleNamespace(geometry=geometry, cv2=cv2)
