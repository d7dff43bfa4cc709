"""The folder of a split: put in place whole, with a record of what came and what must be there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fireseg.errors import FiresegError

_RECORD = "download.json"


def settle(unpacked: Path, target: Path, record: Mapping[str, Any]) -> None:
    """Moves what an archive held to where it belongs, with its record.

    Args:
        unpacked: Where it was unpacked, on the same disk.
        target: The folder of the split. If it exists, only what the archive holds is replaced.
        record: Where it comes from. The files and their sizes are added.

    Raises:
        FiresegError: If there is no tile in it.
        OSError: If the disk is full or not writable.
    """
    top = find_top(unpacked)
    files = {path.relative_to(top).as_posix(): path.stat().st_size for path in sorted(top.rglob("*")) if path.is_file()}
    if not any(_is_of("S2L2A", name) for name in files):
        raise FiresegError(f"{target}: no tile (…_S2L2A.tif) was in its archive; the data set has changed")
    (top / _RECORD).write_text(json.dumps({**record, "files": files}, indent=1), encoding="utf-8")
    if not target.exists() or not any(target.iterdir()):
        top.rename(target)  # whole or not at all
        return
    for name in (*files, _RECORD):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).replace(target / name)


def find_top(folder: Path) -> Path:
    """The folder that holds the activations, below whatever the archive wraps around them (`train/`, `data/train/`)."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not re.match(r"EMSR\d", entries[0].name, re.IGNORECASE):
        return find_top(entries[0])
    return folder


def is_foreign(folder: Path) -> bool:
    """Whether something is in the folder that no archive brought."""
    return folder.exists() and any(folder.iterdir()) and not _read_record(folder)


def is_complete(folder: Path) -> bool:
    """Whether every file that was in the archive is there, in its size."""
    files = _read_record(folder).get("files", {})
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in files.items()
    )


def describe_tiles(folder: Path) -> str:
    """Such as `53 tiles (53 DEL, 41 GRA, 53 CM), 477 files`."""
    files = _read_record(folder)["files"]
    counts = {kind: sum(_is_of(kind, name) for name in files) for kind in ("S2L2A", "DEL", "GRA", "CM")}
    tiles = counts.pop("S2L2A")
    masks = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{tiles} tiles ({masks}), {len(files)} files"


def _is_of(kind: str, name: str) -> bool:
    return re.search(rf"_{kind}\.tiff?$", name, re.IGNORECASE) is not None


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
