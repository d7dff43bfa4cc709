"""Files are written completely or not at all, and checkpoints are read without running code."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error, load_tensors


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as part:
            part.write_text("ne")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_finished_file_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with atomic_write(path) as part:
        part.write_text("new")

    assert path.read_text() == "new"


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(FiresegError, match=r"a\.txt: the disk is full"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert path.read_text() == "old"


def test_a_missing_permission_is_reported():
    assert "cannot be written" in str(disk_error(Path("x"), PermissionError(errno.EACCES, "Permission denied")))


def test_tensors_are_read_back_unchanged(tmp_path: Path):
    with atomic_write(tmp_path / "a.pt") as part:
        torch.save({"x": torch.arange(3), "n": [1, "two"]}, part)

    content = load_tensors(tmp_path / "a.pt")

    assert content["n"] == [1, "two"]
    assert torch.equal(content["x"], torch.arange(3))


class Crafted:
    """Creates a file when it is unpickled."""

    def __init__(self, created: Path) -> None:
        self.created = created

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.created,)  # pyright: ignore[reportReturnType]


def test_a_file_with_code_is_rejected_without_running_it(tmp_path: Path):
    created = tmp_path / "created"
    torch.save({"model": Crafted(created)}, tmp_path / "a.pt", pickle_module=pickle)

    with pytest.raises(FiresegError, match="not a readable checkpoint"):
        load_tensors(tmp_path / "a.pt")

    assert not created.exists()


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_truncated_file_is_rejected(tmp_path: Path, length: int):
    torch.save({"x": torch.arange(1000)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(content[:length])

    with pytest.raises(FiresegError, match=r"b\.pt: not a readable checkpoint"):
        load_tensors(tmp_path / "b.pt")


def test_a_missing_file_is_reported(tmp_path: Path):
    with pytest.raises(FiresegError, match="no such file"):
        load_tensors(tmp_path / "none.pt")


def test_flipped_bits_in_a_tensor_are_refused(tmp_path: Path):
    path = tmp_path / "last.pt"
    torch.save({"model": {"weight": torch.arange(4096, dtype=torch.float32)}, "epoch": 3}, path)
    content = bytearray(path.read_bytes())
    start = content.find(torch.arange(100, 200, dtype=torch.float32).numpy().tobytes())
    for offset in range(0, 20, 4):
        content[start + offset] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["epoch"] == 3  # torch itself does not notice

    with pytest.raises(FiresegError, match=r"last\.pt: not a readable checkpoint: damaged"):
        load_tensors(path)


def test_a_path_that_is_no_regular_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "last.pt")

    with pytest.raises(FiresegError, match=r"last\.pt: not a regular file"):
        load_tensors(tmp_path / "last.pt")
