"""Tables of splits and groups, with every fault at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.tile_table import read_tile_column

TILES = ["north", "south", "east"]


def read(path: Path, content: str) -> dict[str, str]:
    path.write_text(content)
    return read_tile_column(path, "split", TILES, option="--split-csv", allowed=("train", "val", "test"))


def test_the_value_of_each_tile_is_read_from_its_columns_in_any_order(tmp_path: Path) -> None:
    content = "country,split,tile\nPT,train,north\nGR, val ,south\nES,test,east\n"
    assert read(tmp_path / "split.csv", content) == {"north": "train", "south": "val", "east": "test"}


def test_every_fault_of_a_table_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    with pytest.raises(FiresegError) as raised:
        read(path, "tile,split\nnorth,train\nsuoth,val\nnorth,train\nsouth,validation\n")
    found = [fault.removeprefix(f"--split-csv {path}: ") for fault in raised.value.faults]
    assert [fault.partition(",")[0] for fault in found] == [
        "line 3: tile 'suoth'",
        "line 4: tile 'north' again",
        "line 5: split 'validation'",
        "no row for 1 of 3 tiles (east); add a row for each",
    ]
    assert "did you mean 'south'?" in found[0]
    assert "must be train, val or test" in found[2]


def test_a_table_without_the_column_raises(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"no column split.*--split-csv needs a csv with the columns tile and split"):
        read(tmp_path / "split.csv", "tile,subset\nnorth,train\n")
