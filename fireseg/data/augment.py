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

from fireseg.data.photometry import BandGain, Gain, Haze, Noise, Photometry, Probability

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
