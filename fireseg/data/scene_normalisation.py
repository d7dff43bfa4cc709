"""Scene-relative reflectance: each band shifted and scaled so that median and spread of every scene are the same.

A relative radiometric normalisation by robust statistics, which takes out what differs between dates, sites and
processing: the sun, haze, the season, the soil. What it cannot tell from these is a scene that has burned for the most
part.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.console import progress_bar
from fireseg.data.bands import select_bands
from fireseg.data.joined import JoinedReader
from fireseg.data.patches import SplitReader
from fireseg.data.positions import LocatedPatch, are_pixel_offsets, locate_patches
from fireseg.errors import FiresegError
from fireseg.pairs import PRE_SUFFIX

Normalisation = Literal["dataset", "scene"]

_REFERENCE: dict[str, tuple[float, float]] = {
    "B01": (0.04, 0.03),
    "B02": (0.06, 0.03),
    "B03": (0.08, 0.04),
    "B04": (0.09, 0.06),
    "B05": (0.13, 0.06),
    "B06": (0.20, 0.07),
    "B07": (0.23, 0.08),
    "B08": (0.25, 0.09),
    "B8A": (0.26, 0.09),
    "B09": (0.26, 0.09),
    "B10": (0.01, 0.01),
    "B11": (0.24, 0.10),
    "B12": (0.16, 0.10),
}
"""Median and interquartile range of the reflectance that every scene gets: round values of mixed, vegetated land.
Any would do for the network, but these keep what leaves the range of 0 to 1 rare, and indices near their usual values.
"""

_IQR_OF_STD = 1.349
"""Interquartile range of a normal distribution with the standard deviation 1."""

_MAX_GAIN = 5.0
"""Limit of the scaling: a scene of nothing but water would be stretched to noise."""

_MIN_PIXELS = 64

_SAMPLE_PX = 1_000_000


class SceneScaling(NamedTuple):
    """The linear change of each band that makes the reflectance of a scene relative to it.

    Attributes:
        gains: Factors, `(C,)` float32.
        offsets: Reflectance that is added afterwards, `(C,)` float32.
    """

    gains: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scene-relative reflectance, `(..., C)` in 0 to 1, of an image of the scene."""
        relative = image * self.gains
        relative += self.offsets
        return np.clip(relative, 0.0, 1.0, out=relative)


def get_reference(bands: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation of each band that normalise scene-relative reflectance."""
    medians, iqrs = zip(*(_REFERENCE[band.removesuffix(PRE_SUFFIX)] for band in bands), strict=True)
    return medians, tuple(iqr / _IQR_OF_STD for iqr in iqrs)


def compute_scaling(pixels: NDArray[np.float32], bands: Sequence[str]) -> SceneScaling:
    """Computes the scaling of a scene from its known pixels: to the reference by median and interquartile range.

    Args:
        pixels: Reflectance, `(N, C)`. Of fewer than 64 pixels nothing is known, and nothing is changed.
        bands: Band of each channel.
    """
    if len(pixels) < _MIN_PIXELS:
        return SceneScaling(np.ones(len(bands), np.float32), np.zeros(len(bands), np.float32))
    low, median, high = np.percentile(pixels.astype(np.float64), (25, 50, 75), axis=0)
    reference = np.array([_REFERENCE[band.removesuffix(PRE_SUFFIX)] for band in bands])
    gains = np.clip(reference[:, 1] / np.maximum(high - low, 1e-6), 1 / _MAX_GAIN, _MAX_GAIN)
    return SceneScaling(gains.astype(np.float32), (reference[:, 0] - gains * median).astype(np.float32))


def get_sampling_step(height: int, width: int) -> int:
    """Returns the distance between sampled rows, and columns, of a scene: at most some million pixels are sampled."""
    return max(1, math.isqrt(height * width // _SAMPLE_PX))


def find_known(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Finds the pixels of `(..., C)` reflectance that are not 0 in all bands, which stands for unknown ones."""
    return (image != 0).any(axis=-1)


def compute_split_scalings(reader: SplitReader, bands: Sequence[str]) -> list[SceneScaling]:
    """Computes the scaling of the tile of every patch, each pixel of a tile counted once where patches overlap.

    All patches are read once.

    Args:
        reader: Reader of the split.
        bands: Bands of the model.

    Returns:
        One scaling per patch, in the order of the split; those of a tile are the same.

    Raises:
        FiresegError: If neither metadata.csv nor the name of a patch tells its tile and its place in it.
    """
    folders = reader.folders if isinstance(reader, JoinedReader) else (reader.folder,)
    tiles: dict[str, list[LocatedPatch]] = defaultdict(list)
    for name, located in zip(reader.names, locate_patches(reader.names, *folders), strict=True):
        if located is None:
            raise FiresegError(
                f"data.normalisation: scene, but nothing tells the tile of the patch {name} in {reader.folder}; name "
                "patches {tile}_r{row}_c{col}, give metadata.csv with source_image, row and col, or use "
                "data.normalisation=dataset"
            )
        tiles[located.tile].append(located)
    scalings: dict[int, SceneScaling] = {}
    for located in progress_bar(list(tiles.values()), f"measuring {reader.folder}", unit="tile"):
        scaling = compute_scaling(_sample_tile(reader, located, bands), bands)
        scalings |= {patch.number: scaling for patch in located}
    return [scalings[number] for number in range(len(reader))]


def _sample_tile(reader: SplitReader, patches: Sequence[LocatedPatch], bands: Sequence[str]) -> NDArray[np.float32]:
    """Samples the known pixels of a tile, `(N, C)`, those that prediction samples of the stitched tile."""
    # One at a time: those of a whole product take many gigabytes.
    images = (_read_image(reader, patch.number, bands) for patch in patches)
    size = reader.read_mask(patches[0].number).shape[0]
    if not are_pixel_offsets(patches, size):
        return np.concatenate([image[find_known(image)] for image in images])
    top, left = min(patch.row for patch in patches), min(patch.col for patch in patches)
    height, width = max(patch.row for patch in patches) - top + size, max(patch.col for patch in patches) - left + size
    step = get_sampling_step(height, width)
    canvas = np.zeros((-(-height // step), -(-width // step), len(bands)), np.float32)
    for patch, image in zip(patches, images, strict=True):
        row, col = patch.row - top, patch.col - left
        part = image[-row % step :: step, -col % step :: step]
        # The pixels of overlapping patches are the same.
        canvas[-(-row // step) :, -(-col // step) :][: part.shape[0], : part.shape[1]] = part
    return canvas[find_known(canvas)]


def _read_image(reader: SplitReader, number: int, bands: Sequence[str]) -> NDArray[np.float32]:
    image = reader.read(number)[0]
    channels = select_bands(image.shape[2], bands, reader.bands)
    return image if channels is None else image[..., channels]
