"""Opens the splits of a data set; reads packed patches through memory maps."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import to_reflectance
from fireseg.data.format import (
    IMAGES,
    JOURNAL_NAME,
    MANIFEST,
    MASKS,
    METADATA,
    PREPARE_AGAIN,
    Manifest,
    MaskName,
    StoredMask,
    masks_file,
    read_manifest,
)
from fireseg.data.patches import (
    ALL,
    DATA_ROOT_HELP,
    IMAGE_SUFFIX,
    MASK_SUFFIX,
    SPLITS,
    CacheKey,
    Fault,
    FolderReader,
    Part,
    SplitReader,
    UnreadableError,
    describe_missing_landcover,
    list_patches,
    read_array,
)
from fireseg.errors import FiresegError
from fireseg.files import check_regular_file


def open_splits(
    root: Path, task_name: str, *, required: Sequence[str] = ("train", "val")
) -> tuple[dict[str, SplitReader], Manifest | None]:
    """Opens all splits under a root, or `all` patches if they have folds.

    Args:
        root: Folder of the splits.
        task_name: Task of the masks.
        required: Splits that must be there.

    Returns:
        A reader for each split, and the manifest of the data set if it has one.

    Raises:
        FiresegError: With all faults of all splits, if a required one is missing, files do not
            match each other, masks were made for another task, or a folder cannot be read.
    """
    try:
        manifest = _read_complete_manifest(root) if root.is_dir() else None
        folders = {ALL: root / ALL} if manifest and manifest.folds else find_split_folders(root, required)
    except OSError as error:
        raise FiresegError(f"{root}: cannot be read ({error.strerror or error}); check its permissions") from error
    readers: dict[str, SplitReader] = {}
    faults: list[str] = []
    for split, folder in folders.items():
        try:
            readers[split] = _open(folder, manifest, task_name)
        except FiresegError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise FiresegError(*faults)
    return readers, manifest


def open_split(folder: Path, task_name: str | None = None) -> SplitReader:
    """Opens one split.

    Args:
        folder: Split folder.
        task_name: Task of the masks; by default the stored one, and delineations if both are stored.

    Raises:
        FiresegError: If the folder is missing, has no patch, or its files do not match each other.
    """
    if not folder.is_dir():
        raise FiresegError(f"{folder}: no such folder; {DATA_ROOT_HELP}")
    manifest = _read_complete_manifest(folder.parent)
    reader = _open(folder, manifest, task_name or (manifest and manifest.task) or "del")
    if isinstance(reader, FolderReader):
        reader = reader.select(list_patches(folder)[0])
    if not reader.names:
        raise FiresegError(f"{folder}: no patch in it (*{IMAGE_SUFFIX} with its *{MASK_SUFFIX}); {DATA_ROOT_HELP}")
    return reader


def open_unlabelled(root: Path) -> tuple[PackedReader, Manifest]:
    """Opens patches of tiles without masks.

    Args:
        root: Folder made by `prepare --unlabelled`.

    Returns:
        A reader whose masks are 1 where a pixel is known and under no cloud, else 0; and the manifest.

    Raises:
        FiresegError: If there is no such folder, it holds other patches, or its files do not match each other.
    """
    cure = "give a folder that python -m fireseg.prepare TILES FOLDER --unlabelled has made"
    if not root.is_dir():
        raise FiresegError(f"data.unlabelled: {root}: no such folder; {cure}")
    manifest = _read_complete_manifest(root)
    if manifest is None or not manifest.options.get("unlabelled"):
        what = "patches with labels, which belong to data.root" if manifest else "not made by prepare"
        raise FiresegError(f"data.unlabelled: {root}: {what}; {cure}")
    return _open_packed(root / SPLITS[0], "clear", manifest), manifest


def find_split_folders(root: Path, required: Sequence[str] = ("train", "val")) -> dict[str, Path]:
    """Returns all split folders under a root.

    Raises:
        FiresegError: If the root or a required split is missing.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; {DATA_ROOT_HELP}")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if missing := [split for split in required if split not in folders]:
        raise FiresegError(
            *(f"{root / split}: no such folder, but it is needed; {DATA_ROOT_HELP}" for split in missing)
        )
    return folders


def _read_complete_manifest(root: Path) -> Manifest | None:
    """Reads the manifest; raises if fireseg began to prepare the folder and has not written one yet."""
    manifest = read_manifest(root)
    traces = (root / JOURNAL_NAME, *root.glob(f"*/{IMAGES}"))
    if manifest is None and (trace := next((path for path in traces if path.exists()), None)):
        raise FiresegError(f"{root}: incomplete, has {trace.relative_to(root)} but no {MANIFEST}; {PREPARE_AGAIN}")
    return manifest


def _open(folder: Path, manifest: Manifest | None, task_name: str) -> SplitReader:
    if manifest is None:
        return FolderReader(folder)
    if manifest.layout == "packed":
        return _open_packed(folder, _get_mask_name(folder.parent, task_name), manifest)
    if manifest.task not in (None, task_name):
        raise FiresegError(
            f"{folder.parent}: made with --task {manifest.task}, but the task is {task_name}; "
            f"train with task={manifest.task}, or prepare another folder"
        )
    complete, incomplete = list_patches(folder)
    num_incomplete = len({fault.patch for fault in incomplete})
    num_patches, num_expected = len(complete) + num_incomplete, manifest.patches.get(folder.name, 0)
    if num_patches != num_expected:
        raise FiresegError(f"{folder}: {num_patches} patches, but {MANIFEST} lists {num_expected}; {PREPARE_AGAIN}")
    return FolderReader(folder, bands=manifest.bands)


def _get_mask_name(root: Path, task_name: str) -> MaskName:
    for name in MASKS:
        if task_name == name:
            return name
    raise FiresegError(
        f"task.name: {task_name}, but {root} has masks for {' and '.join(MASKS)}; name one of them, "
        "or provide your own masks as one .npy per patch"
    )


@dataclass(frozen=True)
class PackedReader:
    """Reads patches from `images.npy` and a file of masks. See `SplitReader`.

    Each process maps the arrays when it reads its first patch. The pages of a map are those of the file cache
    of the system, so that ten workers hold one copy between them.

    Args:
        folder: Split folder.
        mask_name: Masks to read.
        names: Names of the patches in the order of their indices.
        rows: Row of each patch in the arrays.
        bands: Band of each channel.
        shape: Shape of the array of images when the split was opened.
    """

    folder: Path
    mask_name: StoredMask
    names: tuple[str, ...]
    rows: tuple[int, ...]
    bands: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def cache_name(self) -> str:
        """Name of the cache file, one per kind of mask because their pixels differ."""
        return f".fireseg_scan_{self.mask_name}.json"

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_arrays", "_landcover")
        }  # a map pickles its values

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch, see `SplitReader`."""
        images, masks = self._arrays
        row = self.rows[index]
        return to_reflectance(images[row]), masks[row].copy()

    def read_mask(self, index: int) -> NDArray[Any]:
        """Reads the mask of one patch, see `SplitReader`."""
        return self._arrays[1][self.rows[index]].copy()

    def select(self, names: Iterable[str]) -> PackedReader:
        """Returns a reader of the named patches, see `SplitReader`."""
        names = tuple(names)
        row_of = dict(zip(self.names, self.rows, strict=True))
        return replace(self, names=names, rows=tuple(row_of[name] for name in names))

    def read_landcover(self, index: int) -> NDArray[np.uint8]:
        """Reads the land cover of one patch, see `SplitReader`."""
        return self._landcover[self.rows[index]].copy()

    def list_cache_keys(self) -> tuple[dict[str, CacheKey], list[Fault]]:
        """Returns cache keys, see `SplitReader`."""
        stats = [path.stat() for path in (self._path("image"), self._path("mask"))]
        files = tuple(number for stat in stats for number in (stat.st_size, stat.st_mtime_ns))
        return {name: (*files, row) for name, row in zip(self.names, self.rows, strict=True)}, []

    def fault(self, name: str, part: Part, message: str) -> Fault:
        """Returns a fault of a row of the arrays."""
        row = self.rows[self.names.index(name)]
        return Fault(self._path(part), f"row {row} ({name}): {message}", name)

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        images, masks = (map_array(self._path(part)) for part in ("image", "mask"))
        if images.shape != self.shape or masks.shape != self.shape[:3]:
            raise UnreadableError(Fault(self.folder, "the patches have changed since start; was it prepared again?"))
        return images, masks

    @cached_property
    def _landcover(self) -> NDArray[np.uint8]:
        path = self.folder / masks_file("landcover")
        if not path.exists():
            raise describe_missing_landcover(self.folder)
        landcover = map_array(path)
        if landcover.shape != self.shape[:3] or landcover.dtype != np.uint8:
            found = f"{landcover.dtype} of shape {landcover.shape}"
            raise FiresegError(f"{path}: {found}, expected uint8 {self.shape[:3]}; {PREPARE_AGAIN}")
        return landcover

    def _path(self, part: Part) -> Path:
        return self.folder / (IMAGES if part == "image" else masks_file(self.mask_name))


def _open_packed(folder: Path, mask_name: StoredMask, manifest: Manifest) -> PackedReader:
    """Opens a packed split and checks that its files match each other, without reading pixels."""
    faults: list[str] = []
    shapes = {}
    for path, dtype, axes in (
        (folder / IMAGES, np.dtype(np.uint16), "patches, height, width, bands"),
        (folder / masks_file(mask_name), np.dtype(np.uint8), "patches, height, width"),
    ):
        try:
            array = map_array(path)
        except UnreadableError as error:
            faults.append(str(error))
            continue
        shapes[path] = array.shape
        if array.dtype != dtype or array.ndim != axes.count(",") + 1:
            faults.append(f"{path}: {array.dtype} of shape {array.shape}, expected {dtype} ({axes}); {PREPARE_AGAIN}")
    try:
        names = _read_names(folder / METADATA)
    except FiresegError as error:
        faults += error.faults
        names = []
    if not faults:
        faults += _find_mismatches(folder, shapes, names, manifest)
    if faults:
        raise FiresegError(*faults)
    order = sorted(range(len(names)), key=names.__getitem__)
    return PackedReader(
        folder=folder,
        mask_name=mask_name,
        names=tuple(names[row] for row in order),
        rows=tuple(order),
        bands=manifest.bands,
        shape=shapes[folder / IMAGES],
    )


def map_array(path: Path) -> NDArray[Any]:
    """Memory-maps an array, read-only.

    Raises:
        UnreadableError: If the file is missing, not an array, or its length does not match its header.
    """
    if path.exists() and not path.is_file():  # a pipe would be read forever
        raise UnreadableError(Fault(path, f"not a regular file, but an array is expected; {PREPARE_AGAIN}"))
    array = read_array(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    surplus = path.stat().st_size - array.offset - array.nbytes
    if surplus:
        raise UnreadableError(Fault(path, f"{surplus} bytes more than its header says; {PREPARE_AGAIN}"))
    return np.asarray(array)  # indexing a plain array is faster than indexing a memmap


def _read_names(path: Path) -> list[str]:
    """Reads the patch names from a metadata.csv; its row n describes row n of the arrays."""
    check_regular_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            column = next(rows, []).index("patch_id")
            names = [row[column] for row in rows]
    except FileNotFoundError as error:
        raise FiresegError(f"{path}: no such file, but it names the patches; {PREPARE_AGAIN}") from error
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise FiresegError(
            f"{path}: not a table with a column patch_id in every row ({error}); {PREPARE_AGAIN}"
        ) from error
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise FiresegError(f"{path}: patch_id {repeated[0]} is repeated; {PREPARE_AGAIN}")
    return names


def _find_mismatches(
    folder: Path, shapes: Mapping[Path, tuple[int, ...]], names: list[str], manifest: Manifest
) -> list[str]:
    image, mask = shapes.values()
    counts = {path.name: shape[0] for path, shape in shapes.items()} | {
        METADATA: len(names),
        MANIFEST: manifest.patches.get(folder.name, 0),
    }
    faults = []
    if len(set(counts.values())) > 1:
        listing = ", ".join(f"{count} in {name}" for name, count in counts.items())
        faults.append(f"{folder}: the numbers of patches differ: {listing}; {PREPARE_AGAIN}")
    if image[1:3] != mask[1:3]:
        faults.append(f"{folder}: images of {image[1:3]} pixels, but masks of {mask[1:3]}; {PREPARE_AGAIN}")
    if image[3] != len(manifest.bands):
        faults.append(
            f"{folder}: {image[3]} channels, but the manifest names {len(manifest.bands)} bands; {PREPARE_AGAIN}"
        )
    return faults
