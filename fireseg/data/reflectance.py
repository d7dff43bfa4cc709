"""What a stored number means as reflectance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALE = 10000
"""Packed patches hold reflectance times this, rounded: as fine as the product itself."""


def to_reflectance(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Reflectance of stored numbers, by the one division that all who read or write patches share.

    A multiplication by 1e-4 would differ in the last bit, and with it everything that is trained.

    Args:
        stored: Reflectance times 10000, of any shape and strides. Left as it is.

    Returns:
        New and contiguous.

    Example:
        >>> to_reflectance(np.array([0, 2500, 10000], np.uint16)).tolist()
        [0.0, 0.25, 1.0]
    """
    image = stored.astype(np.float32, order="C")
    image /= np.float32(SCALE)
    return image
