"""PyTorch dataset of patches, and the sampler of training and validation batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fireseg.batch import UNDIVIDED, Sharding
from fireseg.data.augment import Augmentation
from fireseg.data.bands import BAND_NAMES, select_bands
from fireseg.data.patches import SplitReader
from fireseg.data.reader import open_split
from fireseg.data.scene_normalisation import SceneScaling
from fireseg.task import IGNORE_INDEX

_ORDER_STREAM, _SAMPLE_STREAM = 0, 1  # separate random streams for the order of an epoch and for its samples


class SampleIndex(NamedTuple):
    """Position of a patch in an epoch. With the seed, it determines the augmentation of the patch.

    Attributes:
        epoch: Epoch number, from 1.
        position: Position in the epoch, from 0; a patch sampled more than once has several.
        patch: Index of the patch in the dataset.
    """

    epoch: int
    position: int
    patch: int


class Sample(NamedTuple):
    """A patch as tensors.

    Attributes:
        image: Reflectance, `(C, H, W)` float32.
        mask: Classes, `(H, W)` uint8, 255 for unlabelled pixels; with land cover `(2, H, W)`, the land cover second.
        name: Name of the patch.
    """

    image: Tensor
    mask: Tensor
    name: str


class WildfirePatchDataset(Dataset[Sample]):
    """Patches of one split, packed or one .npy each.

    An integer index gives a patch as in epoch 0, a `SampleIndex` gives it as augmented for that epoch and
    position. The result depends only on the index and the seed, so that worker processes may share the
    work in any way.

    Args:
        split_dir: Folder of `{name}_image.npy` and `{name}_mask.npy`, or of packed arrays; or an open reader.
        bands: Bands to return, in this order.
        names: Patches to include; all by default.
        task_name: Masks to read if both are stored, `del` or `gra`; `del` by default.
        augment: Augmentation of the patches; none by default.
        crop: Side in pixels of the square that is cut from each patch at a random offset, before the augmentation;
            None for whole patches.
        landcover: Adds the land cover to the masks, and augments it alike.
        scalings: What makes the reflectance of each patch relative to its scene; None for reflectance as stored.
        fire_threshold: A patch is augmented as one with fire if more than this share of its labelled
            pixels is burned.
        ignore_index: Mask value of unlabelled pixels.
        seed: Seed of the augmentation.

    Raises:
        FiresegError: If the folder is missing or has no patch.

    Example:
        >>> image, mask, name = WildfirePatchDataset("patches/train")[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        split_dir: Path | str | SplitReader,
        *,
        bands: Sequence[str] = BAND_NAMES,
        names: Iterable[str] | None = None,
        task_name: str | None = None,
        augment: Augmentation | None = None,
        crop: int | None = None,
        landcover: bool = False,
        scalings: Sequence[SceneScaling] | None = None,
        fire_threshold: float = 0.01,
        ignore_index: int = IGNORE_INDEX,
        seed: int = 0,
    ) -> None:
        reader = open_split(Path(split_dir), task_name) if isinstance(split_dir, (str, Path)) else split_dir
        self.patches = reader if names is None else reader.select(names)
        self.bands = tuple(bands)
        self.augment = augment
        self.crop = crop
        self.landcover = landcover
        self.scalings = scalings
        self.fire_threshold = fire_threshold
        self.ignore_index = ignore_index
        self.seed = seed

    @property
    def names(self) -> tuple[str, ...]:
        """Patch names in the order of their indices."""
        return self.patches.names

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int | SampleIndex) -> Sample:
        if not isinstance(index, SampleIndex):
            index = SampleIndex(0, range(len(self))[index], range(len(self))[index])
        image, mask = self.patches.read(index.patch)
        if (channels := select_bands(image.shape[2], self.bands, self.patches.bands)) is not None:
            image = image[..., channels]
        if self.scalings is not None:
            image = self.scalings[index.patch].apply(image)
        if self.landcover:
            mask = np.stack([mask, self.patches.read_landcover(index.patch)], -1)
        rng = sample_rng(self.seed, index)
        if self.crop is not None:
            image, mask = _crop_randomly(image, mask, self.crop, rng)
        if self.augment is None:
            image, mask = np.ascontiguousarray(image.transpose(2, 0, 1)), np.ascontiguousarray(mask)
        else:
            is_fire = self._is_fire(mask[..., 0] if self.landcover else mask)
            image, mask = self.augment(image, mask, rng, is_fire=is_fire)
        if self.landcover:
            mask = np.ascontiguousarray(mask.transpose(2, 0, 1))
        return Sample(torch.from_numpy(image), torch.from_numpy(mask), self.names[index.patch])

    def _is_fire(self, mask: NDArray[np.uint8]) -> bool:
        num_labelled = np.count_nonzero(mask != self.ignore_index)
        num_unburned = np.count_nonzero(mask == 0)
        return bool(num_labelled - num_unburned > self.fire_threshold * num_labelled)


def _crop_randomly(
    image: NDArray[np.float32], mask: NDArray[np.uint8], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    top, left = (int(rng.integers(side - size + 1)) for side in mask.shape[:2])
    window = slice(top, top + size), slice(left, left + size)
    return image[window], mask[window]


class EpochBatchSampler(Sampler[list[SampleIndex]]):
    """Batch sampler whose order is a function of seed and epoch.

    Persistent workers learn the epoch from the indices that they receive.

    Args:
        num_patches: Number of patches.
        batch_size: Patches per batch.
        seed: Seed of the run.
        is_train: Shuffles each epoch, and merges a last batch of one into the one before; otherwise patches
            keep their order.
        weights: Sampling weight of each patch, for sampling with replacement.
        sharding: Part of this process: its shards of each training batch, or every n-th other batch.

    Attributes:
        sizes: Number of patches of each batch of this process.
        shard_sizes: Number of patches of each shard of the whole batch, by step; empty if it is not divided. The
            last step may have no batch for this process.
        epoch: Epoch that the next iteration samples.
    """

    def __init__(
        self,
        num_patches: int,
        batch_size: int,
        *,
        seed: int = 0,
        is_train: bool = False,
        weights: Sequence[float] | None = None,
        sharding: Sharding = UNDIVIDED,
    ) -> None:
        self.num_patches = num_patches
        sizes = compute_batch_sizes(num_patches, batch_size, merge_last=is_train)
        firsts = [0, *itertools.accumulate(sizes)][: len(sizes)]
        self.shard_sizes: list[tuple[int, ...]]
        if is_train and sharding.num_shards > 1:
            self.shard_sizes = [sharding.split(size, batch_size) for size in sizes]
            before = [sum(shards[: sharding.own.start]) for shards in self.shard_sizes]
            firsts = [first + skipped for first, skipped in zip(firsts, before, strict=True)]
            sizes = [sum(shards[number] for number in sharding.own) for shards in self.shard_sizes]
        else:
            turn = slice(sharding.rank, None, sharding.num_processes)
            self.shard_sizes = [()] * len(sizes[:: sharding.num_processes])
            firsts, sizes = firsts[turn], sizes[turn]
        self.sizes = [size for size in sizes if size]
        self._firsts = firsts[: len(self.sizes)]
        self.seed = seed
        self.is_train = is_train
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        if self.is_train:
            indices = sample_epoch(self.num_patches, seed=self.seed, epoch=self.epoch, weights=self.weights)
        else:
            indices = [SampleIndex(0, number, number) for number in range(self.num_patches)]
        for first, size in zip(self._firsts, self.sizes, strict=True):
            yield indices[first : first + size]


def compute_batch_sizes(num_patches: int, batch_size: int, *, merge_last: bool) -> list[int]:
    """Returns the number of patches of each batch.

    Args:
        num_patches: Number of patches.
        batch_size: Patches per batch; the last batch may be smaller.
        merge_last: Adds a last batch of one to the batch before it: batch normalisation cannot
            process a single patch whose features have shrunk to one pixel.

    Example:
        >>> compute_batch_sizes(9, 4, merge_last=True)
        [4, 5]
    """
    num_full, rest = divmod(num_patches, batch_size)
    sizes = [batch_size] * num_full + [rest] * (rest > 0)
    if merge_last and rest == 1 and num_full:
        sizes[-2:] = [batch_size + 1]
    return sizes


def sample_epoch(
    num_patches: int, *, seed: int, epoch: int, weights: Sequence[float] | None = None
) -> list[SampleIndex]:
    """Returns the samples of a training epoch in random order.

    Args:
        num_patches: Number of patches, and of samples.
        seed: Seed of the run.
        epoch: Epoch number.
        weights: One positive weight per patch, for sampling with replacement. None samples every
            patch once.
    """
    rng = _create_rng(seed, _ORDER_STREAM, epoch)
    if weights is None:
        order = rng.permutation(num_patches)
    else:
        weight = np.asarray(weights, np.float64)
        order = rng.choice(num_patches, size=num_patches, replace=True, p=weight / weight.sum())
    return [SampleIndex(epoch, position, patch) for position, patch in enumerate(order.tolist())]


def sample_rng(seed: int, index: SampleIndex) -> np.random.Generator:
    """Returns the random generator of one sample. It is stateless across samples and takes 20 µs to create."""
    return _create_rng(seed, _SAMPLE_STREAM, index.epoch, index.position)


def _create_rng(seed: int, *key: int) -> np.random.Generator:
    # Spawn keys of different lengths never collide, unlike plain entropy: numpy treats (3, 1) and (3, 1, 0) as equal.
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))
