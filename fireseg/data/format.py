"""Patches on disk as others open them: packed into one array a split, or one .npy each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from fireseg.data.bands import check_bands, to_reflectance
from fireseg.data.patches import IMAGE_END, MASK_END, SPLITS
from fireseg.errors import FiresegError

FORMAT_VERSION = 1
"""Counts up whenever a reader of before could not read what is written now."""

MANIFEST = "manifest.json"
"""Says what the folder holds; the last file to be there."""

METADATA = "metadata.csv"

IMAGES = "images.npy"

Layout = Literal["packed", "files"]

MaskName = Literal["del", "gra"]

MASKS: tuple[MaskName, ...] = get_args(MaskName)

HEADER_BYTES = 128
"""Of a packed array: wide enough for any count, so that what follows never moves."""

_GONE = "was the folder changed? delete it and prepare again"


class StoredPatch(NamedTuple):
    """A patch on its way to disk.

    Attributes:
        name: `{tile}_r{row}_c{col}`.
        image: Reflectance x 10000, `(H, W, C)` uint16.
        masks: Classes by the name of their task, `(H, W)` uint8 each.
    """

    name: str
    image: NDArray[np.uint16]
    masks: Mapping[MaskName, NDArray[np.uint8]]


class Store(Protocol):
    """Where patches go. Nothing counts before it was committed elsewhere, by the number of patches of each split."""

    @property
    def root(self) -> Path:
        """Folder of the split folders."""
        ...

    def write(self, split: str, first: int, patches: Iterable[StoredPatch]) -> None:
        """Puts patches into a split from number `first` on, and forces them to disk."""
        ...

    def cut_back(self, names: Mapping[str, list[str]]) -> None:
        """Takes away all patches but these, by split and number: what was never committed has not happened."""
        ...

    def close(self, counts: Mapping[str, int]) -> None:
        """Makes what is there readable; the counts are those of the splits that have patches."""
        ...


@dataclass(frozen=True, kw_only=True)
class PackedStore:
    """One array of images a split, and one of masks for each task, which grow patch by patch.

    An array has no header before it is closed: nobody takes half of it for the whole.

    Args:
        root: Folder of the split folders.
        size: Side of a patch.
        num_bands: Channels of a patch.
        masks: Which masks there are.
    """

    root: Path
    size: int
    num_bands: int
    masks: tuple[MaskName, ...] = MASKS

    def write(self, split: str, first: int, patches: Iterable[StoredPatch]) -> None:
        """Puts patches into a split from number `first` on, and forces them to disk."""
        paths = self._paths(split)
        with ExitStack() as stack:
            files = [stack.enter_context(_open(path)) for path in paths]
            for file, (_, _, row) in zip(files, self._arrays(), strict=True):
                file.seek(HEADER_BYTES + first * self._row_bytes(row))
            for patch in patches:
                for file, array in zip(files, (patch.image, *(patch.masks[name] for name in self.masks)), strict=True):
                    file.write(np.ascontiguousarray(array).data)
            for file in files:
                file.flush()
                os.fsync(file.fileno())

    def cut_back(self, names: Mapping[str, list[str]]) -> None:
        """Takes away all patches but these, by split and number.

        Raises:
            FiresegError: If some of these are gone.
        """
        for split in SPLITS:
            for path, (_, _, row) in zip(self._paths(split), self._arrays(), strict=True):
                count = len(names.get(split, ()))
                wanted = HEADER_BYTES + count * self._row_bytes(row) if count else 0
                found = path.stat().st_size if path.exists() else 0
                if found < wanted:
                    raise FiresegError(f"{path}: {found} bytes, but {wanted} were written; {_GONE}")
                if found > wanted:
                    with path.open("r+b") as file:
                        file.truncate(wanted)

    def close(self, counts: Mapping[str, int]) -> None:
        """Writes the headers."""
        for split, count in counts.items():
            for path, (_, descr, row) in zip(self._paths(split), self._arrays(), strict=True):
                with _open(path) as file:
                    file.write(npy_header(descr, (count, *row)))
                    file.flush()
                    os.fsync(file.fileno())

    def _arrays(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """File name, type and shape of a patch in it."""
        image = (IMAGES, "<u2", (self.size, self.size, self.num_bands))
        return [image, *((masks_file(name), "|u1", (self.size, self.size)) for name in self.masks)]

    def _paths(self, split: str) -> list[Path]:
        return [self.root / split / name for name, _, _ in self._arrays()]

    def _row_bytes(self, row: tuple[int, ...]) -> int:
        return int(np.prod(row)) * (2 if len(row) == 3 else 1)


@dataclass(frozen=True, kw_only=True)
class FilesStore:
    """Two .npy files a patch: reflectance as float32, and the classes of one task.

    Args:
        root: Folder of the split folders.
        mask: Which mask.
    """

    root: Path
    mask: MaskName

    def write(self, split: str, first: int, patches: Iterable[StoredPatch]) -> None:
        """Writes the patches and forces them to disk. Their numbers are of no consequence here."""
        folder = self.root / split
        folder.mkdir(parents=True, exist_ok=True)
        for patch in patches:
            for end, array in (
                (IMAGE_END, to_reflectance(patch.image)),
                (MASK_END, np.ascontiguousarray(patch.masks[self.mask])),
            ):
                with (folder / f"{patch.name}{end}").open("wb") as file:
                    np.save(file, array)
                    file.flush()
                    os.fsync(file.fileno())
        sync_folder(folder)

    def cut_back(self, names: Mapping[str, list[str]]) -> None:
        """Takes away the files of all patches but these.

        Raises:
            FiresegError: If some of these are gone.
        """
        for split in SPLITS:
            folder = self.root / split
            wanted = {f"{name}{end}" for name in names.get(split, ()) for end in (IMAGE_END, MASK_END)}
            found = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
            if missing := wanted - found:
                raise FiresegError(f"{folder / min(missing)}: no such file, but it was written; {_GONE}")
            for name in found - wanted:
                (folder / name).unlink()

    def close(self, counts: Mapping[str, int]) -> None:
        """Nothing: every file is whole."""


def _open(path: Path) -> BinaryIO:
    """Opens a file to be written anywhere in it, made where it is not there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def masks_file(mask: MaskName) -> str:
    """Name of the packed masks of a task.

    Example:
        >>> masks_file("gra")
        'masks_gra.npy'
    """
    return f"masks_{mask}.npy"


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the values in a .npy file, always 128 bytes long.

    Args:
        descr: Type, as `<u2`.
        shape: Of the whole array.

    Example:
        >>> npy_header("|u1", (3, 2, 2))[:6], len(npy_header("|u1", (3, 2, 2)))
        (b'\\x93NUMPY', 128)
    """
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin1")
    length = HEADER_BYTES - 10
    assert len(text) < length
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


JOURNAL_NAME = "tiles.jsonl"
"""First line: what was asked for. Then a line a tile, in their order."""

MANIFEST_NAME = "manifest.json"
"""The last file to be written: where it is, all is there."""

AGAIN = "run python -m fireseg.prepare again"


@validated_dataclass(frozen=True, kw_only=True)
class Manifest:
    """What of a manifest reading needs. It may say more.

    Args:
        layout: Whether a split is packed into a few arrays, or has two files a patch.
        task: Which labels the masks hold where there is one mask a patch; None where both are stored.
        bands: The band of each channel.
        scale: What reflectance was multiplied with where integers are stored.
        leaks: Pairs of tiles by which splits know of each other, accepted when the patches were made.
        patches: How many patches each split has.
    """

    layout: Layout
    task: MaskName | None = None
    bands: Annotated[tuple[str, ...], AfterValidator(check_bands)]
    scale: Literal[10_000]
    leaks: tuple[str, ...] = ()
    patches: Mapping[str, NonNegativeInt]


def read_manifest(root: Path) -> Manifest | None:
    """Reads the manifest under a root, or nothing where the patches are others'.

    Args:
        root: Folder with the splits.

    Raises:
        FiresegError: If there is one that cannot be understood.
    """
    path = root / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise FiresegError(f"{path}: truncated or no JSON; {AGAIN}") from error
    if not isinstance(content, dict) or not {"format", "layout"} <= content.keys():
        return None  # a file of this name that somebody else's program wrote
    return _understand(path, content)


def _understand(path: Path, content: dict[str, Any]) -> Manifest:
    number = content["format"]
    if not isinstance(number, int) or number > FORMAT_VERSION:
        raise FiresegError(
            f"{path}: format {number}, but this version of fireseg knows formats up to {FORMAT_VERSION}; "
            "update fireseg, or make the patches anew with this one"
        )
    try:
        return TypeAdapter(Manifest).validate_python(content)
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {AGAIN}" for one in error.errors())
        raise FiresegError(*faults) from error
