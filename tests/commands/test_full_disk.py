"""A full disk is one error; whole files are kept, and the same command goes on after room is made.

Training fills a disk in `train/test_resume.py`.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error
from scripts.kill_test import list_litter, read_digests
from tests.commands.builders import Inputs
from tests.conftest import SmallDisk
from tests.processes import start_command

MakeDisk = Callable[..., SmallDisk]

_CURE = re.compile("make room and start again|free some space")
"""Of the disk and of GDAL, which writes rasters and vectors."""


@pytest.mark.parametrize(
    ("command", "left"),
    [("prepare", 150_000), ("evaluate", 60_000), ("predict", 12_000), ("predict", 300_000), ("fetch", 24_000)],
)
def test_a_full_disk_is_one_error_and_the_same_command_goes_on_after_room_is_made(
    command: str, left: int, inputs: Inputs, make_small_disk: MakeDisk
):
    disk = make_small_disk("size=32m")
    out = disk.folder / "out"
    arguments = inputs.arguments(command, out)
    disk.fill(left)
    process = start_command(command, *arguments)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 1, output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if _CURE.search(line)]
    # A scene that does not fit stops no other, so that there may be one line for each, and one for all together.
    assert 1 <= len(errors) <= (len(inputs.scenes) + 1 if command == "predict" else 1), output
    assert all(str(disk.folder) in line for line in errors)
    assert list_litter(out) == []
    kept = {} if command == "prepare" else read_digests(out)  # it keeps tiles in a folder of its own
    for name in ("maps.json", "all_burned.csv", "all_burned.gpkg"):  # of all scenes together
        kept.pop(name, None)

    disk.make_room()
    again = start_command(command, *arguments)
    assert again.wait(timeout=120) == 0, again.communicate()[0]
    finished = read_digests(out)
    assert {name: digest for name, digest in kept.items() if finished.get(name) != digest} == {}

    shutil.rmtree(out)
    undisturbed = start_command(command, *inputs.arguments(command, out))
    assert undisturbed.wait(timeout=120) == 0
    assert read_digests(out) == finished


def test_a_disk_without_inodes_is_told(make_small_disk: MakeDisk):
    disk = make_small_disk("size=1m,nr_inodes=2")  # one for the folder itself
    (disk.folder / "a").touch()

    with pytest.raises(FiresegError, match=r"b: the disk has no room for more files \(inodes\); remove some and start"):
        write_text(disk.folder / "b")
    assert [path.name for path in disk.folder.iterdir()] == ["a"]


def test_a_used_up_quota_is_told(tmp_path: Path):
    error = disk_error(tmp_path / "b", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert "b: your quota of the disk is used up; make room and start again" in str(error)


def write_text(path: Path) -> None:
    with atomic_write(path) as part:
        part.write_text("text")
