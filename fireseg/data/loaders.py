"""A data set as batches, shared out to worker processes."""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from fireseg.batch import Batch
from fireseg.data.dataset import Sample, WildfirePatchDataset
from fireseg.data.order import EpochBatches
from fireseg.data.slots import Filled, SlotDataset, SlotOrder, Slots, free_shared_bytes, patch_bytes
from fireseg.errors import FiresegError

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
