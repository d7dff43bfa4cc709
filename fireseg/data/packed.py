"""Patches packed into a few arrays a split, read where they lie."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.manifest import AGAIN, MANIFEST_NAME, Manifest
from fireseg.data.patches import Fault, Part, Stamp, UnreadableError, read_array
from fireseg.data.reflectance import to_reflectance
from fireseg.data.store import IMAGES, METADATA, MaskName, masks_file
from fireseg.errors import FiresegError


@dataclass(frozen=True)
class PackedSplit:
    """The patches of one split in `images.npy` and a file of masks. See `PatchSource`.

    The arrays are mapped when the first patch is read, in each process for itself. Pages of a map are
    those of the system's own cache: ten workers hold one copy between them.

    Args:
        folder: Where the arrays lie.
        labels: Which masks are read.
        names: Names of the patches, in the order of their numbers.
        rows: Where in the arrays each lies.
        bands: The band of each channel.
        shape: Of the array of images, as it was when the split was opened.
    """

    folder: Path
    labels: MaskName
    names: tuple[str, ...]
    rows: tuple[int, ...]
    bands: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def cache_name(self) -> str:
        """See `PatchSource`: gradings leave out other pixels than delineations."""
        return f".fireseg_scan_{self.labels}.json"

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_arrays"}  # a map pickles its values

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `PatchSource`."""
        images, masks = self._arrays
        row = self.rows[index]
        return to_reflectance(images[row]), masks[row].copy()

    def take(self, names: Iterable[str]) -> PackedSplit:
        """See `PatchSource`."""
        names = tuple(names)
        row_of = dict(zip(self.names, self.rows, strict=True))
        return replace(self, names=names, rows=tuple(row_of[name] for name in names))

    def list_stamps(self) -> tuple[dict[str, Stamp], list[Fault]]:
        """See `PatchSource`."""
        stats = [path.stat() for path in (self._path("image"), self._path("mask"))]
        files = tuple(number for stat in stats for number in (stat.st_size, stat.st_mtime_ns))
        return {name: (*files, row) for name, row in zip(self.names, self.rows, strict=True)}, []

    def fault(self, name: str, part: Part, what: str) -> Fault:
        """See `PatchSource`."""
        row = self.rows[self.names.index(name)]
        return Fault(self._path(part), f"row {row} ({name}): {what}", name)

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        images, masks = (map_array(self._path(part)) for part in ("image", "mask"))
        if images.shape != self.shape or masks.shape != self.shape[:3]:
            raise UnreadableError(Fault(self.folder, "other patches than before; was it prepared anew meanwhile?"))
        return images, masks

    def _path(self, part: Part) -> Path:
        return self.folder / (IMAGES if part == "image" else masks_file(self.labels))


def open_packed(folder: Path, labels: MaskName, manifest: Manifest) -> PackedSplit:
    """Opens a split and checks that its files fit together. No pixel is read.

    Args:
        folder: The split folder.
        labels: Which masks to read.
        manifest: What the files should hold.

    Raises:
        FiresegError: With all faults at once.
    """
    faults: list[str] = []
    shapes = {}
    for path, dtype, axes in (
        (folder / IMAGES, np.dtype(np.uint16), "patches, height, width, bands"),
        (folder / masks_file(labels), np.dtype(np.uint8), "patches, height, width"),
    ):
        try:
            array = map_array(path)
        except UnreadableError as error:
            faults.append(str(error))
            continue
        shapes[path] = array.shape
        if array.dtype != dtype or array.ndim != axes.count(",") + 1:
            faults.append(f"{path}: {array.dtype} of shape {array.shape}, but {dtype} ({axes}) is wanted; {AGAIN}")
    try:
        names = read_names(folder / METADATA)
    except FiresegError as error:
        faults += error.faults
        names = []
    if not faults:
        faults += _compare(folder, shapes, names, manifest)
    if faults:
        raise FiresegError(*faults)
    order = sorted(range(len(names)), key=names.__getitem__)
    return PackedSplit(
        folder=folder,
        labels=labels,
        names=tuple(names[row] for row in order),
        rows=tuple(order),
        bands=manifest.bands,
        shape=shapes[folder / IMAGES],
    )


def map_array(path: Path) -> NDArray[Any]:
    """An array whose values stay on disk until they are asked for, and cannot be changed.

    Raises:
        UnreadableError: If the file is missing, no array, or shorter or longer than it says.
    """
    array = read_array(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    surplus = path.stat().st_size - array.offset - array.nbytes
    if surplus:
        raise UnreadableError(Fault(path, f"{surplus} bytes more than its header says; {AGAIN}"))
    return np.asarray(array)  # rows of a plain array come without the ceremony of a memmap's


def read_names(path: Path) -> list[str]:
    """The names of the patches of a split: row n of the table is row n of the arrays.

    Args:
        path: Its metadata.csv.

    Raises:
        FiresegError: If it is missing or no such table, or a name comes twice.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            column = next(rows, []).index("patch_id")
            names = [row[column] for row in rows]
    except FileNotFoundError as error:
        raise FiresegError(f"{path}: no such file, but it names the patches; {AGAIN}") from error
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise FiresegError(f"{path}: no table with a column patch_id in every row ({error}); {AGAIN}") from error
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise FiresegError(f"{path}: {twice[0]} comes twice, but names tell patches apart; {AGAIN}")
    return names


def _compare(folder: Path, shapes: dict[Path, tuple[int, ...]], names: list[str], manifest: Manifest) -> list[str]:
    image, mask = shapes.values()
    counts = {path.name: shape[0] for path, shape in shapes.items()} | {
        METADATA: len(names),
        MANIFEST_NAME: manifest.patches.get(folder.name, 0),
    }
    faults = []
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} in {name}" for name, count in counts.items())
        faults.append(f"{folder}: as many patches are wanted in every file, but there are {told}; {AGAIN}")
    if image[1:3] != mask[1:3]:
        faults.append(f"{folder}: images of {image[1:3]} pixels, but masks of {mask[1:3]}; {AGAIN}")
    if image[3] != len(manifest.bands):
        faults.append(f"{folder}: {image[3]} channels, but the manifest names {len(manifest.bands)} bands; {AGAIN}")
    return faults
