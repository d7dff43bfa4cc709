"""Patches on disk: readable by numpy once closed, and never half."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.format import FilesStore, PackedStore, StoredPatch, npy_header
from fireseg.errors import FiresegError


def make_patches(count: int, seed: int = 0) -> list[StoredPatch]:
    rng = np.random.default_rng(seed)
    return [
        StoredPatch(
            f"tile_r{number}_c0",
            rng.integers(0, 10_001, (4, 4, 2)).astype(np.uint16),
            {"del": rng.integers(0, 2, (4, 4), np.uint8), "gra": rng.integers(0, 5, (4, 4), np.uint8)},
        )
        for number in range(count)
    ]


@given(shape=st.lists(st.integers(0, 10**9), min_size=1, max_size=4).map(tuple), descr=st.sampled_from(["<u2", "|u1"]))
def test_numpy_reads_the_header(shape: tuple[int, ...], descr: str) -> None:
    file = io.BytesIO(npy_header(descr, shape))
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(descr))
    assert file.tell() == 128


def test_tiles_written_in_any_order_lie_where_they_belong(tmp_path: Path) -> None:
    patches, store = make_patches(5), PackedStore(root=tmp_path, size=4, num_bands=2)
    store.write("train", 2, patches[2:])
    store.write("train", 0, patches[:2])
    store.close({"train": 5})
    for name, arrays in (
        ("images", [patch.image for patch in patches]),
        ("masks_del", [patch.masks["del"] for patch in patches]),
        ("masks_gra", [patch.masks["gra"] for patch in patches]),
    ):
        np.testing.assert_array_equal(np.load(tmp_path / f"train/{name}.npy", mmap_mode="r"), np.stack(arrays))


def test_nobody_can_read_an_array_before_it_is_closed(tmp_path: Path) -> None:
    PackedStore(root=tmp_path, size=4, num_bands=2).write("train", 0, make_patches(3))
    with pytest.raises(ValueError, match="pickle"):
        np.load(tmp_path / "train/images.npy")


@pytest.mark.parametrize("layout", ["packed", "files"])
def test_what_was_never_committed_is_taken_away(tmp_path: Path, layout: str) -> None:
    patches = make_patches(3)
    stores = [
        PackedStore(root=tmp_path / name, size=4, num_bands=2)
        if layout == "packed"
        else FilesStore(root=tmp_path / name, mask="del")
        for name in ("cut", "whole")
    ]
    stores[0].write("train", 0, patches)
    stores[0].write("val", 0, patches)
    stores[0].cut_back({"train": [patches[0].name]})
    stores[1].write("train", 0, patches[:1])
    for path in sorted((tmp_path / "whole").rglob("*.npy")):
        assert path.read_bytes() == (tmp_path / "cut" / path.relative_to(tmp_path / "whole")).read_bytes()
    assert not any(path.stat().st_size for path in (tmp_path / "cut/val").iterdir())


@pytest.mark.parametrize("layout", ["packed", "files"])
def test_what_was_committed_and_is_gone_is_named(tmp_path: Path, layout: str) -> None:
    store = (
        PackedStore(root=tmp_path, size=4, num_bands=2) if layout == "packed" else FilesStore(root=tmp_path, mask="del")
    )
    with pytest.raises(FiresegError, match=r"was (the folder changed|written)"):
        store.cut_back({"train": ["tile_r0_c0"]})


def test_files_hold_reflectance_and_one_mask(tmp_path: Path) -> None:
    [patch] = make_patches(1)
    FilesStore(root=tmp_path, mask="gra").write("val", 0, [patch])
    image = np.load(tmp_path / "val/tile_r0_c0_image.npy")
    assert image.dtype == np.float32
    np.testing.assert_array_equal(np.rint(image * 10_000), patch.image)
    np.testing.assert_array_equal(np.load(tmp_path / "val/tile_r0_c0_mask.npy"), patch.masks["gra"])
