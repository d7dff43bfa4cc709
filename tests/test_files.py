"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error, load_tensors


def test_a_file_takes_its_place_only_when_it_is_whole(tmp_path: Path):
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


def test_a_full_disk_is_one_clear_line_and_the_old_file_stays(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(FiresegError, match=r"a\.txt: the disk is full"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert path.read_text() == "old"


def test_a_folder_of_others_is_named():
    assert "cannot be written" in str(disk_error(Path("x"), PermissionError(errno.EACCES, "Permission denied")))


def test_tensors_come_back_as_they_were(tmp_path: Path):
    with atomic_write(tmp_path / "a.pt") as part:
        torch.save({"x": torch.arange(3), "n": [1, "two"]}, part)

    content = load_tensors(tmp_path / "a.pt")

    assert content["n"] == [1, "two"]
    assert torch.equal(content["x"], torch.arange(3))


class Crafted:
    """Makes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.victim,)  # pyright: ignore[reportReturnType]


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path):
    victim = tmp_path / "victim"
    torch.save({"model": Crafted(victim)}, tmp_path / "a.pt", pickle_module=pickle)

    with pytest.raises(FiresegError, match="not a readable checkpoint"):
        load_tensors(tmp_path / "a.pt")

    assert not victim.exists()


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int):
    torch.save({"x": torch.arange(1000)}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(content[:length])

    with pytest.raises(FiresegError, match=r"b\.pt: not a readable checkpoint"):
        load_tensors(tmp_path / "b.pt")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(FiresegError, match="no such file"):
        load_tensors(tmp_path / "none.pt")
