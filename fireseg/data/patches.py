"""Patches of a split: the reader protocol, patch files, and the faults of files."""

from __future__ import annotations

import os
import re
import stat
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError

SPLITS = ("train", "val", "test")

ALL = "all"
"""Folder of the patches of all tiles, instead of the split folders, if the patches have folds."""

IMAGE_SUFFIX, MASK_SUFFIX = "_image.npy", "_mask.npy"

DATA_ROOT_HELP = (
    "data.root must be a folder made by python -m fireseg.prepare, or one with folders train and val of "
    "<name>_image.npy and <name>_mask.npy; to try fireseg without data use data=sample"
)

_MAX_LOADS = 9

# Exceptions that NumPy raises for damaged headers and truncated arrays.
_DAMAGE = (ValueError, EOFError, SyntaxError, TypeError, ArithmeticError, RecursionError, tokenize.TokenError)

_PATCH_NAME = re.compile(r"(?P<tile>.+)_r\d+_c\d+")

Part = Literal["image", "mask"]

CacheKey = tuple[int, ...]
"""Sizes and modification times of the files of a patch, and its row in them; changes whenever one is written."""


class Fault(NamedTuple):
    """A fault of a file that must be corrected before training.

    Attributes:
        path: Path of the file.
        message: Description of the fault: what was found, what is expected, what to do.
        patch: Name of the patch, or empty if the fault is not about a single patch.
    """

    path: Path
    message: str
    patch: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class UnreadableError(FiresegError):
    """A file that does not hold an array.

    Attributes:
        fault: Path of the file and description of the fault.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class SplitReader(Protocol):
    """Reads the patches of one split. Must be picklable, because worker processes may be spawned."""

    @property
    def folder(self) -> Path:
        """Split folder."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the patches in the order of their indices."""
        ...

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Band of each channel, or None if not recorded."""
        ...

    @property
    def cache_name(self) -> str:
        """Name of the file in the split folder that caches the patch statistics."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch.

        Args:
            index: Index of the patch.

        Returns:
            Reflectance, `(H, W, C)` float32, and classes, `(H, W)` uint8; shapes and types are not checked.
            Both arrays may be modified.

        Raises:
            UnreadableError: If a file is missing, empty, truncated, or not an array.
        """
        ...

    def read_mask(self, index: int) -> NDArray[Any]:
        """Reads the classes of one patch, `(H, W)`, without its image; raises as `read`."""
        ...

    def select(self, names: Iterable[str]) -> Self:
        """Returns a reader of the named patches, in this order."""
        ...

    def read_landcover(self, index: int) -> NDArray[np.uint8]:
        """Reads the land cover of one patch, `(H, W)`, 255 where unknown.

        Raises:
            FiresegError: If the patches have none.
        """
        ...

    def list_cache_keys(self) -> tuple[dict[str, CacheKey], list[Fault]]:
        """Returns the cache key of every complete patch, sorted by name, and a fault for every other."""
        ...

    def fault(self, name: str, part: Part, message: str) -> Fault:
        """Returns a fault of the image or the mask of a patch."""
        ...


@dataclass(frozen=True)
class FolderReader:
    """Reads patches stored as `{name}_image.npy` and `{name}_mask.npy`. See `SplitReader`.

    Args:
        folder: Split folder.
        names: Names of the patches in the order of their indices.
        bands: Band of each channel, or None if not recorded.
    """

    folder: Path
    names: tuple[str, ...] = ()
    bands: tuple[str, ...] | None = None
    cache_name = ".fireseg_scan.json"

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch, see `SplitReader`."""
        name = self.names[index]
        try:
            return read_array(self._path(name, "image")), read_array(self._path(name, "mask"))
        except UnreadableError as error:
            raise UnreadableError(error.fault._replace(patch=name)) from error

    def read_mask(self, index: int) -> NDArray[Any]:
        """Reads the mask of one patch, see `SplitReader`."""
        return read_array(self._path(self.names[index], "mask"))

    def select(self, names: Iterable[str]) -> FolderReader:
        """Returns a reader of the named patches, see `SplitReader`."""
        return replace(self, names=tuple(names))

    def read_landcover(self, index: int) -> NDArray[np.uint8]:
        """Raises an error, because only packed patches can have a land cover."""
        raise describe_missing_landcover(self.folder)

    def list_cache_keys(self) -> tuple[dict[str, CacheKey], list[Fault]]:
        """Returns cache keys and faults, see `SplitReader`."""
        return list_patches(self.folder)

    def fault(self, name: str, part: Part, message: str) -> Fault:
        """Returns a fault of a file of a patch."""
        return Fault(self._path(name, part), message, name)

    def _path(self, name: str, part: Part) -> Path:
        return self.folder / f"{name}{IMAGE_SUFFIX if part == 'image' else MASK_SUFFIX}"


def describe_missing_landcover(folder: Path) -> FiresegError:
    """Returns the error of patches without the land cover that the auxiliary task needs."""
    return FiresegError(
        f"task.auxiliary: landcover, but {folder} has none; prepare tiles that have <name>_ESA_LC.tif or "
        "<name>_Esri10_LC.tif with --landcover, packed, or set task.auxiliary=null"
    )


def get_tile_name(name: str) -> str | None:
    """Returns the tile that a patch was cut from; None if its name does not tell.

    Example:
        >>> get_tile_name("EMSR382_AOI01_01_r0_c224"), get_tile_name("patch7")
        ('EMSR382_AOI01_01', None)
    """
    match = _PATCH_NAME.fullmatch(name)
    return match["tile"] if match else None


def _load(path: Path, mmap_mode: Literal["r"] | None) -> NDArray[Any]:
    # NumPy parses the header with `ast`, whose depth counter threads share in CPython 3.11: two that parse at the same
    # time can raise SystemError (https://github.com/python/cpython/issues/106905).
    for _ in range(_MAX_LOADS):
        try:
            return _read_npy(path, mmap_mode)
        except SystemError:
            continue
    return _read_npy(path, mmap_mode)


def _read_npy(path: Path, mmap_mode: Literal["r"] | None) -> NDArray[Any]:
    if mmap_mode is not None:
        return np.lib.format.open_memmap(path, mode=mmap_mode)
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_array(path: Path, *, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """Reads one .npy array. Pickled content, which could run code, is rejected.

    Args:
        path: Path of the file.
        mmap_mode: `r` memory-maps the file.

    Raises:
        UnreadableError: If the file is missing, empty, truncated, or not an array.
    """
    try:
        array = _load(path, mmap_mode)
    except FileNotFoundError as error:
        raise UnreadableError(Fault(path, "no such file; was it moved while fireseg was running?")) from error
    except _DAMAGE as error:
        raise UnreadableError(Fault(path, _describe_damage(path))) from error
    except MemoryError as error:
        message = "its header declares more values than fit in memory; write it again, or free memory"
        raise UnreadableError(Fault(path, message)) from error
    except OSError as error:
        raise UnreadableError(
            Fault(path, f"cannot be read ({error.strerror or error}); check its permissions")
        ) from error
    return array


def _describe_damage(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return "an archive of arrays, expected a plain .npy; write it with np.save"
    return f"{'truncated or not a .npy array' if start else 'empty'}; write it again"


def list_patches(folder: Path) -> tuple[dict[str, CacheKey], list[Fault]]:
    """Lists the patch files of a split folder without opening them.

    Args:
        folder: Split folder.

    Returns:
        The cache key of every complete patch, sorted by name, and a fault for every image without a mask, every
        mask without an image, and every one that is no regular file or whose name is not UTF-8.

    Raises:
        FiresegError: If the folder cannot be read.
    """
    files: dict[str, dict[str, os.stat_result]] = {IMAGE_SUFFIX: {}, MASK_SUFFIX: {}}
    faults: list[Fault] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = next((suffix for suffix in files if entry.name.endswith(suffix)), None)
                if suffix is None or entry.name.startswith("."):
                    continue
                if isinstance(found := _stat_patch_file(folder, entry, suffix), Fault):
                    faults.append(found)
                else:
                    files[suffix][entry.name.removesuffix(suffix)] = found
    except OSError as error:
        raise FiresegError(f"{folder}: cannot be read ({error.strerror or error}); check its permissions") from error
    images, masks = files[IMAGE_SUFFIX], files[MASK_SUFFIX]
    faulty = {fault.patch for fault in faults}
    faults += [
        Fault(
            folder / f"{name}{IMAGE_SUFFIX}", f"an image without a mask; expected {name}{MASK_SUFFIX} beside it", name
        )
        for name in images.keys() - masks.keys() - faulty
    ]
    faults += [
        Fault(
            folder / f"{name}{MASK_SUFFIX}", f"a mask without an image; expected {name}{IMAGE_SUFFIX} beside it", name
        )
        for name in masks.keys() - images.keys() - faulty
    ]
    keys = {}
    for name in sorted(images.keys() & masks.keys()):
        image, mask = images[name], masks[name]
        keys[name] = image.st_size, image.st_mtime_ns, mask.st_size, mask.st_mtime_ns
    return keys, sorted(faults)


def _stat_patch_file(folder: Path, entry: os.DirEntry[str], suffix: str) -> os.stat_result | Fault:
    """Returns size and time of a patch file, or its fault."""
    name = entry.name.encode("utf-8", "backslashreplace").decode()  # so that a name that is not UTF-8 can be printed
    path, patch = folder / name, name.removesuffix(suffix)
    if name != entry.name:
        return Fault(path, "its name is not UTF-8; rename the file", patch)
    try:
        status = entry.stat()
    except FileNotFoundError:
        return Fault(path, "a link to a file that does not exist; restore that file, or remove the link", patch)
    except OSError as error:
        return Fault(path, f"cannot be read ({error.strerror or error}); replace it by the file itself", patch)
    if not stat.S_ISREG(status.st_mode):
        return Fault(path, "not a regular file, but an array is expected; write it with np.save", patch)
    return status
