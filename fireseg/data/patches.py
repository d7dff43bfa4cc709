"""Where patches lie on disk, and how one is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError

SPLITS = ("train", "val", "test")

IMAGE_END, MASK_END = "_image.npy", "_mask.npy"

CURES = (
    "data.root names the folder that python -m fireseg.prepare made, or one that holds train and val with "
    "<name>_image.npy and <name>_mask.npy in them; without data of your own try data=sample"
)


class Fault(NamedTuple):
    """Something about a file that must be mended before anything learns from it.

    Attributes:
        path: The file.
        what: What came, what is wanted, what to do.
        patch: The name of the patch, where it is about one.
    """

    path: Path
    what: str
    patch: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class UnreadableError(FiresegError):
    """A file that holds no array.

    Attributes:
        fault: Which file, and what is the matter with it.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


Stamp = tuple[int, ...]
"""Sizes, times of last change, and place in the files that a patch is read from: new when one of them was written."""

Part = Literal["image", "mask"]


class PatchSource(Protocol):
    """The patches of one split, wherever they lie. Must be picklable: workers may be spawned."""

    @property
    def folder(self) -> Path:
        """The split folder."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the patches, in the order of their numbers."""
        ...

    @property
    def bands(self) -> tuple[str, ...] | None:
        """The band of each channel, where that is written down."""
        ...

    @property
    def cache_name(self) -> str:
        """Where in the folder a scan may keep what it found."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch.

        Args:
            index: Its number.

        Returns:
            Reflectance, `(H, W, C)` float32, and classes, `(H, W)` uint8, unless a file holds
            something else: whoever checks patches says so. Both may be changed.

        Raises:
            UnreadableError: If a file is missing, empty, truncated, or no array.
        """
        ...

    def take(self, names: Iterable[str]) -> Self:
        """Some of the patches, in the order of these names."""
        ...

    def list_stamps(self) -> tuple[dict[str, Stamp], list[Fault]]:
        """The stamp of every whole patch by name, sorted; and a fault for every other."""
        ...

    def fault(self, name: str, part: Part, what: str) -> Fault:
        """Something about the image or the mask of a patch."""
        ...


@dataclass(frozen=True)
class PatchFolder:
    """The patches of one split: `{name}_image.npy` beside `{name}_mask.npy`. See `PatchSource`.

    Args:
        folder: Where they lie.
        names: Their names, in the order of their numbers.
        bands: The band of each channel, where that is written down.
    """

    folder: Path
    names: tuple[str, ...] = ()
    bands: tuple[str, ...] | None = None
    cache_name = ".fireseg_scan.json"

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `PatchSource`."""
        name = self.names[index]
        try:
            return read_array(self._path(name, "image")), read_array(self._path(name, "mask"))
        except UnreadableError as error:
            raise UnreadableError(error.fault._replace(patch=name)) from error

    def take(self, names: Iterable[str]) -> PatchFolder:
        """See `PatchSource`."""
        return replace(self, names=tuple(names))

    def list_stamps(self) -> tuple[dict[str, Stamp], list[Fault]]:
        """See `PatchSource`."""
        return list_patches(self.folder)

    def fault(self, name: str, part: Part, what: str) -> Fault:
        """See `PatchSource`."""
        return Fault(self._path(name, part), what, name)

    def _path(self, name: str, part: Part) -> Path:
        return self.folder / f"{name}{IMAGE_END if part == 'image' else MASK_END}"


def read_array(path: Path, *, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """Reads one array; nothing in the file can run.

    Args:
        path: The file.
        mmap_mode: `r` leaves the values on disk until they are asked for.

    Raises:
        UnreadableError: If the file is missing, empty, truncated, or no array.
    """
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError as error:
        raise UnreadableError(Fault(path, "no such file; was it moved while fireseg was running?")) from error
    except (ValueError, EOFError, SyntaxError) as error:
        what = "empty" if path.stat().st_size == 0 else "truncated or not a .npy array"
        raise UnreadableError(Fault(path, f"{what}; write it again")) from error
    except OSError as error:
        raise UnreadableError(Fault(path, f"cannot be read ({error.strerror or error})")) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise UnreadableError(Fault(path, "an archive of arrays, but a plain .npy is wanted; write it with np.save"))
    return array


def list_patches(folder: Path) -> tuple[dict[str, Stamp], list[Fault]]:
    """Lists a split folder without opening a file.

    Args:
        folder: A split folder.

    Returns:
        The stamp of every whole patch by name, sorted; and a fault for every image without a mask
        and every mask without an image.
    """
    halves: dict[str, dict[str, os.stat_result]] = {IMAGE_END: {}, MASK_END: {}}
    with os.scandir(folder) as entries:
        for entry in entries:
            for end, found in halves.items():
                if entry.name.endswith(end) and not entry.name.startswith("."):
                    found[entry.name.removesuffix(end)] = entry.stat()
    images, masks = halves[IMAGE_END], halves[MASK_END]
    faults = [
        Fault(folder / f"{name}{IMAGE_END}", f"an image without a mask; {name}{MASK_END} is wanted beside it", name)
        for name in images.keys() - masks.keys()
    ]
    faults += [
        Fault(folder / f"{name}{MASK_END}", f"a mask without an image; {name}{IMAGE_END} is wanted beside it", name)
        for name in masks.keys() - images.keys()
    ]
    stamps = {}
    for name in sorted(images.keys() & masks.keys()):
        image, mask = images[name], masks[name]
        stamps[name] = image.st_size, image.st_mtime_ns, mask.st_size, mask.st_mtime_ns
    return stamps, sorted(faults)
