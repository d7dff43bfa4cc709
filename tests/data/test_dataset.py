"""Patches on disk as tensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.data import WildfirePatchDataset, get_strong_augmentation
from fireseg.data.dataset import Draw
from fireseg.errors import FiresegError


@pytest.fixture
def folder(make_patches) -> Path:
    return make_patches(train=4, channels=12) / "train"


def test_a_sample_is_bands_first_float32_with_a_mask_of_bytes(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder)
    image, mask, name = dataset[1]
    assert (image.dtype, image.shape) == (torch.float32, (7, 32, 32))
    assert (mask.dtype, mask.shape) == (torch.uint8, (32, 32))
    assert image.is_contiguous()
    assert name == dataset.names[1]


def test_bands_come_by_name_in_the_order_asked_for(folder: Path) -> None:
    image, _, name = WildfirePatchDataset(folder, bands=("B12", "B02"))[0]
    stored = np.load(folder / f"{name}_image.npy")
    np.testing.assert_array_equal(image.numpy(), stored.transpose(2, 0, 1)[[11, 1]])


def test_without_augmentation_every_draw_gives_the_patch_as_stored(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder)
    torch.testing.assert_close(dataset[Draw(5, 0, 2)].image, dataset[2].image, rtol=0, atol=0)


def test_a_draw_gives_the_same_sample_whenever_it_is_asked_for(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder, augment=get_strong_augmentation(light=1.0))
    first = dataset[Draw(1, 3, 2)]
    other = dataset[Draw(2, 3, 2)]
    assert torch.equal(dataset[Draw(1, 3, 2)].image, first.image)
    assert not torch.equal(other.image, first.image)
    assert not torch.equal(dataset[Draw(1, 4, 2)].image, first.image)


def test_another_seed_augments_otherwise(folder: Path) -> None:
    one, two = (WildfirePatchDataset(folder, augment=get_strong_augmentation(light=1.0), seed=seed) for seed in (1, 2))
    assert not torch.equal(one[0].image, two[0].image)


@pytest.mark.parametrize(
    ("burned", "unknown", "is_fire"), [(10, 0, False), (11, 0, True), (0, 0, False), (0, 1024, False), (6, 500, True)]
)
def test_fire_is_a_burned_share_of_labelled_pixels_above_the_threshold(
    tmp_path: Path, burned: int, unknown: int, is_fire: bool
) -> None:
    asked = []

    def augment(image, mask, rng, *, is_fire):
        asked.append(is_fire)
        return image.transpose(2, 0, 1).copy(), mask

    mask = np.zeros(1024, np.uint8)
    mask[:burned] = 3
    mask[1024 - unknown :] = 255
    np.save(tmp_path / "a_image.npy", np.zeros((32, 32, 7), np.float32))
    np.save(tmp_path / "a_mask.npy", mask.reshape(32, 32))
    WildfirePatchDataset(tmp_path, augment=augment, fire_threshold=0.01)[0]
    assert asked == [is_fire]


def test_only_the_names_given_take_part(folder: Path) -> None:
    names = WildfirePatchDataset(folder).names[2:]
    dataset = WildfirePatchDataset(folder, names=names)
    assert len(dataset) == 2
    assert dataset[0].name == names[0]


def test_a_negative_number_counts_from_the_end_and_one_too_large_is_an_index_error(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder)
    assert dataset[-1].name == dataset.names[3]
    with pytest.raises(IndexError):
        dataset[4]


def test_a_folder_without_patches_says_so(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match="no patch in it"):
        WildfirePatchDataset(tmp_path)
    with pytest.raises(FiresegError, match="no such folder"):
        WildfirePatchDataset(tmp_path / "none")


def test_a_data_set_goes_to_spawned_processes(folder: Path) -> None:
    dataset = WildfirePatchDataset(folder, augment=get_strong_augmentation())
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0].image, dataset[0].image)
