"""Journal of a run, line by line per tile, and the output folder: a run killed at any time can continue."""

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
from fireseg.data.format import FORMAT_VERSION, JOURNAL_NAME, MANIFEST, METADATA, MaskName
from fireseg.errors import FiresegError, join_names
from fireseg.files import atomic_write, convert_disk_errors, sync_folder
from fireseg.prepare.options import TilingOptions

UNFINISHED = "unfinished"
"""Folder within the output folder where files are written before all of them are published."""

LOCK = ".lock"

AUDIT = "audit.json"


State = Literal["new", "unfinished", "publish", "finished"]

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
        missing: Missing files among `DEL`, `GRA`, `CM` and `json`.
        footprint: Location, date and fingerprint; None if it could not be read.
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
    missing: list[str] = field(default_factory=list)
    footprint: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    disagreements: list[int] = field(default_factory=lambda: [0, 0])
    pixels: dict[MaskName, list[int]] = field(default_factory=dict)
    band_sums: list[int] = field(default_factory=list)
    band_squares: list[int] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TileRecord:
        """Creates the record from a line of the journal."""
        return cls(**{**values, "sources": [SourceFile(**source) for source in values["sources"]]})


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
        self.tiles = [TileRecord.from_json(line) for line in lines[1:]]

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


def _read_complete_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the complete lines and their length in bytes; whatever follows was never committed."""
    lines, end = [], 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
            end += len(line)
    return lines, end


def _to_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"


class StagingFolder:
    """An output folder: locked for one process, and filled in a subfolder until everything is published.

    Args:
        folder: The output folder.

    Attributes:
        folder: The output folder.
        staging: Subfolder that files are written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / UNFINISHED

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder and locks it; the lock of a killed process is released by the system.

        Raises:
            FiresegError: If another process holds the lock, the folder contains other files, or it cannot be
                created.
        """
        with convert_disk_errors(self.folder):
            self._check_own()
            self.staging.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise FiresegError(
                    f"{self.folder}: in use by another process; wait until it has finished, or stop it"
                ) from error
            try:
                for part in self.folder.rglob(".*.part"):  # temporary files of a killed process
                    part.unlink()
                if self.state == "new":
                    self.staging.mkdir(exist_ok=True)
                yield
            finally:
                lock.release()

    @property
    def state(self) -> State:
        """Progress of the folder; `publish` means that all files are written, but not all are moved to their place."""
        if (self.folder / MANIFEST).exists():
            return "finished"
        if (self.staging / MANIFEST).exists():
            return "publish"
        return "unfinished" if (self.staging / JOURNAL_NAME).exists() else "new"

    @property
    def journal_path(self) -> Path:
        """Current path of the journal, before or after publishing."""
        published = self.folder / JOURNAL_NAME
        return published if published.exists() else self.staging / JOURNAL_NAME

    def publish(self) -> None:
        """Moves all files out of the staging folder, the manifest last; can be repeated if interrupted."""
        for path in sorted(self.staging.iterdir()):
            if path.name != MANIFEST:
                path.replace(self.folder / path.name)
        sync_folder(self.folder)
        if (self.staging / MANIFEST).exists():
            (self.staging / MANIFEST).replace(self.folder / MANIFEST)
        sync_folder(self.folder)
        self.remove_staging()

    def remove_staging(self) -> None:
        """Removes the empty staging folder that a process killed while publishing leaves behind."""
        if self.staging.is_dir():
            self.staging.rmdir()

    def _check_own(self) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise FiresegError(f"{folder}: is a file, but must be a folder; choose another name")
        if not folder.is_dir() or self.state in ("unfinished", "publish"):
            return
        names = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
        if self.state == "finished":
            manifest = read_json(folder / MANIFEST)
            if {"format", "options", "sources"} <= manifest.keys() and (folder / JOURNAL_NAME).exists():
                return
        elif not names or names == [UNFINISHED]:
            return
        raise FiresegError(f"{folder}: contains other files ({join_names(names, _MAX_NAMES)}); choose an empty folder")


def check_same_header(header: Mapping[str, Any], other: Mapping[str, Any], folder: Path) -> None:
    """Checks that a run continues with the options and tiles that it was started with.

    Args:
        header: Header of the journal.
        other: Header that a new run would write.
        folder: Output folder, for the message.

    Raises:
        FiresegError: If they differ; lists all differences.
    """
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


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; returns an empty one if the file is missing or invalid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _format_option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if value is None:
        return f"no {option}"
    return f"{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def write_tables(
    journal: Journal, options: TilingOptions, folder: Path, leaks: Sequence[str], other_faults: Sequence[str] = ()
) -> None:
    """Closes the patch store and writes the metadata tables and, last, the manifest.

    Args:
        journal: Journal with all tiles.
        options: Options of the patches.
        folder: Folder of the split folders.
        leaks: Leaks between splits that the user allowed, one line each.
        other_faults: Faults of files that belong to no tile.
    """
    names = journal.patch_names()
    options.open_writer(folder).close({split: len(patches) for split, patches in names.items()})
    for split in names:
        _write_metadata(folder / split / METADATA, [tile for tile in journal.tiles if tile.split == split])
    manifest = make_manifest(journal, options, leaks, other_faults)
    with atomic_write(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def make_manifest(
    journal: Journal, options: TilingOptions, leaks: Sequence[str], other_faults: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the content of manifest.json; see `write_tables`."""
    training = [tile for tile in journal.tiles if tile.split == "train" and tile.rows]
    return {
        "format": FORMAT_VERSION,
        "layout": options.layout,
        "task": options.task,
        "bands": list(options.bands),
        "scale": SCALE,
        "size": options.size,
        "stride": options.strides(),
        "patches": {split: len(patches) for split, patches in journal.patch_names().items()},
        "statistics": compute_statistics(training, options),
        "class_counts": {name: _add([tile.pixels[name][:-1] for tile in training]) for name in options.masks},
        "left_out": sum_left_out(journal.tiles),
        "faults": [*(fault for tile in journal.tiles for fault in tile.faults), *other_faults],
        "leaks": list(leaks),
        "options": journal.header["options"],
        "sources": {
            source.path: {"bytes": source.bytes, ("sha256" if number else "pixels_sha256"): source.sha256}
            for tile in journal.tiles
            for number, source in enumerate(tile.sources)  # the image is the first
        },
    }


def compute_statistics(tiles: Sequence[TileRecord], options: TilingOptions) -> dict[str, list[float] | None]:
    r"""Computes the mean and standard deviation of the reflectance of each band over all labelled pixels.

    Integers are used up to the last step, :math:`\sigma = \sqrt{n \sum q^2 - (\sum q)^2} / n`, so that the result
    does not depend on the order of tiles or the number of workers.

    Args:
        tiles: Tiles that have patches.
        options: Options of the patches.

    Returns:
        `mean` and `std`; None if no pixel is labelled.
    """
    count = sum(sum(tile.pixels[options.masks[0]][:-1]) for tile in tiles)
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
    """Counts the windows left out and the labelled pixels in them, by reason."""
    totals: dict[str, dict[str, int]] = {}
    for tile in tiles:
        for reason, (windows, pixels) in tile.left_out.items():
            counts = totals.setdefault(reason, {"windows": 0, "labelled_pixels": 0})
            counts["windows"] += windows
            counts["labelled_pixels"] += pixels
    return dict(sorted(totals.items()))


def _write_metadata(path: Path, tiles: Sequence[TileRecord]) -> None:
    """Writes metadata.csv: row n describes patch n of the split."""
    rows: list[Mapping[str, Any]] = [row for tile in tiles for row in tile.rows]
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _add(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
