"""Shared-memory buffers: reused, and never while in use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fireseg.data import WildfireDataModule, WildfirePatchDataset, get_strong_augmentation
from fireseg.data.dataset import EpochBatchSampler
from fireseg.data.loader import (
    BatchBuffers,
    BufferedBatch,
    BufferedBatchSampler,
    BufferedDataset,
    EpochLoader,
    collate,
    count_buffers,
    make_loader,
    stop_workers,
)

NUM_PATCHES = 12


@pytest.fixture
def root(make_patches) -> Path:
    return make_patches(train=NUM_PATCHES, size=16)


@pytest.fixture
def data(root: Path) -> Iterator[WildfireDataModule]:
    data = WildfireDataModule(root, 1, num_workers=1, augment=get_strong_augmentation())
    yield data
    data.close()


@pytest.fixture
def buffers(root: Path) -> BatchBuffers:
    return BatchBuffers(WildfirePatchDataset(root / "train")[0], 2, 3)


def images_alone(root: Path, epoch: int) -> list[torch.Tensor]:
    data = WildfireDataModule(root, 1, augment=get_strong_augmentation())
    return [batch.image for batch in data.train_dataloader(epoch)]


def test_kept_batches_are_not_overwritten_if_there_are_more_than_buffers(data, root: Path) -> None:
    kept = [[batch.image for batch in data.train_dataloader(epoch)] for epoch in (1, 2)]
    for epoch, images in zip((1, 2), kept, strict=True):
        assert all(map(torch.equal, images, images_alone(root, epoch)))


def test_a_view_of_one_patch_keeps_its_buffer_in_use(data, root: Path) -> None:
    batches = iter(data.train_dataloader(1))
    mask = next(batches).mask[0, 3:]
    before = mask.clone()
    for epoch in (1, 2, 3):
        for _ in data.train_dataloader(epoch):
            assert torch.equal(mask, before)


def test_abandoned_epochs_lose_no_buffer(root: Path) -> None:
    dataset, sampler = WildfirePatchDataset(root / "train"), EpochBatchSampler(NUM_PATCHES, 1)
    loader = make_loader(dataset, sampler, num_workers=1)
    buffers = loader.dataset.buffers  # pyright: ignore[reportAttributeAccessIssue]
    for epoch in range(8):
        next(iter(EpochLoader(loader, sampler, epoch)))
    list(EpochLoader(loader, sampler, 9))
    stop_workers(loader)
    gc.collect()
    buffers.reclaim()
    assert sorted(buffers.acquire() for _ in range(count_buffers(1))) == list(range(count_buffers(1)))


def test_a_batch_outlives_the_workers_and_the_loader(data, root: Path) -> None:
    batch = next(iter(data.train_dataloader(1)))
    data.close()
    gc.collect()
    assert torch.equal(batch.image, images_alone(root, 1)[0])


def test_acquire_returns_none_if_no_buffer_is_free(buffers: BatchBuffers) -> None:
    assert sorted(buffers.acquire() for _ in range(3)) == [0, 1, 2]  # pyright: ignore[reportArgumentType]
    assert buffers.acquire() is None


def test_the_most_recently_used_buffer_is_acquired_first(buffers: BatchBuffers) -> None:
    first, second = buffers.acquire(), buffers.acquire()
    assert first is not None
    batch = buffers.open(BufferedBatch(buffers.number, first, ("a",)))
    assert buffers.acquire() not in (first, second)
    del batch
    assert buffers.acquire() == first


def test_reclaim_frees_only_buffers_that_were_not_opened(buffers: BatchBuffers) -> None:
    held, lost = buffers.acquire(), buffers.acquire()
    assert held is not None
    batch = buffers.open(BufferedBatch(buffers.number, held, ("a", "b")))
    buffers.reclaim()
    assert buffers.acquire() == lost
    assert held not in (buffers.acquire(), buffers.acquire())
    assert batch.image.shape == (2, 7, 16, 16)


def test_a_short_batch_is_contiguous_in_its_buffer(root: Path, buffers: BatchBuffers) -> None:
    dataset = WildfirePatchDataset(root / "train")
    sampler = BufferedBatchSampler(EpochBatchSampler(3, 2), buffers)
    batches = [BufferedDataset(dataset, buffers).__getitems__(request) for request in sampler]
    opened = [batch.open() for batch in batches if isinstance(batch, BufferedBatch)]
    assert [len(batch.names) for batch in opened] == [2, 1]
    assert all(batch.image.is_contiguous() and batch.mask.is_contiguous() for batch in opened)
    for index, batch in ((0, opened[0]), (2, opened[1])):
        assert torch.equal(batch.image[0], dataset[index].image)
        assert torch.equal(batch.mask[0], dataset[index].mask)


def test_spawned_workers_fill_the_same_memory(root: Path) -> None:
    dataset = WildfirePatchDataset(root / "train", augment=get_strong_augmentation())
    sampler = EpochBatchSampler(NUM_PATCHES, 4)
    buffers = BatchBuffers(dataset[0], 4, 4)
    loader = DataLoader(
        BufferedDataset(dataset, buffers),
        batch_sampler=BufferedBatchSampler(sampler, buffers),  # pyright: ignore[reportArgumentType]
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context="spawn",
    )
    loaded = list(EpochLoader(loader, sampler, 0))
    expected = [dataset[number] for number in range(NUM_PATCHES)]
    assert torch.equal(torch.cat([batch.image for batch in loaded]), torch.stack([one.image for one in expected]))
    assert torch.equal(torch.cat([batch.mask for batch in loaded]), torch.stack([one.mask for one in expected]))
