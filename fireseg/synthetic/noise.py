"""Gaussian random fields and the filters that turn them into textures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
"""`(H, W)` float64. In double precision, differences between processors stay far below the final rounding to 0.0001."""


class NoiseGenerator:
    """Draws Gaussian random fields of one size and single numbers from one random stream.

    Args:
        key: Seed of the stream, as `(seed, scene, part)`. Each part of a scene has its own stream, so that more
            draws in one part do not change the others.
        height: Height of every field in pixels.
        width: Width of every field in pixels.
    """

    def __init__(self, key: Sequence[int], height: int, width: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))
        self.height, self.width = height, width

    def field(self, length_px: float, slope: float = 3.2) -> Plane:
        """Draws a Gaussian random field of mean 0 and standard deviation 1.

        The power spectrum is `(k² + 1/(2πL)²)^(-slope/2)`, k in cycles per pixel. The field is cropped from a
        larger periodic one, so that opposite edges are uncorrelated.

        Args:
            length_px: L, correlation length in pixels.
            slope: Spectral slope; 2 is rough like noise, 4 smooth like hills.
        """
        margin = int(2.5 * length_px) + 8
        rows, cols = (_fast_size(size + margin) for size in (self.height, self.width))
        squared = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(cols)[None, :] ** 2
        amplitude = (squared + (1 / (2 * np.pi * length_px)) ** 2) ** (-slope / 4)
        # Normalised by the standard deviation of the spectrum, not of the crop: a small scene may lie entirely
        # on one side of a large hill.
        both_halves = np.full(amplitude.shape[1], 2.0)
        both_halves[0] = 1.0
        if cols % 2 == 0:
            both_halves[-1] = 1.0
        spread = np.sqrt((amplitude**2 * both_halves).sum() / (rows * cols))
        spectrum = np.fft.rfft2(self.rng.standard_normal((rows, cols))) * (amplitude / spread)
        return np.fft.irfft2(spectrum, (rows, cols))[: self.height, : self.width]

    def white(self) -> Plane:
        """Draws white noise of standard deviation 1."""
        return self.rng.standard_normal((self.height, self.width))

    def uniform(self, low: float, high: float) -> float:
        """Draws a uniform random number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return bool(self.rng.random() < probability)


def _fast_size(least: int) -> int:
    """Returns the next size with prime factors 2, 3 and 5 only, ten times faster to transform than a prime."""
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
    """Applies a Gaussian blur with edge pixels repeated outwards."""
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
    """Smoothstep: 0 below `low`, 1 above `high`, a cubic between."""
    part = np.clip((plane - low) / (high - low), 0.0, 1.0)
    return part * part * (3 - 2 * part)


def coarsen(plane: Plane, factor: int) -> Plane:
    """Averages blocks of `factor` x `factor` pixels, like a detector with larger pixels."""
    height, width = plane.shape
    padded = np.pad(plane, [(0, -height % factor), (0, -width % factor)], mode="edge")
    parts = [padded[row::factor, col::factor] for row in range(factor) for col in range(factor)]
    return sum(parts[1:], parts[0]) / factor**2


def refine(plane: Plane, factor: int, height: int, width: int) -> Plane:
    """Upsamples blocks to `height` x `width` pixels, smoothed across their borders."""
    return blur(plane.repeat(factor, 0).repeat(factor, 1)[:height, :width], 0.3 * factor)
