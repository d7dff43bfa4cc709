"""The memory of a preparation: only whole lines count."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.journal import Journal, SourceFile, TileRecord


def make_tile(name: str, split: str = "train", patches: int = 2) -> TileRecord:
    rows = [{"patch_id": f"{name}_r{number}_c0"} for number in range(patches)]
    sources = [SourceFile(path="a.tif", bytes=1, time_ns=2, sha256="3")]
    return TileRecord(name=name, split=split, activation="EMSR1", sources=sources, rows=rows)


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    record = Journal.create(tmp_path / "tiles.jsonl", {"options": {"size": 4}})
    tiles = [make_tile("a"), make_tile("b", patches=0), make_tile("c", split="val", patches=1)]
    for tile in tiles:
        record.append(tile)
    again = Journal(tmp_path / "tiles.jsonl")
    assert again.header["options"] == {"size": 4}
    assert again.tiles == tiles
    assert again.names() == {"train": ["a_r0_c0", "a_r1_c0"], "val": ["c_r0_c0"]}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_half_a_line_never_happened(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tiles.jsonl"
    record = Journal.create(path, {})
    record.append(make_tile("a"))
    whole = path.read_bytes()
    record.append(make_tile("b"))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert [tile.name for tile in again.tiles] == ["a"]
    again.append(make_tile("c"))
    assert path.read_bytes().startswith(whole)
    assert [tile.name for tile in Journal(path).tiles] == ["a", "c"]


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiles.jsonl"
    path.write_text('{"format":0}\n')
    with pytest.raises(FiresegError, match="not written by this version"):
        Journal(path)
