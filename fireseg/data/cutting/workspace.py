"""The folder that patches grow in: whose it is, how far it came, and when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from fireseg.data.cutting.record import RECORD
from fireseg.data.store import MANIFEST, sync_folder
from fireseg.disk import disk_error
from fireseg.errors import FiresegError

UNFINISHED = "unfinished"
"""Folder within the folder: nothing in it is of use to others before all of it moves out."""

LOCK = ".lock"

AUDIT = "audit.json"

State = Literal["new", "unfinished", "complete", "finished"]

_AGAIN = "delete it to have it made again, or choose another"
_NUM_SHOWN = 3


class Workspace:
    """A folder of patches, finished or on the way.

    Args:
        folder: The folder.

    Attributes:
        staging: Where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / UNFINISHED

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps it for one process; a killed one lets go by itself.

        Raises:
            FiresegError: If another process has it, it holds something else, or it cannot be made.
        """
        with naming_disk_faults(self.folder):
            self._refuse_foreign()
            self.staging.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise FiresegError(f"{self.folder}: another process is writing to it; wait for it or end it") from error
            try:
                for part in self.folder.rglob(".*.part"):  # what a killed process was writing
                    part.unlink()
                if self.state == "new":
                    self.staging.mkdir(exist_ok=True)
                yield
            finally:
                lock.release()

    @property
    def state(self) -> State:
        """How far it came: `complete` is all written, but not all moved to where it is looked for."""
        if (self.folder / MANIFEST).exists():
            return "finished"
        if (self.staging / MANIFEST).exists():
            return "complete"
        return "unfinished" if (self.staging / RECORD).exists() else "new"

    @property
    def record(self) -> Path:
        """Where the record is now."""
        moved = self.folder / RECORD
        return moved if moved.exists() else self.staging / RECORD

    def release(self) -> None:
        """Moves all that is written to where it is looked for, the manifest last. Killed on the way, do it again."""
        for path in sorted(self.staging.iterdir()):
            if path.name != MANIFEST:
                path.replace(self.folder / path.name)
        sync_folder(self.folder)
        if (self.staging / MANIFEST).exists():
            (self.staging / MANIFEST).replace(self.folder / MANIFEST)
        sync_folder(self.folder)
        self.tidy()

    def tidy(self) -> None:
        """Takes away what a process killed at the very end left."""
        if self.staging.is_dir():
            self.staging.rmdir()

    def _refuse_foreign(self) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise FiresegError(f"{folder}: a file, but a folder for the patches is wanted; choose another name")
        if not folder.is_dir() or self.state in ("unfinished", "complete"):
            return
        names = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
        if self.state == "finished":
            manifest = read_json(folder / MANIFEST)
            if {"format", "options", "sources"} <= manifest.keys() and (folder / RECORD).exists():
                return
        elif not names or names == [UNFINISHED]:
            return
        shown = ", ".join(names[:_NUM_SHOWN]) + ", …" * (len(names) > _NUM_SHOWN)
        raise FiresegError(f"{folder}: holds something that was not prepared here ({shown}); choose an empty folder")


def compare(made: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with other options or tiles than those that a folder was begun with.

    Args:
        made: The header of its record.
        wanted: The header that would be written now.
        folder: To be named.

    Raises:
        FiresegError: With all differences.
    """
    options, others = made["options"], wanted["options"]
    differences = [
        f"{_show(name, options.get(name))} where {_show(name, others.get(name))} is wanted"
        for name in sorted({*options, *others})
        if options.get(name) != others.get(name)
    ]
    tiles, found = set(made["tiles"]), set(wanted["tiles"])
    for what, paths in (("that is gone", tiles - found), ("that is not in it", found - tiles)):
        if paths:
            shown = ", ".join(sorted(paths)[:_NUM_SHOWN]) + ", …" * (len(paths) > _NUM_SHOWN)
            differences.append(f"{len(paths)} tile{'s' * (len(paths) > 1)} {what} ({shown})")
    refuse_differences(folder, differences)


def refuse_differences(folder: Path, differences: Sequence[str]) -> None:
    """Raises: FiresegError: If there are any."""
    if differences:
        raise FiresegError(*(f"{folder}: made with {difference}; {_AGAIN}" for difference in differences))


@contextmanager
def naming_disk_faults(place: Path) -> Iterator[None]:
    """Within, a full disk and the like are one clear line each."""
    try:
        yield
    except BrokenPipeError:  # whoever read what is printed went away: no matter of disks
        raise
    except OSError as error:
        path = Path(error.filename) if isinstance(error.filename, str) else place
        raise disk_error(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing if it cannot be understood."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _show(name: str, value: Any) -> str:
    """An option as it is typed."""
    option = f"--{name.replace('_', '-')}"
    if value is None:
        return f"no {option}"
    return f"{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"
