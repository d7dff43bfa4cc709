"""The audit by itself: who overlaps whom."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from fireseg.data.audit.findings import Audit, audit
from fireseg.data.audit.footprints import Footprint, read_metadata
from fireseg.data.audit.looker import TileLooker
from fireseg.data.cutting.crew import work_in_order
from fireseg.data.cutting.workspace import naming_disk_faults
from fireseg.data.tiles.reading import search_tiles
from fireseg.disk import replacing
from fireseg.errors import FiresegError
from fireseg.preparing.pace import watch_tiles

log = logging.getLogger("fireseg")


def audit_path(path: Path, *, json_path: Path, workers: int) -> tuple[Audit, list[str]]:
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
    footprints = _look_at_tiles(path, faults, workers) if path.is_dir() else read_metadata(path)
    found = audit(footprints)
    with naming_disk_faults(json_path):
        json_path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(json_path) as part:
            part.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    log.info("%s", found.as_table())
    log.info("all of it: %s", json_path)
    return found, faults


def _look_at_tiles(path: Path, faults: list[str], workers: int) -> list[Footprint]:
    tiles, outside = search_tiles(path)
    faults += map(str, outside)
    footprints = []
    with watch_tiles(len(tiles), done=0) as pace:
        for number, (footprint, found) in work_in_order(
            TileLooker(tiles), range(len(tiles)), lambda _: 0, workers=workers
        ):
            faults += found
            if footprint is not None:
                footprints.append(footprint)
            pace.advance(tiles[number].name)
    if not footprints:
        raise FiresegError(f"{path}: no tile that can be read", *faults)
    return footprints
