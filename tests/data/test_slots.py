"""Shared memory that is used again, and never while somebody looks at it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fireseg.data import WildfireDataModule, WildfirePatchDataset, get_strong_augmentation
from fireseg.data.dataset import EpochBatches
from fireseg.data.loader import Batches, Filled, SlotDataset, SlotOrder, Slots, collate

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
def slots(root: Path) -> Slots:
    return Slots(WildfirePatchDataset(root / "train")[0], 2, 3)


def images_alone(root: Path, epoch: int) -> list[torch.Tensor]:
    data = WildfireDataModule(root, 1, augment=get_strong_augmentation())
    return [batch.image for batch in data.train_dataloader(epoch)]


def test_batches_that_are_all_kept_stay_what_they_were_though_there_are_fewer_slots(data, root: Path) -> None:
    kept = [[batch.image for batch in data.train_dataloader(epoch)] for epoch in (1, 2)]
    for epoch, images in zip((1, 2), kept, strict=True):
        assert all(map(torch.equal, images, images_alone(root, epoch)))


def test_a_view_of_one_patch_holds_its_slot(data, root: Path) -> None:
    batches = iter(data.train_dataloader(1))
    mask = next(batches).mask[0, 3:]
    before = mask.clone()
    for epoch in (1, 2, 3):
        for _ in data.train_dataloader(epoch):
            assert torch.equal(mask, before)


def test_passes_that_are_left_lose_no_slot(data) -> None:
    for epoch in range(8):
        next(iter(data.train_dataloader(epoch)))
    loader, _ = data._loaders["train"]
    slots = loader.dataset.slots
    list(data.train_dataloader(9))
    gc.collect()
    slots.recall()
    assert sorted(slots._free) == list(range(4))


def test_a_batch_outlives_the_workers_and_the_loader(data, root: Path) -> None:
    batch = next(iter(data.train_dataloader(1)))
    data.close()
    gc.collect()
    assert torch.equal(batch.image, images_alone(root, 1)[0])


def test_where_no_slot_is_free_none_is_given(slots: Slots) -> None:
    assert sorted(slots.give() for _ in range(3)) == [0, 1, 2]  # pyright: ignore[reportArgumentType]
    assert slots.give() is None


def test_the_slot_used_last_is_the_next(slots: Slots) -> None:
    first, second = slots.give(), slots.give()
    assert first is not None
    batch = slots.open(Filled(slots.owner, first, ("a",)))
    assert slots.give() not in (first, second)
    del batch
    assert slots.give() == first


def test_what_is_recalled_is_what_nobody_opened(slots: Slots) -> None:
    held, lost = slots.give(), slots.give()
    assert held is not None
    batch = slots.open(Filled(slots.owner, held, ("a", "b")))
    slots.recall()
    assert slots.give() == lost
    assert held not in slots._free
    assert batch.image.shape == (2, 7, 16, 16)


def test_a_short_batch_is_contiguous_in_its_slot(root: Path, slots: Slots) -> None:
    dataset = WildfirePatchDataset(root / "train")
    order = SlotOrder(EpochBatches(3, 2), slots)
    batches = [SlotDataset(dataset, slots).__getitems__(task) for task in order]
    opened = [batch.open() for batch in batches if isinstance(batch, Filled)]
    assert [len(batch.names) for batch in opened] == [2, 1]
    assert all(batch.image.is_contiguous() and batch.mask.is_contiguous() for batch in opened)
    for place, batch in ((0, opened[0]), (2, opened[1])):
        assert torch.equal(batch.image[0], dataset[place].image)
        assert torch.equal(batch.mask[0], dataset[place].mask)


def test_spawned_workers_fill_the_same_memory(root: Path) -> None:
    dataset = WildfirePatchDataset(root / "train", augment=get_strong_augmentation())
    order = EpochBatches(NUM_PATCHES, 4)
    slots = Slots(dataset[0], 4, 4)
    loader = DataLoader(
        SlotDataset(dataset, slots),
        batch_sampler=SlotOrder(order, slots),  # pyright: ignore[reportArgumentType]
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context="spawn",
    )
    found = list(Batches(loader, order, 0))
    expected = [dataset[number] for number in range(NUM_PATCHES)]
    assert torch.equal(torch.cat([batch.image for batch in found]), torch.stack([one.image for one in expected]))
    assert torch.equal(torch.cat([batch.mask for batch in found]), torch.stack([one.mask for one in expected]))
