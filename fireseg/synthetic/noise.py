"""Smooth random fields: the texture of everything in nature that has no edges of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
"""`(H, W)` float64. Double precision all the way: what differs between processors stays far below the last rounding."""


class RandomFields:
    """Draws fields of one size from one stream of random numbers.

    Args:
        key: Seed of the stream, as `(seed, scene, part)`: a part that draws more leaves the others as they are.
        height: Rows of every field.
        width: Columns of every field.
    """

    def __init__(self, key: Sequence[int], height: int, width: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))
        self.height, self.width = height, width

    def __call__(self, length_px: float, slope: float = 3.2) -> Plane:
        """A Gaussian field of mean 0 and standard deviation 1.

        Its power is `(k² + 1/(2πL)²)^(-slope/2)`, k in cycles per pixel. It is cut out of a larger
        torus, so that its left edge knows nothing of its right one.

        Args:
            length_px: L, the distance over which it forgets itself.
            slope: 2 is as rough as noise, 4 as smooth as hills.
        """
        margin = int(2.5 * length_px) + 8
        rows, cols = (_fast_size(size + margin) for size in (self.height, self.width))
        squared = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(cols)[None, :] ** 2
        amplitude = (squared + (1 / (2 * np.pi * length_px)) ** 2) ** (-slope / 4)
        # Divided by the spread that the spectrum has, not by that of the piece: a small scene may lie
        # wholly on one side of a large hill.
        both_halves = np.full(amplitude.shape[1], 2.0)
        both_halves[0] = 1.0
        if cols % 2 == 0:
            both_halves[-1] = 1.0
        spread = np.sqrt((amplitude**2 * both_halves).sum() / (rows * cols))
        spectrum = np.fft.rfft2(self.rng.standard_normal((rows, cols))) * (amplitude / spread)
        return np.fft.irfft2(spectrum, (rows, cols))[: self.height, : self.width]

    def noise(self) -> Plane:
        """White noise of standard deviation 1."""
        return self.rng.standard_normal((self.height, self.width))

    def uniform(self, low: float, high: float) -> float:
        """One number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Whether this scene has it."""
        return bool(self.rng.random() < probability)


def _fast_size(least: int) -> int:
    """The next size whose only prime factors are 2, 3 and 5: ten times quicker to transform than a prime."""
    size = least
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def blur(plane: Plane, sigma_px: float) -> Plane:
    """Gaussian blur, the edge pixels repeated outwards."""
    reach = max(int(3 * sigma_px + 0.5), 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(plane, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        count = plane.shape[axis]
        plane = np.zeros_like(plane)
        for shift, weight in enumerate(weights):
            plane += weight * (padded[shift : shift + count] if axis == 0 else padded[:, shift : shift + count])
    return plane


def ramp(plane: Plane, low: float, high: float) -> Plane:
    """0 below `low`, 1 above `high`, smooth between."""
    part = np.clip((plane - low) / (high - low), 0.0, 1.0)
    return part * part * (3 - 2 * part)


def coarsen(plane: Plane, factor: int) -> Plane:
    """Means of blocks of `factor` x `factor` pixels: what a coarser detector measures."""
    height, width = plane.shape
    padded = np.pad(plane, [(0, -height % factor), (0, -width % factor)], mode="edge")
    parts = [padded[row::factor, col::factor] for row in range(factor) for col in range(factor)]
    return sum(parts[1:], parts[0]) / factor**2


def refine(plane: Plane, factor: int, height: int, width: int) -> Plane:
    """Back to `height` x `width` pixels, smooth across the borders of the blocks."""
    return blur(plane.repeat(factor, 0).repeat(factor, 1)[:height, :width], 0.3 * factor)
