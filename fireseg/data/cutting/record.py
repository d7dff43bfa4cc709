"""What came of each tile, line by line: the memory of a preparation that may be killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fireseg.data.store import FORMAT, MaskName
from fireseg.disk import replacing
from fireseg.errors import FiresegError

RECORD = "tiles.jsonl"
"""First line: what was asked for. Then a line a tile, in their order."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that a tile was read from.

    Attributes:
        path: Below the folder of tiles, with `/`.
        bytes: Its size.
        time_ns: Its last change.
        sha256: Of its content; of an image, of the values that were read from it, since reading it twice would
            cost more than all else.
    """

    path: str
    bytes: int
    time_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TileRecord:
    """What came of one tile. Plain values only.

    Attributes:
        name: Name of the tile.
        split: Where its patches went.
        activation: The event that it belongs to.
        sources: Its files as they were when read.
        faults: Why nothing came of it; empty where all is well.
        flags: What looks strange though it stopped nothing.
        missing: Which of `GRA`, `CM` and `json` it has not.
        footprint: Where, when, and what its pixels look like; None where nothing came of it.
        rows: One row of metadata.csv a patch.
        left_out: Windows left out and labelled pixels in them, by reason.
        disagreements: Pixels graded but not delineated, and delineated but of grade 0.
        pixels: Pixels of each class in its patches, the ignored ones last, by mask.
        band_sums: Sum of the stored values of each band over the labelled pixels of its patches.
        band_squares: Sum of their squares.
    """

    name: str
    split: str
    activation: str
    sources: list[SourceFile]
    faults: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    footprint: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    disagreements: list[int] = field(default_factory=lambda: [0, 0])
    pixels: dict[MaskName, list[int]] = field(default_factory=dict)
    band_sums: list[int] = field(default_factory=list)
    band_squares: list[int] = field(default_factory=list)

    @property
    def patches(self) -> list[str]:
        """Names of its patches."""
        return [row["patch_id"] for row in self.rows]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TileRecord:
        """The record that a line holds."""
        return cls(**{**values, "sources": [SourceFile(**source) for source in values["sources"]]})


class Record:
    """The lines on disk, and in memory what they say.

    Args:
        path: The file.

    Attributes:
        header: What was asked for.
        tiles: What came of the tiles so far.
    """

    NAME = RECORD

    def __init__(self, path: Path) -> None:
        self.path = path
        lines, self._end = _read_whole_lines(path)
        if not lines or lines[0].get("format") != FORMAT:
            raise FiresegError(f"{path}: not written by this version of fireseg; delete the folder and prepare again")
        self.header: dict[str, Any] = lines[0]
        self.tiles = [TileRecord.from_json(line) for line in lines[1:]]

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Record:
        """Begins a record. The header is there whole, or there is no file."""
        with replacing(path) as part:
            part.write_text(_to_line({"format": FORMAT, **header}), encoding="utf-8")
        return cls(path)

    def append(self, tile: TileRecord) -> None:
        """Commits a tile: from here on its patches count, whatever happens."""
        line = _to_line(asdict(tile)).encode()
        with self.path.open("r+b") as file:
            file.truncate(self._end)  # half a line of one who was killed, or found the disk full
            file.seek(self._end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(line)
        self.tiles.append(tile)

    def names(self) -> dict[str, list[str]]:
        """The patches of each split that has any, by number."""
        return group_patches(self.tiles)


def group_patches(tiles: Sequence[TileRecord]) -> dict[str, list[str]]:
    """The patches of each split that has any, by number."""
    found: dict[str, list[str]] = {}
    for tile in tiles:
        if tile.rows:
            found.setdefault(tile.split, []).extend(tile.patches)
    return found


def _read_whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that came to their end, and how many bytes they take."""
    lines, end = [], 0
    with path.open("rb") as file:
        for line in file:
            try:
                lines.append(json.loads(line))
            except ValueError:  # half a line: what follows it was never committed
                break
            if not line.endswith(b"\n"):
                lines.pop()
                break
            end += len(line)
    return lines, end


def _to_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"
