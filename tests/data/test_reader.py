"""Opening splits, and reading packed patches."""

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

from fireseg.data import WildfireDataModule, WildfirePatchDataset
from fireseg.data.reader import PackedReader, find_split_folders, open_split, open_splits
from fireseg.errors import FiresegError

Damage = Callable[[Path], object]


@pytest.fixture
def train(make_packed) -> Path:
    return make_packed() / "train"


def names_of(folder: Path) -> list[str]:
    return [line.partition(",")[0] for line in (folder / "metadata.csv").read_text().splitlines()[1:]]


def change_array(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


def truncate(path: Path, num_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - num_bytes)


def test_a_packed_patch_is_the_row_of_its_name_in_the_table(train: Path) -> None:
    reader = open_split(train)
    assert reader.names == tuple(sorted(names_of(train)))
    for number, name in enumerate(reader.names):
        row = names_of(train).index(name)
        image, mask = reader.read(number)
        np.testing.assert_array_equal(image, np.load(train / "images.npy")[row] / np.float32(10000))
        np.testing.assert_array_equal(mask, np.load(train / "masks_del.npy")[row])


def test_modifying_a_read_patch_does_not_change_the_files(train: Path) -> None:
    before = {path.name: path.read_bytes() for path in train.glob("*.npy")}
    reader = open_split(train)
    image, mask = reader.read(0)
    image += 1
    mask += 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = WildfirePatchDataset(train)[0]
        sample.mask.fill_(7)
        sample.image.fill_(7.0)
    assert {path.name: path.read_bytes() for path in train.glob("*.npy")} == before
    assert WildfirePatchDataset(train)[0].mask.max() != 7


def test_the_task_selects_the_masks(train: Path) -> None:
    graded, delineated = open_split(train, "gra"), open_split(train)
    assert graded.read(0)[1].max() > 1
    assert set(np.unique(delineated.read(0)[1])) <= {0, 1, 255}


def test_bands_are_selected_by_the_names_in_the_manifest(make_packed) -> None:
    train = make_packed(bands=("B04", "B8A", "B12")) / "train"
    image, _, name = WildfirePatchDataset(train, bands=("B12", "B04"))[0]
    stored = np.load(train / "images.npy")[names_of(train).index(name)]
    np.testing.assert_array_equal(image.numpy(), (stored / np.float32(10000)).transpose(2, 0, 1)[[2, 0]])


def test_other_bands_of_the_same_number_are_an_error(make_packed) -> None:
    root = make_packed(bands=("B02", "B03", "B04"))
    with pytest.raises(FiresegError, match=r"made with B02 B03 B04, without B8A B12; name bands that they hold"):
        WildfireDataModule(root, bands=("B8A", "B12", "B02")).setup()


def test_a_pickled_reader_holds_no_pixels(make_packed) -> None:
    reader = open_split(make_packed(patches={"train": 64}) / "train")
    image, mask = reader.read(3)
    packed = pickle.dumps(reader)
    assert len(packed) < 10_000
    restored = pickle.loads(packed).read(3)
    np.testing.assert_array_equal(restored[0], image)
    np.testing.assert_array_equal(restored[1], mask)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_forked_and_spawned_processes_read_packed_patches(train: Path, method: str) -> None:
    reader = open_split(train)
    here = [reader.read(number)[0].sum() for number in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which others started
        with get_context(method).Pool(2) as pool:
            there = pool.map(reader.read, range(4))
    assert [image.sum() for image, _ in there] == here


def test_no_file_stays_open_after_a_reader_is_deleted(train: Path) -> None:
    def count_open() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    before = count_open()
    for _ in range(20):
        open_split(train).read(0)
    assert count_open() <= before + 2


def test_patches_prepared_again_meanwhile_are_an_error(train: Path) -> None:
    reader = open_split(train)
    change_array(train / "images.npy", lambda images: images[:-1])
    with pytest.raises(FiresegError, match="patches have changed"):
        reader.read(0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda train: truncate(train / "images.npy", 1), "images.npy: truncated"),
        (lambda train: truncate(train / "masks_del.npy", 5000), "masks_del.npy: truncated"),
        (lambda train: (train / "images.npy").write_bytes(b""), "images.npy: empty"),
        (lambda train: (train / "images.npy").write_bytes(bytes(100_000)), "images.npy: truncated or not"),
        (lambda train: (train / "masks_del.npy").unlink(), "masks_del.npy: no such file"),
        (lambda train: (train / "metadata.csv").unlink(), "metadata.csv: no such file"),
        (
            lambda train: (train / "metadata.csv").write_text("id\na\n"),
            "metadata.csv: not a table with a column patch_id",
        ),
        (lambda train: (train / "metadata.csv").write_text("row,patch_id\n0\n"), "not a table with a column patch_id"),
        (lambda train: (train / "metadata.csv").write_bytes(b"patch_id\n\xff\n"), "metadata.csv: not a table"),
        (lambda train: (train / "metadata.csv").write_text("patch_id\n" + 9 * "a\n"), "patch_id a is repeated"),
        (lambda train: (train / "metadata.csv").write_text("patch_id\na\n"), "9 in images.npy.* 1 in metadata.csv"),
        (lambda train: change_array(train / "masks_del.npy", lambda masks: masks[1:]), "8 in masks_del.npy"),
        (lambda train: change_array(train / "images.npy", lambda images: images.astype(np.float32)), "expected uint16"),
        (lambda train: change_array(train / "masks_del.npy", lambda masks: masks.astype(np.int64)), "expected uint8"),
        (
            lambda train: change_array(train / "images.npy", lambda images: images[0]),
            r"expected uint16 \(patches, height",
        ),
        (lambda train: change_array(train / "masks_del.npy", lambda masks: masks[:, 1:]), r"masks of \(31, 32\)"),
        (
            lambda train: change_array(train / "images.npy", lambda images: images[..., 1:]),
            "6 channels, but the manifest",
        ),
    ],
)
def test_a_damaged_file_is_named(train: Path, damage: Damage, message: str) -> None:
    damage(train)
    with pytest.raises(FiresegError, match=message):
        open_splits(train.parent, "del")


def test_a_file_longer_than_its_header_says_is_an_error(train: Path) -> None:
    with (train / "images.npy").open("ab") as file:
        file.write(bytes(3))
    with pytest.raises(FiresegError, match="3 bytes more than its header"):
        open_split(train)


def test_faults_of_all_splits_are_reported_at_once(train: Path) -> None:
    (train / "metadata.csv").unlink()
    (train / "images.npy").unlink()
    (train.parent / "val" / "masks_del.npy").unlink()
    with pytest.raises(FiresegError) as caught:
        open_splits(train.parent, "del")
    assert len(caught.value.faults) == 3


def test_other_counts_than_in_the_manifest_are_a_fault(make_packed) -> None:
    root = make_packed()
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(manifest | {"patches": {"train": 10, "val": 5}}))
    with pytest.raises(FiresegError, match=r"10 in manifest\.json"):
        open_splits(root, "del")


def test_the_error_for_an_unknown_task_lists_the_stored_masks(make_packed) -> None:
    with pytest.raises(FiresegError, match="has masks for del and gra") as caught:
        open_splits(make_packed(), "trees")
    assert len(caught.value.faults) == 1


def test_selecting_patches_of_a_packed_split(train: Path) -> None:
    reader = open_split(train)
    assert isinstance(reader, PackedReader)
    selected = reader.select(reader.names[3:5])
    assert len(selected) == 2
    assert torch.equal(torch.from_numpy(selected.read(1)[0]), torch.from_numpy(reader.read(4)[0]))


def test_the_error_for_a_missing_root_names_the_sample_data(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match="data=sample"):
        find_split_folders(tmp_path / "patches")


def test_both_missing_splits_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(FiresegError) as caught:
        find_split_folders(tmp_path)
    assert len(caught.value.faults) == 2


def test_a_test_split_is_found_only_if_present(make_patches) -> None:
    assert list(find_split_folders(make_patches())) == ["train", "val"]
    assert list(find_split_folders(make_patches(test=1))) == ["train", "val", "test"]


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_folder_in_preparation_is_incomplete(make_packed, make_patches, is_packed: bool) -> None:
    root = make_packed() if is_packed else make_patches()
    (root / "manifest.json").unlink(missing_ok=True)
    if not is_packed:
        (root / "tiles.jsonl").write_text("{}\n")
    for open_data in (lambda: open_splits(root, "del"), lambda: open_split(root / "train")):
        with pytest.raises(FiresegError, match=r"incomplete, .*no manifest\.json"):
            open_data()


def test_files_made_for_another_task_are_reported_once(make_packed, make_files) -> None:
    root = make_files(make_packed(), "del")
    with pytest.raises(FiresegError, match=r"made with --task del, .*train with task=del") as caught:
        open_splits(root, "gra")
    assert len(caught.value.faults) == 1
    assert open_split(root / "train").bands is not None
