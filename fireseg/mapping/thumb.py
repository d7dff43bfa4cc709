"""A scene and its map made small while they stream by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fireseg.data.reflectance import to_reflectance

_LARGEST_PX = 1000


class Thumb:
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
