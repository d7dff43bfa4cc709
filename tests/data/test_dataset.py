"""Patches as tensors, and the order in which they are sampled."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireseg.batch import Sharding
from fireseg.data import WildfirePatchDataset, get_strong_augmentation
from fireseg.data.dataset import EpochBatchSampler, SampleIndex, compute_batch_sizes, sample_epoch, sample_rng
from fireseg.errors import FiresegError


@pytest.fixture
def folder(make_patches) -> Path:
    return make_patches(train=4, channels=12) / "train"


def test_a_sample_is_a_channels_first_float32_image_and_a_uint8_mask(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder)
    image, mask, name = dataset[1]
    assert (image.dtype, image.shape) == (torch.float32, (7, 32, 32))
    assert (mask.dtype, mask.shape) == (torch.uint8, (32, 32))
    assert image.is_contiguous()
    assert name == dataset.names[1]


def test_bands_are_selected_by_name_in_the_requested_order(folder: Path) -> None:
    image, _, name = WildfirePatchDataset(folder, bands=("B12", "B02"))[0]
    stored = np.load(folder / f"{name}_image.npy")
    np.testing.assert_array_equal(image.numpy(), stored.transpose(2, 0, 1)[[11, 1]])


def test_without_augmentation_every_index_gives_the_patch_as_stored(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder)
    torch.testing.assert_close(dataset[SampleIndex(5, 0, 2)].image, dataset[2].image, rtol=0, atol=0)


def test_a_sample_depends_only_on_its_index(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder, augment=get_strong_augmentation(light=1.0))
    first = dataset[SampleIndex(1, 3, 2)]
    other = dataset[SampleIndex(2, 3, 2)]
    assert torch.equal(dataset[SampleIndex(1, 3, 2)].image, first.image)
    assert not torch.equal(other.image, first.image)
    assert not torch.equal(dataset[SampleIndex(1, 4, 2)].image, first.image)


def test_crops_are_parts_of_the_patch_at_offsets_drawn_from_seed_epoch_and_position(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:48, :40]
    np.save(tmp_path / "a_image.npy", np.repeat((rows * 40 + cols)[..., None], 7, axis=2).astype(np.float32))
    np.save(tmp_path / "a_mask.npy", ((rows + cols) % 2).astype(np.uint8))
    dataset = WildfirePatchDataset(tmp_path, crop=32)
    offsets = set()
    for epoch, position in itertools.product(range(1, 20), range(20)):
        image, mask, _ = dataset[SampleIndex(epoch, position, 0)]
        top, left = divmod(int(image[0, 0, 0]), 40)
        offsets.add((top, left))
        np.testing.assert_array_equal(image[3].numpy(), (rows * 40 + cols)[top : top + 32, left : left + 32])
        np.testing.assert_array_equal(mask.numpy(), ((rows + cols) % 2)[top : top + 32, left : left + 32])
        assert image.is_contiguous()
        assert torch.equal(image, WildfirePatchDataset(tmp_path, crop=32)[SampleIndex(epoch, position, 0)].image)
    assert {top for top, _ in offsets} == set(range(17))
    assert {left for _, left in offsets} == set(range(9))


def test_the_seed_changes_the_augmentation(folder: Path) -> None:
    one, two = (WildfirePatchDataset(folder, augment=get_strong_augmentation(light=1.0), seed=seed) for seed in (1, 2))
    assert not torch.equal(one[0].image, two[0].image)


@pytest.mark.parametrize(
    ("burned", "unknown", "is_fire"), [(10, 0, False), (11, 0, True), (0, 0, False), (0, 1024, False), (6, 500, True)]
)
def test_fire_means_a_burned_share_of_labelled_pixels_above_the_threshold(
    tmp_path: Path, burned: int, unknown: int, is_fire: bool
) -> None:
    calls = []

    def augment(image, mask, rng, *, is_fire):
        calls.append(is_fire)
        return image.transpose(2, 0, 1).copy(), mask

    mask = np.zeros(1024, np.uint8)
    mask[:burned] = 3
    mask[1024 - unknown :] = 255
    np.save(tmp_path / "a_image.npy", np.zeros((32, 32, 7), np.float32))
    np.save(tmp_path / "a_mask.npy", mask.reshape(32, 32))
    WildfirePatchDataset(tmp_path, augment=augment, fire_threshold=0.01)[0]
    assert calls == [is_fire]


def test_names_selects_patches(folder: Path) -> None:
    names = WildfirePatchDataset(folder).names[2:]
    dataset = WildfirePatchDataset(folder, names=names)
    assert len(dataset) == 2
    assert dataset[0].name == names[0]


def test_negative_indices_count_from_the_end_and_large_ones_raise_index_error(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder)
    assert dataset[-1].name == dataset.names[3]
    with pytest.raises(IndexError):
        dataset[4]


def test_a_folder_without_patches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match="no patch in it"):
        WildfirePatchDataset(tmp_path)
    with pytest.raises(FiresegError, match="no such folder"):
        WildfirePatchDataset(tmp_path / "none")


def test_a_dataset_can_be_pickled(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder, augment=get_strong_augmentation())
    restored = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(restored[0].image, dataset[0].image)


@given(st.integers(1, 200), st.integers(1, 40), st.booleans())
def test_batch_sizes_add_up_and_only_the_last_may_differ(num: int, size: int, merge_last: bool) -> None:
    sizes = compute_batch_sizes(num, size, merge_last=merge_last)
    assert sum(sizes) == num
    assert all(one == size for one in sizes[:-1])
    assert sizes[-1] <= size + 1


@pytest.mark.parametrize(
    ("num", "size", "expected"), [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_last_training_batch_of_one_is_merged(num: int, size: int, expected: list[int]) -> None:
    assert compute_batch_sizes(num, size, merge_last=True) == expected


def test_a_last_validation_batch_of_one_is_kept() -> None:
    assert compute_batch_sizes(9, 4, merge_last=False) == [4, 4, 1]


@given(st.integers(1, 100), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_samples_every_patch_once(num: int, seed: int, epoch: int) -> None:
    samples = sample_epoch(num, seed=seed, epoch=epoch)
    assert sorted(sample.patch for sample in samples) == list(range(num))
    assert [sample.position for sample in samples] == list(range(num))
    assert {sample.epoch for sample in samples} == {epoch}


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [sample.patch for sample in sample_epoch(50, seed=seed, epoch=epoch)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_weighted_samples_are_in_proportion_and_the_epoch_keeps_its_length() -> None:
    weights = [5.0] * 100 + [1.0] * 900
    samples = [
        sample.patch for epoch in range(20) for sample in sample_epoch(1000, seed=0, epoch=epoch, weights=weights)
    ]
    assert len(samples) == 20_000
    fraction = np.mean(np.asarray(samples) < 100)
    assert fraction == pytest.approx(500 / 1400, abs=4 * (0.357 * 0.643 / 20_000) ** 0.5)
    assert len(set(samples[:1000])) < 1000


def test_random_numbers_depend_on_seed_epoch_and_position_but_not_on_the_patch() -> None:
    def number(seed: int, *index: int) -> float:
        return sample_rng(seed, SampleIndex(*index)).random()

    assert number(0, 1, 2, 3) == number(0, 1, 2, 9)
    others = {number(0, 1, 2, 3), number(1, 1, 2, 3), number(0, 2, 2, 3), number(0, 1, 3, 3), number(0, 2, 1, 3)}
    assert len(others) == 5


def test_order_and_samples_have_separate_random_streams() -> None:
    order = np.random.Generator(np.random.SFC64(np.random.SeedSequence(0, spawn_key=(0, 1)))).random()
    assert order not in {
        sample_rng(0, SampleIndex(epoch, position, 0)).random() for epoch in (0, 1) for position in (0, 1)
    }


def test_validation_batches_keep_the_order_of_the_patches() -> None:
    sampler = EpochBatchSampler(5, 2, seed=3)
    sampler.epoch = 7
    assert [[sample.patch for sample in batch] for batch in sampler] == [[0, 1], [2, 3], [4]]
    assert list(sampler) == list(sampler)
    assert len(sampler) == 3


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_the_shards_of_all_processes_are_the_training_batches(num_processes: int) -> None:
    whole = EpochBatchSampler(21, 8, seed=3, is_train=True)
    shards = [Sharding(4, rank, num_processes) for rank in range(num_processes)]
    parts = [EpochBatchSampler(21, 8, seed=3, is_train=True, sharding=sharding) for sharding in shards]

    assert {tuple(part.shard_sizes) for part in parts} == {((2, 2, 2, 2), (2, 2, 2, 2), (2, 3, 0, 0))}
    steps = itertools.zip_longest(*parts, fillvalue=[])
    assert [[sample for part in step for sample in part] for step in steps] == list(whole)


def test_validation_batches_are_dealt_to_processes_in_turn() -> None:
    first, second = (EpochBatchSampler(5, 2, sharding=Sharding(2, rank, 2)) for rank in (0, 1))

    assert [[sample.patch for sample in batch] for batch in first] == [[0, 1], [4]]
    assert [[sample.patch for sample in batch] for batch in second] == [[2, 3]]
    assert len(first.shard_sizes) == len(second.shard_sizes) == 2


def test_training_batches_follow_the_epoch_attribute() -> None:
    sampler = EpochBatchSampler(9, 4, seed=3, is_train=True)
    sampler.epoch = 2
    assert [sample for batch in sampler for sample in batch] == sample_epoch(9, seed=3, epoch=2)
    assert [len(batch) for batch in sampler] == [4, 5]


def test_a_land_cover_is_augmented_like_the_mask(make_packed, tmp_path: Path) -> None:
    root = make_packed()
    masks = np.load(root / "train/masks_del.npy")
    np.save(root / "train/masks_landcover.npy", np.where(masks == 255, 255, masks + 3))
    augment = get_strong_augmentation(elastic=1.0)
    dataset = pickle.loads(pickle.dumps(WildfirePatchDataset(root / "train", augment=augment, landcover=True)))
    without = WildfirePatchDataset(root / "train", augment=augment)
    for index in (SampleIndex(1, 0, 2), SampleIndex(1, 1, 3)):
        image, both, _ = dataset[index]
        assert both.is_contiguous()
        assert torch.equal(both[0], without[index].mask)
        assert torch.equal(image, without[index].image)
        assert torch.equal(both[1], torch.where(both[0] == 255, 255, both[0] + 3))


def test_patches_without_a_land_cover_are_an_error(folder: Path, make_packed) -> None:
    for split in (folder, make_packed() / "train"):
        with pytest.raises(
            FiresegError,
            match=r"task.auxiliary: landcover, but .*train has none; prepare .*--landcover",
        ):
            WildfirePatchDataset(split, landcover=True)[0]
