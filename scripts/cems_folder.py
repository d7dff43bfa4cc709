"""Folder of a downloaded split with a record of its source and files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fireseg.errors import FiresegError

_RECORD = "download.json"


def publish(unpacked: Path, target: Path, record: Mapping[str, Any]) -> None:
    """Moves unpacked files to the folder of the split and writes the record.

    Args:
        unpacked: Folder of the unpacked archives, on the same disk.
        target: Folder of the split. If it exists, only files that are in the archives are replaced.
        record: Source of the files; their names and sizes are added.

    Raises:
        FiresegError: If the archives contain no tile.
        OSError: If the disk is full or not writable.
    """
    top = find_top(unpacked)
    files = {path.relative_to(top).as_posix(): path.stat().st_size for path in sorted(top.rglob("*")) if path.is_file()}
    if not any(_is_kind("S2L2A", name) for name in files):
        raise FiresegError(
            f"{target}: its archive contains no tile (…_S2L2A.tif); the data set has changed, unpack it by hand"
        )
    (top / _RECORD).write_text(json.dumps({**record, "files": files}, indent=1), encoding="utf-8")
    if not target.exists() or not any(target.iterdir()):
        top.rename(target)  # atomic
        return
    for name in (*files, _RECORD):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).replace(target / name)


def find_top(folder: Path) -> Path:
    """Returns the folder of the activations, below wrapping folders such as `train/` or `data/train/`."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not re.match(r"EMSR\d", entries[0].name, re.IGNORECASE):
        return find_top(entries[0])
    return folder


def is_foreign(folder: Path) -> bool:
    """Returns True if the folder has files but no record of a download."""
    return folder.exists() and any(folder.iterdir()) and not _read_record(folder)


def is_complete(folder: Path) -> bool:
    """Returns True if every recorded file exists with its size."""
    files = _read_record(folder).get("files", {})
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in files.items()
    )


def describe_tiles(folder: Path) -> str:
    """Formats the contents of a split, such as `53 tiles (53 DEL, 41 GRA, 53 CM), 477 files`."""
    files = _read_record(folder)["files"]
    counts = {kind: sum(_is_kind(kind, name) for name in files) for kind in ("S2L2A", "DEL", "GRA", "CM")}
    tiles = counts.pop("S2L2A")
    masks = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{tiles} tiles ({masks}), {len(files)} files"


def _is_kind(kind: str, name: str) -> bool:
    return re.search(rf"_{kind}\.tiff?$", name, re.IGNORECASE) is not None


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
