"""One tile from its files to its place in the store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.format import MaskName, Store, StoredPatch
from fireseg.errors import FiresegError
from fireseg.prepare.duplicates import fingerprint_image
from fireseg.prepare.footprints import TileMetadata, make_footprint, to_dict
from fireseg.prepare.journal import SourceFile, TileRecord, naming_disk_faults
from fireseg.prepare.options import TilingOptions
from fireseg.prepare.tiling import Patch, cut_patches, get_bounds, mask_labels
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, IGNORE_INDEX
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import Tile, read_tile

Stamps = Mapping[Path, os.stat_result]


def stamp(files: TileFiles) -> Stamps:
    """Size and time of the files of a tile, the image first; those that cannot be looked at are left out."""
    found = {}
    for path in files.paths:
        try:
            found[path] = path.stat()
        except OSError:  # it will be named when it is read
            continue
    return found


def take_fingerprints(stamps: Stamps, root: Path, image_digest: str) -> list[SourceFile]:
    """The files of a tile as they were when it was read.

    Args:
        stamps: What `stamp` gave before.
        root: Folder of the tiles.
        image_digest: Of the values of the image; empty where they could not be read.
    """
    sources = []
    for number, (path, state) in enumerate(stamps.items()):
        digest = image_digest if number == 0 else _hash(path)
        name = path.relative_to(root).as_posix()
        sources.append(SourceFile(path=name, bytes=state.st_size, time_ns=state.st_mtime_ns, sha256=digest))
    return sources


def list_changed(tile: TileRecord, files: TileFiles, root: Path, recipe: TilingOptions) -> list[Path]:
    """The files of a tile that are not what they were when it was cut.

    Those of the same size with another time are read again: a copy is no change.

    Args:
        tile: What came of it.
        files: Its files now.
        root: Folder of the tiles.
        recipe: How it was cut.
    """
    before = {source.path: source for source in tile.sources}
    now = {path.relative_to(root).as_posix(): (path, state) for path, state in stamp(files).items()}
    changed = [root / name for name in before.keys() ^ now.keys()]
    for name in before.keys() & now.keys():
        source, (path, state) = before[name], now[name]
        if (state.st_size, state.st_mtime_ns) == (source.bytes, source.time_ns):
            continue
        if state.st_size == source.bytes:
            digest = _look(files, recipe) if path == files.image else _hash(path)
            if digest and digest == source.sha256:
                continue
        changed.append(path)
    return sorted(changed)


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _look(files: TileFiles, recipe: TilingOptions) -> str:
    try:
        tile = read_tile(files, recipe.bands, offset=recipe.offset)
    except FiresegError:
        return ""
    return fingerprint_image(tile.image, tile.unknown, tile.delineation).digest


NUM_CLASSES: dict[MaskName, int] = {"del": len(DELINEATION_CLASSES), "gra": len(GRADING_CLASSES)}


class TileTask:
    """Cuts tiles, and keeps the patches until it is told where to put them.

    Args:
        root: Folder of the tiles: sources are named below it.
        tiles: The files of each tile.
        recipe: How tiles become patches.
        store: Where patches go.
        known: What the data set's own table says of the tiles, by name; None where none was given.
    """

    def __init__(
        self,
        root: Path,
        tiles: Sequence[TileFiles],
        recipe: TilingOptions,
        store: Store,
        *,
        known: Mapping[str, TileMetadata] | None = None,
    ) -> None:
        self.root = root
        self.known = known
        self.tiles = tiles
        self.recipe = recipe
        self.store = store
        self._held: dict[int, list[StoredPatch]] = {}

    def cut(self, number: int) -> TileRecord:
        """Reads a tile and cuts it. What is wrong with it stands in the record.

        Args:
            number: Which of the tiles.
        """
        files = self.tiles[number]
        facts: dict[str, Any] = {"name": files.name, "split": files.split, "activation": files.activation}
        facts["missing"] = list_missing(files)
        stamps = stamp(files)
        try:
            tile = read_tile(files, self.recipe.bands, offset=self.recipe.offset)
        except FiresegError as error:
            self._held[number] = []
            facts["sources"] = take_fingerprints(stamps, self.root, "")
            return TileRecord(**facts, faults=[_below(fault, self.root) for fault in error.faults])
        look = fingerprint_image(tile.image, tile.unknown, tile.delineation)
        facts["sources"] = take_fingerprints(stamps, self.root, look.digest)
        facts["flags"] = [_below(flag, self.root) for flag in tile.flags]
        burned = int((tile.delineation == 1).sum())
        footprint = replace(make_footprint(files, tile.grid, tile.date, self.known), burned=burned, look=look)
        return self._cut(number, tile, {**facts, "footprint": to_dict(footprint)})

    def write(self, number: int, first: int) -> None:
        """Puts the patches of a tile that was cut into the store, and lets go of them.

        Args:
            number: Which of the tiles.
            first: The number of its first patch in its split.

        Raises:
            FiresegError: If the disk is full.
        """
        if patches := self._held.pop(number):
            split = self.tiles[number].split
            with naming_disk_faults(self.store.root / split):
                self.store.write(split, first, patches)

    def _cut(self, number: int, tile: Tile, facts: dict[str, Any]) -> TileRecord:
        recipe, split = self.recipe, self.tiles[number].split
        labels = mask_labels(
            tile.delineation,
            tile.grading,
            tile.cloud,
            tile.unknown,
            clouds=recipe.clouds,
            light_clouds=recipe.light_clouds,
            disagreement=recipe.disagreement,
        )
        left_out: dict[str, list[int]] = {}
        tally = PixelCounts(recipe, has_sums=split == "train")
        rows, held = [], []
        for patch in cut_patches(
            tile.image, labels, size=recipe.size, stride=recipe.strides()[split], is_once=split != "train"
        ):
            masks: dict[MaskName, NDArray[np.uint8]] = {"del": patch.delineation, "gra": patch.grading}
            masks = {name: masks[name] for name in recipe.masks}
            if reason := self._why_left_out(patch):
                counts = left_out.setdefault(reason, [0, 0])
                counts[0] += 1
                counts[1] += int(np.logical_or.reduce([mask != IGNORE_INDEX for mask in masks.values()]).sum())
                continue
            rows.append(self._describe(patch, self.tiles[number], tile))
            tally.add(patch.image, masks)
            held.append(StoredPatch(rows[-1]["patch_id"], patch.image, masks))
        self._held[number] = held
        return TileRecord(
            **facts, rows=rows, left_out=left_out, disagreements=list(labels.disagreements), **tally.as_dict()
        )

    def _why_left_out(self, patch: Patch) -> str | None:
        reason = patch.facts.why_left_out(self.recipe.max_cloud)
        if reason is None and self.recipe.task is not None:
            counts = {"del": patch.facts.delineated, "gra": patch.facts.graded}[self.recipe.task]
            return None if any(counts) else "unlabelled"
        return reason

    def _describe(self, patch: Patch, files: TileFiles, tile: Tile) -> dict[str, Any]:
        """The row of the patch in metadata.csv."""
        window, facts = patch.window, patch.facts
        x_min, y_min, x_max, y_max = get_bounds(tile.grid.transform, window, self.recipe.size)
        known = TileMetadata() if self.known is None else self.known.get(files.name, TileMetadata())
        more = {} if self.known is None else {"country": known.country, "climate": known.climate}
        return {
            "patch_id": f"{files.name}_r{window.row}_c{window.col}",
            "source_image": files.image.name,
            "row": window.row,
            "col": window.col,
            "x_min": x_min,
            "y_min": y_min,
            "x_max": x_max,
            "y_max": y_max,
            "cloud_cover": round(facts.cloud_fraction, 6),
            "burn_fraction": round(facts.burn_fraction, 6),
            "tile_height": tile.image.shape[0],
            "tile_width": tile.image.shape[1],
            "crs": tile.grid.crs,
            "date": known.date or tile.date or "",
            "activation": files.activation,
            "unknown_fraction": round(facts.unknown_fraction, 6),
            **more,
        }


class PixelCounts:
    """Classes and stored values of patches, counted exactly: in whatever order they come, the same.

    Args:
        recipe: How tiles become patches.
        has_sums: Whether the bands are summed up, too.
    """

    def __init__(self, recipe: TilingOptions, *, has_sums: bool) -> None:
        self._pixels = {name: np.zeros(NUM_CLASSES[name] + 1, np.int64) for name in recipe.masks}
        self._sums = np.zeros((2, len(recipe.bands)), np.int64)
        self._has_sums = has_sums

    def add(self, image: NDArray[np.uint16], masks: dict[MaskName, NDArray[np.uint8]]) -> None:
        """Counts a patch. The bands are summed over what the first of the masks labels."""
        for name, mask in masks.items():
            counts = np.bincount(mask.ravel(), minlength=256)
            self._pixels[name] += counts[[*range(NUM_CLASSES[name]), IGNORE_INDEX]]
        if self._has_sums:
            labelled = (next(iter(masks.values())) != IGNORE_INDEX).ravel().astype(np.float64)
            # Whole numbers below 2 ** 53 are exact in float64, and its products are fast.
            values = image.reshape(-1, image.shape[2]).astype(np.float64)
            self._sums[0] += (labelled @ values).astype(np.int64)
            self._sums[1] += (labelled @ np.square(values, out=values)).astype(np.int64)

    def as_dict(self) -> dict[str, Any]:
        """The counts, as a `TileRecord` has them."""
        sums, squares = self._sums.tolist() if self._has_sums else ([], [])
        return {
            "pixels": {name: counts.tolist() for name, counts in self._pixels.items()},
            "band_sums": sums,
            "band_squares": squares,
        }


def list_missing(files: TileFiles) -> list[str]:
    """What a tile may have and has not."""
    found = {"DEL": files.delineation, "GRA": files.grading, "CM": files.cloud, "json": files.metadata}
    return [kind for kind, path in found.items() if path is None]


def _below(text: str, root: Path) -> str:
    """The same, with files named below the folder of tiles: it may lie elsewhere tomorrow."""
    return text.replace(f"{root}/", "")
