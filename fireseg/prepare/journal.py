"""Journal of a run, one line per tile, so that a run killed at any time can continue."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fireseg.data.format import FORMAT_VERSION, MaskName
from fireseg.errors import FiresegError, join_names
from fireseg.files import atomic_write, check_regular_file
from fireseg.prepare.footprints import Footprint

_MAX_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that a tile was read from.

    Attributes:
        path: Path relative to the folder of tiles, with `/`.
        bytes: File size in bytes.
        time_ns: Modification time in nanoseconds.
        sha256: Digest of the content; for the image, of the values read from it, because reading it twice would
            take longer than all other steps.
    """

    path: str
    bytes: int
    time_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TileRecord:
    """The result of cutting one tile, in plain values.

    Attributes:
        name: Name of the tile.
        split: Split of its patches.
        activation: Emergency activation that it belongs to.
        sources: Its files at the time they were read.
        faults: Reasons why it gave no patches; empty if it has none.
        flags: Suspicious values that do not prevent its use.
        ignored: Names of channels of the image that are no Sentinel-2 band.
        missing: Missing files among `DEL`, `GRA`, `CM` and `json`.
        footprint: Location, date and fingerprint; None if it could not be read.
        pixel_m: Ground distance between pixels in metres; None if it could not be read.
        level: Processing level, `1C` or `2A`; None if unknown.
        rows: One row of metadata.csv per patch.
        left_out: Number of windows left out and of labelled pixels in them, by reason.
        disagreements: Number of pixels graded but not delineated, and delineated but of grade 0.
        pixels: Number of pixels of each class in its patches, ignored pixels last, by mask.
        band_sums: Sum of the stored values of each band over the labelled pixels of its patches.
        band_squares: Sum of their squares.
    """

    name: str
    split: str
    activation: str
    sources: list[SourceFile]
    faults: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    footprint: dict[str, Any] | None = None
    pixel_m: float | None = None
    level: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    disagreements: list[int] = field(default_factory=lambda: [0, 0])
    pixels: dict[MaskName, list[int]] = field(default_factory=dict)
    band_sums: list[int] = field(default_factory=list)
    band_squares: list[int] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TileRecord:
        """Creates the record from a line of the journal.

        Raises:
            TypeError: If the line lacks a field, or has an unknown one.
            ValueError: If a value has another type.
        """
        cls(**values)  # pydantic would pass over unknown names
        record = TypeAdapter(cls).validate_python(values)
        if record.footprint is not None:
            Footprint.from_dict(record.footprint)
        if not all(isinstance(row.get("patch_id"), str) for row in record.rows):
            raise ValueError("patch_id")
        return record


class Journal:
    """The journal of a run: a header line, then one line per tile.

    Args:
        path: An existing journal.

    Attributes:
        path: The file.
        header: Options, and the split of each tile.
        tiles: Records of the tiles finished so far.

    Raises:
        FiresegError: If the file has another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines, self._end = _read_complete_lines(path)
        if not lines or lines[0].get("format") != FORMAT_VERSION:
            raise FiresegError(f"{path}: not written by this version of fireseg; delete the folder and prepare again")
        self.header: dict[str, Any] = lines[0]
        self.tiles: list[TileRecord] = []
        columns: list[str] = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                record = TileRecord.from_json(line)
                for row in record.rows:
                    columns = columns or list(row)
                    if list(row) != columns:
                        raise ValueError("columns of metadata.csv")
                self.tiles.append(record)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                raise FiresegError(
                    f"{path}: line {number} damaged, not the record of a tile; delete the folder and prepare again"
                ) from error

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Writes a new journal with its header, atomically."""
        with atomic_write(path) as part:
            part.write_text(_to_line({"format": FORMAT_VERSION, **header}), encoding="utf-8")
        return cls(path)

    def append(self, tile: TileRecord) -> None:
        """Commits a tile: its line is on disk when this returns."""
        line = _to_line(asdict(tile)).encode()
        with self.path.open("r+b") as file:
            file.truncate(self._end)  # removes a partial line left by a killed process or a full disk
            file.seek(self._end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(line)
        self.tiles.append(tile)

    def patch_names(self) -> dict[str, list[str]]:
        """Returns the patch names of each split that has any, in storage order."""
        names: dict[str, list[str]] = {}
        for tile in self.tiles:
            if tile.rows:
                names.setdefault(tile.split, []).extend(row["patch_id"] for row in tile.rows)
        return names


def _is_header(line: Mapping[str, Any]) -> bool:
    tiles = line.get("tiles")
    is_text = isinstance(tiles, dict) and all(isinstance(split, str) for split in tiles.values())
    return is_text and isinstance(line.get("options"), dict)


def _read_complete_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the complete lines and their length in bytes; whatever follows was never committed."""
    check_regular_file(path)
    lines, end = [], 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(values, dict):
                break
            lines.append(values)
            end += len(line)
    return lines, end


def _to_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"


def check_same_header(header: Mapping[str, Any], other: Mapping[str, Any], folder: Path) -> None:
    """Checks that a run continues with the options and tiles that it was started with.

    Args:
        header: Header of the journal.
        other: Header that a new run would write.
        folder: Output folder, for the message.

    Raises:
        FiresegError: If they differ; lists all differences.
    """
    if not _is_header(header):
        raise FiresegError(f"{folder}: line 1 of its journal is damaged; delete the folder and prepare again")
    options, others = header["options"], other["options"]
    differences = [
        f"{_format_option(name, options.get(name))}, but the command has {_format_option(name, others.get(name))}"
        for name in sorted({*options, *others})
        if options.get(name) != others.get(name)
    ]
    tiles, other_tiles = set(header["tiles"]), set(other["tiles"])
    for words, paths in (("missing now", tiles - other_tiles), ("added since", other_tiles - tiles)):
        if paths:
            differences.append(f"other tiles: {len(paths)} {words} ({join_names(sorted(paths), _MAX_NAMES)})")
    check_no_differences(folder, differences)


def check_no_differences(folder: Path, differences: Sequence[str]) -> None:
    """Raises an error that lists the differences from an earlier run, if there are any.

    Raises:
        FiresegError: If there are differences.
    """
    cure = "delete the folder to prepare it again, or choose another"
    if differences:
        raise FiresegError(*(f"{folder}: made with {difference}; {cure}" for difference in differences))


def _format_option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if value is None:
        return f"no {option}"
    return f"{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"
