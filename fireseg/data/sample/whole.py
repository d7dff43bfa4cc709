"""A folder that is made once, and is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from fireseg.disk import disk_error, replacing
from fireseg.errors import FiresegError

MANIFEST = "sample.json"
"""Says in the folder what it was made with; the last file written."""

Settings = Mapping[str, Any]


def make_once(root: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Makes a folder, or finds it made.

    It appears with all its files at once; killed on the way, there is none. Processes that want the
    same folder together wait for the first.

    Args:
        root: The folder, which holds other folders.
        settings: What it is made with, in plain values: other settings are another folder.
        write: Writes all of it into the folder it is given, which is there and empty.

    Raises:
        FiresegError: If the folder holds something else, has lost a file, or cannot be written.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            if not _is_made(root, settings):
                _make_whole(root, settings, write)
    except OSError as error:
        raise disk_error(root, error) from error


def _is_made(root: Path, settings: Settings) -> bool:
    """Whether the folder is the one wanted; False where nothing is in the way of making it."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FiresegError(f"{root}: holds something that is no sample; choose another folder for the sample")
    manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    made = manifest["settings"]
    # Never replaced in passing: another process may be reading it.
    cure = "delete the folder to have it made again, or choose another"
    if differences := [
        f"{name}={made.get(name, 'nothing')} where {name}={settings.get(name, 'nothing')} is wanted"
        for name in sorted({*made, *settings})
        if made.get(name) != settings.get(name)
    ]:
        raise FiresegError(f"{root}: a sample made with {', '.join(differences)}; {cure}")
    found = _count_files(root)
    for folder, num_files in manifest["files"].items():
        if found.get(folder, 0) != num_files:
            raise FiresegError(f"{root / folder}: {found.get(folder, 0)} files, but {num_files} were made; {cure}")
    return True


def _make_whole(root: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Writes into a folder beside, which then takes the name. The caller holds the lock."""
    for left_behind in root.parent.glob(f".{root.name}.*.part"):
        shutil.rmtree(left_behind, ignore_errors=True)
    part = root.parent / f".{root.name}.{os.getpid()}.part"
    try:
        part.mkdir()
        write(part)
        with replacing(part / MANIFEST) as file:
            content = {"settings": settings, "files": _count_files(part)}
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        part.replace(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _count_files(root: Path) -> dict[str, int]:
    """Files in each folder, however deep; not those that somebody else keeps there under a dot."""
    return {
        folder.name: sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }
