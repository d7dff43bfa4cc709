"""The audit by itself: who overlaps whom."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from fireseg.data.audit import Audit, audit
from fireseg.data.crew import work_in_order
from fireseg.data.footprints import Footprint, read_metadata
from fireseg.data.tile_looker import TileLooker
from fireseg.disk import replacing
from fireseg.errors import FiresegError
from fireseg.preparing.pace import watch_tiles
from fireseg.preparing.plan import locate, search_work

log = logging.getLogger("fireseg")


def audit_path(path: Path, *, table: Path | None, bands: tuple[str, ...], workers: int) -> tuple[Audit, list[str]]:
    ...
