"""The files of a map by name, which appear together or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from fireseg.data.tiles.raster import MADE_BY
from fireseg.disk import disk_error
from fireseg.errors import FiresegError, SettingError


class MapFiles(NamedTuple):
    """Where the map of a scene goes.

    Attributes:
        classes: What burned, and how badly.
        names: Class names beside it, for GDAL.
        fire: How sure that is.
        burned: Polygons.
        geojson: The same for the web, where wished for.
        picture: A quick look.
        summary: In numbers.
    """

    classes: Path
    names: Path
    fire: Path
    burned: Path
    geojson: Path
    picture: Path
    summary: Path

    @classmethod
    def of(cls, folder: Path, stem: str) -> MapFiles:
        """Those of a scene.

        Args:
            folder: Where maps go.
            stem: Name of the scene's file without its ending.
        """
        endings = ("_classes.tif", "_classes.tif.aux.xml", "_fire.tif", "_burned.gpkg", "_burned.geojson")
        return cls(*(folder / f"{stem}{ending}" for ending in (*endings, ".png", ".json")))


def check_outputs(scenes: Sequence[Path], out: Path, *, overwrite: bool) -> None:
    """Refuses what would be lost or mixed up, before any work.

    Args:
        scenes: The rasters to map.
        out: Where maps go.
        overwrite: Whether existing maps may be replaced.

    Raises:
        SettingError: If two scenes have one name, or a map would take the place of a scene.
        FiresegError: If maps are there already, or a json that is none of ours.
    """
    counts = Counter(scene.stem for scene in scenes)
    faults = [
        f"{', '.join(str(scene) for scene in scenes if scene.stem == stem)}: {count} scenes whose maps would all be "
        f"called {stem}; map them into different folders with --out"
        for stem, count in counts.items()
        if count > 1
    ]
    outputs = {path.absolute(): path for stem in counts for path in MapFiles.of(out, stem)}
    faults += [
        f"{scene}: a map would take the place of this scene; choose another folder with --out"
        for scene in scenes
        if scene.absolute() in outputs
    ]
    if faults:
        raise SettingError(*faults)
    for stem in counts:
        _refuse_strange_summary(MapFiles.of(out, stem).summary)
    there = [path for path in outputs.values() if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise FiresegError(f"{there[0]}{more}: is there already; add --overwrite, or choose another folder with --out")


@contextmanager
def writing_together(files: MapFiles, stem: str) -> Iterator[MapFiles]:
    """Yields the same names in a scratch folder beside; what was written there appears at the end.

    Killed on the way, a folder with a dot in front is all that is left, and the next call clears it.

    Args:
        files: Where the files go in the end.
        stem: Name of the scene.

    Raises:
        FiresegError: If another process writes the same map, or the folder cannot be written.
    """
    folder = files.summary.parent
    scratch = folder / f".{stem}.part"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        lock = FileLock(scratch / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FiresegError(f"{scratch}: another process is writing this map; wait for it or end it") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        _clear(scratch)
        drafts = MapFiles(*(scratch / path.name for path in files))
        yield drafts
        _release(drafts, files)
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _refuse_strange_summary(path: Path) -> None:
    """In the folder of the scenes, a json of that name may be what tells when a scene was taken."""
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get(MADE_BY[0]) != MADE_BY[1]:
        raise FiresegError(
            f"{path}: is no summary of a map, and one would take its place; choose another folder with --out"
        )


def _release(drafts: MapFiles, files: MapFiles) -> None:
    """Renames one file after the other, the summary last: where it is, all the others are of the same map."""
    for draft in drafts:
        if draft.exists():
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
    for old in (files.summary, files.geojson):  # the latter may not be among those that take its place
        old.unlink(missing_ok=True)
    for draft, path in zip(drafts, files, strict=True):
        if draft.exists():
            draft.replace(path)


def _clear(scratch: Path) -> None:
    for path in scratch.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
