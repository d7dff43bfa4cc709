"""An image in memory as a raster that is read by the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fireseg.data.bands import SCALE, to_reflectance
from fireseg.errors import FiresegError

_MOST = 255.0
"""Beyond the brightest cloud by far: such values are digital numbers."""


@dataclass(frozen=True)
class ImageSource:
    """Reflectance of an array.

    Attributes:
        steps: Reflectance x 10000, `(H, W, C)` uint16; 0 where unknown.
        unknown: `(H, W)`.
        bands: Of the channels.
    """

    steps: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    bands: tuple[str, ...]

    block_rows = 1024

    @property
    def height(self) -> int:
        """Rows."""
        return self.steps.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.steps.shape[1]

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """A window of it."""
        window = slice(top, top + height), slice(left, left + width)
        return self.steps[window], self.unknown[window]


def to_source(image: np.ndarray | Tensor, bands: Sequence[str]) -> ImageSource:
    """Makes of an image what a raster with the same reflectance gives.

    Args:
        image: Reflectance, 0 to 1, `(C, H, W)` or `(H, W, C)`: told apart by the axis that is as long as there are
            bands. Not finite where unknown. Values beyond 0 and 1 are clipped, as in training.
        bands: The C bands, in order.

    Raises:
        FiresegError: If it cannot be told which axis the channels are, or the values are no reflectance.
    """
    values = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if values.dtype.kind != "f":
        raise FiresegError(
            f"image: {values.dtype}, but reflectance is wanted as float, 0 to 1; divide digital numbers by {SCALE} "
            "(less the offset of their baseline)"
        )
    values = _put_channels_last(values, bands)
    unknown = np.logical_not(np.isfinite(values).all(axis=2, keepdims=True))
    known = np.where(unknown, 0, values)
    if known.max() > _MOST:
        raise FiresegError(
            f"image: values up to {known.max():g}, but reflectance is wanted, 0 to 1; divide digital numbers by "
            f"{SCALE} (less the offset of their baseline)"
        )
    steps = np.rint(np.clip(known, 0, 1) * SCALE).astype(np.uint16)
    return ImageSource(steps, unknown[..., 0], tuple(bands))


def _put_channels_last(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    wanted = f"{len(bands)} bands ({' '.join(bands)})"
    if image.ndim != 3:
        raise FiresegError(f"image: shape {image.shape}, but (C, H, W) or (H, W, C) is wanted with {wanted}")
    if 0 in image.shape:
        raise FiresegError(f"image: shape {image.shape} has no pixel; give one at least")
    is_first, is_last = image.shape[0] == len(bands), image.shape[2] == len(bands)
    if is_first and is_last:
        raise FiresegError(
            f"image: shape {image.shape} has {len(bands)} at both ends, and nothing tells which are the channels; "
            f"cut or pad a side, so that only one axis is as long as there are bands"
        )
    if not (is_first or is_last):
        raise FiresegError(
            f"image: shape {image.shape}, but the first or the last axis must be the {wanted}; "
            "give these, in this order"
        )
    return image.transpose(1, 2, 0) if is_first else image


_LARGEST_PX = 1000


class Thumbnail:
    """Every n-th pixel of every n-th row: what a picture can show, whatever the size of the scene.

    Picked, not averaged, so that shares stay true and no class appears that is not there.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        channels: The channels of the scene that a picture needs.
        largest_px: Longest side of what is kept.

    Attributes:
        step: The n.
        image: Reflectance, `(C, h, w)` float32; NaN where unknown.
        classes: `(h, w)` uint8, 255 where unknown.
    """

    def __init__(self, height: int, width: int, channels: Sequence[int], *, largest_px: int = _LARGEST_PX) -> None:
        self.step = max(1, -(-max(height, width) // largest_px))
        shape = -(-height // self.step), -(-width // self.step)
        self.channels = list(channels)
        self.image = np.full((len(self.channels), *shape), np.nan, np.float32)
        self.classes = np.full(shape, 255, np.uint8)

    def add_image(self, top: int, image: NDArray[np.uint16], unknown: NDArray[np.bool_]) -> None:
        """Takes from some rows of the scene.

        Args:
            top: The first of them.
            image: Reflectance x 10000, `(n, W, C)`.
            unknown: `(n, W)`.
        """
        first = -top % self.step
        picked = to_reflectance(image[first :: self.step, :: self.step, self.channels])
        picked[unknown[first :: self.step, :: self.step]] = np.nan
        start = (top + first) // self.step
        self.image[:, start : start + len(picked)] = picked.transpose(2, 0, 1)

    def add_classes(self, top: int, classes: NDArray[np.uint8]) -> None:
        """Takes from the same rows of the map."""
        first = -top % self.step
        picked = classes[first :: self.step, :: self.step]
        start = (top + first) // self.step
        self.classes[start : start + len(picked)] = picked
