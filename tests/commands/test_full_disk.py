"""A full disk is one error; whole files are kept, and the same command goes on after room is made.

Training fills a disk in `train/test_resume.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from scripts.kill_test import list_litter, read_digests
from tests.commands.builders import Inputs
from tests.conftest import SmallDisk
from tests.processes import start_command

MakeDisk = Callable[..., SmallDisk]


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
    # The faults of scenes are listed below their number.
    (line,) = [line for line in output.splitlines() if "make room" in line or line.startswith("fireseg:")]
    assert str(disk.folder) in line
    assert "the disk is full; make room and start again" in line
    assert "Traceback" not in output
    assert list_litter(out) == []
    kept = {} if command == "prepare" else read_digests(out)  # it keeps tiles in a folder of its own

    disk.make_room()
    again = start_command(command, *arguments, *(["--overwrite"] if any(out.glob("*.json")) else []))
    assert again.wait(timeout=120) == 0, again.communicate()[0]
    finished = read_digests(out)
    assert {name: digest for name, digest in kept.items() if finished.get(name) != digest} == {}

    shutil.rmtree(out)
    undisturbed = start_command(command, *inputs.arguments(command, out))
    assert undisturbed.wait(timeout=120) == 0
    assert read_digests(out) == finished


def test_a_disk_without_inodes_is_told(inputs: Inputs, make_small_disk: MakeDisk):
    disk = make_small_disk("size=32m,nr_inodes=8")

    output, _ = start_command("predict", *inputs.arguments("predict", disk.folder / "out")).communicate(timeout=60)

    assert "the disk has no room for more files (inodes); remove some and start again" in output
    assert "Traceback" not in output
