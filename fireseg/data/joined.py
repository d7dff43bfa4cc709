"""Several data sets joined into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.format import JOURNAL_NAME
from fireseg.data.overlaps import Box, find_overlaps, read_places
from fireseg.data.patches import SPLITS, CacheKey, Fault, Part, SplitReader, get_tile_name
from fireseg.data.statistics import SplitStatistics
from fireseg.errors import FiresegError, join_names, shorten

_MAX_NAMES = 3


@dataclass(frozen=True)
class JoinedReader:
    """Reads patches of one split of several data sets. See `SplitReader`.

    Args:
        parts: Reader of each data set; together, no name occurs twice.
        names: Names of the patches in the order of their indices.
        positions: Part and index in the part of each patch.
    """

    parts: tuple[SplitReader, ...]
    names: tuple[str, ...]
    positions: tuple[tuple[int, int], ...]
    cache_name = ""

    @classmethod
    def join(cls, parts: Sequence[SplitReader]) -> JoinedReader:
        """Joins readers; the patches are sorted by name, so that the order of the data sets makes no difference."""
        position_of = {name: (n, index) for n, part in enumerate(parts) for index, name in enumerate(part.names)}
        names = tuple(sorted(position_of))
        return cls(tuple(parts), names, tuple(position_of[name] for name in names))

    @property
    def folder(self) -> Path:
        """Split folder of the first data set."""
        return self.parts[0].folder

    @property
    def folders(self) -> tuple[Path, ...]:
        """Split folder of each data set."""
        return tuple(part.folder for part in self.parts)

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Band of each channel, or None if not recorded."""
        return self.parts[0].bands

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch, see `SplitReader`."""
        part, position = self.positions[index]
        return self.parts[part].read(position)

    def read_mask(self, index: int) -> NDArray[Any]:
        """Reads the mask of one patch, see `SplitReader`."""
        part, position = self.positions[index]
        return self.parts[part].read_mask(position)

    def select(self, names: Iterable[str]) -> JoinedReader:
        """Returns a reader of the named patches, see `SplitReader`."""
        names, position_of = tuple(names), dict(zip(self.names, self.positions, strict=True))
        return replace(self, names=names, positions=tuple(position_of[name] for name in names))

    def read_landcover(self, index: int) -> NDArray[np.uint8]:
        """Reads the land cover of one patch, see `SplitReader`."""
        part, position = self.positions[index]
        return self.parts[part].read_landcover(position)

    def list_cache_keys(self) -> tuple[dict[str, CacheKey], list[Fault]]:
        """Returns the cache keys of all data sets, see `SplitReader`."""
        keys: dict[str, CacheKey] = {}
        faults = []
        for part in self.parts:
            part_keys, part_faults = part.list_cache_keys()
            keys |= part_keys
            faults += part_faults
        return {name: keys[name] for name in self.names if name in keys}, faults

    def fault(self, name: str, part: Part, message: str) -> Fault:
        """Returns a fault of a file of a patch."""
        number, _ = dict(zip(self.names, self.positions, strict=True))[name]
        return self.parts[number].fault(name, part, message)


def join_scans(scans: Mapping[Path, Mapping[str, SplitStatistics]]) -> dict[str, SplitStatistics]:
    """Joins the splits of data sets.

    Args:
        scans: Statistics of the patches by data set and split.

    Returns:
        Statistics and reader of each split that any of them has.

    Raises:
        FiresegError: If they differ in bands or size of the patches, or share patch names; lists all differences.
    """
    _check_equal(scans)
    overlaps, joined = _note_overlaps(scans), {}
    for split in SPLITS:
        parts = {root: by_split[split] for root, by_split in scans.items() if split in by_split}
        if not parts:
            continue
        patches = sorted((patch for scan in parts.values() for patch in scan.patches), key=lambda patch: patch.name)
        # A reader of patch files names its patches only when they are selected.
        readers = [scan.reader.select(patch.name for patch in scan.patches) for scan in parts.values()]
        joined[split] = SplitStatistics(
            JoinedReader.join(readers),
            tuple(patches),
            tuple(fault for scan in parts.values() for fault in scan.faults),
            (*(note for scan in parts.values() for note in scan.notes), *(overlaps if split == "train" else ())),
            place=f"{' and '.join(map(str, parts))}, {split}",
        )
    return joined


def _check_equal(scans: Mapping[Path, Mapping[str, SplitStatistics]]) -> None:
    faults = []
    kinds = {root: _describe(by_split) for root, by_split in scans.items()}
    (first, expected), *others = kinds.items()
    for root, kind in others:
        faults += [
            f"data.root: {root} has {what} {kind[what]}, but {first} has {expected[what]}; prepare both with the same "
            "options"
            for what in expected
            if kind[what] != expected[what]
        ]
    roots_of: dict[str, list[Path]] = {}
    for root, by_split in scans.items():
        for scan in by_split.values():
            for patch in scan.patches:
                roots_of.setdefault(patch.name, []).append(root)
    repeated = {name: roots for name, roots in roots_of.items() if len(set(roots)) > 1}
    for roots, count in Counter(tuple(roots) for roots in repeated.values()).items():
        names = join_names(sorted(name for name, held in repeated.items() if tuple(held) == roots), _MAX_NAMES)
        faults.append(
            f"data.root: {count} patch names are in {' and in '.join(map(str, roots))} ({names}); if they are the same "
            "tiles remove them from one, otherwise rename the tiles and prepare them again"
        )
    if faults:
        raise FiresegError(*shorten(faults))


def _note_overlaps(scans: Mapping[Path, Mapping[str, SplitStatistics]]) -> list[str]:
    """Describes tiles of different data sets and splits that overlap: prepare compares only tiles of one data set."""
    notes, tiles, boxes = [], list[tuple[Path, str, str]](), list[Box]()
    for root, by_split in scans.items():
        if (places := read_places(root / JOURNAL_NAME)) is None:
            notes.append(f"data.root: {root} has no {JOURNAL_NAME}, so overlaps with other folders cannot be found")
            continue
        for split, scan in by_split.items():
            for tile in dict.fromkeys(get_tile_name(patch.name) or "" for patch in scan.patches):
                if tile in places:
                    tiles.append((root, split, tile))
                    boxes.append(places[tile].box)
    pairs = []
    for one, another in find_overlaps(boxes):
        (root, split, tile), (other_root, other_split, other_tile) = tiles[one], tiles[another]
        if other_root != root and other_split != split:
            pairs.append(f"{split} {tile} of {root} and {other_split} {other_tile} of {other_root}")
    if pairs:
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        notes.append(
            f"data.root: tiles in different splits overlap ({pairs[0]}{more}); scores on val and test are better than "
            "they would be on new fires: prepare all tiles as one folder"
        )
    return notes


def _describe(by_split: Mapping[str, SplitStatistics]) -> dict[str, str]:
    """Returns what data sets must have in common."""
    readers = [scan.reader for scan in by_split.values()]
    shapes = Counter(patch.image_shape for scan in by_split.values() for patch in scan.patches if patch.is_valid)
    usual = shapes.most_common(1)
    shape = "x".join(map(str, usual[0][0])) if usual else "unknown"
    bands = " ".join(readers[0].bands) if readers[0].bands else "not recorded"
    return {"the bands": bands, "patches of shape": shape}
