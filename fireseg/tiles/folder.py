"""Finds the files of tiles by name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fireseg.data.patches import SPLITS, Fault
from fireseg.errors import join_names

_FILE = re.compile(r"(?P<name>.+)_(?P<kind>S2L2A|DEL|GRA|CM)\.(?P<suffix>tiff?|json)", re.IGNORECASE)

_ACTIVATION = re.compile(r"(?<![a-z0-9])EMSR\d+", re.IGNORECASE)

_METADATA = "metadata"

_MAX_NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TileFiles:
    """The files of one tile.

    Attributes:
        name: File name before `_S2L2A.tif`.
        split: `train`, `val`, `test`, or empty if the tile is in no such folder.
        activation: Code of the CEMS activation, such as `EMSR382`; the tile name if there is none.
        image: Reflectance, `<name>_S2L2A.tif`.
        delineation: `<name>_DEL.tif`, if it exists.
        grading: `<name>_GRA.tif`, if it exists.
        cloud: `<name>_CM.tif`, if it exists.
        metadata: `<name>_S2L2A.json`, if it exists.
    """

    name: str
    split: str
    activation: str
    image: Path
    delineation: Path | None = None
    grading: Path | None = None
    cloud: Path | None = None
    metadata: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All existing files, the image first."""
        paths = (self.image, self.delineation, self.grading, self.cloud, self.metadata)
        return tuple(path for path in paths if path is not None)


class TileSearch(NamedTuple):
    """Tiles and faults found in a folder.

    Attributes:
        tiles: All tiles that have an image, sorted by split and name.
        faults: Files in the wrong place: masks without an image, duplicate files, tiles in two splits.
    """

    tiles: tuple[TileFiles, ...]
    faults: tuple[Fault, ...]


def group_tile_files(root: Path) -> TileSearch:
    """Groups the files below a folder by tile, without opening them.

    Tiles may be at any depth, as archives may unpack one level deeper (`train/train/EMSR382/…`). Links are followed;
    names that begin with a dot are skipped.

    Args:
        root: Folder to search. Splits are recognised by the folders below it, not by its own name.
    """
    faults: list[Fault] = []
    groups: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in _walk(root, faults):
        if not (match := _FILE.fullmatch(path.name)):
            continue
        kind = match["kind"].upper()
        if match["suffix"].lower() == "json":
            if kind != "S2L2A":
                continue
            kind = _METADATA
        known = groups[path.parent, match["name"]].setdefault(kind, path)
        if known != path:
            faults.append(Fault(path, f"duplicate of {known.name}; keep one of the two"))
    tiles = []
    for (_, name), group in groups.items():
        if "S2L2A" in group:
            tiles.append(_make_tile(root, name, group))
        else:
            faults += report_orphan_masks(name, (path for kind, path in group.items() if kind != _METADATA))
    tiles.sort(key=lambda files: (files.split, files.name, str(files.image)))
    return TileSearch(tuple(tiles), tuple(sorted(faults + _check_splits(root, tiles))))


def report_orphan_masks(name: str, masks: Iterable[Path]) -> list[Fault]:
    """Returns a fault for each mask of a tile without an image."""
    return [
        Fault(path, f"mask without an image {name}_S2L2A.tif; download or unpack the image, or remove the mask")
        for path in masks
    ]


def _walk(root: Path, faults: list[Fault]) -> Iterator[Path]:
    """Yields files sorted by folder and name; each folder once, even if links form a cycle."""

    def report(error: OSError) -> None:
        faults.append(Fault(Path(error.filename), f"cannot be read ({error.strerror}); check its permissions"))

    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=report):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _make_tile(root: Path, name: str, group: Mapping[str, Path]) -> TileFiles:
    parts = group["S2L2A"].relative_to(root).parent.parts
    # The tile name has priority; the folder of an activation may hold tiles under other names.
    codes = [match[0].upper() for text in (name, *reversed(parts)) if (match := _ACTIVATION.search(text))]
    return TileFiles(
        name=name,
        split=next((part.lower() for part in parts if part.lower() in SPLITS), ""),
        activation=codes[0] if codes else name,
        image=group["S2L2A"],
        delineation=group.get("DEL"),
        grading=group.get("GRA"),
        cloud=group.get("CM"),
        metadata=group.get(_METADATA),
    )


def _check_splits(root: Path, tiles: list[TileFiles]) -> list[Fault]:
    """Finds tiles that are in two splits, twice in one split, or outside the splits that other tiles are in."""
    faults = []
    first: dict[tuple[str, str], Path] = {}
    for files in tiles:
        folders = {part.lower() for part in files.image.relative_to(root).parent.parts} & set(SPLITS)
        if len(folders) > 1:
            faults.append(Fault(files.image, f"in the folders {' and '.join(sorted(folders))}; keep it in one split"))
        known = first.setdefault((files.split, files.name), files.image)
        if known != files.image:
            faults.append(Fault(files.image, f"another tile has the same name, {known}; remove one of the two"))
    outside = [files.name for files in tiles if not files.split]
    if outside and len(outside) < len(tiles):
        shown = join_names(outside, _MAX_NAMES_SHOWN)
        what = f"{len(outside)} tiles are outside train, val and test ({shown}), but the others are inside; move them"
        faults.append(Fault(root, what))
    return faults
