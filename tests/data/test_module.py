"""Batches, epoch by epoch, whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fireseg.batch import Batch
from fireseg.data import FireAwareAugmentation, WildfireDataModule, get_strong_augmentation, get_training_augmentation
from fireseg.errors import FiresegError
from fireseg.task import GRADING_CLASSES, Task

AUGMENT = FireAwareAugmentation(get_training_augmentation(light=1.0), get_strong_augmentation(light=1.0))


@pytest.fixture
def root(make_patches) -> Path:
    return make_patches(train=9, val=5)


@pytest.fixture
def open_data(root: Path) -> Iterator:
    opened = []

    def open_one(**settings: Any) -> WildfireDataModule:
        opened.append(data := WildfireDataModule(root, 4, augment=AUGMENT, **settings))
        return data

    yield open_one
    for data in opened:
        data.close()


def are_equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.names == b.names
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_is_what_the_model_takes(open_data) -> None:
    batch = next(iter(open_data().train_dataloader(1)))
    assert isinstance(batch, Batch)
    assert (batch.image.dtype, batch.image.shape) == (torch.float32, (4, 7, 32, 32))
    assert (batch.mask.dtype, batch.mask.shape) == (torch.uint8, (4, 32, 32))
    assert len(batch.names) == 4
    assert batch.image.is_contiguous()


def test_any_number_of_workers_makes_the_same_batches_to_the_bit_for_epochs_on_end(open_data) -> None:
    alone, one, two = (open_data(num_workers=num_workers) for num_workers in (0, 1, 2))
    for epoch in (1, 2):
        batches = list(alone.train_dataloader(epoch))
        assert are_equal(list(one.train_dataloader(epoch)), batches)
        assert are_equal(list(two.train_dataloader(epoch)), batches)
    assert are_equal(list(two.val_dataloader()), list(alone.val_dataloader()))


def test_workers_stay_from_epoch_to_epoch_and_from_a_pass_that_was_left(open_data) -> None:
    data = open_data(num_workers=2)
    next(iter(data.train_dataloader(1)))
    workers = {child.pid for child in multiprocessing.active_children()}
    batches = list(data.train_dataloader(1))
    assert {child.pid for child in multiprocessing.active_children()} == workers
    assert are_equal(batches, list(open_data().train_dataloader(1)))


def test_two_epochs_differ_and_the_same_one_repeats(open_data) -> None:
    data = open_data()
    first = list(data.train_dataloader(1))
    assert not are_equal(list(data.train_dataloader(2)), first)
    assert are_equal(list(data.train_dataloader(1)), first)
    assert are_equal(list(open_data().train_dataloader(1)), first)
    assert not are_equal(list(open_data(seed=1).train_dataloader(1)), first)


def test_an_epoch_is_asked_for_when_it_is_begun_not_when_it_is_named(open_data) -> None:
    data = open_data()
    first, second = data.train_dataloader(1), data.train_dataloader(2)
    assert are_equal(list(first), list(open_data().train_dataloader(1)))
    assert are_equal(list(second), list(open_data().train_dataloader(2)))


def test_training_merges_a_last_batch_of_one_and_says_so_in_its_length(open_data) -> None:
    batches = open_data().train_dataloader(1)
    assert len(batches) == 2
    assert [len(batch.names) for batch in batches] == [4, 5]


def test_validation_is_every_patch_once_in_order_as_stored(open_data, root: Path) -> None:
    data = open_data()
    batches = list(data.val_dataloader())
    names = [name for batch in batches for name in batch.names]
    assert names == [path.name.removesuffix("_image.npy") for path in sorted((root / "val").glob("*_image.npy"))]
    image = np.load(root / "val" / f"{names[-1]}_image.npy")
    np.testing.assert_array_equal(batches[-1].image[-1].numpy(), image.transpose(2, 0, 1))
    assert are_equal(list(data.val_dataloader()), batches)
    assert len(data.val_dataloader()) == len(batches) == 2


def test_loading_takes_nothing_from_the_random_numbers_of_the_model(open_data) -> None:
    for num_workers in (0, 1):
        data = open_data(num_workers=num_workers)
        before = torch.get_rng_state()
        list(data.train_dataloader(1))
        list(data.train_dataloader(2))
        assert torch.equal(torch.get_rng_state(), before)


def test_weighted_sampling_draws_fire_oftener_without_more_draws(make_patches) -> None:
    root = make_patches(train=40)
    for path in sorted((root / "train").glob("*_mask.npy"))[10:]:
        np.save(path, np.zeros((32, 32), np.uint8))
    burned = {path.name[:7] for path in sorted((root / "train").glob("*_mask.npy"))[:10]}

    def share(**settings: Any) -> float:
        data = WildfireDataModule(root, 8, **settings)
        names = [name for epoch in range(5) for batch in data.train_dataloader(epoch) for name in batch.names]
        assert len(names) == 200
        return np.mean([name[:7] in burned for name in names]).item()

    assert share() == 0.25
    assert share(weighted_sampling=True, fire_weight=9.0) == pytest.approx(0.75, abs=0.1)


def test_the_data_in_numbers_are_those_of_the_training_split(open_data, root: Path) -> None:
    data = open_data()
    data.setup()
    pixels = np.concatenate([np.load(path).reshape(-1, 7) for path in sorted((root / "train").glob("*_image.npy"))])
    assert data.mean == pytest.approx(pixels.mean(axis=0, dtype=np.float64))
    assert data.std == pytest.approx(pixels.std(axis=0, dtype=np.float64))
    assert sum(data.class_counts) == 9 * 32 * 32
    assert len(data.fingerprint) == 64
    assert data.notes == []
    assert (len(data.train), len(data.val), data.test) == (9, 5, None)


def test_a_test_split_is_there_only_where_the_folder_is(open_data, make_patches, tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match="no such folder"):
        open_data().test_dataloader()
    data = WildfireDataModule(make_patches(tmp_path / "with_test", test=3), 2)
    assert [len(batch.names) for batch in data.test_dataloader()] == [2, 1]


def test_what_makes_the_data_is_called_before_they_are_looked_at(make_patches, tmp_path: Path) -> None:
    made = []
    data = WildfireDataModule(tmp_path / "made", 4, maker=lambda root: made.append(make_patches(root)))
    data.setup()
    data.setup()
    assert made == [tmp_path / "made"]


def test_patches_left_out_take_no_part_in_any_batch(make_patches) -> None:
    root = make_patches(train=5)
    bad = sorted((root / "train").glob("*_image.npy"))[2]
    bad.write_bytes(b"")
    data = WildfireDataModule(root, 2, on_bad="skip")
    names = [name for batch in data.train_dataloader(1) for name in batch.names]
    assert len(names) == 4
    assert bad.name.removesuffix("_image.npy") not in names
    assert "1 patch was left out" in data.notes[0]


def test_patches_to_look_at_are_mostly_burned_and_the_same_each_time(make_patches) -> None:
    root = make_patches(val=12)
    paths = sorted((root / "val").glob("*_mask.npy"))
    for path in paths[::2]:
        np.save(path, np.zeros((32, 32), np.uint8))
    data = WildfireDataModule(root)
    batch = data.sample_validation(8)
    assert sum(bool(mask.any()) for mask in batch.mask) == 6
    assert batch.names == data.sample_validation(8).names
    assert len(data.sample_validation(100).names) == 12
    assert len(data.sample_validation(1).names) == 1


def test_gradings_are_read_for_a_grading_task(make_patches) -> None:
    task = Task(name="gra", num_classes=5, class_names=GRADING_CLASSES)
    data = WildfireDataModule(make_patches(train=12, num_classes=5), task=task)
    assert len(data.class_counts) == 5


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_goes_away_while_training_is_named_in_one_line(open_data, root: Path, num_workers: int) -> None:
    data = open_data(num_workers=num_workers)
    data.setup()
    path = sorted((root / "val").glob("*_image.npy"))[3]
    path.unlink()
    with pytest.raises(FiresegError) as caught:
        list(data.val_dataloader())
    assert str(caught.value).startswith(f"{path}: no such file")
    assert "\n" not in str(caught.value)


def test_workers_leave_signals_to_the_main_process(open_data) -> None:
    data = open_data(num_workers=2)
    batches = iter(data.train_dataloader(1))
    taken = [next(batches)]
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
    taken += list(batches)
    assert are_equal(taken, list(open_data().train_dataloader(1)))


def test_a_process_that_ends_with_workers_at_work_ends(root: Path) -> None:
    program = (
        "from pathlib import Path; from fireseg.data import WildfireDataModule\n"
        f"data = WildfireDataModule(Path({str(root)!r}), 2, num_workers=2)\n"
        "batches = iter(data.train_dataloader(1)); next(batches); print('one batch', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "one batch\n", "")


def test_too_little_shared_memory_for_the_workers_is_noted(open_data, monkeypatch: pytest.MonkeyPatch) -> None:
    from fireseg.data import loader as loaders
    from fireseg.data import module

    for place in (loaders, module):
        monkeypatch.setattr(place, "free_shared_bytes", lambda: 1000)
    data = open_data(num_workers=2)
    data.setup()
    assert "set data.num_workers=0" in data.notes[-1]
    assert are_equal(list(data.train_dataloader(1)), list(open_data().train_dataloader(1)))


def test_importing_the_data_room_does_not_import_albumentations() -> None:
    program = "import sys, fireseg.data; assert not {'albumentations', 'cv2', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
