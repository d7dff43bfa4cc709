"""Queue of scenes on disk, which outlives the server: a folder for each scene with its record, upload and map.

A scene is accepted when its folder has been renamed to its place, whole. `result.json` is the last thing that mapping
writes, so that a scene whose server was killed is either mapped, or mapped again from its start.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import time_ns
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, convert_disk_errors, sync_folder

State = Literal["queued", "running", "done", "failed"]

RESULT = "result.json"
"""File in the folder of a scene that is written last, by the process that maps it."""

INPUT, MAP = "input", "map"

SCENE_PICTURE = "scene.tif"
"""Picture of the scene in the folder of its map, drawn below the map."""

POLYGONS = "polygons.json"
"""The largest burned areas for the page, as GeoJSON."""

_RECORD = "job.json"

_ID = re.compile(r"[0-9a-f]{16}")

_MAX_ATTEMPTS = 5
"""Times that a scene is tried when the server is killed while it maps it: the scene may be the reason."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A scene and the state of its map.

    Attributes:
        id: 16 hexadecimal digits.
        name: File name of the upload, or name below the folder of the scenes.
        root: Folder of the scenes that it lies below; empty if it was uploaded.
        created_ns: Time of its arrival, by which the queue is ordered, in ns since 1970.
        state: State.
        attempts: Number of times that mapping was begun.
        started: Start of the last attempt, ISO 8601 in UTC; empty before the first.
        ended: End of the last attempt; empty until then.
        faults: Why the scene could not be mapped.
        settings: Options of the map that the client has given, by their names in `MapOptions`.
    """

    id: str
    name: str
    root: str
    created_ns: int
    state: State = "queued"
    attempts: int = 0
    started: str = ""
    ended: str = ""
    faults: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def created(self) -> str:
        """Time of its arrival, ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.created_ns / 1e9, UTC).isoformat(timespec="seconds")


class Store:
    """The scenes of a server, in a folder that one server at a time uses.

    Args:
        folder: Folder; created if missing.

    Raises:
        FiresegError: If another server uses the folder, or it cannot be written or read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._scenes, self._incoming = self.folder / "scenes", self.folder / "incoming"
        with convert_disk_errors(folder):
            self._scenes.mkdir(parents=True, exist_ok=True)
            self._lock_file = FileLock(self.folder / ".lock")
            try:
                self._lock_file.acquire(timeout=0)
            except Timeout as error:
                raise FiresegError(
                    f"{folder}: another server uses this folder; stop it, or choose another one with --out"
                ) from error
            shutil.rmtree(self._incoming, ignore_errors=True)  # uploads that were cut, scenes that were being deleted
            self._incoming.mkdir()
        self._changed = threading.Condition()
        self._results: dict[str, dict[str, Any]] = {}
        self._jobs = {job.id: job for path in sorted(self._scenes.iterdir()) if (job := self._recover(path))}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._lock_file.release()

    @contextmanager
    def receive(self) -> Iterator[Path]:
        """Yields an empty folder for a scene that arrives; it is removed at the end unless `add` has taken it."""
        folder = self._incoming / secrets.token_hex(8)
        with convert_disk_errors(folder):
            (folder / INPUT).mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(
        self,
        folder: Path,
        name: str,
        *,
        root: str = "",
        settings: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> Job:
        """Accepts a scene: it is on disk when this returns.

        Args:
            folder: Folder of `receive`, with the upload in its subfolder `input`.
            name: File name, or name below the folder of the scenes.
            root: Folder of the scenes that it lies below; empty if it was uploaded.
            settings: Options of the map.
            key: Text that the client has chosen; a second request with the same one adds nothing.

        Returns:
            The scene; that of the first request if one with the key was accepted.

        Raises:
            FiresegError: If the key belongs to another scene, or the disk is full.
        """
        job = Job(id=make_id(key), name=name, root=root, created_ns=time_ns(), settings=settings or {})
        with self._changed:
            if (known := self._jobs.get(job.id)) is not None:
                if (known.name, known.root, known.settings) != (name, root, job.settings):
                    raise FiresegError(
                        "Idempotency-Key: belongs to another scene, or the same with other options; use a new one"
                    )
                return known
            with convert_disk_errors(folder):
                _write_record(folder, job)
                sync_folder(folder)
                folder.rename(self._scenes / job.id)
                sync_folder(self._scenes)
            self._jobs[job.id] = job
            self._changed.notify_all()
        return job

    def get(self, job_id: str) -> Job | None:
        """Returns a scene; None if there is none of that id."""
        with self._changed:
            return self._jobs.get(job_id)

    def list(self) -> list[Job]:
        """Returns all scenes, the newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: -job.created_ns)

    def get_folder(self, job: Job) -> Path:
        """Returns the folder of a scene."""
        return self._scenes / job.id

    def read_result(self, job: Job) -> dict[str, Any] | None:
        """Reads what `result.json` says about a map; None if the scene has none."""
        if job.state != "done":
            return None
        if (result := self._results.get(job.id)) is None:
            try:
                result = json.loads((self.get_folder(job) / RESULT).read_bytes())
            except (OSError, ValueError):  # deleted at this moment
                return None
            self._results[job.id] = result  # it never changes, and the page asks every second
        return result

    def count_queued(self) -> int:
        """Returns the number of scenes that wait."""
        with self._changed:
            return sum(job.state == "queued" for job in self._jobs.values())

    def get_position(self, job: Job) -> int:
        """Returns the place of a scene in the queue, from 1; 0 if it does not wait."""
        with self._changed:
            ahead = [one for one in self._jobs.values() if one.state == "queued" and one.created_ns <= job.created_ns]
        return len(ahead) if job.state == "queued" else 0

    def take(self, timeout_s: float) -> Job | None:
        """Marks the scene that has waited longest as running; None if none arrives in time."""
        with self._changed:
            queued = self._list_queued()
            if not queued:
                self._changed.wait(timeout_s)
                queued = self._list_queued()
            if not queued:
                return None
            job = replace(queued[0], state="running", attempts=queued[0].attempts + 1, started=_now(), ended="")
            return self._update(job)

    def finish(self, job: Job, faults: tuple[str, ...] = ()) -> Job:
        """Records that a scene was mapped, or with faults, that it could not be."""
        with self._changed:
            return self._update(replace(job, state="failed" if faults else "done", faults=faults, ended=_now()))

    def put_back(self, job: Job) -> Job:
        """Queues a scene again whose server stops; the attempt does not count."""
        with self._changed:
            return self._update(replace(job, state="queued", attempts=job.attempts - 1))

    def delete(self, job: Job) -> bool:
        """Deletes a scene with its map; False if it is being mapped."""
        with self._changed:
            if self._jobs.get(job.id) is None:
                return True
            if self._jobs[job.id].state == "running":
                return False
            trash = self._incoming / f"{job.id}.{secrets.token_hex(4)}"
            with convert_disk_errors(trash):
                self.get_folder(job).rename(trash)
            del self._jobs[job.id]
            self._results.pop(job.id, None)
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def _list_queued(self) -> list[Job]:
        return sorted((job for job in self._jobs.values() if job.state == "queued"), key=lambda job: job.created_ns)

    def _update(self, job: Job) -> Job:
        with convert_disk_errors(self.folder):
            _write_record(self.get_folder(job), job)
        self._jobs[job.id] = job
        return job

    def _recover(self, folder: Path) -> Job | None:
        """Reads the record of a scene, and queues it again if its server was killed while it mapped it."""
        if not _ID.fullmatch(folder.name):
            return None
        try:
            content = json.loads((folder / _RECORD).read_bytes())
            job = Job(**{**content, "faults": tuple(content["faults"])})
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise FiresegError(f"{folder / _RECORD}: damaged; delete the folder {folder}") from error
        if job.state != "running":
            return job
        if (folder / RESULT).exists():
            job = replace(job, state="done", ended=_now())
        elif job.attempts >= _MAX_ATTEMPTS:
            fault = f"{job.name}: the server ended {job.attempts} times while it mapped this scene; try a smaller part"
            job = replace(job, state="failed", faults=(fault,), ended=_now())
        else:
            job = replace(job, state="queued")
        _write_record(folder, job)
        return job


def make_id(key: str | None) -> str:
    """Returns the id of a new scene: random, or derived from a key, so that the same key gives the same id."""
    return secrets.token_hex(8) if key is None else sha256(key.encode()).hexdigest()[:16]


def _write_record(folder: Path, job: Job) -> None:
    with atomic_write(folder / _RECORD) as part:
        part.write_text(json.dumps(asdict(job), indent=2, ensure_ascii=True) + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
