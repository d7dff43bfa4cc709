"""Files that are whole or not there: written beside, then renamed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from fireseg.errors import FiresegError

# What torch's reader of damaged or made-up files was seen to raise, besides saying that they hold more than data.
_BROKEN = (
    *(RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error),
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
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
