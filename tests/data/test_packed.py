"""Packed patches: read as what they are, refused as anything else."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data import WildfireDataModule, WildfirePatchDataset, compute_class_weights
from fireseg.data.bands import to_reflectance
from fireseg.data.reader import PackedSplit, find_sources, open_source
from fireseg.errors import FiresegError

Damage = Callable[[Path], object]


@pytest.fixture
def train(make_store) -> Path:
    return make_store() / "train"


def names_of(folder: Path) -> list[str]:
    return [line.partition(",")[0] for line in (folder / "metadata.csv").read_text().splitlines()[1:]]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


def cut(path: Path, num_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - num_bytes)


@given(st.integers(0, 65535))
def test_a_stored_number_is_the_float_nearest_to_its_ten_thousandth(number: int) -> None:
    found = to_reflectance(np.array([number], np.uint16))
    assert found[0] == np.float32(number / 10000)


def test_reflectance_is_new_and_contiguous_whatever_was_stored(train: Path) -> None:
    stored = np.load(train / "images.npy", mmap_mode="r")[0].transpose(2, 0, 1)[:, ::-1]
    image = to_reflectance(stored)
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_a_patch_is_the_row_that_the_table_names(train: Path) -> None:
    source = open_source(train)
    assert source.names == tuple(sorted(names_of(train)))
    for number, name in enumerate(source.names):
        row = names_of(train).index(name)
        image, mask = source.read(number)
        np.testing.assert_array_equal(image, np.load(train / "images.npy")[row] / np.float32(10000))
        np.testing.assert_array_equal(mask, np.load(train / "masks_del.npy")[row])


def test_what_was_read_may_be_changed_and_the_files_stay_as_they_were(train: Path) -> None:
    before = {path.name: path.read_bytes() for path in train.glob("*.npy")}
    source = open_source(train)
    image, mask = source.read(0)
    image += 1
    mask += 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = WildfirePatchDataset(train)[0]
        sample.mask.fill_(7)
        sample.image.fill_(7.0)
    assert {path.name: path.read_bytes() for path in train.glob("*.npy")} == before
    assert WildfirePatchDataset(train)[0].mask.max() != 7


def test_the_task_picks_the_masks(train: Path) -> None:
    graded, delineated = open_source(train, "gra"), open_source(train)
    assert graded.read(0)[1].max() > 1
    assert set(np.unique(delineated.read(0)[1])) <= {0, 1, 255}


def test_bands_come_by_the_names_in_the_manifest(make_store) -> None:
    train = make_store(bands=("B04", "B8A", "B12")) / "train"
    image, _, name = WildfirePatchDataset(train, bands=("B12", "B04"))[0]
    stored = np.load(train / "images.npy")[names_of(train).index(name)]
    np.testing.assert_array_equal(image.numpy(), (stored / np.float32(10000)).transpose(2, 0, 1)[[2, 0]])


def test_as_many_bands_as_are_stored_are_not_taken_for_the_same(make_store) -> None:
    root = make_store(bands=("B02", "B03", "B04"))
    with pytest.raises(FiresegError, match=r"made with B02 B03 B04, without B8A B12; name bands that they hold"):
        WildfireDataModule(root, bands=("B8A", "B12", "B02")).setup()


def test_a_store_goes_to_other_processes_without_its_values(make_store) -> None:
    source = open_source(make_store(patches={"train": 64}) / "train")
    image, mask = source.read(3)
    packed = pickle.dumps(source)
    assert len(packed) < 10_000
    again = pickle.loads(packed).read(3)
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], mask)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_is_read_in_processes_forked_and_spawned(train: Path, method: str) -> None:
    source = open_source(train)
    here = [source.read(number)[0].sum() for number in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which others started
        with get_context(method).Pool(2) as pool:
            there = pool.map(source.read, range(4))
    assert [image.sum() for image, _ in there] == here


def test_no_file_stays_open_when_a_store_is_forgotten(train: Path) -> None:
    def count_open() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    before = count_open()
    for _ in range(20):
        open_source(train).read(0)
    assert count_open() <= before + 2


def test_a_store_prepared_anew_meanwhile_is_not_mixed_with_the_old_one(train: Path) -> None:
    source = open_source(train)
    rewrite(train / "images.npy", lambda images: images[:-1])
    with pytest.raises(FiresegError, match="other patches than before"):
        source.read(0)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda train: cut(train / "images.npy", 1), "images.npy: truncated"),
        (lambda train: cut(train / "masks_del.npy", 5000), "masks_del.npy: truncated"),
        (lambda train: (train / "images.npy").write_bytes(b""), "images.npy: empty"),
        (lambda train: (train / "images.npy").write_bytes(bytes(100_000)), "images.npy: truncated or not"),
        (lambda train: (train / "masks_del.npy").unlink(), "masks_del.npy: no such file"),
        (lambda train: (train / "metadata.csv").unlink(), "metadata.csv: no such file"),
        (lambda train: (train / "metadata.csv").write_text("id\na\n"), "metadata.csv: no table with a column patch_id"),
        (lambda train: (train / "metadata.csv").write_text("row,patch_id\n0\n"), "no table with a column patch_id"),
        (lambda train: (train / "metadata.csv").write_bytes(b"patch_id\n\xff\n"), "metadata.csv: no table"),
        (lambda train: (train / "metadata.csv").write_text("patch_id\n" + 9 * "a\n"), "a comes twice"),
        (lambda train: (train / "metadata.csv").write_text("patch_id\na\n"), "9 in images.npy.* 1 in metadata.csv"),
        (lambda train: rewrite(train / "masks_del.npy", lambda masks: masks[1:]), "8 in masks_del.npy"),
        (lambda train: rewrite(train / "images.npy", lambda images: images.astype(np.float32)), "but uint16"),
        (lambda train: rewrite(train / "masks_del.npy", lambda masks: masks.astype(np.int64)), "but uint8"),
        (lambda train: rewrite(train / "images.npy", lambda images: images[0]), r"but uint16 \(patches, height"),
        (lambda train: rewrite(train / "masks_del.npy", lambda masks: masks[:, 1:]), r"masks of \(31, 32\)"),
        (lambda train: rewrite(train / "images.npy", lambda images: images[..., 1:]), "6 channels, but the manifest"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(train: Path, damage: Damage, says: str) -> None:
    damage(train)
    with pytest.raises(FiresegError, match=says):
        find_sources(train.parent, "del")


def test_a_file_longer_than_it_says_is_refused(train: Path) -> None:
    with (train / "images.npy").open("ab") as file:
        file.write(bytes(3))
    with pytest.raises(FiresegError, match="3 bytes more than its header says"):
        open_source(train)


def test_faults_of_all_splits_come_at_once(train: Path) -> None:
    (train / "metadata.csv").unlink()
    (train / "images.npy").unlink()
    (train.parent / "val" / "masks_del.npy").unlink()
    with pytest.raises(FiresegError) as caught:
        find_sources(train.parent, "del")
    assert len(caught.value.faults) == 3


def test_counts_other_than_in_the_manifest_are_a_fault(make_store) -> None:
    root = make_store()
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(manifest | {"patches": {"train": 10, "val": 5}}))
    with pytest.raises(FiresegError, match=r"10 in manifest\.json"):
        find_sources(root, "del")


def test_a_task_of_ones_own_is_told_which_masks_there_are(make_store) -> None:
    with pytest.raises(FiresegError, match="has masks for del and gra") as caught:
        find_sources(make_store(), "trees")
    assert len(caught.value.faults) == 1


def test_class_weights_of_a_packed_split_are_those_of_its_masks(train: Path) -> None:
    masks = np.load(train / "masks_del.npy")
    rare = (masks == 0).sum() / (masks == 1).sum()
    weights = compute_class_weights(train, 2)
    assert float(weights[1] / weights[0]) == pytest.approx(rare)
    assert len(compute_class_weights(train, 5)) == 5


def test_packed_patches_are_the_same_type_of_thing_after_taking_some(train: Path) -> None:
    source = open_source(train)
    assert isinstance(source, PackedSplit)
    some = source.take(source.names[3:5])
    assert len(some) == 2
    assert torch.equal(torch.from_numpy(some.read(1)[0]), torch.from_numpy(source.read(4)[0]))
