"""Audits a folder of tiles, or a table of them, for overlaps and copies."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fireseg.errors import FiresegError
from fireseg.files import atomic_write
from fireseg.prepare.audit import Audit, audit
from fireseg.prepare.duplicates import fingerprint_image
from fireseg.prepare.footprints import Footprint, make_footprint, read_footprints
from fireseg.prepare.journal import (
    naming_disk_faults,
)
from fireseg.prepare.workers import run_in_order, track_tiles
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import find_tiles, read_grid_and_date, read_tile

log = logging.getLogger("fireseg")

BANDS = ("B04", "B08", "B12")
"""Enough to know a picture again, and what every set for burned areas has."""


class FingerprintTask:
    """Looks at tiles; see `fireseg.data.cutting.crew.Craft`.

    Args:
        tiles: The files of each tile.
    """

    def __init__(self, tiles: Sequence[TileFiles]) -> None:
        self.tiles = tiles

    def cut(self, number: int) -> tuple[Footprint | None, tuple[str, ...]]:
        """The footprint of a tile as far as it can be read, and what is wrong with it."""
        files = self.tiles[number]
        try:
            tile = read_tile(files, BANDS)
        except FiresegError as error:
            return _locate(files), error.faults
        look = fingerprint_image(tile.image, tile.unknown, tile.delineation)
        burned = int((tile.delineation == 1).sum())
        return replace(make_footprint(files, tile.grid, tile.date), look=look, burned=burned), ()

    def write(self, number: int, first: int) -> None:
        """Nothing: what was seen is small."""


def _locate(files: TileFiles) -> Footprint | None:
    try:
        return make_footprint(files, *read_grid_and_date(files))
    except FiresegError:
        return None


def audit_tiles(path: Path, *, json_path: Path, workers: int) -> tuple[Audit, list[str]]:
    """Looks who shares ground, pixels or an activation with whom, and shows and writes it.

    Args:
        path: A folder of tiles, or the data set's own table of them.
        json_path: Where what was found goes, besides being shown.
        workers: Processes that read tiles.

    Returns:
        What was found, and what is wrong with tiles, one line each.

    Raises:
        FiresegError: If there is no such folder or table, or nothing to look at.
    """
    faults: list[str] = []
    footprints = _look_at_tiles(path, faults, workers) if path.is_dir() else read_footprints(path)
    found = audit(footprints)
    with naming_disk_faults(json_path):
        json_path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(json_path) as part:
            part.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    log.info("%s", found.as_table())
    log.info("all of it: %s", json_path)
    return found, faults


def _look_at_tiles(path: Path, faults: list[str], workers: int) -> list[Footprint]:
    tiles, outside = find_tiles(path)
    faults += map(str, outside)
    footprints = []
    with track_tiles(len(tiles), done=0) as pace:
        for number, (footprint, found) in run_in_order(
            FingerprintTask(tiles), range(len(tiles)), lambda _: 0, workers=workers
        ):
            faults += found
            if footprint is not None:
                footprints.append(footprint)
            pace.advance(tiles[number].name)
    if not footprints:
        raise FiresegError(f"{path}: no tile that can be read", *faults)
    return footprints
