"""Patch files and their faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fireseg.data.patches import FolderReader, UnreadableError, list_patches, read_array
from fireseg.data.reader import open_split


def test_patches_are_sorted_by_name(make_patches) -> None:
    reader = open_split(make_patches(train=5) / "train")
    assert reader.names == tuple(sorted(reader.names))
    assert len(reader) == 5


def test_a_patch_is_read_as_stored(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mask = np.array([[0, 1, 255], [1, 0, 0]], np.uint8)
    np.save(tmp_path / "a_image.npy", image)
    np.save(tmp_path / "a_mask.npy", mask)
    patch = FolderReader(tmp_path, ("a",)).read(0)
    np.testing.assert_array_equal(patch[0], image)
    np.testing.assert_array_equal(patch[1], mask)


def test_incomplete_patches_are_faults_and_other_files_are_ignored(make_patches) -> None:
    folder = make_patches(train=3) / "train"
    first, second = list_patches(folder)[0].keys() - {"EMSR102_AOI01_01_r0_c64"}
    (folder / f"{first}_mask.npy").unlink()
    (folder / f"{second}_image.npy").unlink()
    (folder / "metadata.csv").write_text("patch_id\n")
    (folder / ".hidden_image.npy").write_text("")
    keys, faults = list_patches(folder)
    assert list(keys) == ["EMSR102_AOI01_01_r0_c64"]
    assert sorted(str(fault).split(": ")[1].split(";")[0] for fault in faults) == [
        "a mask without an image",
        "an image without a mask",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\x93NUMPY\x01\x00", "truncated"), (b"no array at all", "truncated or not a .npy array")],
)
def test_a_file_without_an_array_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a_image.npy"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=message) as caught:
        read_array(path)
    assert caught.value.fault.path == path


def test_a_truncated_array_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a_image.npy"
    np.save(path, np.zeros((8, 8, 7), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableError, match="truncated"):
        read_array(path)


def test_an_array_of_objects_is_an_error_because_unpickling_runs_code(tmp_path: Path) -> None:
    path = tmp_path / "a_image.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableError, match=r"not a \.npy array"):
        read_array(path)


def test_an_archive_of_arrays_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros(3))
    path = (tmp_path / "a.npz").rename(tmp_path / "a_image.npy")
    with pytest.raises(UnreadableError, match="archive"):
        read_array(path)
