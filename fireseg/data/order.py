"""Which patch is drawn when: a function of seed and epoch, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

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
