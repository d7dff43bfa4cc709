"""Checks names of scenes that clients send: they are names of uploads or of scenes below one folder, never paths."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from fireseg.errors import FiresegError

UPLOAD_SUFFIXES = (".tif", ".tiff", ".jp2", ".zip")
"""Ends of files that can be uploaded. A JSON file or a VRT names other files, so neither is one."""

_SAFE = ".safe"

_MAX_CHARACTERS = 120

_PART = re.compile(r"\w[\w .()+=@-]*")
"""Names of files and folders: no separator, no colon as in GDAL's connection strings, no dot in front."""

_NO_SCENE = re.compile(r"_(CM|SCL|DEL|GRA|PRE|classes|fire)\.\w+$", re.IGNORECASE)

_MAX_LISTED, _MAX_DEPTH = 1000, 6


def check_upload_name(name: str) -> str:
    """Checks the file name of an upload and returns it.

    Raises:
        FiresegError: If it is not a plain file name of a raster.
    """
    if len(name) > _MAX_CHARACTERS or not _PART.fullmatch(name) or not name.isprintable():
        raise FiresegError(
            "name: not a plain file name; rename the file to letters, digits and . _ - ( ), "
            f"at most {_MAX_CHARACTERS} characters"
        )
    if Path(name).suffix.lower() not in UPLOAD_SUFFIXES:
        raise FiresegError(f"name: {name}, but a scene ends in {', '.join(UPLOAD_SUFFIXES)}; convert it to GeoTIFF")
    return name


def find_scene(root: Path, name: str) -> Path:
    """Finds a scene below a folder.

    No part of its name, nor a file beside it that is read with it, may be a symbolic link, so that nothing outside the
    folder is read.

    Args:
        root: Folder of the scenes.
        name: Relative name, its parts separated by `/`, as `list_scenes` returns it.

    Returns:
        The relative path.

    Raises:
        FiresegError: If the name is none of a scene below the folder. Why is not said, so that it tells nothing about
            other files.
    """
    error = FiresegError("path: no scene of that name below --root; GET /root lists them")
    parts = name.split("/")
    if len(name) > 1000 or len(parts) > _MAX_DEPTH or not all(_PART.fullmatch(part) for part in parts):
        raise error
    if not _is_scene_name(parts[-1]) or any(part.lower().endswith(_SAFE) for part in parts[:-1]):
        raise error
    path, mode = root, 0
    try:
        for part in parts:
            path = path / part
            mode = path.lstat().st_mode
            if not (stat.S_ISDIR(mode) or (part is parts[-1] and stat.S_ISREG(mode))):
                raise error
        if path.suffix.lower() == _SAFE:
            if not stat.S_ISDIR(mode) or _has_link(path):
                raise error
        elif not stat.S_ISREG(mode) or _has_linked_sidecar(path):
            raise error
    except OSError:
        raise error from None
    return Path(*parts)


def list_scenes(root: Path, *, without: Path) -> list[str]:
    """Lists the scenes below a folder: rasters and SAFE products, without masks and maps beside them.

    Args:
        root: Folder of the scenes.
        without: Folder that is left out, with the files of the server.

    Returns:
        At most 1000 relative names, sorted.
    """
    names = []
    for folder, folders, files in os.walk(root):
        relative = Path(folder).relative_to(root)
        products = [name for name in folders if name.lower().endswith(_SAFE)]
        names += [(relative / name).as_posix() for name in (*products, *files) if _is_scene_name(name)]
        folders[:] = sorted(
            name
            for name in folders
            if name not in products and _PART.fullmatch(name) and (Path(folder) / name).resolve() != without
        )
        if len(relative.parts) >= _MAX_DEPTH - 1:
            folders.clear()
        if len(names) > _MAX_LISTED:
            break
    return [name for name in sorted(names)[:_MAX_LISTED] if _is_scene(root, name)]


def _is_scene(root: Path, name: str) -> bool:
    try:
        find_scene(root, name)
    except FiresegError:
        return False
    return True


def _is_scene_name(name: str) -> bool:
    return Path(name).suffix.lower() in (*UPLOAD_SUFFIXES, _SAFE) and not _NO_SCENE.search(name)


def _has_link(folder: Path) -> bool:
    return any(path.is_symlink() for path in folder.rglob("*"))


def _has_linked_sidecar(path: Path) -> bool:
    """Returns True if a file that may be read together with a raster, such as its cloud mask, is a link."""
    stem = re.sub(r"_S2L2A$", "", path.stem, flags=re.IGNORECASE)
    return any(
        beside.is_symlink()
        for beside in path.parent.iterdir()
        if beside.name.lower().startswith((stem.lower(), "mtd_"))
    )
