"""Manifest, and writers of packed arrays and patch files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.format import FilesWriter, PackedWriter, StoredPatch, npy_header, read_manifest
from fireseg.data.reader import open_splits
from fireseg.errors import FiresegError


def test_patches_from_other_programs_have_no_manifest(make_patches) -> None:
    assert read_manifest(make_patches()) is None


def test_a_manifest_of_another_program_is_ignored(make_patches) -> None:
    root = make_patches()
    (root / "manifest.json").write_text('{"manifest_version": 3}')
    assert read_manifest(root) is None
    assert open_splits(root, "del")[1] is None


def test_known_fields_are_read_and_others_ignored(make_packed) -> None:
    manifest = read_manifest(make_packed(bands=("B02", "B12"), leaks=["a | b"], unknown="field"))
    assert manifest is not None
    assert (manifest.layout, manifest.task, manifest.bands, manifest.leaks) == (
        "packed",
        None,
        ("B02", "B12"),
        ("a | b",),
    )
    assert manifest.patches == {"train": 9, "val": 5}


@pytest.mark.parametrize("number", [2, "two", None])
def test_a_newer_format_is_an_error(make_packed, number: object) -> None:
    with pytest.raises(FiresegError, match=rf"format {number}, .* up to 1; update fireseg"):
        read_manifest(make_packed(format=number))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "zipped"}, "layout: Input should be 'packed' or 'files'"),
        ({"scale": 1000}, "scale: Input should be 10000"),
        ({"bands": ["B02", "B99"]}, "bands: Value error, no band 'B99'"),
        ({"patches": {"train": -1}}, "patches.train"),
        ({"patches": None}, "patches: "),
    ],
)
def test_an_invalid_field_is_named(make_packed, changes: dict[str, object], message: str) -> None:
    path: Path = make_packed() / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FiresegError, match=message) as caught:
        read_manifest(path.parent)
    assert "manifest.json: " in str(caught.value)


def test_a_truncated_manifest_is_an_error(make_packed) -> None:
    path: Path = make_packed() / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FiresegError, match=r"truncated or not JSON; run python -m fireseg.prepare again"):
        read_manifest(path.parent)


def create_patches(count: int, seed: int = 0) -> list[StoredPatch]:
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


def test_patches_written_in_any_order_are_writerd_by_index(tmp_path: Path) -> None:
    patches, writer = create_patches(5), PackedWriter(root=tmp_path, size=4, num_bands=2)
    writer.write("train", 2, patches[2:])
    writer.write("train", 0, patches[:2])
    writer.close({"train": 5})
    for name, arrays in (
        ("images", [patch.image for patch in patches]),
        ("masks_del", [patch.masks["del"] for patch in patches]),
        ("masks_gra", [patch.masks["gra"] for patch in patches]),
    ):
        np.testing.assert_array_equal(np.load(tmp_path / f"train/{name}.npy", mmap_mode="r"), np.stack(arrays))


def test_an_array_cannot_be_read_before_it_is_closed(tmp_path: Path) -> None:
    PackedWriter(root=tmp_path, size=4, num_bands=2).write("train", 0, create_patches(3))
    with pytest.raises(ValueError, match="pickle"):
        np.load(tmp_path / "train/images.npy")


@pytest.mark.parametrize("layout", ["packed", "files"])
def test_truncate_removes_patches_that_were_not_recorded(tmp_path: Path, layout: str) -> None:
    patches = create_patches(3)
    writers = [
        PackedWriter(root=tmp_path / name, size=4, num_bands=2)
        if layout == "packed"
        else FilesWriter(root=tmp_path / name, mask="del")
        for name in ("cut", "whole")
    ]
    writers[0].write("train", 0, patches)
    writers[0].write("val", 0, patches)
    writers[0].truncate({"train": [patches[0].name]})
    writers[1].write("train", 0, patches[:1])
    for path in sorted((tmp_path / "whole").rglob("*.npy")):
        assert path.read_bytes() == (tmp_path / "cut" / path.relative_to(tmp_path / "whole")).read_bytes()
    assert not any(path.stat().st_size for path in (tmp_path / "cut/val").iterdir())


@pytest.mark.parametrize("layout", ["packed", "files"])
def test_truncate_names_a_recorded_patch_that_is_missing(tmp_path: Path, layout: str) -> None:
    writer = (
        PackedWriter(root=tmp_path, size=4, num_bands=2)
        if layout == "packed"
        else FilesWriter(root=tmp_path, mask="del")
    )
    with pytest.raises(FiresegError, match="was the folder changed"):
        writer.truncate({"train": ["tile_r0_c0"]})


def test_files_hold_reflectance_and_one_mask(tmp_path: Path) -> None:
    [patch] = create_patches(1)
    FilesWriter(root=tmp_path, mask="gra").write("val", 0, [patch])
    image = np.load(tmp_path / "val/tile_r0_c0_image.npy")
    assert image.dtype == np.float32
    np.testing.assert_array_equal(np.rint(image * 10_000), patch.image)
    np.testing.assert_array_equal(np.load(tmp_path / "val/tile_r0_c0_mask.npy"), patch.masks["gra"])
