"""Journal and output folder: a run killed at any time continues and ends with the same bytes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireseg.data.format import JOURNAL_NAME
from fireseg.errors import FiresegError
from fireseg.prepare.journal import Journal, SourceFile, TileRecord
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.output import StagingFolder
from fireseg.prepare.pipeline import prepare
from tests.prepare.builders import read_tree, write_set
from tests.processes import start_command, start_program

# Kills itself at the n-th forced write or rename, below 0 never. Writes a line for each of these steps, and for each
# tile that it reads.
KILLED_RUN = """
import itertools, os, signal, sys
from pathlib import Path
from fireseg.prepare import cut_job
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare

tiles, patches, steps, log, layout = sys.argv[1:]
remaining = itertools.count(int(steps), -1)

def write_line(line):
    with Path(log).open("a") as file:
        file.write(line + "\\n")

def count_down(function):
    def step(*arguments, **options):
        if next(remaining) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        write_line("step")
        return function(*arguments, **options)
    return step

def log_and_read(files, *arguments, **options):
    write_line(files.name)
    return read_tile(files, *arguments, **options)

os.fsync, os.replace = count_down(os.fsync), count_down(os.replace)
read_tile, cut_job.read_tile = cut_job.read_tile, log_and_read
tiling = TilingOptions(size=16, layout=layout, task="del" if layout == "files" else None)
prepare(PrepareOptions(tiles=Path(tiles), patches=Path(patches), tiling=tiling))
"""


def make_tile(name: str, split: str = "train", patches: int = 2) -> TileRecord:
    rows = [{"patch_id": f"{name}_r{number}_c0"} for number in range(patches)]
    sources = [SourceFile(path="a.tif", bytes=1, time_ns=2, sha256="3")]
    return TileRecord(name=name, split=split, activation="EMSR1", sources=sources, rows=rows)


def test_appended_records_are_read_back(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "tiles.jsonl", {"options": {"size": 4}})
    tiles = [make_tile("a"), make_tile("b", patches=0), make_tile("c", split="val", patches=1)]
    for tile in tiles:
        journal.append(tile)
    again = Journal(tmp_path / "tiles.jsonl")
    assert again.header["options"] == {"size": 4}
    assert again.tiles == tiles
    assert again.patch_names() == {"train": ["a_r0_c0", "a_r1_c0"], "val": ["c_r0_c0"]}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_an_incomplete_line_is_ignored_and_replaced(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tiles.jsonl"
    journal = Journal.create(path, {})
    journal.append(make_tile("a"))
    whole = path.read_bytes()
    journal.append(make_tile("b"))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert [tile.name for tile in again.tiles] == ["a"]
    again.append(make_tile("c"))
    assert path.read_bytes().startswith(whole)
    assert [tile.name for tile in Journal(path).tiles] == ["a", "c"]


def test_a_journal_of_another_format_raises(tmp_path: Path) -> None:
    path = tmp_path / "tiles.jsonl"
    path.write_text('{"format":0}\n')
    with pytest.raises(FiresegError, match=r"tiles\.jsonl.*delete the folder"):
        Journal(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"rows"', '"roWs"'),
        ('"footprint":null', '"footprint":true'),
        ('"sources":[{', '"sources":[[],{'),
        ('"patch_id"', '"patch"'),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, old: str, new: str) -> None:
    journal = Journal.create(tmp_path / "tiles.jsonl", {})
    journal.append(make_tile("a"))
    text = journal.path.read_text()
    assert old in text
    journal.path.write_text(text.replace(old, new, 1))
    with pytest.raises(FiresegError, match=r"tiles\.jsonl: line 2 damaged.*delete the folder"):
        Journal(journal.path)


def test_a_row_without_a_column_of_the_others_is_named(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "tiles.jsonl", {})
    journal.append(replace(make_tile("a"), rows=[{"patch_id": "a_r0_c0", "row": 0}]))
    journal.append(replace(make_tile("b"), rows=[{"patch_id": "b_r0_c0"}]))
    with pytest.raises(FiresegError, match=r"tiles\.jsonl: line 3 damaged.*delete the folder"):
        Journal(journal.path)


def test_a_finished_folder_whose_journal_lost_a_tile_is_refused(tmp_path: Path) -> None:
    options = PrepareOptions(
        tiles=write_set(tmp_path / "tiles", train=1), patches=tmp_path / "patches", tiling=TilingOptions(size=16)
    )
    prepare(options)
    path = tmp_path / "patches/tiles.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(FiresegError, match=r"tiles\.jsonl: 2 of 3 tiles.*delete the folder"):
        prepare(options)


def run(tiles: Path, patches: Path, steps: int, layout: str = "packed") -> tuple[int, list[str], int]:
    """Returns the exit code, the tiles that were read, and the number of steps."""
    log = patches.parent / f"{patches.name}_{time.monotonic_ns()}"
    code = start_program(KILLED_RUN, (tiles, patches, steps, log, layout)).wait()
    lines = log.read_text().split() if log.exists() else []
    return code, [line for line in lines if line != "step"], lines.count("step")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiles")


@pytest.mark.parametrize("layout", ["packed", "files"])
def test_a_run_killed_at_any_step_continues_to_the_same_bytes_and_reads_no_tile_twice(
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
        output = StagingFolder(patches)
        done = len(Journal(output.journal_path).tiles) if output.state != "new" else 0
        code, reads, _ = run(tiles, patches, -1, layout)
        assert code == 0
        assert len(reads) == 5 - done
        assert read_tree(patches) == whole


def test_a_run_with_workers_killed_at_some_time_continues_to_the_same_bytes(tiles: Path, tmp_path: Path) -> None:
    assert start_command("prepare", tiles, tmp_path / "whole", "--size", 16).wait() == 0
    for number in range(2):
        patches = tmp_path / f"killed_{number}"
        command = ["prepare", tiles, patches, "--size", "16", "--workers", "2"]
        process = start_command(*command)
        journal = StagingFolder(patches).staging / JOURNAL_NAME
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > number + 1):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)  # only the parent: its workers must end with it
        process.wait()
        assert start_command(*command).wait() == 0
        assert read_tree(patches) == read_tree(tmp_path / "whole")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_exits_with_the_code_of_the_signal(
    tiles: Path, tmp_path: Path, signum: int, code: int
) -> None:
    options = ["--size", 8, "--stride", 1, "--workers", 2]
    process = start_command("prepare", tiles, tmp_path / "patches", *options)
    journal = StagingFolder(tmp_path / "patches").staging / JOURNAL_NAME
    while process.poll() is None and not journal.exists():
        time.sleep(0.002)
    os.kill(process.pid, signum)
    assert process.wait() == code
