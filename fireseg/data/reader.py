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

from fireseg.data.bands import to_reflectance
from fireseg.data.format import (
    AGAIN,
    IMAGES,
    JOURNAL_NAME,
    MANIFEST_NAME,
    MASKS,
    METADATA,
    Manifest,
    MaskName,
    masks_file,
    read_manifest,
)
from fireseg.data.patches import (
    CURES,
    IMAGE_END,
    MASK_END,
    SPLITS,
    Fault,
    Part,
    PatchFolder,
    PatchSource,
    Stamp,
    UnreadableError,
    list_patches,
    read_array,
)
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


def find_sources(root: Path, task_name: str) -> tuple[dict[str, PatchSource], Manifest | None]:
    """The splits under a root: train and val, and test where there is one.

    Args:
        root: Folder of the splits.
        task_name: What the masks should hold.

    Returns:
        The splits, and what the data set says of itself where it does.

    Raises:
        FiresegError: With all faults of all splits: one that training needs is missing, files do not
            fit together, masks were made for another task.
    """
    folders = find_splits(root)
    manifest = _read_manifest(root)
    sources: dict[str, PatchSource] = {}
    faults: list[str] = []
    for split, folder in folders.items():
        try:
            sources[split] = _open(folder, manifest, task_name)
        except FiresegError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise FiresegError(*faults)
    return sources, manifest


def open_source(folder: Path, task_name: str | None = None) -> PatchSource:
    """The patches of one split folder.

    Args:
        folder: The split folder.
        task_name: What the masks should hold; by default what there is, and delineations where both are.

    Raises:
        FiresegError: If there is no such folder, no patch in it, or its files do not fit together.
    """
    if not folder.is_dir():
        raise FiresegError(f"{folder}: no such folder; {CURES}")
    manifest = _read_manifest(folder.parent)
    source = _open(folder, manifest, task_name or (manifest and manifest.task) or "del")
    if isinstance(source, PatchFolder):
        source = source.take(list_patches(folder)[0])
    if not source.names:
        raise FiresegError(f"{folder}: no patch in it, that is no *{IMAGE_END} with its *{MASK_END}; {CURES}")
    return source


def find_splits(root: Path) -> dict[str, Path]:
    """The split folders under a root: train and val, and test where there is one.

    Raises:
        FiresegError: If the root or one of the two that training needs is missing.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; {CURES}")
    found = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if missing := [split for split in ("train", "val") if split not in found]:
        raise FiresegError(*(f"{root / split}: no such folder, but training needs it; {CURES}" for split in missing))
    return found


def _read_manifest(root: Path) -> Manifest | None:
    """The manifest, or nothing where the patches are others'. Without one, patches of ours are not all there."""
    manifest = read_manifest(root)
    ours = (root / JOURNAL_NAME, *root.glob(f"*/{IMAGES}"))
    if manifest is None and (found := next((path for path in ours if path.exists()), None)):
        raise FiresegError(f"{root}: has {found.relative_to(root)}, but no {MANIFEST_NAME}: not whole yet; {AGAIN}")
    return manifest


def _open(folder: Path, manifest: Manifest | None, task_name: str) -> PatchSource:
    if manifest is None:
        return PatchFolder(folder)
    if manifest.layout == "packed":
        return open_packed(folder, _pick_labels(folder.parent, task_name), manifest)
    if manifest.task not in (None, task_name):
        raise FiresegError(
            f"{folder.parent}: made with --task {manifest.task}, but the task is {task_name}; "
            f"train with task={manifest.task}, or prepare another folder"
        )
    whole, halves = list_patches(folder)
    num_found, num_made = len(whole) + len(halves), manifest.patches.get(folder.name, 0)
    if num_found != num_made:
        raise FiresegError(
            f"{folder}: {num_found} patches, but {MANIFEST_NAME} says {num_made}: not all there; {AGAIN}"
        )
    return PatchFolder(folder, bands=manifest.bands)


def _pick_labels(root: Path, task_name: str) -> MaskName:
    for labels in MASKS:
        if task_name == labels:
            return labels
    raise FiresegError(
        f"task.name: {task_name}, but {root} has masks for {' and '.join(MASKS)}; name one of them, "
        "or give masks of your own as one .npy a patch"
    )
