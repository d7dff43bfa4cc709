"""Folds of a cross-validation: other tiles for training, validation and test in each, from one store."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fireseg.data import WildfireDataModule, statistics
from fireseg.data.folds import write_fold
from fireseg.errors import FiresegError

NUM_FOLDS = 3


@pytest.fixture
def root(make_packed: Callable[..., Path]) -> Path:
    """Writes a store of seven tiles of one patch each; tile n is in part n modulo 3."""
    root = make_packed(patches={"all": 7}, folds=[{}] * NUM_FOLDS)
    for fold in range(NUM_FOLDS):
        splits = ["test", "val", "train"]
        write_fold(root, fold, {f"EMSR{n:03d}_AOI01_01": splits[(n - fold) % NUM_FOLDS] for n in range(7)})
    return root


def read_rows(root: Path) -> dict[str, int]:
    """Row in the arrays by number of the tile."""
    with (root / "all/metadata.csv").open(newline="") as file:
        return {row["patch_id"][4:7]: number for number, row in enumerate(csv.DictReader(file))}


@pytest.mark.parametrize(
    ("fold", "train", "val", "test"),
    [
        (0, ["002", "005"], ["001", "004"], ["000", "003", "006"]),
        (1, ["000", "003", "006"], ["002", "005"], ["001", "004"]),
        (2, ["001", "004"], ["000", "003", "006"], ["002", "005"]),
    ],
)
def test_each_fold_has_its_tiles_and_the_statistics_of_its_training_tiles(
    root: Path, fold: int, train: list[str], val: list[str], test: list[str]
) -> None:
    data = WildfireDataModule(root, fold=fold)
    data.setup()
    assert data.test is not None
    assert [[name[4:7] for name in one.names] for one in (data.train, data.val, data.test)] == [train, val, test]
    rows = [read_rows(root)[number] for number in train]
    images, masks = (np.load(root / "all" / name)[rows] for name in ("images.npy", "masks_del.npy"))
    pixels = images[masks != 255].astype(np.float64) / 10_000
    assert data.mean == pytest.approx(pixels.mean(axis=0))
    assert data.class_counts == tuple((masks == value).sum() for value in range(2))
    stored = np.load(root / "all/images.npy")[read_rows(root)[test[0]]] / np.float32(10_000)
    image = next(iter(data.test_dataloader())).image[0]
    np.testing.assert_array_equal(image.numpy(), stored.transpose(2, 0, 1))


def test_folds_have_different_fingerprints_and_both_layouts_the_same(root: Path, make_files) -> None:
    files = make_files(root, "del")
    for fold in range(NUM_FOLDS):
        (files / f"fold_{fold}.csv").write_bytes((root / f"fold_{fold}.csv").read_bytes())
    packed, loose = (
        [WildfireDataModule(one, fold=fold).fingerprint for fold in range(NUM_FOLDS)] for one in (root, files)
    )
    assert packed == loose
    assert len(set(packed)) == NUM_FOLDS


def test_the_patches_of_all_folds_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WildfireDataModule(root, fold=0).setup()
    monkeypatch.setattr(statistics, "_scan_patches", None)
    for fold in range(NUM_FOLDS):
        WildfireDataModule(root, fold=fold).setup()


def test_a_fold_must_be_chosen_and_exist(root: Path, make_patches) -> None:
    for fold in (None, 3):
        with pytest.raises(FiresegError, match=r"data\.fold: .* has 3 folds; .* -m data\.fold=0,1,2"):
            WildfireDataModule(root, fold=fold).setup()
    with pytest.raises(FiresegError, match=r"data\.fold: 1, but .* has no folds; leave it out"):
        WildfireDataModule(make_patches(), fold=1).setup()


def test_a_table_without_a_tile_or_with_another_split_raises_with_both_faults(root: Path) -> None:
    table = root / "fold_1.csv"
    table.write_text(table.read_text().replace("EMSR000_AOI01_01,train\n", "").replace("val", "dev"))
    with pytest.raises(FiresegError) as raised:
        WildfireDataModule(root, fold=1).setup()
    assert [fault.split(";")[0] for fault in raised.value.faults] == [
        f"{table}: tile EMSR002_AOI01_01: split 'dev', but must be train, val or test",
        f"{table}: tile EMSR005_AOI01_01: split 'dev', but must be train, val or test",
        f"{table}: no split for 1 tiles (EMSR000_AOI01_01)",
    ]


def test_faults_of_patches_are_reported_in_the_fold_whatever_their_split(root: Path) -> None:
    images = np.load(root / "all/images.npy")
    images[read_rows(root)["004"]] = 60_000
    np.save(root / "all/images.npy", images)
    for fold in range(NUM_FOLDS):
        with pytest.raises(FiresegError, match=r"EMSR004.*values from 6 to 6"):
            WildfireDataModule(root, fold=fold).setup()


def test_messages_name_the_fold_and_the_split(root: Path) -> None:
    masks = np.load(root / "all/masks_del.npy")
    masks[[read_rows(root)[number] for number in ("001", "004")]] = 0
    np.save(root / "all/masks_del.npy", masks)
    data = WildfireDataModule(root, fold=0)
    data.setup()
    assert data.notes[0].startswith(f"{root}, fold 0, val: no burned pixel")
