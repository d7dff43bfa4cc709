"""Augmentation of training patches: flips, rotations, elastic warps, radiometric changes."""

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

ShiftPx = Annotated[float, Field(ge=0.0, le=8.0)]

Image = NDArray[np.float32]

Mask = NDArray[np.uint8]

NOISE_LIMIT = 3.0
"""Number of standard deviations at which noise is clipped."""

_MIN_HAZE_FACTOR = 0.25

_NOISE_BANK_SIZE = 1 << 22

_WARP_GRID_PX = 32
"""Spacing of the displacement grid of a warp. With shifts of at most 8 px the image cannot fold over itself."""


@runtime_checkable
class Augmentation(Protocol):
    """Augments a patch. Must be picklable, because worker processes may be spawned."""

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """Returns the image as `(C, H, W)` and the mask, both new and contiguous.

        Args:
            image: Reflectance, `(H, W, C)` float32. Not modified.
            mask: Classes, `(H, W)` uint8, or several masks `(H, W, M)`. Not modified.
            rng: Source of all random numbers.
            is_fire: True if the burned share of the patch is above `data.fire_threshold`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RadiometricAugmentation:
    """Changes reflectance `x` of band `b` to `gain · band_gain[b] · x + haze[b] + noise`.

    The gain models illumination and slope: one factor for the patch, and a small one for each band. Haze is
    largest in the band of the shortest wavelength and a quarter of that in the longest; it may be negative,
    as after excessive atmospheric correction. Noise models the sensor, independent for each pixel and band.

    A gain common to all bands leaves every band ratio unchanged. With the largest values that the types
    allow, char keeps a normalised burn ratio below -0.1 and green canopy one above 0.4. The result
    is not clipped: bright cloud exceeds 1 in real data, atmospheric correction gives small values
    below 0, and clipping would remove the noise of dark pixels.

    Args:
        light: Probability of gain and haze.
        noise: Probability of noise.
        max_gain: Largest relative change of all bands together.
        max_band_gain: Largest relative change of a single band.
        max_haze: Largest reflectance that haze adds to, or subtracts from, the first band.
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
        """Modifies a patch in place.

        Args:
            image: Reflectance, `(C, H, W)` float32, bands in order of wavelength, contiguous.
            rng: Source of random numbers; the same number of draws is taken whatever their values.
        """
        is_light, is_noise = rng.random() < self.light, rng.random() < self.noise
        num_bands = image.shape[0]
        gain = 1.0 + rng.uniform(-self.max_gain, self.max_gain)
        band_gain = 1.0 + rng.uniform(-self.max_band_gain, self.max_band_gain, num_bands)
        haze = rng.uniform(-self.max_haze, self.max_haze) * np.linspace(1.0, _MIN_HAZE_FACTOR, num_bands)
        sigma, offset = rng.uniform(0.0, self.max_noise), rng.random()
        if is_light:
            image *= (gain * band_gain).astype(np.float32)[:, None, None]
            image += haze.astype(np.float32)[:, None, None]
        if is_noise:
            image += _sample_noise(image.size, offset, sigma).reshape(image.shape)


@dataclass(frozen=True, kw_only=True)
class PatchAugmentation:
    """Applies flips, right-angle rotations, an elastic warp and radiometric changes.

    Args:
        flip: Probability of a flip, for each of the two directions.
        turn: Probability of a rotation by 90, 180 or 270 degrees; patches that are not square
            are rotated by 180 degrees only.
        elastic: Probability of an elastic warp.
        max_shift_px: Largest shift of the warp, in pixels.
        radiometric: Changes of the reflectance.
        pre: The second half of the bands is of a scene before the fire, whose reflectance is changed by itself.
    """

    flip: Probability = 0.5
    turn: Probability = 0.5
    elastic: Probability = 0.0
    max_shift_px: ShiftPx = 4.0
    radiometric: RadiometricAugmentation = dataclasses.field(default_factory=RadiometricAugmentation)
    pre: bool = False

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """Augments a patch, see `Augmentation`."""
        flips = rng.random(2) < self.flip
        quarter_turns = int(rng.integers(1, 4)) if rng.random() < self.turn else 0
        if rng.random() < self.elastic:
            image, mask = _warp(image, mask, self.max_shift_px, rng)
        image, mask = _flip_and_rotate(image, mask, flips, quarter_turns)
        channels_first = image.transpose(2, 0, 1).copy()
        for scene in np.split(channels_first, 2) if self.pre else [channels_first]:  # views
            self.radiometric(scene, rng)
        return channels_first, mask.copy()


@dataclasses.dataclass(frozen=True)
class FireAwareAugmentation:
    """Applies a stronger augmentation to patches with fire, because there are few of them.

    Args:
        standard: For patches whose burned share is at most `data.fire_threshold`.
        strong: For patches above it.
    """

    standard: Augmentation
    strong: Augmentation

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, *, is_fire: bool) -> tuple[Image, Mask]:
        """Augments a patch, see `Augmentation`."""
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
    pre: bool = False,
) -> PatchAugmentation:
    """Returns the standard augmentation of training patches.

    Args:
        flip: Probability of a flip, for each of the two directions.
        turn: Probability of a rotation by a multiple of 90 degrees.
        elastic: Probability of an elastic warp.
        light: Probability of gain and haze.
        noise: Probability of sensor noise.
        max_shift_px: Largest shift of the warp, in pixels.
        max_gain: Largest relative change of all bands together.
        max_band_gain: Largest relative change of a single band.
        max_haze: Largest reflectance that haze adds to or subtracts from the shortest wavelength.
        max_noise: Largest standard deviation of the noise, in reflectance.
        pre: The second half of the bands is of a scene before the fire, which gets a gain, haze and noise of its own.

    Raises:
        pydantic.ValidationError: If a number is outside its range.

    Example:
        >>> get_training_augmentation(noise=0.0).flip
        0.5
    """
    return PatchAugmentation(
        flip=flip,
        turn=turn,
        elastic=elastic,
        max_shift_px=max_shift_px,
        radiometric=RadiometricAugmentation(
            light=light,
            noise=noise,
            max_gain=max_gain,
            max_band_gain=max_band_gain,
            max_haze=max_haze,
            max_noise=max_noise,
        ),
        pre=pre,
    )


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
    pre: bool = False,
) -> PatchAugmentation:
    """Returns a stronger augmentation, with elastic warps, for patches with fire.

    Only the defaults differ from `get_training_augmentation`, which describes the arguments.

    Raises:
        pydantic.ValidationError: If a number is outside its range.
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
        pre=pre,
    )


def _flip_and_rotate(image: Image, mask: Mask, flips: NDArray[np.bool_], quarter_turns: int) -> tuple[Image, Mask]:
    """Flips (top to bottom, left to right), then rotates counter-clockwise.

    A flip costs a copy in albumentations; its rotations and transposes are views, and compose every flip.
    """
    if mask.shape[0] != mask.shape[1]:
        quarter_turns = 2 if quarter_turns else 0
    top_to_bottom, left_to_right = flips
    geometric = _import_image_libraries().geometric
    if top_to_bottom != left_to_right:
        image, mask = geometric.transpose(image), geometric.transpose(mask)
    quarter_turns = (quarter_turns + top_to_bottom + 3 * left_to_right - 2 * (top_to_bottom and left_to_right)) % 4
    return geometric.rot90(image, quarter_turns), geometric.rot90(mask, quarter_turns)


def _warp(image: Image, mask: Mask, max_shift_px: float, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Displaces pixels by a smooth random field; beyond the border, image and mask are mirrored.

    The field is drawn on a coarse grid and interpolated, which takes a twentieth of the time of drawing it
    for each pixel and blurring it, as the stock transform does.
    """
    libraries, (height, width) = _import_image_libraries(), mask.shape[:2]
    cv2, remap = libraries.cv2, libraries.geometric.remap
    grid = rng.uniform(-max_shift_px, max_shift_px, (height // _WARP_GRID_PX + 2, width // _WARP_GRID_PX + 2, 2))
    shift = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    from_x = np.arange(width, dtype=np.float32)[None, :] + shift[..., 0]
    from_y = np.arange(height, dtype=np.float32)[:, None] + shift[..., 1]
    warped = np.empty_like(image, order="C")
    for first in range(0, image.shape[2], 4):  # OpenCV remaps at most four channels per call
        channels = slice(first, first + 4)
        part = np.ascontiguousarray(image[..., channels])
        part = remap(part, from_x, from_y, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
        warped[..., channels] = part.reshape(height, width, -1)
    return warped, remap(np.ascontiguousarray(mask), from_x, from_y, cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101)


def _sample_noise(size: int, offset: float, sigma: float) -> NDArray[np.float32]:
    """Returns a section of precomputed noise: 0.1 ms a patch, against 3.5 ms for new random numbers."""
    bank = _noise_bank(max(_NOISE_BANK_SIZE, 2 * size))
    first = int(offset * (bank.size - size))
    return bank[first : first + size] * np.float32(sigma)


@cache
def _noise_bank(size: int) -> NDArray[np.float32]:
    """Returns standard normal noise clipped at `NOISE_LIMIT`, the same in every process."""
    rng = np.random.Generator(np.random.SFC64(20150623))
    bank = rng.standard_normal(size, dtype=np.float32)
    return np.clip(bank, -NOISE_LIMIT, NOISE_LIMIT, out=bank)


@cache
def _import_image_libraries() -> SimpleNamespace:
    """Imports albumentations on first use: it takes seconds, and asks a package index for its newest version."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations.augmentations.geometric.functional as geometric
    import cv2

    cv2.setNumThreads(1)  # OpenCV's thread pool does not survive a fork
    return SimpleNamespace(geometric=geometric, cv2=cv2)
