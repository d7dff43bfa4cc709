"""Job of a worker: cuts one tile into patches and writes them to the store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.format import MaskName, PatchWriter, StoredMask, StoredPatch
from fireseg.data.patches import ALL
from fireseg.errors import FiresegError, convert_unexpected_errors
from fireseg.files import convert_disk_errors, hash_file
from fireseg.prepare.duplicates import fingerprint_image
from fireseg.prepare.footprints import TileMetadata, make_footprint
from fireseg.prepare.journal import SourceFile, TileRecord
from fireseg.prepare.options import TilingOptions
from fireseg.prepare.tiling import Patch, cut_patches, cut_window, get_bounds, mask_labels
from fireseg.task import IGNORE_INDEX, TASKS
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import Tile, read_tile


class CutJob:
    """Cuts tiles and keeps their patches until their position in the store is known; a `workers.TileJob`.

    Args:
        root: Folder of the tiles; source files are recorded relative to it.
        tiles: Files of each tile.
        options: Options of the patches.
        store: Writer of the patches.
        metadata: The data set's own metadata by tile name; None without a table.
    """

    def __init__(
        self,
        root: Path,
        tiles: Sequence[TileFiles],
        options: TilingOptions,
        store: PatchWriter,
        *,
        metadata: Mapping[str, TileMetadata] | None = None,
    ) -> None:
        self.root = root
        self.metadata = metadata
        self.tiles = tiles
        self.options = options
        self.store = store
        self._patches: dict[int, list[StoredPatch]] = {}

    def process(self, number: int) -> TileRecord:
        """Reads and cuts a tile. Its faults are part of the record.

        Args:
            number: Index of the tile.
        """
        files = self.tiles[number]
        values: dict[str, Any] = {"name": files.name, "split": files.split, "activation": files.activation}
        values["missing"] = list_missing(files)
        if self.options.labels.landcover and files.landcover is None:
            values["missing"].append("LC")
        stats = _stat_files(files)
        try:
            with convert_unexpected_errors(files.image):
                return self._read_and_cut(number, dict(values), stats)
        except FiresegError as error:
            self._patches[number] = []
            values["sources"] = _describe_sources(stats, self.root, "")
            return TileRecord(**values, faults=[_make_relative(fault, self.root) for fault in error.faults])

    def _read_and_cut(self, number: int, values: dict[str, Any], stats: Mapping[Path, os.stat_result]) -> TileRecord:
        files = self.tiles[number]
        tile = read_tile(files, self.options.bands, self.options, self.options.labels)
        fingerprint = fingerprint_image(tile.image, tile.unknown, tile.delineation)
        values["sources"] = _describe_sources(stats, self.root, fingerprint.digest)
        values["flags"] = [_make_relative(flag, self.root) for flag in tile.flags]
        values["ignored"] = list(tile.ignored)
        burned = int((tile.delineation == 1).sum())
        footprint = replace(
            make_footprint(files, tile.grid, tile.date, self.metadata), burned=burned, fingerprint=fingerprint
        )
        values |= {"footprint": footprint.as_dict(), "pixel_m": tile.grid.pixel_m, "level": tile.level}
        return self._cut(number, tile, values)

    def write(self, number: int, first: int) -> None:
        """Writes the patches of a tile to the store and releases them.

        Args:
            number: Index of the tile.
            first: Position of its first patch in its split.

        Raises:
            FiresegError: If the disk is full.
        """
        if patches := self._patches.pop(number):
            split = self.tiles[number].split
            with convert_disk_errors(self.store.root / split):
                self.store.write(split, first, patches)

    def _cut(self, number: int, tile: Tile, values: dict[str, Any]) -> TileRecord:
        options, split = self.options, self.tiles[number].split
        image, unknown = _stack_pair(tile, ignores_clouds=options.clouds == "ignore")
        is_unlabelled = options.labels.unlabelled
        labels = mask_labels(
            # Without masks, 0 stands for the pixels that could have a label; patches store it as their clear pixels.
            np.zeros_like(tile.delineation) if is_unlabelled else tile.delineation,
            tile.grading,
            tile.cloud,
            unknown,
            clouds=options.clouds,
            light_clouds=options.light_clouds,
            disagreement=options.disagreement,
        )
        left_out: dict[str, list[int]] = {}
        counts = PixelCounts(options, has_sums=split in ("train", ALL))
        rows, patches = [], []
        for patch in cut_patches(
            image, labels, size=options.size, stride=options.strides()[split], ignore_repeats=split != "train"
        ):
            both: dict[MaskName, NDArray[np.uint8]] = {"del": patch.delineation, "gra": patch.grading}
            masks: dict[MaskName, NDArray[np.uint8]] = {
                name: np.full_like(both[name], IGNORE_INDEX) if is_unlabelled else both[name] for name in options.masks
            }
            if reason := self._find_exclusion_reason(patch):
                totals = left_out.setdefault(reason, [0, 0])
                totals[0] += 1
                totals[1] += int(np.logical_or.reduce([mask != IGNORE_INDEX for mask in masks.values()]).sum())
                continue
            rows.append(self._make_row(patch, self.tiles[number], tile))
            counts.add(patch.image, masks)
            stored: dict[StoredMask, NDArray[np.uint8]] = {**masks}
            if is_unlabelled:
                stored["clear"] = (patch.delineation != IGNORE_INDEX).astype(np.uint8)
            if options.labels.landcover:
                stored["landcover"] = _cut_landcover(tile, patch, options.size)
            patches.append(StoredPatch(rows[-1]["patch_id"], patch.image, stored))
        self._patches[number] = patches
        return TileRecord(
            **values, rows=rows, left_out=left_out, disagreements=list(labels.disagreements), **counts.as_dict()
        )

    def _find_exclusion_reason(self, patch: Patch) -> str | None:
        reason = patch.statistics.find_exclusion_reason(self.options.max_cloud)
        if reason is None and self.options.task is not None:
            counts = {"del": patch.statistics.delineated, "gra": patch.statistics.graded}[self.options.task]
            return None if any(counts) else "unlabelled"
        return reason

    def _make_row(self, patch: Patch, files: TileFiles, tile: Tile) -> dict[str, Any]:
        """Returns the row of a patch in metadata.csv."""
        window, statistics = patch.window, patch.statistics
        x_min, y_min, x_max, y_max = get_bounds(tile.grid.transform, window, self.options.size)
        own = TileMetadata() if self.metadata is None else self.metadata.get(files.name, TileMetadata())
        return {
            "patch_id": f"{files.name}_r{window.row}_c{window.col}",
            "source_image": files.image.name,
            "row": window.row,
            "col": window.col,
            "x_min": x_min,
            "y_min": y_min,
            "x_max": x_max,
            "y_max": y_max,
            "cloud_cover": round(statistics.cloud_fraction, 6),
            "burn_fraction": round(statistics.burn_fraction, 6),
            "tile_height": tile.image.shape[0],
            "tile_width": tile.image.shape[1],
            "crs": tile.grid.crs,
            "date": own.date or tile.date or "",
            "activation": files.activation,
            "unknown_fraction": round(statistics.unknown_fraction, 6),
            **({} if self.metadata is None else {"country": own.country, "climate": own.climate}),
        }


def _cut_landcover(tile: Tile, patch: Patch, size: int) -> NDArray[np.uint8]:
    if tile.landcover is None:
        return np.full((size, size), IGNORE_INDEX, np.uint8)
    landcover = cut_window(tile.landcover, patch.window, size, IGNORE_INDEX)
    landcover[cut_window(tile.unknown, patch.window, size, True)] = IGNORE_INDEX
    return landcover


def _stack_pair(tile: Tile, *, ignores_clouds: bool) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Returns the bands of both scenes of a tile, 0 where either is unknown, and these pixels."""
    if tile.pre is None:
        return tile.image, tile.unknown
    unknown = tile.unknown | tile.pre.unknown
    if ignores_clouds:
        unknown |= tile.pre.cloudy
    image = np.concatenate([tile.image, tile.pre.image], axis=2)
    image[unknown] = 0
    return image, unknown


class PixelCounts:
    """Exact pixel counts by class and sums of stored values by band, independent of the order of patches.

    Args:
        options: Options of the patches.
        has_sums: True to sum the bands.
    """

    def __init__(self, options: TilingOptions, *, has_sums: bool) -> None:
        self._pixels = {name: np.zeros(TASKS[name].num_classes + 1, np.int64) for name in options.masks}
        self._sums = np.zeros((2, len(options.stored_bands)), np.int64)
        self._has_sums = has_sums

    def add(self, image: NDArray[np.uint16], masks: Mapping[MaskName, NDArray[np.uint8]]) -> None:
        """Adds a patch. Bands are summed over the labelled pixels of the first mask."""
        for name, mask in masks.items():
            counts = np.bincount(mask.ravel(), minlength=256)
            self._pixels[name] += counts[[*range(TASKS[name].num_classes), IGNORE_INDEX]]
        if self._has_sums:
            labelled = (next(iter(masks.values())) != IGNORE_INDEX).ravel().astype(np.float64)
            # Integers below 2 ** 53 are exact in float64, and its matrix products are fast.
            values = image.reshape(-1, image.shape[2]).astype(np.float64)
            self._sums[0] += (labelled @ values).astype(np.int64)
            self._sums[1] += (labelled @ np.square(values, out=values)).astype(np.int64)

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts as fields of a `TileRecord`."""
        sums, squares = self._sums.tolist() if self._has_sums else ([], [])
        return {
            "pixels": {name: counts.tolist() for name, counts in self._pixels.items()},
            "band_sums": sums,
            "band_squares": squares,
        }


def list_missing(files: TileFiles) -> list[str]:
    """Returns the kinds of optional files that a tile lacks."""
    paths = {"DEL": files.delineation, "GRA": files.grading, "CM": files.cloud, "json": files.metadata}
    return [kind for kind, path in paths.items() if path is None]


def list_changed(record: TileRecord, files: TileFiles, root: Path, options: TilingOptions) -> list[Path]:
    """Returns the files of a tile whose content has changed since it was cut.

    A file of the same size with another modification time, such as a copy, is read again and compared by digest.

    Args:
        record: Record of the tile.
        files: Current files of the tile.
        root: Folder of the tiles.
        options: Options that it was cut with.
    """
    before = {source.path: source for source in record.sources}
    now = {path.relative_to(root).as_posix(): (path, stat) for path, stat in _stat_files(files).items()}
    changed = [root / name for name in before.keys() ^ now.keys()]
    for name in before.keys() & now.keys():
        source, (path, stat) = before[name], now[name]
        if (stat.st_size, stat.st_mtime_ns) == (source.bytes, source.time_ns):
            continue
        if stat.st_size == source.bytes:
            digest = _hash_pixels(files, options) if path == files.image else _hash_file(path)
            if digest and digest == source.sha256:
                continue
        changed.append(path)
    return sorted(changed)


def _stat_files(files: TileFiles) -> dict[Path, os.stat_result]:
    """Returns the status of each file of a tile, the image first; files without access are reported when read."""
    stats = {}
    for path in files.paths:
        try:
            stats[path] = path.stat()
        except OSError:
            continue
    return stats


def _describe_sources(stats: Mapping[Path, os.stat_result], root: Path, image_digest: str) -> list[SourceFile]:
    """Describes the files of a tile; the digest of the image is that of its values, empty if it was not read."""
    sources = []
    for number, (path, stat) in enumerate(stats.items()):
        digest = image_digest if number == 0 else _hash_file(path)
        name = path.relative_to(root).as_posix()
        sources.append(SourceFile(path=name, bytes=stat.st_size, time_ns=stat.st_mtime_ns, sha256=digest))
    return sources


def _hash_file(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError:
        return ""


def _hash_pixels(files: TileFiles, options: TilingOptions) -> str:
    try:
        tile = read_tile(files, options.bands, options, options.labels)
    except FiresegError:
        return ""
    return fingerprint_image(tile.image, tile.unknown, tile.delineation).digest


def _make_relative(text: str, root: Path) -> str:
    """Removes the folder of the tiles, which may be moved, from the paths in a message."""
    return text.replace(f"{root}/", "")
