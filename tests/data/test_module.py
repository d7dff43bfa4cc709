"""Batches epoch by epoch, for any number of workers."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireseg.batch import Batch
from fireseg.data import (
    FireAwareAugmentation,
    WildfireDataModule,
    get_strong_augmentation,
    get_training_augmentation,
)
from fireseg.data.checks import validate_dataset
from fireseg.errors import FiresegError, SettingError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, Task

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


def test_a_batch_has_the_types_and_shapes_of_the_model_input(open_data) -> None:
    batch = next(iter(open_data().train_dataloader(1)))
    assert isinstance(batch, Batch)
    assert (batch.image.dtype, batch.image.shape) == (torch.float32, (4, 7, 32, 32))
    assert (batch.mask.dtype, batch.mask.shape) == (torch.uint8, (4, 32, 32))
    assert len(batch.names) == 4
    assert batch.image.is_contiguous()


def test_batches_are_the_same_for_any_number_of_workers(open_data) -> None:
    alone, one, two = (open_data(num_workers=num_workers) for num_workers in (0, 1, 2))
    for epoch in (1, 2):
        batches = list(alone.train_dataloader(epoch))
        assert are_equal(list(one.train_dataloader(epoch)), batches)
        assert are_equal(list(two.train_dataloader(epoch)), batches)
    assert are_equal(list(two.val_dataloader()), list(alone.val_dataloader()))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_patches_are_cropped_and_validation_patches_are_whole(make_patches, num_workers: int) -> None:
    data = WildfireDataModule(make_patches(size=48), 4, augment=AUGMENT, crop=32, num_workers=num_workers)
    batches = list(data.train_dataloader(1))
    assert {tuple(batch.image.shape[2:]) for batch in batches} == {(32, 32)} != {tuple(data.val[0].mask.shape)}
    assert [batch.mask.shape for batch in data.val_dataloader()] == [(4, 48, 48)]
    assert are_equal(batches, list(data.train_dataloader(1)))
    data.close()


def test_a_crop_larger_than_the_patches_is_refused(make_patches) -> None:
    with pytest.raises(
        SettingError, match=r"data\.crop: 64, but the patches in .* 48 x 48 px; use at most data\.crop=32"
    ):
        WildfireDataModule(make_patches(size=48), 4, crop=64).setup()


def test_workers_persist_after_an_abandoned_epoch(open_data) -> None:
    data = open_data(num_workers=2)
    next(iter(data.train_dataloader(1)))
    workers = {child.pid for child in multiprocessing.active_children()}
    batches = list(data.train_dataloader(1))
    assert {child.pid for child in multiprocessing.active_children()} == workers
    assert are_equal(batches, list(open_data().train_dataloader(1)))


def test_batches_are_a_function_of_seed_and_epoch(open_data) -> None:
    data = open_data()
    first = list(data.train_dataloader(1))
    assert not are_equal(list(data.train_dataloader(2)), first)
    assert are_equal(list(data.train_dataloader(1)), first)
    assert are_equal(list(open_data().train_dataloader(1)), first)
    assert not are_equal(list(open_data(seed=1).train_dataloader(1)), first)


def test_epoch_loaders_can_be_created_before_they_are_iterated(open_data) -> None:
    data = open_data()
    first, second = data.train_dataloader(1), data.train_dataloader(2)
    assert are_equal(list(first), list(open_data().train_dataloader(1)))
    assert are_equal(list(second), list(open_data().train_dataloader(2)))


def test_training_merges_a_last_batch_of_one(open_data) -> None:
    batches = open_data().train_dataloader(1)
    assert len(batches) == 2
    assert [len(batch.names) for batch in batches] == [4, 5]


def test_validation_gives_every_patch_once_in_order_as_stored(open_data, root: Path) -> None:
    data = open_data()
    batches = list(data.val_dataloader())
    names = [name for batch in batches for name in batch.names]
    assert names == [path.name.removesuffix("_image.npy") for path in sorted((root / "val").glob("*_image.npy"))]
    image = np.load(root / "val" / f"{names[-1]}_image.npy")
    np.testing.assert_array_equal(batches[-1].image[-1].numpy(), image.transpose(2, 0, 1))
    assert are_equal(list(data.val_dataloader()), batches)
    assert len(data.val_dataloader()) == len(batches) == 2


def test_loading_does_not_use_the_global_random_generator(open_data) -> None:
    for num_workers in (0, 1):
        data = open_data(num_workers=num_workers)
        before = torch.get_rng_state()
        list(data.train_dataloader(1))
        list(data.train_dataloader(2))
        assert torch.equal(torch.get_rng_state(), before)


def test_weighted_sampling_samples_fire_more_often_in_epochs_of_the_same_length(make_patches) -> None:
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


def test_statistics_are_those_of_the_training_split(open_data, root: Path) -> None:
    data = open_data()
    data.setup()
    pixels = np.concatenate([np.load(path).reshape(-1, 7) for path in sorted((root / "train").glob("*_image.npy"))])
    assert data.mean == pytest.approx(pixels.mean(axis=0, dtype=np.float64))
    assert data.std == pytest.approx(pixels.std(axis=0, dtype=np.float64))
    assert sum(data.class_counts) == 9 * 32 * 32
    assert len(data.fingerprint) == 64
    assert data.notes == []
    assert (len(data.train), len(data.val), data.test) == (9, 5, None)


def test_a_test_split_exists_only_if_its_folder_does(open_data, make_patches, tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match="no such folder"):
        open_data().test_dataloader()
    data = WildfireDataModule(make_patches(tmp_path / "with_test", test=3), 2)
    assert [len(batch.names) for batch in data.test_dataloader()] == [2, 1]


def test_the_maker_is_called_once_before_the_data_are_read(make_patches, tmp_path: Path) -> None:
    made = []
    data = WildfireDataModule(tmp_path / "made", 4, maker=lambda root: made.append(make_patches(root)))
    data.setup()
    data.setup()
    assert made == [tmp_path / "made"]


def test_skipped_patches_are_in_no_batch(make_patches) -> None:
    root = make_patches(train=5)
    bad = sorted((root / "train").glob("*_image.npy"))[2]
    bad.write_bytes(b"")
    data = WildfireDataModule(root, 2, on_bad="skip")
    names = [name for batch in data.train_dataloader(1) for name in batch.names]
    assert len(names) == 4
    assert bad.name.removesuffix("_image.npy") not in names
    assert "1 patch was left out" in data.notes[0]


def test_bands_before_the_fire_are_read_only_if_wanted(make_packed, tmp_path: Path) -> None:
    pair = make_packed(bands=("B08", "B12", "B08_PRE", "B12_PRE"))
    data = WildfireDataModule(pair, 2, bands=("B12", "B08"), pre=True)
    assert data.bands == ("B12", "B08", "B12_PRE", "B08_PRE")
    image = next(iter(data.val_dataloader())).image
    single = WildfireDataModule(pair, 2, bands=("B12", "B08"))
    assert torch.equal(next(iter(single.val_dataloader())).image, image[:, :2])
    assert data.mean[:2] == single.mean
    alone = make_packed(tmp_path / "alone", bands=("B08", "B12"))
    with pytest.raises(FiresegError, match=r"without B08_PRE B12_PRE; .* prepare them again with --pre"):
        WildfireDataModule(alone, bands=("B08", "B12"), pre=True).setup()


def test_a_fraction_trains_on_a_part_and_validates_on_everything(open_data, root: Path) -> None:
    whole, part, same, other = (open_data(**one) for one in ({}, {"fraction": 0.5}, {"fraction": 0.5}, {"seed": 1}))
    names = [name for batch in part.train_dataloader(1) for name in batch.names]
    assert len(names) == len(set(names)) == 4
    assert are_equal(list(part.train_dataloader(1)), list(same.train_dataloader(1)))
    assert are_equal(list(part.val_dataloader()), list(whole.val_dataloader()))
    pixels = np.concatenate([np.load(root / "train" / f"{name}_image.npy").reshape(-1, 7) for name in names])
    assert part.mean == pytest.approx(pixels.mean(axis=0, dtype=np.float64))
    assert sum(part.class_counts) == 4 * 32 * 32
    assert part.fingerprint == whole.fingerprint == other.fingerprint
    assert part.notes == ["data.fraction=0.5: 4 of 9 training patches are used, of 4 of 9 tiles"]


def test_some_tiles_train_and_all_are_validated_on(open_data) -> None:
    whole, part = open_data(), open_data(max_tiles=3)
    names = [name for batch in part.train_dataloader(1) for name in batch.names]
    assert len({name.rpartition("_")[0] for name in names}) == 3
    assert are_equal(list(part.val_dataloader()), list(whole.val_dataloader()))
    assert part.notes == ["data.max_tiles=3: 3 of 9 training patches are used, of 3 of 9 tiles"]


def test_sampled_validation_patches_are_mostly_burned_and_always_the_same(make_patches) -> None:
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
def test_a_file_deleted_while_training_is_named_in_one_line(open_data, root: Path, num_workers: int) -> None:
    data = open_data(num_workers=num_workers)
    data.setup()
    path = sorted((root / "val").glob("*_image.npy"))[3]
    path.unlink()
    with pytest.raises(FiresegError) as caught:
        list(data.val_dataloader())
    assert str(caught.value).startswith(f"{path}: no such file")
    assert "\n" not in str(caught.value)


def test_workers_ignore_signals(open_data) -> None:
    data = open_data(num_workers=2)
    batches = iter(data.train_dataloader(1))
    loaded = [next(batches)]
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
    loaded += list(batches)
    assert are_equal(loaded, list(open_data().train_dataloader(1)))


def test_a_process_with_running_workers_exits(root: Path) -> None:
    program = (
        "from pathlib import Path; from fireseg.data import WildfireDataModule\n"
        f"data = WildfireDataModule(Path({str(root)!r}), 2, num_workers=2)\n"
        "batches = iter(data.train_dataloader(1)); next(batches); print('one batch', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "one batch\n", "")


def test_too_little_shared_memory_is_noted_and_not_used(open_data, monkeypatch: pytest.MonkeyPatch) -> None:
    from fireseg.data import loader as loaders
    from fireseg.data import module

    for target in (loaders, module):
        monkeypatch.setattr(target, "free_shared_memory", lambda: 1000)
    data = open_data(num_workers=2)
    data.setup()
    assert "set data.num_workers=0" in data.notes[-1]
    assert are_equal(list(data.train_dataloader(1)), list(open_data().train_dataloader(1)))


def test_importing_the_package_does_not_import_albumentations() -> None:
    program = "import sys, fireseg.data; assert not {'albumentations', 'cv2', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


DEL = Task(name="del", num_classes=2, class_names=DELINEATION_CLASSES)
GRA = Task(name="gra", num_classes=5, class_names=GRADING_CLASSES)
BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


def batches_of(root: Path, **options) -> list[Batch]:
    data = WildfireDataModule(root, 4, augment=AUGMENT, weighted_sampling=True, fire_threshold=0.7, **options)
    batches = [*data.train_dataloader(1), *data.train_dataloader(2), *data.val_dataloader()]
    data.close()
    return batches


@pytest.mark.parametrize("task", [DEL, GRA], ids=["del", "gra"])
def test_both_layouts_give_the_same_batches_for_any_number_of_workers(make_packed, make_files, task) -> None:
    packed_root = make_packed()
    files_root = make_files(packed_root, task.name)
    packed = batches_of(packed_root, task=task)
    for root, num_workers in ((files_root, 0), (packed_root, 2), (files_root, 2)):
        assert are_equal(batches_of(root, task=task, num_workers=num_workers), packed)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**16), st.integers(1, 12), st.integers(2, 40), st.permutations(BANDS), st.data())
def test_both_layouts_give_the_same_statistics_and_batches(
    make_packed, make_files, tmp_path_factory, seed, num_patches, size, stored, data
) -> None:
    folder = tmp_path_factory.mktemp("both")
    bands = tuple(data.draw(st.lists(st.sampled_from(stored), min_size=1, unique=True), label="bands"))
    packed_root = make_packed(
        folder / "packed_root", patches={"train": num_patches, "val": 2}, size=size, bands=stored, seed=seed
    )
    files_root = make_files(packed_root, "del", folder / "files")
    summaries = [validate_dataset(root, task=DEL, bands=bands) for root in (packed_root, files_root)]
    for name in ("splits", "mean", "std", "class_counts", "fingerprint", "notes"):
        assert getattr(summaries[0], name) == getattr(summaries[1], name)
    assert are_equal(batches_of(packed_root, bands=bands), batches_of(files_root, bands=bands))


def test_more_workers_than_cores_are_not_started(make_patches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fireseg.data.module.count_cores", lambda: 4)
    module = WildfireDataModule(make_patches(), num_workers=300)
    module.setup()
    assert module.num_workers == 4
    assert "data.num_workers: 300, but this process has 4 cores; 4 are used" in module.notes
    assert WildfireDataModule(make_patches(), num_workers=3).num_workers == 3
