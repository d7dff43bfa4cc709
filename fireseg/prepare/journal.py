"""What came of each tile, line by line: the memory of a preparation that may be killed at any moment."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from fireseg.data.bands import SCALE
from fireseg.data.format import FORMAT_VERSION, JOURNAL_NAME, MANIFEST, METADATA, MaskName, sync_folder
from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error
from fireseg.prepare.options import TilingOptions


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


class Journal:
    """The lines on disk, and in memory what they say.

    Args:
        path: The file.

    Attributes:
        header: What was asked for.
        tiles: What came of the tiles so far.
    """

    NAME = JOURNAL_NAME

    def __init__(self, path: Path) -> None:
        self.path = path
        lines, self._end = _read_whole_lines(path)
        if not lines or lines[0].get("format") != FORMAT_VERSION:
            raise FiresegError(f"{path}: not written by this version of fireseg; delete the folder and prepare again")
        self.header: dict[str, Any] = lines[0]
        self.tiles = [TileRecord.from_json(line) for line in lines[1:]]

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Begins a record. The header is there whole, or there is no file."""
        with atomic_write(path) as part:
            part.write_text(_to_line({"format": FORMAT_VERSION, **header}), encoding="utf-8")
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


UNFINISHED = "unfinished"
"""Folder within the folder: nothing in it is of use to others before all of it moves out."""

LOCK = ".lock"

AUDIT = "audit.json"

State = Literal["new", "unfinished", "publish", "finished"]

_AGAIN = "delete it to have it made again, or choose another"

_NUM_SHOWN = 3


class StagingFolder:
    """A folder of patches, finished or on the way.

    Args:
        folder: The folder.

    Attributes:
        staging: Where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / UNFINISHED

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps it for one process; a killed one lets go by itself.

        Raises:
            FiresegError: If another process has it, it holds something else, or it cannot be made.
        """
        with naming_disk_faults(self.folder):
            self._refuse_foreign()
            self.staging.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise FiresegError(f"{self.folder}: another process is writing to it; wait for it or end it") from error
            try:
                for part in self.folder.rglob(".*.part"):  # what a killed process was writing
                    part.unlink()
                if self.state == "new":
                    self.staging.mkdir(exist_ok=True)
                yield
            finally:
                lock.release()

    @property
    def state(self) -> State:
        """How far it came: `publish` is all written, but not all moved to where it is looked for."""
        if (self.folder / MANIFEST).exists():
            return "finished"
        if (self.staging / MANIFEST).exists():
            return "publish"
        return "unfinished" if (self.staging / JOURNAL_NAME).exists() else "new"

    @property
    def record(self) -> Path:
        """Where the record is now."""
        moved = self.folder / JOURNAL_NAME
        return moved if moved.exists() else self.staging / JOURNAL_NAME

    def release(self) -> None:
        """Moves all that is written to where it is looked for, the manifest last. Killed on the way, do it again."""
        for path in sorted(self.staging.iterdir()):
            if path.name != MANIFEST:
                path.replace(self.folder / path.name)
        sync_folder(self.folder)
        if (self.staging / MANIFEST).exists():
            (self.staging / MANIFEST).replace(self.folder / MANIFEST)
        sync_folder(self.folder)
        self.tidy()

    def tidy(self) -> None:
        """Takes away what a process killed at the very end left."""
        if self.staging.is_dir():
            self.staging.rmdir()

    def _refuse_foreign(self) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise FiresegError(f"{folder}: a file, but a folder for the patches is wanted; choose another name")
        if not folder.is_dir() or self.state in ("unfinished", "publish"):
            return
        names = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
        if self.state == "finished":
            manifest = read_json(folder / MANIFEST)
            if {"format", "options", "sources"} <= manifest.keys() and (folder / JOURNAL_NAME).exists():
                return
        elif not names or names == [UNFINISHED]:
            return
        shown = ", ".join(names[:_NUM_SHOWN]) + ", …" * (len(names) > _NUM_SHOWN)
        raise FiresegError(f"{folder}: holds something that was not prepared here ({shown}); choose an empty folder")


def compare(made: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with other options or tiles than those that a folder was begun with.

    Args:
        made: The header of its record.
        wanted: The header that would be written now.
        folder: To be named.

    Raises:
        FiresegError: With all differences.
    """
    options, others = made["options"], wanted["options"]
    differences = [
        f"{_show(name, options.get(name))} where {_show(name, others.get(name))} is wanted"
        for name in sorted({*options, *others})
        if options.get(name) != others.get(name)
    ]
    tiles, found = set(made["tiles"]), set(wanted["tiles"])
    for what, paths in (("that is gone", tiles - found), ("that is not in it", found - tiles)):
        if paths:
            shown = ", ".join(sorted(paths)[:_NUM_SHOWN]) + ", …" * (len(paths) > _NUM_SHOWN)
            differences.append(f"{len(paths)} tile{'s' * (len(paths) > 1)} {what} ({shown})")
    check_same_options(folder, differences)


def check_same_options(folder: Path, differences: Sequence[str]) -> None:
    """Raises: FiresegError: If there are any."""
    if differences:
        raise FiresegError(*(f"{folder}: made with {difference}; {_AGAIN}" for difference in differences))


@contextmanager
def naming_disk_faults(place: Path) -> Iterator[None]:
    """Within, a full disk and the like are one clear line each."""
    try:
        yield
    except BrokenPipeError:  # whoever read what is printed went away: no matter of disks
        raise
    except OSError as error:
        path = Path(error.filename) if isinstance(error.filename, str) else place
        raise disk_error(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing if it cannot be understood."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _show(name: str, value: Any) -> str:
    """An option as it is typed."""
    option = f"--{name.replace('_', '-')}"
    if value is None:
        return f"no {option}"
    return f"{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def publish(
    record: Journal, recipe: TilingOptions, folder: Path, leaks: Sequence[str], outside: Sequence[str] = ()
) -> None:
    """Closes the arrays and writes the tables and, last of all, the manifest.

    Args:
        record: With all tiles.
        recipe: How they became patches.
        folder: Where the split folders are.
        leaks: What splits know of each other, accepted by the user.
        outside: Faults of files that belong to no tile.
    """
    names = record.names()
    recipe.open_store(folder).close({split: len(patches) for split, patches in names.items()})
    for split in names:
        write_table(folder / split / METADATA, [tile for tile in record.tiles if tile.split == split])
    with atomic_write(folder / MANIFEST) as part:
        part.write_text(json.dumps(describe(record, recipe, leaks, outside), indent=1) + "\n", encoding="utf-8")


def describe(
    record: Journal, recipe: TilingOptions, leaks: Sequence[str], outside: Sequence[str] = ()
) -> dict[str, Any]:
    """The manifest."""
    training = [tile for tile in record.tiles if tile.split == "train" and tile.rows]
    return {
        "format": FORMAT_VERSION,
        "layout": recipe.layout,
        "task": recipe.task,
        "bands": list(recipe.bands),
        "scale": SCALE,
        "size": recipe.size,
        "stride": recipe.strides(),
        "patches": {split: len(patches) for split, patches in record.names().items()},
        "statistics": sum_statistics(training, recipe),
        "class_counts": {name: _add([tile.pixels[name][:-1] for tile in training]) for name in recipe.masks},
        "left_out": sum_left_out(record.tiles),
        "faults": [*(fault for tile in record.tiles for fault in tile.faults), *outside],
        "leaks": list(leaks),
        "options": record.header["options"],
        "sources": {
            source.path: {"bytes": source.bytes, ("sha256" if number else "pixels_sha256"): source.sha256}
            for tile in record.tiles
            for number, source in enumerate(tile.sources)  # the image first
        },
    }


def sum_statistics(tiles: Sequence[TileRecord], recipe: TilingOptions) -> dict[str, list[float] | None]:
    r"""Mean and standard deviation of the reflectance of each band over all labelled pixels.

    Whole numbers up to the last step, :math:`\sigma = \sqrt{n \sum q^2 - (\sum q)^2} / n`, so that neither the
    order of the tiles nor the number of workers shows in any digit.

    Args:
        tiles: Those that have patches.
        recipe: How they became patches.

    Returns:
        `mean` and `std`, None where no pixel is labelled.
    """
    count = sum(sum(tile.pixels[recipe.masks[0]][:-1]) for tile in tiles)
    if not count:
        return {"mean": None, "std": None}
    sums = _add([tile.band_sums for tile in tiles])
    squares = _add([tile.band_squares for tile in tiles])
    spreads = [count * square - total**2 for total, square in zip(sums, squares, strict=True)]
    return {
        "mean": [total / (count * SCALE) for total in sums],
        "std": [math.sqrt(spread) / (count * SCALE) for spread in spreads],
    }


def sum_left_out(tiles: Sequence[TileRecord]) -> dict[str, dict[str, int]]:
    """Windows left out and labelled pixels in them, by reason."""
    found: dict[str, dict[str, int]] = {}
    for tile in tiles:
        for reason, (windows, pixels) in tile.left_out.items():
            counts = found.setdefault(reason, {"windows": 0, "labelled_pixels": 0})
            counts["windows"] += windows
            counts["labelled_pixels"] += pixels
    return dict(sorted(found.items()))


def write_table(path: Path, tiles: Sequence[TileRecord]) -> None:
    """Writes metadata.csv: row n is patch n of the split."""
    rows: list[Mapping[str, Any]] = [row for tile in tiles for row in tile.rows]
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _add(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
