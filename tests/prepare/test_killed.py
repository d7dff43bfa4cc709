"""Killed at any moment and started again, it ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fireseg.prepare.journal import Journal, StagingFolder
from tests.prepare.look_alike_set import read_tree, write_set

ROOT = Path(__file__).parents[2]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def run(tiles: Path, patches: Path, steps: int, layout: str = "packed") -> tuple[int, list[str], int]:
    """Exit code, the tiles that were read, and steps towards the disk."""
    notes = patches.parent / f"{patches.name}_{time.monotonic_ns()}"
    code = start(Path(__file__).with_name("killed_run.py"), tiles, patches, steps, notes, layout).wait()
    lines = notes.read_text().split() if notes.exists() else []
    return code, [line for line in lines if line != "step"], lines.count("step")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiles")


@pytest.mark.parametrize("layout", ["packed", "files"])
def test_killed_at_any_step_and_started_again_ends_byte_equal_and_reads_no_tile_twice(
    tiles: Path, tmp_path: Path, layout: str
) -> None:
    code, reads, steps = run(tiles, tmp_path / "whole", -1, layout)
    assert code == 0
    assert len(reads) == 5
    whole = read_tree(tmp_path / "whole")
    rng = np.random.default_rng(0)
    for number, moment in enumerate([0, steps - 1, *rng.integers(1, steps - 1, 4).tolist()]):
        patches = tmp_path / f"killed_{number}"
        code, _, _ = run(tiles, patches, moment, layout)
        assert code == -signal.SIGKILL
        assert not (patches / "manifest.json").exists() or read_tree(patches) == whole
        space = StagingFolder(patches)
        done = len(Journal(space.record).tiles) if space.state != "new" else 0
        code, reads, _ = run(tiles, patches, -1, layout)
        assert code == 0
        assert len(reads) == 5 - done
        assert read_tree(patches) == whole


def test_killed_with_all_its_workers_at_moments_of_the_clock_it_ends_byte_equal(tiles: Path, tmp_path: Path) -> None:
    arguments = ["-m", "fireseg.prepare", tiles]
    assert start(*arguments, tmp_path / "whole", "--size", 16).wait() == 0
    for number in range(2):
        patches = tmp_path / f"killed_{number}"
        command = [*arguments, patches, "--size", 16, "--workers", 2]
        process = start(*command)
        record = StagingFolder(patches).staging / Journal.NAME
        while process.poll() is None and not (record.exists() and record.read_bytes().count(b"\n") > number + 1):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must not go on without it
        process.wait()
        assert start(*command).wait() == 0
        assert read_tree(patches) == read_tree(tmp_path / "whole")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_ends_with_what_a_shell_expects(tiles: Path, tmp_path: Path, signum: int, code: int) -> None:
    process = start("-m", "fireseg.prepare", tiles, tmp_path / "patches", "--size", 8, "--stride", 1, "--workers", 2)
    record = StagingFolder(tmp_path / "patches").staging / Journal.NAME
    while process.poll() is None and not record.exists():
        time.sleep(0.002)
    os.kill(process.pid, signum)
    assert process.wait() == code
