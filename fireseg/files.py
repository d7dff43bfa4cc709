"""Writes files and folders atomically, reads checkpoints, and ends orphaned worker processes."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

from filelock import FileLock

from fireseg.errors import FiresegError

# Exceptions that torch.load raises for damaged or forged files, besides UnpicklingError.
_BROKEN_FILE_ERRORS = (
    *(RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error),
)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` at the end.

    A process killed at any moment leaves the old file or the new one. The content is flushed to disk
    before the rename, so a power cut cannot leave an empty file. A symbolic link stays, and its target is
    replaced. Pipes and character devices, such as `/dev/stdout`, receive the content and stay what they are.

    Args:
        path: The file to write. Its folder must exist.

    Raises:
        FiresegError: If the disk is full, the folder cannot be written, or the path is a folder, socket or disk.

    Example:
        >>> with atomic_write(Path("run/config.json")) as part:  # doctest: +SKIP
        ...     part.write_text("{}")
    """
    with convert_disk_errors(path):
        mode = _get_mode(path)
    if mode is not None and not _is_regular(path, mode):
        if not (_DESCRIPTOR.fullmatch(str(path)) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            raise FiresegError(f"{path}: {_describe_kind(mode)}, but the output is a file; choose another name")
        with _write_through(path) as part:
            yield part
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with suppress(OSError):  # must not hide the first error
            part.unlink(missing_ok=True)


def list_leftovers(path: Path) -> list[Path]:
    """Returns the unfinished files that `atomic_write` of killed processes of this machine left beside a file.

    Args:
        path: The file that they were to replace.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.part")
    folder = path.parent
    names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    return [folder / name for name in names if (match := pattern.fullmatch(name)) and not _is_alive(int(match[1]))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


_DESCRIPTOR = re.compile(r"/dev/(?:(stdout)|(stderr)|fd/(\d+))")
"""Open files of this process. They may be regular files, but those belong to the shell that opened them."""


def _is_regular(path: Path, mode: int) -> bool:
    return stat.S_ISREG(mode) and not _DESCRIPTOR.fullmatch(str(path))


def _get_mode(path: Path) -> int | None:
    """Returns the type and permissions of what a path leads to, None if it does not exist."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _write_through(path: Path) -> Iterator[Path]:
    """Yields a temporary path and copies its content into a pipe or device at the end."""
    with tempfile.TemporaryDirectory(prefix="fireseg-") as folder:
        part = Path(folder) / path.name
        yield part
        try:
            with part.open("rb") as content, _open_stream(path) as stream:
                shutil.copyfileobj(content, stream)
        except BrokenPipeError:  # handled by the command, as for its other outputs
            raise
        except OSError as error:
            raise disk_error(path, error) from error


def _open_stream(path: Path) -> IO[bytes]:
    if not (match := _DESCRIPTOR.fullmatch(str(path))):
        return path.open("wb")
    # Opened by its path, a redirected stdout would be truncated; a duplicate goes on at the same position.
    sys.stdout.flush()
    number = 1 if match[1] else 2 if match[2] else int(match[3])
    return os.fdopen(os.dup(number), "wb")


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a disk",
}


def _describe_kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def check_regular_file(path: Path, *, cure: str = "give the path of a regular file") -> None:
    """Checks that a path is a regular file if it exists: reading a pipe or a device may never end.

    Args:
        path: An input, or an output that is to be replaced; a symbolic link is followed.
        cure: Advice at the end of the error.

    Raises:
        FiresegError: If the path leads to a pipe, a socket, a device or a folder, or round in a circle of links.
    """
    try:
        mode = _get_mode(path)
    except PermissionError:
        return  # reported by the one who opens it, for reading or for writing
    except OSError as error:
        raise read_error(path, error) from error
    if mode is not None and not stat.S_ISREG(mode):
        raise FiresegError(f"{path}: {_describe_kind(mode)}, but a file is needed; {cure}")


def check_readable(path: Path) -> None:
    """Checks that an input is a regular file that may be read, before a library reports it as damaged.

    Args:
        path: The input; a symbolic link is followed.

    Raises:
        FiresegError: If it does not exist, is no regular file, or may not be read.
    """
    check_regular_file(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise read_error(path, error) from error


def read_error(path: Path, error: OSError) -> FiresegError:
    """Converts a failed read to an error with its cause and cure."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return FiresegError(f"{path}: no permission to read it; change its permissions (chmod u+r) or its owner")
    if error.errno == errno.ENOENT:
        return FiresegError(f"{path}: no such file; check the path")
    return FiresegError(f"{path}: cannot be read ({error.strerror or error}); check the path and the disk")


def disk_error(path: Path, error: OSError) -> FiresegError:
    """Converts a failed write to an error with its cause and cure."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FiresegError(f"{path}: {_describe_shortage(path, error)} and start again; finished files are kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FiresegError(f"{path}: cannot be written ({error.strerror}); choose a folder that you may write to")
    return FiresegError(f"{path}: cannot be written ({error.strerror or error}); choose another folder")


def _describe_shortage(path: Path, error: OSError) -> str:
    if error.errno == errno.EDQUOT:
        return "your quota of the disk is used up; make room"
    with suppress(OSError):
        disk = os.statvfs(next(folder for folder in path.absolute().parents if folder.is_dir()))
        if disk.f_files and not disk.f_favail:
            return "the disk has no room for more files (inodes); remove some"
    return "the disk is full; make room"


@contextmanager
def convert_disk_errors(path: Path) -> Iterator[None]:
    """Converts errors of the file system within the context into `FiresegError`.

    Args:
        path: Path to name if the error has none.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of stdout has gone, which the command handles
        raise
    except OSError as error:
        raise disk_error(Path(error.filename) if isinstance(error.filename, str) else path, error) from error


def load_tensors(path: Path) -> dict[str, Any]:
    """Reads a file of tensors and plain values without running any code from it.

    `torch.save` writes a zip archive with a CRC-32 of every tensor, which `torch.load` does not compare. It is compared
    here, so that a file with flipped bits is refused; for 100 MB this takes 0.05 s.

    Args:
        path: A file that `torch.save` wrote from a dict.

    Returns:
        The dict, with tensors on the CPU.

    Raises:
        FiresegError: If the file does not exist, is cut short or damaged, or contains anything but plain data.
    """
    if path.suffix == ".safetensors":
        raise FiresegError(
            f"{path}: only weights, but a checkpoint is needed; the setting model.weights takes this file"
        )
    check_readable(path)
    import torch  # takes seconds, and most users of this module only write

    try:
        _check_crc(path)  # first, because torch warns about some damages before it refuses the file
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FiresegError(
            f"{path}: not a readable checkpoint: contains more than tensors and plain values, or is another kind of "
            "file; use another one"
        ) from error
    except _BROKEN_FILE_ERRORS as error:
        raise FiresegError(f"{path}: not a readable checkpoint: damaged or cut short; use another one") from error
    if not isinstance(content, dict):
        raise FiresegError(f"{path}: contains a {type(content).__name__}, but a checkpoint is a dict; use another one")
    return content


def _check_crc(path: Path) -> None:
    """Raises an error if a zip archive has a record that differs from its CRC; earlier formats of torch have none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if (record := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{record} differs from its checksum")


MANIFEST = "sample.json"
"""File in the folder that records the settings it was made with; written last."""

Settings = Mapping[str, Any]


_REMOVALS, _REMOVAL_PAUSE_S = 50, 0.1


def build_once(root: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Makes a folder of files unless it exists already.

    The folder appears with all its files at once; a killed process leaves none. Of several processes
    that need the same folder, the first makes it and the others wait.

    Args:
        root: The folder, whose files lie in subfolders.
        settings: Settings it is made with, as plain values. An existing folder must have the same.
        write: Writes all files into an existing empty folder.

    Raises:
        FiresegError: If the folder has other contents, lacks a file, or cannot be written.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            if not _is_complete(root, settings):
                _make(root, settings, write)
    except OSError as error:
        raise disk_error(root, error) from error


def _is_complete(root: Path, settings: Settings) -> bool:
    """Returns True if the folder is complete, False if it can be made; raises if something else is in its place."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FiresegError(f"{root}: contains other files; choose another folder for the sample")
    made, num_files = _read_sample_manifest(root / MANIFEST)
    # Not replaced automatically: another process may be reading it.
    cure = "delete the folder to make it again, or choose another"
    if differences := [
        f"{name}={made.get(name, 'nothing')} where {name}={settings.get(name, 'nothing')} is wanted"
        for name in sorted({*made, *settings})
        if made.get(name) != settings.get(name)
    ]:
        raise FiresegError(f"{root}: a sample made with {', '.join(differences)}; {cure}")
    present = _count_files(root)
    for folder, number in num_files.items():
        if present.get(folder, 0) != number:
            raise FiresegError(f"{root / folder}: {present.get(folder, 0)} files, but {number} were made; {cure}")
    return True


def _read_sample_manifest(path: Path) -> tuple[Settings, Mapping[str, int]]:
    """Reads the settings that a sample was made with, and the number of files of each of its folders."""
    try:
        content = json.loads(path.read_bytes())
        return dict(content["settings"]), dict(content["files"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise FiresegError(f"{path}: damaged; delete the folder {path.parent} to make the sample again") from error


def _make(root: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Writes into a temporary folder and renames it. The caller holds the lock."""
    for leftover in root.parent.glob(f".{root.name}.*.part"):
        _remove(leftover)
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


def _remove(leftover: Path) -> None:
    """Removes the folder of a killed call, into which its worker processes may write for a moment longer."""
    for _ in range(_REMOVALS):
        shutil.rmtree(leftover, ignore_errors=True)
        if not leftover.exists():
            return
        time.sleep(_REMOVAL_PAUSE_S)


def _count_files(root: Path) -> dict[str, int]:
    """Counts the files of each subfolder recursively, without hidden ones."""
    return {
        folder.name: sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }


def end_with_parent() -> None:
    """Makes a worker process exit when its parent has died; otherwise it would wait for work forever."""
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

SWEEP_PLAN = "plan.json"
"""File in the folder of a sweep that holds the settings of all its jobs."""


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
    checkpoint = checkpoint.resolve()
    folder = checkpoint.parent.parent
    is_in_run = checkpoint.parent.name == CHECKPOINT_FOLDER and (folder / "config.json").exists()
    return folder if is_in_run else None


def sync_folder(folder: Path) -> None:
    """Flushes the directory entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def count_cores() -> int:
    """Returns the number of cores available to this process, fewer than the machine's in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
