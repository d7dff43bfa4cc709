"""Where patches lie on disk, and how one is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError

SPLITS = ("train", "val", "test")
IMAGE_END, MASK_END = "_image.npy", "_mask.npy"

WAYS_OUT = (
    "data.root names the folder that holds train and val with <name>_image.npy and <name>_mask.npy in them; "
    "without data of your own try data=sample"
)


class Fault(NamedTuple):
    """Something about a file that must be mended before anything learns from it.

    Attributes:
        path: The file.
        what: What came, what is wanted, what to do.
    """

    path: Path
    what: str

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


class Stamp(NamedTuple):
    """Size in bytes and time of the last change in nanoseconds, of image and mask: new when one of them was written."""

    image_bytes: int
    image_time_ns: int
    mask_bytes: int
    mask_time_ns: int


@dataclass(frozen=True)
class PatchFolder:
    """The patches of one split: `{name}_image.npy` beside `{name}_mask.npy`.

    Args:
        folder: Where they lie.
        names: Their names, in the order of their numbers.
    """

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def image_path(self, name: str) -> Path:
        """Where the reflectance of a patch lies."""
        return self.folder / f"{name}{IMAGE_END}"

    def mask_path(self, name: str) -> Path:
        """Where the labels of a patch lie."""
        return self.folder / f"{name}{MASK_END}"

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch as it is stored.

        Args:
            index: Its number.

        Returns:
            Reflectance, `(H, W, C)` float32, and classes, `(H, W)` uint8, unless a file holds
            something else: whoever checks patches says so.

        Raises:
            UnreadableError: If a file is missing, empty, truncated, or no array.
        """
        name = self.names[index]
        return read_array(self.image_path(name)), read_array(self.mask_path(name))


def read_array(path: Path) -> NDArray[Any]:
    """Reads one array; nothing in the file can run.

    Raises:
        UnreadableError: If the file is missing, empty, truncated, or no array.
    """
    try:
        array = np.load(path, allow_pickle=False)
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
        Fault(folder / f"{name}{IMAGE_END}", f"an image without a mask; {name}{MASK_END} is wanted beside it")
        for name in images.keys() - masks.keys()
    ]
    faults += [
        Fault(folder / f"{name}{MASK_END}", f"a mask without an image; {name}{IMAGE_END} is wanted beside it")
        for name in masks.keys() - images.keys()
    ]
    stamps = {}
    for name in sorted(images.keys() & masks.keys()):
        image, mask = images[name], masks[name]
        stamps[name] = Stamp(image.st_size, image.st_mtime_ns, mask.st_size, mask.st_mtime_ns)
    return stamps, sorted(faults)


def open_patches(folder: Path) -> PatchFolder:
    """The patches of a split folder.

    Raises:
        FiresegError: If there is no such folder, or no patch in it.
    """
    if not folder.is_dir():
        raise FiresegError(f"{folder}: no such folder; {WAYS_OUT}")
    stamps, _ = list_patches(folder)
    if not stamps:
        raise FiresegError(f"{folder}: no patch in it, that is no *{IMAGE_END} with its *{MASK_END}; {WAYS_OUT}")
    return PatchFolder(folder, tuple(stamps))


def find_splits(root: Path) -> dict[str, Path]:
    """The split folders under a root: train and val, and test where there is one.

    Raises:
        FiresegError: If the root or one of the two that training needs is missing.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; {WAYS_OUT}")
    found = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if missing := [split for split in ("train", "val") if split not in found]:
        raise FiresegError(*(f"{root / split}: no such folder, but training needs it; {WAYS_OUT}" for split in missing))
    return found
