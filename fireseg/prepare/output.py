"""Output folder of prepare: filled in a subfolder, then published with its tables and manifest."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from fireseg.data.bands import SCALE
from fireseg.data.folds import write_fold
from fireseg.data.format import FORMAT_VERSION, JOURNAL_NAME, MANIFEST, METADATA
from fireseg.data.patches import ALL, SPLITS
from fireseg.errors import FiresegError, join_names
from fireseg.files import atomic_write, check_regular_file, convert_disk_errors, sync_folder
from fireseg.prepare.journal import Journal, TileRecord
from fireseg.prepare.options import TilingOptions
from fireseg.prepare.split import get_fold_split

UNFINISHED = "unfinished"
"""Folder within the output folder where files are written before all of them are published."""

LOCK = ".lock"

AUDIT = "audit.json"


State = Literal["new", "unfinished", "publish", "finished"]

_MAX_NAMES = 3


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
    if parts := journal.header.get("folds"):
        for fold, splits in enumerate(_list_fold_splits(journal.tiles, parts)):
            write_fold(folder, fold, splits)
    manifest = make_manifest(journal, options, leaks, other_faults)
    with atomic_write(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def make_manifest(
    journal: Journal, options: TilingOptions, leaks: Sequence[str], other_faults: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the content of manifest.json; see `write_tables`."""
    parts = journal.header.get("folds")
    return {
        "format": FORMAT_VERSION,
        "layout": options.layout,
        "task": options.task,
        "bands": list(options.stored_bands),
        "scale": SCALE,
        "size": options.size,
        "stride": {split: stride for split, stride in options.strides().items() if (split == ALL) == bool(parts)},
        **_describe_images([tile for tile in journal.tiles if tile.rows and (parts or tile.split == "train")]),
        "patches": {split: len(patches) for split, patches in journal.patch_names().items()},
        **({"folds": _describe_folds(journal.tiles, parts, options)} if parts else {}),
        **_describe_training([tile for tile in journal.tiles if tile.split == "train"], options),
        "left_out": sum_left_out(journal.tiles),
        "faults": [*(fault for tile in journal.tiles for fault in tile.faults), *other_faults],
        "leaks": list(leaks),
        "unknown_activations": sum(tile.activation == tile.name for tile in journal.tiles),
        "options": journal.header["options"],
        "sources": {
            source.path: {"bytes": source.bytes, ("sha256" if number else "pixels_sha256"): source.sha256}
            for tile in journal.tiles
            for number, source in enumerate(tile.sources)  # the image is the first
        },
    }


def _describe_images(tiles: Sequence[TileRecord]) -> dict[str, Any]:
    """Returns pixel size and processing level of the training tiles, by which a map tells whether a scene fits."""
    sizes = [tile.pixel_m for tile in tiles if tile.pixel_m is not None]
    levels = {tile.level for tile in tiles}
    return {
        "pixel_m": round(statistics.median(sizes), 2) if sizes else None,
        "level": levels.pop() if len(levels) == 1 else None,
    }


def _list_fold_splits(tiles: Sequence[TileRecord], parts: Mapping[str, int]) -> list[dict[str, str]]:
    """Returns the split of each tile that has patches, for each fold."""
    num_folds = max(parts.values()) + 1
    used = [tile.name for tile in tiles if tile.rows]
    return [{name: get_fold_split(parts[name], fold, num_folds) for name in used} for fold in range(num_folds)]


def _describe_folds(
    tiles: Sequence[TileRecord], parts: Mapping[str, int], options: TilingOptions
) -> list[dict[str, Any]]:
    """Describes each fold: patches by split, and the statistics of its training tiles."""
    folds = []
    for splits in _list_fold_splits(tiles, parts):
        counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
        for tile in tiles:
            if tile.rows:
                counts[splits[tile.name]] += len(tile.rows)
        training = [tile for tile in tiles if splits.get(tile.name) == "train"]
        folds.append({"patches": counts, **_describe_training(training, options)})
    return folds


def _describe_training(tiles: Sequence[TileRecord], options: TilingOptions) -> dict[str, Any]:
    training = [tile for tile in tiles if tile.rows]
    return {
        "statistics": compute_statistics(training, options),
        "class_counts": {name: _add([tile.pixels[name][:-1] for tile in training]) for name in options.masks},
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


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; returns an empty one if the file is missing or invalid."""
    check_regular_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_metadata(path: Path, tiles: Sequence[TileRecord]) -> None:
    """Writes metadata.csv: row n describes patch n of the split."""
    rows: list[Mapping[str, Any]] = [row for tile in tiles for row in tile.rows]
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _add(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
