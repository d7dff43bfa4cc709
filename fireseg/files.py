"""Files that are whole or not there: written beside, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from filelock import FileLock

from fireseg.errors import FiresegError

# What torch's reader of damaged or made-up files was seen to raise, besides saying that they hold more than data.
_BROKEN = (
    *(RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error),
)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there takes its place at the end.

    A process killed at any moment leaves the old file, or the new one. The content is forced to
    disk before the rename, so that a power cut cannot leave a name without content.

    Args:
        path: The file to write. Its folder must exist.

    Raises:
        FiresegError: If the disk is full or the folder cannot be written.

    Example:
        >>> with replacing(Path("run/config.json")) as part:  # doctest: +SKIP
        ...     part.write_text("{}")
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with suppress(OSError):  # what went wrong before is what counts
            part.unlink(missing_ok=True)


def disk_error(path: Path, error: OSError) -> FiresegError:
    """The one clear line for a write that failed."""
    if error.errno == errno.ENOSPC:
        return FiresegError(f"{path}: the disk is full; make room and start again: what was finished is kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FiresegError(f"{path}: cannot be written ({error.strerror}); choose a folder that is yours")
    return FiresegError(f"{path}: cannot be written ({error.strerror or error})")


def load_tensors(path: Path) -> dict[str, Any]:
    """Reads a file of tensors and plain values. Nothing in it can run: it is data, not code.

    Args:
        path: A file that `torch.save` wrote from a dict.

    Returns:
        The dict, with tensors on the CPU.

    Raises:
        FiresegError: If there is no such file, it is cut short, or holds anything but plain data.
    """
    if path.suffix == ".safetensors":
        raise FiresegError(f"{path}: bare weights, but a checkpoint is wanted; give them as model.weights={path}")
    import torch  # seconds that those who only write need not wait

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FiresegError(f"{path}: no such file") from error
    except UnpicklingError as error:
        raise FiresegError(
            f"{path}: not a readable checkpoint: more than tensors and plain values, or no such file at all; "
            "take another one"
        ) from error
    except _BROKEN as error:
        raise FiresegError(f"{path}: not a readable checkpoint: broken or cut short; take another one") from error
    if not isinstance(content, dict):
        raise FiresegError(f"{path}: holds a {type(content).__name__}, but a checkpoint is a dict; take another one")
    return content


MANIFEST = "sample.json"
"""Says in the folder what it was made with; the last file written."""

Settings = Mapping[str, Any]


def build_once(root: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Makes a folder, or finds it made.

    It appears with all its files at once; killed on the way, there is none. Processes that want the
    same folder together wait for the first.

    Args:
        root: The folder, which holds other folders.
        settings: What it is made with, in plain values: other settings are another folder.
        write: Writes all of it into the folder it is given, which is there and empty.

    Raises:
        FiresegError: If the folder holds something else, has lost a file, or cannot be written.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            if not _is_made(root, settings):
                _make_whole(root, settings, write)
    except OSError as error:
        raise disk_error(root, error) from error


def _is_made(root: Path, settings: Settings) -> bool:
    """Whether the folder is the one wanted; False where nothing is in the way of making it."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FiresegError(f"{root}: holds something that is no sample; choose another folder for the sample")
    manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    made = manifest["settings"]
    # Never replaced in passing: another process may be reading it.
    cure = "delete the folder to have it made again, or choose another"
    if differences := [
        f"{name}={made.get(name, 'nothing')} where {name}={settings.get(name, 'nothing')} is wanted"
        for name in sorted({*made, *settings})
        if made.get(name) != settings.get(name)
    ]:
        raise FiresegError(f"{root}: a sample made with {', '.join(differences)}; {cure}")
    found = _count_files(root)
    for folder, num_files in manifest["files"].items():
        if found.get(folder, 0) != num_files:
            raise FiresegError(f"{root / folder}: {found.get(folder, 0)} files, but {num_files} were made; {cure}")
    return True


def _make_whole(root: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Writes into a folder beside, which then takes the name. The caller holds the lock."""
    for left_behind in root.parent.glob(f".{root.name}.*.part"):
        shutil.rmtree(left_behind, ignore_errors=True)
    part = root.parent / f".{root.name}.{os.getpid()}.part"
    try:
        part.mkdir()
        write(part)
        with atomic_write(part / MANIFEST) as file:
            content = {"settings": settings, "files": _count_files(part)}
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        part.replace(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _count_files(root: Path) -> dict[str, int]:
    """Files in each folder, however deep; not those that somebody else keeps there under a dot."""
    return {
        folder.name: sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }


def end_with_parent() -> None:
    """Called first in a worker: one whose parent was killed would else go on, or wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


BEST_CHECKPOINT, FINAL_CHECKPOINT, LAST_CHECKPOINT = "best_model.pt", "final_model.pt", "last.pt"

CHECKPOINT_NAMES = (BEST_CHECKPOINT, FINAL_CHECKPOINT, LAST_CHECKPOINT)
"""File names of the checkpoints of a run, in the order in which they are preferred."""

CHECKPOINT_FOLDER = "checkpoints"


def find_checkpoint(path: Path) -> Path | None:
    """Returns the checkpoint that a path stands for: the file itself, or the preferred one of a run folder.

    Args:
        path: Checkpoint file, run folder, or the `checkpoints` folder of a run.

    Returns:
        An existing file, or None if there is none.
    """
    if path.is_file():
        return path
    folder = path if path.name == CHECKPOINT_FOLDER else path / CHECKPOINT_FOLDER
    return next((folder / name for name in CHECKPOINT_NAMES if (folder / name).is_file()), None)


def find_run_folder(checkpoint: Path) -> Path | None:
    """Returns the run folder that contains a checkpoint file, or None for a file outside of any run."""
    folder = checkpoint.parent.parent
    is_in_run = checkpoint.parent.name == CHECKPOINT_FOLDER and (folder / "config.json").exists()
    return folder if is_in_run else None


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
