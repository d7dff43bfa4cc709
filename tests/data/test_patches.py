"""The layout on disk, and what is wrong with files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fireseg.data.patches import PatchFolder, UnreadableError, list_patches, read_array
from fireseg.data.reader import find_splits, open_source
from fireseg.errors import FiresegError


def test_patches_are_listed_by_name_whatever_order_the_folder_has(make_patches) -> None:
    source = open_source(make_patches(train=5) / "train")
    assert source.names == tuple(sorted(source.names))
    assert len(source) == 5


def test_a_patch_is_read_as_it_is_stored(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mask = np.array([[0, 1, 255], [1, 0, 0]], np.uint8)
    np.save(tmp_path / "a_image.npy", image)
    np.save(tmp_path / "a_mask.npy", mask)
    read = PatchFolder(tmp_path, ("a",)).read(0)
    np.testing.assert_array_equal(read[0], image)
    np.testing.assert_array_equal(read[1], mask)


def test_halves_of_patches_are_faults_and_other_files_are_nobodys_business(make_patches) -> None:
    folder = make_patches(train=3) / "train"
    first, second = list_patches(folder)[0].keys() - {"EMSR102_AOI01_01_r0_c64"}
    (folder / f"{first}_mask.npy").unlink()
    (folder / f"{second}_image.npy").unlink()
    (folder / "metadata.csv").write_text("patch_id\n")
    (folder / ".hidden_image.npy").write_text("")
    stamps, faults = list_patches(folder)
    assert list(stamps) == ["EMSR102_AOI01_01_r0_c64"]
    assert sorted(str(fault).split(": ")[1].split(";")[0] for fault in faults) == [
        "a mask without an image",
        "an image without a mask",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"\x93NUMPY\x01\x00", "truncated"), (b"no array at all", "truncated or not a .npy array")],
)
def test_a_file_without_an_array_names_itself(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a_image.npy"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=says) as caught:
        read_array(path)
    assert caught.value.fault.path == path


def test_a_truncated_array_is_not_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "a_image.npy"
    np.save(path, np.zeros((8, 8, 7), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableError, match="truncated"):
        read_array(path)


def test_an_array_of_objects_is_refused_for_it_could_run(tmp_path: Path) -> None:
    path = tmp_path / "a_image.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableError, match=r"not a \.npy array"):
        read_array(path)


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros(3))
    path = (tmp_path / "a.npz").rename(tmp_path / "a_image.npy")
    with pytest.raises(UnreadableError, match="archive"):
        read_array(path)


def test_a_missing_root_says_how_to_go_on_without_data(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match="data=sample"):
        find_splits(tmp_path / "patches")


def test_both_missing_splits_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FiresegError) as caught:
        find_splits(tmp_path)
    assert len(caught.value.faults) == 2


def test_a_test_split_is_found_only_where_there_is_one(make_patches) -> None:
    assert list(find_splits(make_patches())) == ["train", "val"]
    assert list(find_splits(make_patches(test=1))) == ["train", "val", "test"]
