"""Which files make a tile, told by their names alone."""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from fireseg.data.patches import SPLITS, Fault
from fireseg.errors import FiresegError
from fireseg.geo.grid import GDAL_ERRORS

_FILE = re.compile(r"(?P<name>.+)_(?P<kind>S2L2A|DEL|GRA|CM)\.(?P<form>tiff?|json)", re.IGNORECASE)

_ACTIVATION = re.compile(r"(?<![a-z0-9])EMSR\d+", re.IGNORECASE)

_METADATA = "metadata"

_NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TileFiles:
    """The files of one tile.

    Attributes:
        name: What stands before `_S2L2A.tif`.
        split: `train`, `val`, `test`, or nothing where the tile lies in no such folder.
        activation: The code of the emergency, such as `EMSR382`; the name of the tile where there is none.
        image: Reflectance, `<name>_S2L2A.tif`.
        delineation: `<name>_DEL.tif`, if there is one.
        grading: `<name>_GRA.tif`, if there is one.
        cloud: `<name>_CM.tif`, if there is one.
        metadata: `<name>_S2L2A.json`, if there is one.
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
        """All files that are there, the image first."""
        found = (self.image, self.delineation, self.grading, self.cloud, self.metadata)
        return tuple(path for path in found if path is not None)


class TileSearch(NamedTuple):
    """What lies in a folder of tiles.

    Attributes:
        tiles: Every tile that has an image, by split and name.
        faults: What is in the way: masks without an image, two files where one is wanted.
    """

    tiles: tuple[TileFiles, ...]
    faults: tuple[Fault, ...]


def group_files(root: Path) -> TileSearch:
    """Walks a folder and puts together what belongs to one tile. No file is opened.

    Any depth will do, so that archives may unpack one level deeper (`train/train/EMSR382/…`). Links are
    followed; names that begin with a dot are passed over.

    Args:
        root: The folder. Its own name does not make a split, those below it do.
    """
    faults: list[Fault] = []
    groups: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in _walk(root, faults):
        if not (match := _FILE.fullmatch(path.name)):
            continue
        kind = match["kind"].upper()
        if match["form"].lower() == "json":
            if kind != "S2L2A":
                continue
            kind = _METADATA
        known = groups[path.parent, match["name"]].setdefault(kind, path)
        if known != path:
            faults.append(Fault(path, f"{known.name} beside it would be the same; keep one of the two"))
    tiles = []
    for (_, name), group in groups.items():
        if "S2L2A" in group:
            tiles.append(_make_tile(root, name, group))
        else:
            faults += report_orphans(name, (path for kind, path in group.items() if kind != _METADATA))
    tiles.sort(key=lambda files: (files.split, files.name, str(files.image)))
    return TileSearch(tuple(tiles), tuple(sorted(faults + _judge_splits(root, tiles))))


def report_orphans(name: str, masks: Iterable[Path]) -> list[Fault]:
    """A fault for each mask that has no image to go with it."""
    return [
        Fault(path, f"a mask without {name}_S2L2A.tif beside it; fetch or unpack the image, or take the mask away")
        for path in masks
    ]


def _walk(root: Path, faults: list[Fault]) -> Iterator[Path]:
    """Files in the order of their names, each folder once even where links lead in a circle."""

    def refuse(error: OSError) -> None:
        faults.append(Fault(Path(error.filename), f"cannot be read ({error.strerror}); mend its permissions"))

    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _make_tile(root: Path, name: str, group: Mapping[str, Path]) -> TileFiles:
    parts = group["S2L2A"].relative_to(root).parent.parts
    # The name knows best; a folder may hold tiles of its activation under names of their own.
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


def _judge_splits(root: Path, tiles: list[TileFiles]) -> list[Fault]:
    """Tiles that lie in two splits by their folders, in none while others do, or twice in one."""
    faults = []
    first: dict[tuple[str, str], Path] = {}
    for files in tiles:
        folders = {part.lower() for part in files.image.relative_to(root).parent.parts} & set(SPLITS)
        if len(folders) > 1:
            faults.append(Fault(files.image, f"lies under {' and '.join(sorted(folders))}; leave it in one split"))
        known = first.setdefault((files.split, files.name), files.image)
        if known != files.image:
            faults.append(Fault(files.image, f"a tile of this name is {known} already; take one away"))
    outside = [files.name for files in tiles if not files.split]
    if outside and len(outside) < len(tiles):
        shown = ", ".join(outside[:_NAMES_SHOWN]) + ", …" * (len(outside) > _NAMES_SHOWN)
        what = f"{len(outside)} tiles lie outside of train, val and test ({shown}), the others inside; sort them in"
        faults.append(Fault(root, what))
    return faults


@contextmanager
def opened(path: Path) -> Iterator[DatasetReader]:
    """Opens a raster; what goes wrong while it is read names the file.

    Args:
        path: The raster; one without georeference will do.

    Raises:
        FiresegError: If it cannot be opened, or read to the end.
    """
    with naming(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by grid.locate, with a way out
        with rasterio.open(path) as raster:
            yield raster


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, what goes wrong with a raster is worded as its fault.

    Raises:
        FiresegError: In place of what GDAL and the disk raise.
    """
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        if not path.exists():
            raise FiresegError(f"{path}: no such file; was it moved while fireseg was running?") from error
        what = "empty" if path.stat().st_size == 0 else f"truncated or no raster ({error.__cause__ or error})"
        raise FiresegError(f"{path}: {what}; fetch or unpack it again") from error


@contextmanager
def gathering(faults: list[str]) -> Iterator[None]:
    """Takes down what cannot be, so that whatever comes after is looked at, too."""
    try:
        yield
    except FiresegError as error:
        faults += error.faults


def is_quick_look(raster: DatasetReader) -> bool:
    """Whether it is a picture for the eye: 8 bits, at most four channels."""
    return raster.count <= 4 and set(raster.dtypes) == {"uint8"}
