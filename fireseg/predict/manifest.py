"""Manifest of an output folder: the scenes that are done, failed or missing, and what shapes their maps."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, TypeAdapter, ValidationError

from fireseg import __version__
from fireseg.errors import FiresegError
from fireseg.files import atomic_write, check_regular_file, disk_error, list_leftovers, read_error
from fireseg.predict.options import PredictOptions
from fireseg.predict.outputs import DecisionThreshold, MapFiles
from fireseg.tiles.folder import find_pre_scene
from fireseg.tiles.metadata import SOFTWARE_TAG
from fireseg.tiles.products import Scene, get_scene_name

MANIFEST = "maps.json"
"""File in the output folder."""

_FORMAT = 1

_WRITE_S = 2.0
"""Least seconds between two writes: with thousands of scenes, each takes as long as a small map."""

_WITHOUT_EFFECT = ("overwrite", "batch_size", "readers")
"""Options of a map that do not change it."""

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """The last attempt at a scene.

    Attributes:
        scene: The scene as it was named.
        state: `missing` from the beginning of a command to the end of its map.
        file: Size and time of change (ns) of the scene, together with the one before the fire beside it; None for an
            address.
        settings: Key of the settings of the map.
        replaced: Time of change (ns) of the summary that the new map replaces; None if there was none.
        faults: Reasons of a failure.
    """

    scene: str
    state: Literal["done", "failed", "missing"]
    file: tuple[int, int] | None
    settings: str
    replaced: int | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Content:
    format: Annotated[int, Field(ge=1, le=_FORMAT)]
    settings: dict[str, dict[str, Any]]
    scenes: dict[str, SceneRecord]


def get_settings(sha256: str, decision: DecisionThreshold, options: PredictOptions) -> Settings:
    """Returns what shapes a map besides its scene: model, threshold, options and version, as plain values of JSON.

    The engine is the wanted one, such as `auto`, because nodes of a cluster may have different ones.

    Args:
        sha256: SHA-256 of the checkpoint.
        decision: Threshold and temperature.
        options: Options of the command.
    """
    return _select_settings(
        {
            "model": {"sha256": sha256},
            "threshold": decision.threshold,
            "temperature": decision.temperature,
            "options": options.as_dict(),
            "runtime": {"name": options.runtime, "precision": options.precision},
            "versions": {"fireseg": __version__},
        }
    )


def _select_settings(summary: Mapping[str, Any]) -> Settings:
    options = {name: value for name, value in summary["options"].items() if name not in _WITHOUT_EFFECT}
    settings = {
        "model": summary["model"]["sha256"],
        "decision": [summary["threshold"], summary["temperature"]],
        "options": options,
        "runtime": [summary["runtime"][name] for name in ("name", "precision")],
        "fireseg": summary["versions"]["fireseg"],
    }
    return json.loads(json.dumps(settings))


def read_map(files: MapFiles, settings: Settings, scene: str) -> dict[str, Any] | None:
    """Reads the summary of a map, if it is one of a scene with some settings; else returns None.

    The summary is written last, so that all other files of the map exist if it does.

    Args:
        files: Files of the map.
        settings: Settings as of `get_settings`.
        scene: The scene as it was named.
    """
    try:
        summary = json.loads(files.summary.read_bytes())
        is_same = summary["scene"] == scene and _agree(settings, _select_settings(summary))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    expected = (path for path in files if path != files.geojson or settings["options"]["geojson"])
    return summary if is_same and all(path.exists() for path in expected) else None


def _agree(wanted: Settings, found: Settings) -> bool:
    # int8 is never chosen by auto.
    is_wanted_engine = all(
        name == other or (name == "auto" and other != "int8")
        for name, other in zip(wanted["runtime"], found["runtime"], strict=True)
    )
    return is_wanted_engine and all(found[key] == value for key, value in wanted.items() if key != "runtime")


class Manifest:
    """The manifest of an output folder, for the scenes of one command.

    Args:
        folder: Output folder.
        scenes: Scenes of the command.
        settings: What shapes their maps.

    Raises:
        FiresegError: If there is another file in the place of the manifest, or it is damaged.
    """

    def __init__(self, folder: Path, scenes: Sequence[Scene], settings: Settings) -> None:
        self.path = folder / MANIFEST
        self._folder, self._settings, self._written = folder, settings, 0.0
        self._key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._content = _read(self.path)
        self._identities = {scene: _identify(scene) for scene in scenes}

    def find_done(self, *, overwrite: bool) -> dict[Scene, dict[str, Any]]:
        """Returns the summaries of the maps that are done, with the same model, settings and scene.

        A scene that is recorded as missing is done if its map has appeared since: the command was killed in between.

        Args:
            overwrite: Existing maps are to be replaced: none is done then, unless a command was stopped before its
                end, which this one continues.
        """
        done = {}
        is_unfinished = False
        for scene, identity in self._identities.items():
            record = self._content.scenes.get(identity)
            if record is None or record.settings != self._key or record.file != _get_file(scene):
                continue
            is_unfinished |= record.state == "missing"
            files = MapFiles.of(self._folder, get_scene_name(scene))
            if record.state == "failed" or _get_mtime(files.summary) == record.replaced:
                continue
            if summary := read_map(files, self._settings, record.scene):
                done[scene] = summary
        return done if is_unfinished or not overwrite else {}

    @contextmanager
    def started(self, done: Mapping[Scene, object]) -> Iterator[None]:
        """Locks the folder for this command, records the scenes that are missing, and writes the manifest at the end.

        Args:
            done: Scenes that are done.

        Raises:
            FiresegError: If another command writes to the folder, or it is not writable.
        """
        lock = FileLock(self._folder / f".{MANIFEST}.lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise FiresegError(
                f"{self.path}: another command is mapping scenes into this folder; wait for it, or choose another "
                "folder with --out"
            ) from error
        except OSError as error:
            raise disk_error(self._folder, error) from error
        try:
            for path in list_leftovers(self.path):
                path.unlink(missing_ok=True)
            for scene, identity in self._identities.items():
                name = get_scene_name(scene)
                files = MapFiles.of(self._folder, name)
                replaced = None if scene in done else _get_mtime(files.summary)
                state = "done" if scene in done else "missing"
                former = self._content.scenes.get(identity)
                self._content.scenes[identity] = SceneRecord(
                    scene=former.scene if former and scene in done else str(scene),
                    state=state,
                    file=_get_file(scene),
                    settings=self._key,
                    replaced=former.replaced if former and scene in done else replaced,
                )
            self._content.settings[self._key] = dict(self._settings)
            self._write()
            try:
                yield
            finally:
                self._write()
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def record(self, scene: Scene, faults: Sequence[str] | None = None) -> None:
        """Records that a scene is done, or failed if there are faults."""
        identity = self._identities[scene]
        state = "failed" if faults else "done"
        former = self._content.scenes[identity]
        self._content.scenes[identity] = replace(former, state=state, faults=tuple(faults or ()))
        if time.monotonic() - self._written >= _WRITE_S:
            with suppress(FiresegError):  # a full disk fails one scene, and may have room for the next
                self._write()

    def _write(self) -> None:
        used = {record.settings for record in self._content.scenes.values()}
        content = {
            SOFTWARE_TAG[0]: SOFTWARE_TAG[1],
            "format": _FORMAT,
            "settings": {key: value for key, value in self._content.settings.items() if key in used},
            "scenes": {identity: asdict(record) for identity, record in self._content.scenes.items()},
        }
        text = json.dumps(content, indent=1)  # in ASCII: names that are no UTF-8 become escapes
        with atomic_write(self.path) as part:
            part.write_text(text + "\n", encoding="utf-8")
        self._written = time.monotonic()


def _read(path: Path) -> _Content:
    cure = "choose another folder with --out, or move the file"
    check_regular_file(path, cure=cure)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return _Content(format=_FORMAT, settings={}, scenes={})
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, RecursionError):
        content = None
    try:
        if isinstance(content, dict) and content.pop(SOFTWARE_TAG[0], None) == SOFTWARE_TAG[1]:
            return TypeAdapter(_Content).validate_python(content)
    except ValidationError:
        pass
    raise FiresegError(f"{path}: not a manifest of maps of this version, but one would replace it; {cure}")


def _identify(scene: Scene) -> str:
    return os.path.abspath(scene) if isinstance(scene, Path) else scene  # noqa: PTH100 - links stay, `..` goes


def _get_file(scene: Scene) -> tuple[int, int] | None:
    if not isinstance(scene, Path):
        return None
    try:
        stats = [path.stat() for path in (scene, find_pre_scene(scene)) if path is not None]
    except OSError:
        return None
    return sum(status.st_size for status in stats), max(status.st_mtime_ns for status in stats)


def _get_mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
