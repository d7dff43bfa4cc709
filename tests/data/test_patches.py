"""Patch files and their faults."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fireseg.data.module import WildfireDataModule
from fireseg.data.patches import FolderReader, UnreadableError, list_patches, read_array
from fireseg.data.reader import open_split, open_splits
from fireseg.errors import FiresegError


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


def write_header(path: Path, text: str) -> None:
    """Writes a .npy file of 200 bytes with any header."""
    header = text.ljust(117).encode() + b"\n"
    path.write_bytes((b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header).ljust(200, b"\0"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + 60 * "(", "truncated or not"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (999999, 999999, 7)}", r"more values than fit|truncated"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 7)}", "truncated or not"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 7)}", "truncated or not"),
        ("{[]: 1}", "truncated or not"),
    ],
)
@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_a_damaged_header_is_reported(tmp_path: Path, header: str, message: str, mmap_mode) -> None:
    write_header(tmp_path / "a_image.npy", header)
    with pytest.raises(UnreadableError, match=f"a_image.npy: .*({message})"):
        read_array(tmp_path / "a_image.npy", mmap_mode=mmap_mode)


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Returns a function that removes a file and makes something else of its name."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGES = {
    "damaged header": (lambda path: write_header(path, "{'shape': ((("), "truncated or not"),
    "header of 25 TB": (
        lambda path: write_header(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (999999, 999999, 7)}"),
        "more values than fit",
    ),
    "archive cut short": (lambda path: path.write_bytes(b"PK\x03\x04"), "archive"),
    "dangling link": (replace_by(lambda path: path.symlink_to("nowhere")), "a link to a file that does not exist"),
    "circular link": (replace_by(lambda path: path.symlink_to(path.name)), "cannot be read"),
    "pipe": (replace_by(os.mkfifo), "not a regular file"),
    "folder": (replace_by(Path.mkdir), "not a regular file"),
    "name that is not UTF-8": (
        lambda path: path.rename(os.fsdecode(os.fsencode(path).replace(b"EMSR100", b"EMSR\xff"))),
        "not UTF-8; rename",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_patch_is_named_or_skipped(make_patches, damage: str) -> None:
    root, (spoil, message) = make_patches(), DAMAGES[damage]
    spoil(root / "train/EMSR100_AOI01_01_r0_c0_image.npy")
    with pytest.raises(FiresegError, match=rf"_image\.npy: .*{message}") as caught:
        WildfireDataModule(root).setup()
    str(caught.value).encode()  # can be printed
    module = WildfireDataModule(root, on_bad="skip")
    module.setup()
    assert len(module.train) == 7
    assert any("1 patch was left out" in note or "2 patches were left out" in note for note in module.notes)


def test_a_folder_that_may_not_be_read_is_reported(make_patches) -> None:
    root = make_patches()
    is_root = os.geteuid() == 0
    root.chmod(0)
    try:
        if is_root:
            os.seteuid(65534)
        with pytest.raises(FiresegError, match=r"cannot be read .*check its permissions"):
            open_splits(root, "del")
        with pytest.raises(FiresegError, match=r"cannot be read .*check its permissions"):
            list_patches(root / "train")
    finally:
        if is_root:
            os.seteuid(0)
        root.chmod(0o700)
