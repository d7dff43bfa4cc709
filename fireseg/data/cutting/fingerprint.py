"""Whether the files of a tile are still those that it was cut from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from fireseg.data.audit.looks import look_at
from fireseg.data.cutting.recipe import Recipe
from fireseg.data.cutting.record import SourceFile, TileRecord
from fireseg.data.tiles.files import TileFiles
from fireseg.data.tiles.reading import read_tile
from fireseg.errors import FiresegError

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


def list_changed(tile: TileRecord, files: TileFiles, root: Path, recipe: Recipe) -> list[Path]:
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


def _look(files: TileFiles, recipe: Recipe) -> str:
    try:
        tile = read_tile(files, recipe.bands, offset=recipe.offset)
    except FiresegError:
        return ""
    return look_at(tile.image, tile.unknown, tile.delineation).digest
