"""Several data sets as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fireseg.batch import Batch
from fireseg.data import WildfireDataModule
from fireseg.errors import FiresegError, SettingError

MakePacked = Callable[..., Path]


def rename_tiles(root: Path, old: str, new: str) -> Path:
    for path in root.glob("*/metadata.csv"):
        path.write_text(path.read_text().replace(old, new))
    return root


@pytest.fixture
def roots(make_packed: MakePacked, tmp_path: Path) -> list[Path]:
    """Two packed data sets, one without a test split."""
    a = make_packed(tmp_path / "a", patches={"train": 4, "val": 2})
    b = make_packed(tmp_path / "b", patches={"train": 3, "val": 2, "test": 2}, seed=1)
    return [a, rename_tiles(b, "EMSR", "FIRE")]


def load(root: Path | list[Path], **options: Any) -> tuple[WildfireDataModule, list[Batch]]:
    data = WildfireDataModule(root, 3, **options)
    batches = [*data.train_dataloader(1), *data.val_dataloader()]
    data.close()
    return data, batches


def are_equal(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.names == b.names
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_joined_data_sets_equal_one_that_holds_the_patches_of_both(
    roots: list[Path], make_files, tmp_path: Path, num_workers: int
) -> None:
    files = [make_files(root, "del", tmp_path / f"{root.name}_files") for root in roots]
    for root in files:
        shutil.copytree(root, tmp_path / "both", dirs_exist_ok=True)
        (root / "manifest.json").unlink()
    (tmp_path / "both/manifest.json").unlink()
    expected, batches = load(tmp_path / "both")
    for joined in (files, files[::-1]):
        data, joined_batches = load(joined, num_workers=num_workers)
        assert are_equal(joined_batches, batches)
        for name in ("mean", "std", "class_counts", "fingerprint"):
            assert getattr(data, name) == getattr(expected, name)
        assert data.test is not None
        assert len(data.test) == 2
    packed, packed_batches = load(roots, num_workers=num_workers)
    assert are_equal(packed_batches, batches)
    assert packed.fingerprint == expected.fingerprint


def test_all_differences_are_reported_at_once(make_packed: MakePacked, roots: list[Path], tmp_path: Path) -> None:
    other = make_packed(tmp_path / "other", patches={"train": 2, "val": 2}, size=16, bands=("B04", "B08", "B12"))
    with pytest.raises(FiresegError) as raised:
        WildfireDataModule([roots[0], other], bands=("B04",)).setup()
    found = [fault.split(";")[0] for fault in raised.value.faults]
    assert found[0] == f"data.root: {other} has the bands B04 B08 B12, but {roots[0]} has B02 B03 B04 B08 B8A B11 B12"
    assert found[1] == f"data.root: {other} has patches of shape 16x16x3, but {roots[0]} has 32x32x7"
    assert len(found) == 3
    assert found[2].startswith(f"data.root: 4 patch names are in {roots[0]} and in {other} (EMSR000")


def test_faults_of_all_folders_are_reported_at_once(roots: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FiresegError) as raised:
        WildfireDataModule([roots[0], tmp_path / "none", tmp_path]).setup()
    assert len(raised.value.faults) == 3
    assert f"{tmp_path / 'none'}: no such folder" in str(raised.value)


def test_folders_that_cannot_be_joined_raise(roots: list[Path]) -> None:
    with pytest.raises(SettingError, match=r"data\.root: an empty list"):
        WildfireDataModule([])
    with pytest.raises(SettingError, match="more than once"):
        WildfireDataModule([roots[0], roots[0] / "." / "../a"])
    with pytest.raises(SettingError, match=r"data\.maker generates the patches of one"):
        WildfireDataModule(roots, maker=lambda root: None)


def test_a_fault_names_the_file_of_its_data_set(roots: list[Path]) -> None:
    images = np.load(roots[1] / "val/images.npy")
    images[0] = 60_000
    np.save(roots[1] / "val/images.npy", images)
    with pytest.raises(FiresegError, match=rf"^{roots[1]}/val/images.npy: row 0 \(FIRE"):
        WildfireDataModule(roots).setup()


def write_journal(root: Path, west: float) -> None:
    """Writes the footprints of the tiles of a data set, side by side from a longitude on."""
    names = sorted({line[:16] for path in root.glob("*/metadata.csv") for line in path.read_text().splitlines()[1:]})
    lines = [{"format": 1, "options": {}, "tiles": {}}]
    lines += [{"name": name, "footprint": {"bounds": [west + n, 0, west + n + 1, 1]}} for n, name in enumerate(names)]
    (root / "tiles.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_overlaps_between_data_sets_and_splits_are_noted(roots: list[Path]) -> None:
    write_journal(roots[0], 0)
    notes = load(roots)[0].notes
    assert [note for note in notes if "tiles.jsonl" in note] == [
        f"data.root: {roots[1]} has no tiles.jsonl, so overlaps with other folders cannot be found"
    ]
    write_journal(roots[1], 100)
    assert not any("overlap" in note for note in load(roots)[0].notes)
    # The last tile of the first set, in val, lies on the first tile of the second, in train.
    write_journal(roots[1], 5)
    [note] = [note for note in load(roots)[0].notes if "overlap" in note]
    assert note.startswith("data.root: tiles in different splits overlap (val EMSR101_AOI01_01 of ")
    assert "train FIRE000_AOI01_01 of " in note
