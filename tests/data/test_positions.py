"""Tests of the positions of patches, and of pixels counted once where patches overlap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fireseg.data import WildfireDataModule
from fireseg.data.positions import count_classes_once
from fireseg.data.reader import open_split
from fireseg.data.statistics import scan_split
from fireseg.prepare.cli import main as prepare
from tests.prepare.builders import write_set, write_tile


def write_patch(folder: Path, name: str, mask: list[list[int]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}_mask.npy", np.array(mask, np.uint8))
    np.save(folder / f"{name}_image.npy", np.full((*np.shape(mask), 7), 0.2, np.float32))


def count(folder: Path) -> tuple[int, ...]:
    reader = open_split(folder)
    return count_classes_once(reader, scan_split(reader).patches, 2)


def test_a_pixel_of_two_patches_counts_once(tmp_path: Path) -> None:
    # Three columns of the tile burned, and two did not; the middle one is in both patches.
    write_patch(tmp_path, "T_r0_c0", [[0, 1, 1], [0, 1, 1], [0, 1, 255]])
    write_patch(tmp_path, "T_r0_c2", [[1, 1, 0], [1, 1, 0], [255, 1, 0]])

    assert count(tmp_path) == (6, 8)


def test_the_first_patch_row_by_row_has_the_label_whatever_the_order_of_names(tmp_path: Path) -> None:
    # As in val: the last window is shifted inwards, and the labels that the one before has are 255 in it.
    write_patch(tmp_path, "T_r0_c8", [[0, 0, 0], [0, 0, 0], [0, 0, 0]])
    write_patch(tmp_path, "T_r0_c10", [[255, 1, 1], [255, 1, 1], [255, 1, 1]])

    assert count(tmp_path) == (9, 6)


def test_patches_without_a_position_count_whole(tmp_path: Path) -> None:
    for name in ("lake", "hill"):
        write_patch(tmp_path, name, [[0, 1], [0, 1]])
    for number in range(3):  # consecutive numbers, not pixels
        write_patch(tmp_path, f"T_r0_c{number}", np.ones((40, 40), np.uint8).tolist())

    assert count(tmp_path) == (4, 4 + 3 * 1600)


@pytest.mark.parametrize("layout", [[], ["--layout", "files", "--task", "del"]], ids=["packed", "files"])
def test_class_weights_do_not_depend_on_the_stride(tmp_path: Path, layout: list[str]) -> None:
    tiles = write_set(tmp_path / "tiles", train=2)
    truth = []
    for path in (tiles / "train").rglob("*_DEL.tif"):
        with rasterio.open(path) as raster:
            truth.append(np.bincount(raster.read(1).ravel(), minlength=2))
    shares = {}
    for stride in (8, 24, 32):
        root = tmp_path / f"stride{stride}"
        assert prepare([str(tiles), str(root), "--size", "32", "--stride", str(stride), *layout]) == 0
        data = WildfireDataModule(root, 2)
        assert data.class_counts == tuple(np.sum(truth, axis=0))
        patches = data.summary.splits["train"]
        shares[stride] = sum(one.num_burned(255) for one in patches) / sum(one.num_labelled(255) for one in patches)
    assert shares[8] > 1.15 * shares[32]  # counted by patch, fires look more frequent


def test_patches_that_do_not_overlap_are_counted_from_their_statistics_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tile(tmp_path / "tiles", height=64, width=96)
    assert prepare([str(tmp_path / "tiles"), str(tmp_path / "p"), "--size", "32", "--stride", "32"]) == 0
    reader = open_split(tmp_path / "p/train")
    patches = scan_split(reader).patches
    monkeypatch.setattr(type(reader), "read_mask", None)

    expected = json.loads((tmp_path / "p/manifest.json").read_text())["class_counts"]["del"]
    assert list(count_classes_once(reader, patches, 2)) == expected
