"""Groups the parts of split archives, reads them as one stream and unpacks them safely."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import re
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fireseg.errors import FiresegError

_WHOLE = re.compile(r"\.(tar|tgz|zip|tar\.(gz|bz2|xz))$", re.IGNORECASE)
# train.tar.0003.gz.part, train.tar.gz.003, train.tar.gz.ad, train.tar.gz.part-ad, train.zip.003
_PART = re.compile(
    r"(?P<stem>.+?\.(?:tar|tgz|zip)(?:\.(?:gz|bz2|xz))?)[._-]?(?:part[._-]?)?(?P<number>\d+|[a-z]{2}|a[a-z]{2})"
    r"(?P<tail>(?:\.(?:gz|bz2|xz))?)(?:\.part)?",
    re.IGNORECASE,
)
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


def group_parts(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Groups the parts of each archive in order and ignores other files.

    Args:
        paths: Paths of files, with `/`.

    Returns:
        Paths of the parts of each archive, by the path of the joined archive.

    Raises:
        FiresegError: If a part before the last one is missing.

    Example:
        >>> group_parts(["val.tar.01.gz.part", "README.md", "val.tar.00.gz.part"])
        {'val.tar.gz': ('val.tar.00.gz.part', 'val.tar.01.gz.part')}
    """
    archives: dict[str, dict[int, str]] = {}
    for path in sorted(paths):
        if _WHOLE.search(path):
            archives.setdefault(path, {})[0] = path
        elif part := _PART.fullmatch(path):
            archives.setdefault(part["stem"] + part["tail"], {})[_parse_number(part["number"])] = path
    faults = []
    for name, parts in archives.items():
        expected = range(min(1, *parts), max(parts) + 1)  # numbers start at 0 or 1
        if gaps := [str(number) for number in expected if number not in parts]:
            faults.append(f"{name}: part {', '.join(gaps[:5])} is missing; report it to the publishers of the data set")
    if faults:
        raise FiresegError(*faults)
    return {name: tuple(parts[number] for number in sorted(parts)) for name, parts in archives.items()}


_MAX_RATIO = 20
"""Size of the unpacked files over that of the parts, which match the listing; float32 rasters reach 2.4."""


def unpack(parts: Sequence[Path], folder: Path, *, advance: Callable[[int], object]) -> None:
    """Unpacks an archive from its parts without joining them on disk.

    Args:
        parts: Paths of the parts in order. The format, tar (plain, gzip, bzip2, xz) or zip, is detected from the
            first bytes.
        folder: Output folder.
        advance: Called with the number of bytes read.

    Raises:
        FiresegError: If the archive is broken, encrypted, too large when unpacked, or contains a path outside the
            folder.
        OSError: If the disk is full or not writable.
    """
    if not hasattr(tarfile, "data_filter"):
        raise FiresegError("Python 3.11.0 to 3.11.3: cannot unpack archives safely; use 3.11.4 or newer")
    budget = _Budget(parts, max(_MAX_RATIO * sum(part.stat().st_size for part in parts), _MIN_BUDGET))
    with io.BufferedReader(JoinedFile(parts, advance), 1 << 20) as stream:
        try:
            head = stream.peek(8)
            if head.startswith(b"PK"):
                _unpack_zip(stream, folder, budget)
                return
            opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
            _unpack_tar(opener(stream) if opener else stream, folder, budget)
        except tarfile.FilterError as error:
            raise FiresegError(
                f"{parts[0]}: unpacking stopped: {error}; report it to the publishers of the data set"
            ) from error
        except (NotImplementedError, RuntimeError) as error:  # zipfile: a method it does not know, or encryption
            raise FiresegError(
                f"{parts[0]}: unpacking stopped: {error}; only archives without a password, stored or deflated, can be "
                "unpacked: report it to the publishers of the data set"
            ) from error
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _broken_archive(parts, error) from error
        except OSError as error:
            if error.errno is not None:  # an error of the disk, not of the archive
                raise
            raise _broken_archive(parts, error) from error


_MIN_BUDGET = 100 << 20
"""Bytes that any archive may unpack to: small text files compress well."""


class _Budget:
    """Counts the declared sizes of unpacked files, which neither tarfile nor zipfile exceeds when extracting."""

    def __init__(self, parts: Sequence[Path], num_bytes: int) -> None:
        self._parts, self._num_bytes, self._left = parts, num_bytes, num_bytes

    def spend(self, num_bytes: int) -> None:
        """Takes the size of the next file, before it is written."""
        self._left -= num_bytes
        if self._left < 0:
            raise FiresegError(
                f"{self._parts[0]}: unpacking stopped: more than {self._num_bytes / 1e9:.1f} GB, too much for an "
                "archive of this size; report it to the publishers of the data set"
            )


class JoinedFile(io.RawIOBase):
    """Reads several files as one.

    Args:
        parts: Paths of the files in order.
        advance: Called with the number of bytes of every read.
    """

    def __init__(self, parts: Sequence[Path], advance: Callable[[int], object]) -> None:
        super().__init__()
        self._files = [part.open("rb") for part in parts]
        self._ends = list(itertools.accumulate(part.stat().st_size for part in parts))
        self._position, self._advance = 0, advance

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True; a zip is read from its end."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position in the joined file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads into the buffer, at most to the end of the current part."""
        number = bisect_right(self._ends, self._position)
        if number == len(self._files):
            return 0
        self._files[number].seek(self._position - (self._ends[number - 1] if number else 0))
        count = self._files[number].readinto(buffer)
        self._position += count
        self._advance(count)
        return count

    def close(self) -> None:
        """Closes the parts."""
        for file in self._files:
            file.close()
        super().close()


def _unpack_tar(stream: IO[bytes], folder: Path, budget: _Budget) -> None:
    # ignore_zeros, as `tar -i` in the instructions of the publishers: the archive is several concatenated tars.
    with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True) as archive:
        for member in archive:
            if not _is_macos_metadata(member.name):
                budget.spend(member.size)
                archive.extract(member, folder, filter="data")
    while stream.read(1 << 20):  # gzip detects truncation only at the end of the stream
        pass


def _unpack_zip(stream: IO[bytes], folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(cast(Any, stream)) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise zipfile.BadZipFile(f"{member.filename!r} is outside the output folder")
            if not _is_macos_metadata(member.filename):
                budget.spend(member.file_size)
                archive.extract(member, folder)


def _is_macos_metadata(name: str) -> bool:
    # A file such as `._x_S2L2A.tif` would be read as a tile.
    path = PurePosixPath(name)
    return path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts


def _broken_archive(parts: Sequence[Path], error: Exception) -> FiresegError:
    return FiresegError(
        f"{parts[0]}: not a complete archive, although all {len(parts)} parts match the listing "
        f"({type(error).__name__}: {error}); report it to the publishers of the data set"
    )


def _parse_number(text: str) -> int:
    """Parses the number of a part: `07` is 7, `aa` is 0, `ab` is 1, `ba` is 26."""
    if text.isdigit():
        return int(text)
    return sum((ord(letter) - ord("a")) * 26**power for power, letter in enumerate(reversed(text.lower())))
