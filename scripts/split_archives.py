"""Archives in parts: which parts make one, read as one stream, unpacked without a way out of the folder."""

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
    r"(?P<stem>.+?\.(?:tar|tgz|zip)(?:\.(?:gz|bz2|xz))?)[._-]?(?:part[._-]?)?(?P<place>\d+|[a-z]{2}|a[a-z]{2})"
    r"(?P<tail>(?:\.(?:gz|bz2|xz))?)(?:\.part)?",
    re.IGNORECASE,
)
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


def group_parts(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Puts the parts of each archive in order; what is no archive is left out.

    Args:
        paths: Any files, by path with `/`.

    Returns:
        The parts of each archive, by the path that the whole would have.

    Raises:
        FiresegError: If a part before the last is missing.

    Example:
        >>> group_parts(["val.tar.01.gz.part", "README.md", "val.tar.00.gz.part"])
        {'val.tar.gz': ('val.tar.00.gz.part', 'val.tar.01.gz.part')}
    """
    archives: dict[str, dict[int, str]] = {}
    for path in sorted(paths):
        if _WHOLE.search(path):
            archives.setdefault(path, {})[0] = path
        elif part := _PART.fullmatch(path):
            archives.setdefault(part["stem"] + part["tail"], {})[_place(part["place"])] = path
    faults = []
    for name, parts in archives.items():
        wanted = range(min(1, *parts), max(parts) + 1)  # counting begins at 0 or at 1
        if gaps := [str(place) for place in wanted if place not in parts]:
            faults.append(f"{name}: number {', '.join(gaps[:5])} of its parts is missing; report it to the data set")
    if faults:
        raise FiresegError(*faults)
    return {name: tuple(parts[place] for place in sorted(parts)) for name, parts in archives.items()}


def unpack(parts: Sequence[Path], folder: Path, *, advance: Callable[[int], object]) -> None:
    """Unpacks an archive from its parts, without joining them on disk first.

    Args:
        parts: In order. Together they are a tar (plain, gzip, bzip2, xz) or a zip: the first bytes say which.
        folder: Where it goes.
        advance: Called with the bytes of the parts as they are read.

    Raises:
        FiresegError: If the archive is broken, or holds a path that leads out of the folder.
        OSError: If the disk is full or not writable.
    """
    if not hasattr(tarfile, "data_filter"):
        raise FiresegError("Python 3.11.0 to 3.11.3: cannot unpack safely; take 3.11.4 or newer")
    with io.BufferedReader(Joined(parts, advance), 1 << 20) as stream:
        try:
            head = stream.peek(8)
            if head.startswith(b"PK"):
                _unpack_zip(stream, folder)
                return
            opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
            _unpack_tar(opener(stream) if opener else stream, folder)
        except tarfile.FilterError as error:
            raise FiresegError(f"{parts[0]}: not unpacked further: {error}; report it to the data set") from error
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _broken(parts, error) from error
        except OSError as error:
            if error.errno is not None:  # the disk's, not the archive's
                raise
            raise _broken(parts, error) from error


class Joined(io.RawIOBase):
    """Several files, read as if they were one.

    Args:
        parts: In order.
        advance: Called with the bytes of every read.
    """

    def __init__(self, parts: Sequence[Path], advance: Callable[[int], object]) -> None:
        super().__init__()
        self._files = [part.open("rb") for part in parts]
        self._ends = list(itertools.accumulate(part.stat().st_size for part in parts))
        self._position, self._advance = 0, advance

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: a zip is read from its end."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within all parts."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, at most to the end of a part."""
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


def _unpack_tar(stream: IO[bytes], folder: Path) -> None:
    # Zeros within: the publishers say `tar -i`, as several tars one after the other need it.
    with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True) as archive:
        for member in archive:
            if not _is_litter(member.name):
                archive.extract(member, folder, filter="data")
    while stream.read(1 << 20):  # only at its end does gzip know that nothing is missing
        pass


def _unpack_zip(stream: IO[bytes], folder: Path) -> None:
    with zipfile.ZipFile(cast(Any, stream)) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise zipfile.BadZipFile(f"{member.filename!r} leads out of the folder")
            if not _is_litter(member.filename):
                archive.extract(member, folder)


def _is_litter(name: str) -> bool:
    """Of macOS: `._x_S2L2A.tif` would be taken for a tile."""
    path = PurePosixPath(name)
    return path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts


def _broken(parts: Sequence[Path], error: Exception) -> FiresegError:
    return FiresegError(
        f"{parts[0]} and what follows it ({len(parts)} in all): the parts are as the hub lists them, but no whole "
        f"archive together ({type(error).__name__}: {error}); report it to the data set"
    )


def _place(text: str) -> int:
    """`07` is 7, `aa` is 0, `ab` is 1, `ba` is 26."""
    if text.isdigit():
        return int(text)
    return sum((ord(letter) - ord("a")) * 26**power for power, letter in enumerate(reversed(text.lower())))
