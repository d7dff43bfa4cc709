"""On-disk format of patches: manifest, packed arrays or patch files, and their writers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from fireseg.data.bands import check_bands, to_reflectance
from fireseg.data.patches import ALL, IMAGE_SUFFIX, MASK_SUFFIX, SPLITS
from fireseg.errors import FiresegError
from fireseg.files import check_regular_file, sync_folder

FORMAT_VERSION = 1
"""Version of the format; increases whenever earlier readers could not read what is written now."""

MANIFEST = "manifest.json"
"""Description of a prepared folder; written last, so that it exists only if the folder is complete."""

MAX_PIXEL_RATIO = 1.5
"""Ratio between two pixel sizes above which images do not fit together, as of a scene and the training tiles."""

JOURNAL_NAME = "tiles.jsonl"
"""Journal of a preparation: first line the options, then one line per tile, in order."""

METADATA = "metadata.csv"

IMAGES = "images.npy"

Layout = Literal["packed", "files"]

MaskName = Literal["del", "gra"]

MASKS: tuple[MaskName, ...] = get_args(MaskName)

StoredMask = Literal["del", "gra", "landcover", "clear"]
"""Masks that packed patches can hold: labels of a task, the classes of the auxiliary task, or, of unlabelled patches, 1
where a pixel is known and under no cloud, so that a teacher may label it."""

HEADER_BYTES = 128
"""Header size of a packed array: large enough for any count, so that the data never move."""

PREPARE_AGAIN = "run python -m fireseg.prepare again"

_DAMAGED = "was the folder changed? delete it and prepare again"


@validated_dataclass(frozen=True, kw_only=True)
class Manifest:
    """The fields of a manifest that reading needs. The file may have more.

    Args:
        layout: `packed` into a few arrays per split, or two `files` per patch.
        task: Labels of the masks if there is one mask per patch; None if both are stored.
        bands: Band of each channel.
        scale: Factor from reflectance to stored integers.
        leaks: Pairs of tiles by which splits leak, accepted when the patches were made.
        patches: Number of patches of each split; of `all` if there are folds.
        folds: Description of each fold of a cross-validation; empty if there are none.
        pixel_m: Pixel size of the training tiles in metres; None if unknown.
        level: Their processing level, `1C` or `2A`; None if unknown.
        options: Options that the patches were cut with.
        sources: Files of the tiles by their path below the folder of the tiles.
    """

    layout: Layout
    task: MaskName | None = None
    bands: Annotated[tuple[str, ...], AfterValidator(check_bands)]
    scale: Literal[10_000]
    leaks: tuple[str, ...] = ()
    patches: Mapping[str, NonNegativeInt]
    folds: tuple[Mapping[str, Any], ...] = ()
    pixel_m: float | None = None
    level: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_manifest(root: Path) -> Manifest | None:
    """Reads the manifest of a prepared folder; returns None if the patches were not made by fireseg.

    Args:
        root: Folder of the split folders.

    Raises:
        FiresegError: If the manifest is invalid.
    """
    path = root / MANIFEST
    check_regular_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    except ValueError as error:
        raise FiresegError(f"{path}: truncated or not JSON; {PREPARE_AGAIN}") from error
    if not isinstance(content, dict) or not {"format", "layout"} <= content.keys():
        return None  # a file of this name from another program
    version = content["format"]
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FiresegError(
            f"{path}: format {version}, but this version of fireseg reads formats up to {FORMAT_VERSION}; "
            "update fireseg, or prepare the patches again with this version"
        )
    try:
        return TypeAdapter(Manifest).validate_python(content)
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {PREPARE_AGAIN}" for one in error.errors())
        raise FiresegError(*faults) from error


class StoredPatch(NamedTuple):
    """A patch as written to disk.

    Attributes:
        name: Name of the patch, `{tile}_r{row}_c{col}`.
        image: Reflectance x 10000, `(H, W, C)` uint16.
        masks: Classes, `(H, W)` uint8, by their name.
    """

    name: str
    image: NDArray[np.uint16]
    masks: Mapping[StoredMask, NDArray[np.uint8]]


class PatchWriter(Protocol):
    """Writes patches. They count only once the caller has recorded the number of patches of each split."""

    @property
    def root(self) -> Path:
        """Folder of the split folders."""
        ...

    def write(self, split: str, first: int, patches: Iterable[StoredPatch]) -> None:
        """Writes patches to a split from index `first` on, and flushes them to disk."""
        ...

    def truncate(self, names: Mapping[str, list[str]]) -> None:
        """Removes all patches but these, given by split in the order of their indices."""
        ...

    def close(self, counts: Mapping[str, int]) -> None:
        """Makes the patches readable, given the number of patches of each split that has any."""
        ...


@dataclass(frozen=True, kw_only=True)
class PackedWriter:
    """Appends patches to one array of images per split, and one array of masks per task.

    An array has no header until it is closed, so that an incomplete one cannot be read by mistake.

    Args:
        root: Folder of the split folders.
        size: Side of a patch in pixels.
        num_bands: Number of channels.
        masks: Masks to store.
    """

    root: Path
    size: int
    num_bands: int
    masks: tuple[StoredMask, ...] = MASKS

    def write(self, split: str, first: int, patches: Iterable[StoredPatch]) -> None:
        """Writes patches to a split from index `first` on, and flushes them to disk."""
        paths = self._paths(split)
        with ExitStack() as stack:
            files = [stack.enter_context(_open_for_update(path)) for path in paths]
            for file, (_, descr, shape) in zip(files, self._arrays(), strict=True):
                file.seek(HEADER_BYTES + first * _patch_bytes(descr, shape))
            for patch in patches:
                for file, array in zip(files, (patch.image, *(patch.masks[name] for name in self.masks)), strict=True):
                    file.write(np.ascontiguousarray(array).data)
            for file in files:
                file.flush()
                os.fsync(file.fileno())

    def truncate(self, names: Mapping[str, list[str]]) -> None:
        """Removes all patches but these, given by split in the order of their indices.

        Raises:
            FiresegError: If some of these are missing.
        """
        for split in (*SPLITS, ALL):
            for path, (_, descr, shape) in zip(self._paths(split), self._arrays(), strict=True):
                count = len(names.get(split, ()))
                expected = HEADER_BYTES + count * _patch_bytes(descr, shape) if count else 0
                actual = path.stat().st_size if path.exists() else 0
                if actual < expected:
                    raise FiresegError(f"{path}: {actual} bytes, but {expected} were written; {_DAMAGED}")
                if actual > expected:
                    with path.open("r+b") as file:
                        file.truncate(expected)

    def close(self, counts: Mapping[str, int]) -> None:
        """Writes the headers."""
        for split, count in counts.items():
            for path, (_, descr, shape) in zip(self._paths(split), self._arrays(), strict=True):
                with _open_for_update(path) as file:
                    file.write(npy_header(descr, (count, *shape)))
                    file.flush()
                    os.fsync(file.fileno())

    def _arrays(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """File name, dtype and patch shape of each array."""
        image = (IMAGES, "<u2", (self.size, self.size, self.num_bands))
        return [image, *((masks_file(name), "|u1", (self.size, self.size)) for name in self.masks)]

    def _paths(self, split: str) -> list[Path]:
        return [self.root / split / name for name, _, _ in self._arrays()]


@dataclass(frozen=True, kw_only=True)
class FilesWriter:
    """Writes two .npy files per patch: reflectance as float32, and the mask of one task.

    Args:
        root: Folder of the split folders.
        mask: Mask to store.
    """

    root: Path
    mask: MaskName

    def write(self, split: str, first: int, patches: Iterable[StoredPatch]) -> None:
        """Writes patches and flushes them to disk; `first` is not used."""
        folder = self.root / split
        folder.mkdir(parents=True, exist_ok=True)
        for patch in patches:
            for suffix, array in (
                (IMAGE_SUFFIX, to_reflectance(patch.image)),
                (MASK_SUFFIX, np.ascontiguousarray(patch.masks[self.mask])),
            ):
                with (folder / f"{patch.name}{suffix}").open("wb") as file:
                    np.save(file, array)
                    file.flush()
                    os.fsync(file.fileno())
        sync_folder(folder)

    def truncate(self, names: Mapping[str, list[str]]) -> None:
        """Removes the files of all patches but these.

        Raises:
            FiresegError: If some of these are missing.
        """
        for split in (*SPLITS, ALL):
            folder = self.root / split
            expected = {f"{name}{suffix}" for name in names.get(split, ()) for suffix in (IMAGE_SUFFIX, MASK_SUFFIX)}
            actual = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
            if missing := expected - actual:
                raise FiresegError(f"{folder / min(missing)}: no such file, but it was written; {_DAMAGED}")
            for name in actual - expected:
                (folder / name).unlink()

    def close(self, counts: Mapping[str, int]) -> None:
        """Does nothing, because every file is complete."""


def masks_file(mask: StoredMask) -> str:
    """Returns the file name of packed masks.

    Example:
        >>> masks_file("gra")
        'masks_gra.npy'
    """
    return f"masks_{mask}.npy"


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Returns the header of a .npy file, always 128 bytes long.

    Args:
        descr: Data type, such as `<u2`.
        shape: Shape of the whole array.

    Example:
        >>> npy_header("|u1", (3, 2, 2))[:6], len(npy_header("|u1", (3, 2, 2)))
        (b'\\x93NUMPY', 128)
    """
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin1")
    length = HEADER_BYTES - 10
    assert len(text) < length
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


def _patch_bytes(descr: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(descr).itemsize


def _open_for_update(path: Path) -> BinaryIO:
    """Opens a file for writing at any position, and creates it if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
