"""The batch of patches that data loaders yield, and its division into shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A batch of patches.

    Attributes:
        image: Surface reflectance, `(B, C, H, W)` float32, mostly 0 to 1.
        mask: Class of each pixel, `(B, H, W)` uint8; 255 for unlabelled pixels. In training with an auxiliary task
            `(B, 2, H, W)`, the classes of that task second.
        names: Patch names, B of them.
        shard_sizes: Number of patches of every shard of the whole batch, those of other processes included; empty
            for a batch that is not divided.
    """

    image: Tensor
    mask: Tensor
    names: tuple[str, ...]
    shard_sizes: tuple[int, ...] = ()

    @property
    def num_patches(self) -> int:
        """Number of patches of the whole batch, those of other processes included."""
        return sum(self.shard_sizes) or len(self.names)

    def to(self, device: torch.device) -> Batch:
        """Copies the batch to a device; from pinned memory to CUDA without blocking the host."""
        # For other devices the host must wait: a loader may reuse the same memory for its next batch.
        is_cuda = device.type == "cuda"
        image, mask = (tensor.to(device, non_blocking=is_cuda) for tensor in (self.image, self.mask))
        return self._replace(image=image, mask=mask)

    def pin_memory(self) -> Batch:
        """Copies the batch to page-locked memory; called by torch's DataLoader."""
        return self._replace(image=self.image.pin_memory(), mask=self.mask.pin_memory())


EMPTY_BATCH = Batch(torch.empty(0), torch.empty(0), ())
"""The batch of a process that has no patch in a step."""


@dataclass(frozen=True)
class Sharding:
    """Division of batches into shards, of which each process has a run of neighbours.

    Attributes:
        num_shards: Number of shards of a training batch, a power of two.
        rank: Number of this process, from 0.
        num_processes: Number of processes, a divisor of `num_shards`.
    """

    num_shards: int = 1
    rank: int = 0
    num_processes: int = 1

    @property
    def own(self) -> range:
        """Numbers of the shards of this process."""
        count = self.num_shards // self.num_processes
        return range(self.rank * count, (self.rank + 1) * count)

    def split(self, num_patches: int, batch_size: int) -> tuple[int, ...]:
        """Returns the number of patches of each shard of a training batch.

        A smaller batch fills the first shards; the last ones are empty. A last patch joins the shard before it,
        because batch normalisation cannot process a single patch whose features have shrunk to one pixel.

        Args:
            num_patches: Number of patches of the batch, at most `batch_size + 1`.
            batch_size: Number of patches of a full batch, a multiple of `num_shards`.

        Example:
            >>> Sharding(4).split(7, batch_size=12), Sharding(4).split(13, batch_size=12)
            ((3, 4, 0, 0), (3, 3, 3, 4))
        """
        size = batch_size // self.num_shards
        num_full, rest = divmod(num_patches, size)
        sizes = [size] * num_full + [rest] * (rest > 0)
        if num_full and (rest == 1 or len(sizes) > self.num_shards):
            last = sizes.pop()
            sizes[-1] += last
        return tuple(sizes + [0] * (self.num_shards - len(sizes)))


UNDIVIDED = Sharding()
"""A single process that computes whole batches."""
