"""A data set as batches, shared out to worker processes."""

from __future__ import annotations

import atexit
import itertools
import shutil
import signal
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from fireseg.batch import Batch
from fireseg.data.dataset import Draw, EpochBatches, Sample, WildfirePatchDataset
from fireseg.errors import FiresegError

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


PREFETCH = 2
"""Batches that each worker makes ahead."""


class Batches:
    """The batches of one pass, with a length; each `for` is a pass from the start.

    Args:
        loader: What makes the batches; its workers stay from pass to pass.
        order: The order that the loader follows.
        epoch: Which epoch the passes are.
    """

    def __init__(self, loader: DataLoader[Any], order: EpochBatches, epoch: int) -> None:
        self._loader, self._order, self._epoch = loader, order, epoch

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        self._order.epoch = self._epoch
        try:
            with _signals_held():
                batches = iter(self._loader)
            for batch in batches:
                yield batch.open() if isinstance(batch, Filled) else batch
        except FiresegError as error:
            raise _of_worker(error) from None


def make_loader(
    dataset: WildfirePatchDataset, order: EpochBatches, *, num_workers: int, pin_memory: bool = False
) -> DataLoader[Any]:
    """A loader whose workers stay, and leave it to the main process to end on Ctrl-C or SIGTERM.

    Args:
        dataset: The patches.
        order: Which draws make up each batch.
        num_workers: Processes beside the main one; 0 for none.
        pin_memory: Whether batches are put into page-locked memory, for the way to a CUDA device.
    """
    if not num_workers:
        keep_freed_memory()
        return _make(dataset, order, 0, pin_memory)
    sample = dataset[0]  # what is imported and drawn here is shared by all workers that are forked
    max_patches, num_slots = max(order.sizes), count_slots(num_workers)
    free_bytes = free_shared_bytes()
    if free_bytes is None or free_bytes > num_slots * max_patches * patch_bytes(sample):
        slots = Slots(sample, max_patches, num_slots)
        loader = _make(SlotDataset(dataset, slots), SlotOrder(order, slots), num_workers, pin_memory)
    else:
        loader = _make(dataset, order, num_workers, pin_memory)
    _open_loaders.add(loader)
    return loader


def count_slots(num_workers: int) -> int:
    """Batches that workers have in hand, one that the training works on, and one that it is handed meanwhile."""
    return num_workers * PREFETCH + 2


def _make(dataset: Dataset[Any], order: Sampler[Any], num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        persistent_workers=num_workers > 0,
        prefetch_factor=PREFETCH if num_workers else None,
        # Without one of its own the loader draws from the global generator, which is the model's.
        generator=torch.Generator(),
    )


def collate(samples: Sequence[Sample] | Filled) -> Batch | Filled:
    """Puts patches side by side, in a worker straight into memory that the main process shares."""
    return samples if isinstance(samples, Filled) else stack(samples)


def stack(samples: Sequence[Sample]) -> Batch:
    """Patches side by side."""
    images, masks, names = zip(*samples, strict=True)
    return Batch(default_collate(list(images)), default_collate(list(masks)), names)


def start_worker(worker: int) -> None:
    """Sets up a worker process. Signals go to the whole group; only the main process decides what they mean."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keeps signals from workers in the moment before they can ignore them: what is held here is held in them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def keep_freed_memory() -> None:
    """Lets the C library keep the memory of a patch for the next one.

    glibc learns from the largest block freed so far (up to 32 MB) what to keep. Before that it gives
    each patch back to the system and asks for it again, and the page faults cost three times the work
    (measured: 2.9 against 0.7 ms a patch of 256 x 256 x 7). Elsewhere this does nothing.
    """
    np.empty(30 << 20, np.uint8)


def stop_workers(loader: DataLoader[Any]) -> None:
    """Ends the workers of a loader; a later pass starts new ones."""
    if (running := getattr(loader, "_iterator", None)) is not None:
        running._shutdown_workers()
        loader._iterator = None


_open_loaders: weakref.WeakSet[DataLoader[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all_workers() -> None:
    # At its exit Python sends SIGTERM to child processes and waits for them: they ignore it, so they must be gone.
    for loader in list(_open_loaders):
        stop_workers(loader)


def _of_worker(error: FiresegError) -> FiresegError:
    """The error itself, without the traceback that a loader folds into the message of a worker's."""
    text = str(error)
    if not text.startswith("Caught "):
        return error
    return FiresegError(text.rstrip().splitlines()[-1].partition("Error: ")[2])
