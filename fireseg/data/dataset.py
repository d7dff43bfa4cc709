"""Patches on disk as tensors, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fireseg.data.augment import Augmentation
from fireseg.data.bands import BAND_NAMES, select_bands
from fireseg.data.patches import PatchSource
from fireseg.data.reader import open_source
from fireseg.task import IGNORE_INDEX

_ORDER, _SAMPLE = 0, 1  # keep the streams of an epoch's order and of its samples apart


class Draw(NamedTuple):
    """A patch at its place in an epoch: all that its augmentation may depend on, beside the seed.

    Attributes:
        epoch: Which epoch, from 1 on.
        position: Which place in the epoch, from 0 on. With replacement one patch has several.
        patch: The number of the patch.
    """

    epoch: int
    position: int
    patch: int


def sample_rng(seed: int, draw: Draw) -> np.random.Generator:
    """The random numbers of one sample: 20 µs, and no state that anyone would have to carry on."""
    return _rng(seed, _SAMPLE, draw.epoch, draw.position)


def draw_order(num_patches: int, *, seed: int, epoch: int, weights: Sequence[float] | None = None) -> list[Draw]:
    """The draws of a training epoch.

    Args:
        num_patches: How many patches there are, and how many are drawn.
        seed: The seed of the run.
        epoch: Which epoch.
        weights: One positive weight a patch: drawn with replacement in this proportion. Without, every
            patch is drawn once.
    """
    rng = _rng(seed, _ORDER, epoch)
    if weights is None:
        order = rng.permutation(num_patches)
    else:
        share = np.asarray(weights, np.float64)
        order = rng.choice(num_patches, size=num_patches, replace=True, p=share / share.sum())
    return [Draw(epoch, position, patch) for position, patch in enumerate(order.tolist())]


def batch_sizes(num_patches: int, batch_size: int, *, merge_last: bool) -> list[int]:
    """How many patches go into each batch.

    Args:
        num_patches: How many there are.
        batch_size: How many go into each batch but the last.
        merge_last: Whether a last batch of one is put to the one before: batch normalisation can't
            take a single patch whose features have shrunk to one pixel.

    Example:
        >>> batch_sizes(9, 4, merge_last=True)
        [4, 5]
    """
    full, rest = divmod(num_patches, batch_size)
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if merge_last and rest == 1 and full:
        sizes[-2:] = [batch_size + 1]
    return sizes


class EpochBatches(Sampler[list[Draw]]):
    """Batches of draws, as a data loader asks for them. Workers that stay learn of the epoch through the draws.

    Args:
        num_patches: How many patches there are.
        batch_size: How many go into a batch.
        seed: The seed of the run.
        is_train: Whether the order changes with each epoch; else it is that of the patches.
        weights: One weight a patch, for drawing with replacement.

    Attributes:
        epoch: The epoch that the next pass draws.
    """

    def __init__(
        self,
        num_patches: int,
        batch_size: int,
        *,
        seed: int = 0,
        is_train: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.num_patches = num_patches
        self.sizes = batch_sizes(num_patches, batch_size, merge_last=is_train)
        self.seed = seed
        self.is_train = is_train
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[Draw]]:
        if self.is_train:
            draws = draw_order(self.num_patches, seed=self.seed, epoch=self.epoch, weights=self.weights)
        else:
            draws = [Draw(0, index, index) for index in range(self.num_patches)]
        first = 0
        for size in self.sizes:
            yield draws[first : first + size]
            first += size


def _rng(seed: int, *key: int) -> np.random.Generator:
    # Spawn keys of different lengths never meet, as plain entropy would: (3, 1) and (3, 1, 0) are one seed to numpy.
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))


class Sample(NamedTuple):
    """One patch.

    Attributes:
        image: Reflectance, `(C, H, W)` float32.
        mask: Classes, `(H, W)` uint8, 255 where nobody labelled.
        name: The name of the patch.
    """

    image: Tensor
    mask: Tensor
    name: str


class WildfirePatchDataset(Dataset[Sample]):
    """The patches of one split, packed or one .npy each.

    Asked for a number it gives the patch as in epoch 0; asked for a `Draw` it gives what that draw
    stands for. Either way the answer depends on the question and the seed alone, never on what was
    asked before: worker processes may share the work in any way.

    Args:
        split_dir: Folder of `{name}_image.npy` and `{name}_mask.npy`, or of packed arrays; or its patches,
            opened before.
        bands: Bands to give, in this order.
        names: Which patches take part; all that there are by default.
        task_name: `del` or `gra`: which masks to read where both are stored; `del` by default.
        augment: What happens to a patch; nothing by default.
        fire_threshold: A patch whose burned share of the labelled pixels is above is augmented as one with fire.
        ignore_index: Mask value of unlabelled pixels.
        seed: Another seed, other augmentations.

    Raises:
        FiresegError: If the folder is missing or has no patch.

    Example:
        >>> image, mask, name = WildfirePatchDataset("patches/train")[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        split_dir: Path | str | PatchSource,
        *,
        bands: Sequence[str] = BAND_NAMES,
        names: Iterable[str] | None = None,
        task_name: str | None = None,
        augment: Augmentation | None = None,
        fire_threshold: float = 0.01,
        ignore_index: int = IGNORE_INDEX,
        seed: int = 0,
    ) -> None:
        source = open_source(Path(split_dir), task_name) if isinstance(split_dir, (str, Path)) else split_dir
        self.patches = source if names is None else source.take(names)
        self.bands = tuple(bands)
        self.augment = augment
        self.fire_threshold = fire_threshold
        self.ignore_index = ignore_index
        self.seed = seed

    @property
    def names(self) -> tuple[str, ...]:
        """Patch names, in the order of their numbers."""
        return self.patches.names

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, which: int | Draw) -> Sample:
        """The patch with this number, or for this draw."""
        draw = which if isinstance(which, Draw) else Draw(0, range(len(self))[which], range(len(self))[which])
        image, mask = self.patches.read(draw.patch)
        if (channels := select_bands(image.shape[2], self.bands, self.patches.bands)) is not None:
            image = image[..., channels]
        if self.augment is None:
            image, mask = np.ascontiguousarray(image.transpose(2, 0, 1)), np.ascontiguousarray(mask)
        else:
            rng = sample_rng(self.seed, draw)
            image, mask = self.augment(image, mask, rng, is_fire=self._is_fire(mask))
        return Sample(torch.from_numpy(image), torch.from_numpy(mask), self.names[draw.patch])

    def _is_fire(self, mask: NDArray[np.uint8]) -> bool:
        num_labelled = np.count_nonzero(mask != self.ignore_index)
        num_unburned = np.count_nonzero(mask == 0)
        return bool(num_labelled - num_unburned > self.fire_threshold * num_labelled)
