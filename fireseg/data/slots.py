"""Memory that workers fill and the main process reads, again and again.

A loader of torch asks the system for new shared memory with every batch, and the page faults cost more
than the patches: 1.75 of 2.4 CPU ms a patch of 256 x 256 x 7, measured. Here a batch goes into one of a
few slots. Who holds a batch, or any view of one, holds its slot; when the last view is gone the slot is
free. All bookkeeping is in the main process: a slot is given out with the draws of a batch.
"""

from __future__ import annotations

import itertools
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fireseg.batch import Batch
from fireseg.data.dataset import Sample, WildfirePatchDataset
from fireseg.data.order import Draw, EpochBatches

_SHARED = Path("/dev/shm")
"""What shared memory is taken from on Linux: in a container often 64 MB."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked for.

    Args:
        draws: The draws of a batch.
        slot: Where to put it; None where no slot is free.
    """

    draws: Sequence[Draw]
    slot: int | None


@dataclass(frozen=True)
class Filled:
    """What a worker answers: the batch is in the slot.

    Args:
        owner: The number of the slots.
        slot: Which of them.
        names: Names of the patches in it.
    """

    owner: int
    slot: int
    names: tuple[str, ...]

    def open(self) -> Batch:
        """The batch, as views of the slot."""
        return _owners[self.owner].open(self)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, as a data loader asks for it."""
        return self.open().pin_memory()


class Slots:
    """Room for a few batches.

    Args:
        sample: One patch: all others are of its size.
        max_patches: The most patches in a batch.
        num_slots: How many batches may be under way or in use.

    Attributes:
        memory: One row a slot, images first.
    """

    def __init__(self, sample: Sample, max_patches: int, num_slots: int) -> None:
        self.image_shape, self.mask_shape = sample.image.shape, sample.mask.shape
        self.memory = torch.empty((num_slots, max_patches * patch_bytes(sample)), dtype=torch.uint8).share_memory_()
        self.owner = next(_numbers)
        self._free = list(range(num_slots))[::-1]
        self._given: set[int] = set()
        _owners[self.owner] = self

    def give(self) -> int | None:
        """A free slot, the one used last: the caches know it. None if all are in use."""
        if not self._free:
            return None
        self._given.add(slot := self._free.pop())
        return slot

    def recall(self) -> None:
        """Takes back what was given out and never came to be a batch, when no worker is at work."""
        while self._given:
            self._free.append(self._given.pop())

    def open(self, filled: Filled) -> Batch:
        """The batch in a slot, which is free when the last view of it is gone."""
        self._given.discard(filled.slot)
        row = self.memory[filled.slot].numpy()
        weakref.finalize(row, self._free.append, filled.slot).atexit = False
        return Batch(*self.views(torch.from_numpy(row), len(filled.names)), filled.names)

    def views(self, row: Tensor, num_patches: int) -> tuple[Tensor, Tensor]:
        """Images and masks of so many patches in one row of the memory."""
        image_shape, mask_shape = (num_patches, *self.image_shape), (num_patches, *self.mask_shape)
        end = 4 * image_shape[0] * self.image_shape.numel()
        images = row[:end].view(torch.float32).view(image_shape)
        return images, row[end : end + num_patches * self.mask_shape.numel()].view(mask_shape)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_free", "_given")}


_numbers = itertools.count()
_owners: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()


class SlotOrder(Sampler[Task]):
    """The order of the batches, each with a slot.

    Args:
        order: The batches.
        slots: The slots.
    """

    def __init__(self, order: EpochBatches, slots: Slots) -> None:
        self.order, self.slots = order, slots

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Task]:
        # A loader asks for the first batch when its workers have given up whatever they had in hand.
        self.slots.recall()
        for draws in self.order:
            yield Task(draws, self.slots.give())


class SlotDataset(Dataset[Filled]):
    """Makes whole batches, each in the slot that came with its draws.

    Args:
        dataset: The patches.
        slots: The slots.
    """

    def __init__(self, dataset: WildfirePatchDataset, slots: Slots) -> None:
        self.dataset, self.slots = dataset, slots

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, task: Task) -> Filled | list[Sample]:
        """The batch in its slot; as samples where it has none."""
        if task.slot is None:
            return [self.dataset[draw] for draw in task.draws]
        images, masks = self.slots.views(self.slots.memory[task.slot], len(task.draws))
        names = []
        for place, draw in enumerate(task.draws):
            image, mask, name = self.dataset[draw]
            images[place], masks[place] = image, mask
            names.append(name)
        return Filled(self.slots.owner, task.slot, tuple(names))


def patch_bytes(sample: Sample) -> int:
    """What one patch takes in a batch."""
    return sample.image.nbytes + sample.mask.nbytes


def free_shared_bytes() -> int | None:
    """How much shared memory is left, or None where there is no such limit."""
    return shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else None
