"""Lists the files of a data set on the Hugging Face hub and downloads them with resume and checksums."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fireseg.errors import FiresegError

# `hf_hub_download` discards partial files (since 1.31), so files are downloaded here with the session of the hub.
_MAX_DOWNLOADS = 3  # complete downloads of a file before a wrong checksum is an error
_TIMEOUT_SECONDS, _MAX_WAIT_SECONDS = 30.0, 60.0
_MAX_RETRY_AFTER_SECONDS = 300.0  # the interval over which the hub limits requests
RESUME_HINT = "downloaded data are kept; run the same command again to continue"

Advance = Callable[[int], object]


@dataclass(frozen=True)
class HubFile:
    """A file in the listing of the hub.

    Attributes:
        path: Path in the repository, with `/`.
        size: Size in bytes.
        sha256: SHA-256 of the content in hex; None if the hub has none (small files outside LFS).
    """

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """Files of a data set at one commit."""

    repo: str
    endpoint: str
    revision: str
    licence: str
    files: tuple[HubFile, ...]

    def get_url(self, file: HubFile) -> str:
        """Returns the download URL of a file at this commit."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, file.path, repo_type="dataset", revision=self.revision, endpoint=self.endpoint)


class _TransferError(Exception):
    """A failed transfer that may succeed when repeated."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def list_files(repo: str) -> Listing:
    """Lists the files of a data set on the hub, or on the mirror in HF_ENDPOINT.

    Args:
        repo: Repository, `owner/name`.

    Raises:
        FiresegError: If the hub cannot be reached or has no such data set.
    """
    from huggingface_hub import HfApi, constants, errors

    endpoint = constants.ENDPOINT
    try:
        info = HfApi().dataset_info(repo, files_metadata=True, timeout=_TIMEOUT_SECONDS)
    except errors.OfflineModeIsEnabled as error:
        raise FiresegError(f"{repo}: not downloaded, because HF_HUB_OFFLINE is set; unset it to download") from error
    except errors.RepositoryNotFoundError as error:
        raise FiresegError(
            f"{repo}: data set not found at {endpoint}, or access denied; open it in a browser, or log in"
        ) from error
    except (_get_network_error(), OSError, ValueError) as error:  # ValueError: a login page instead of an answer
        raise FiresegError(
            f"{repo}: the list of files could not be read from {endpoint}: {_describe(error)}; "
            "check the network (HTTPS_PROXY sets a proxy, HF_ENDPOINT a mirror) and try again"
        ) from error
    files = tuple(
        HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None) for file in info.siblings or ()
    )
    licence = str((info.card_data or {}).get("license") or "not stated")
    return Listing(repo, endpoint, info.sha or "main", licence, files)


def fetch(url: str, file: HubFile, path: Path, *, retries: int, advance: Advance) -> None:
    """Downloads a file, resuming an earlier partial download, and verifies it before giving it its name.

    Args:
        url: Download URL; may redirect.
        file: Size and checksum of the file.
        path: Target path. An incomplete download is `<path>.partial`.
        retries: Number of consecutive connections without data before giving up.
        advance: Called with the number of bytes received, negative if received bytes are discarded.

    Raises:
        FiresegError: If the download fails or the checksum is wrong repeatedly.
        OSError: If the disk is full or not writable.
    """
    if path.exists() and _is_verified(path, file):
        advance(file.size)
        return
    path.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    advance(_size_of(partial))
    for _ in range(_MAX_DOWNLOADS):
        _complete(url, file, partial, retries=retries, advance=advance)
        if _is_verified(partial, file):
            partial.replace(path)
            return
        advance(-_size_of(partial))
        partial.unlink()
        print_line(f"{file.path}: wrong checksum; downloading it again")
    raise FiresegError(
        f"{file.path}: downloaded {_MAX_DOWNLOADS} times from {url}, each time with another SHA-256 than listed "
        f"({file.sha256}); try another network, or report it to the hub"
    )


def _complete(url: str, file: HubFile, partial: Path, *, retries: int, advance: Advance) -> None:
    num_failures = 0
    while (before := _size_of(partial)) != file.size:
        try:
            _resume(url, file, partial, advance)
            continue
        except _TransferError as error:
            reason, wait = str(error), error.wait_seconds
        except _get_network_error() as error:
            reason, wait = _describe(error), 0.0
        num_failures = 0 if _size_of(partial) > before else num_failures + 1
        if num_failures > retries:
            progress = f"{format_bytes(_size_of(partial))} of {format_bytes(file.size)} downloaded"
            raise FiresegError(f"{file.path}: {progress} from {url}, then {reason}; {RESUME_HINT}")
        wait = max(wait, min(2.0**num_failures, _MAX_WAIT_SECONDS))
        print_line(f"{file.path}: {reason}; retrying in {wait:.0f} s")
        time.sleep(wait)


def _resume(url: str, file: HubFile, partial: Path, advance: Advance) -> None:
    """Opens one connection and appends the received bytes."""
    from huggingface_hub.utils import build_hf_headers, get_session

    received = _size_of(partial)
    if received > file.size:  # from another version of the file
        received = _discard(partial, advance)
    range_header = {"Range": f"bytes={received}-"} if received else {}
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | range_header
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code == 416:  # the remote file is shorter than the partial download
            received = _discard(partial, advance)
        _check_status(response.status_code, response.headers.get("Retry-After", ""), file, url)
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == 206 and not content_range.startswith(f"bytes {received}-"):
            raise _TransferError(f"requested bytes from {received} on, but received '{content_range}'")
        if response.status_code == 200 and received:  # the server does not support ranges
            received = _discard(partial, advance)
        with partial.open("ab") as target:
            for chunk in response.iter_raw():
                content = chunk[: file.size - received]
                target.write(content)
                received += len(content)
                advance(len(content))
    if received < file.size:
        raise _TransferError("the connection closed early")


def _check_status(status: int, retry_after: str, file: HubFile, url: str) -> None:
    if status in (200, 206):
        return
    if status in (408, 416, 429) or status >= 500:
        wait_seconds = float(retry_after) if retry_after.isdigit() else 0.0
        raise _TransferError(f"HTTP status {status}", min(wait_seconds, _MAX_RETRY_AFTER_SECONDS))
    raise FiresegError(
        f"{file.path}: {url} returned HTTP status {status}; open the URL in a browser for the reason; {RESUME_HINT}"
    )


def _discard(partial: Path, advance: Advance) -> int:
    advance(-_size_of(partial))
    partial.unlink(missing_ok=True)
    return 0


def _is_verified(path: Path, file: HubFile) -> bool:
    if _size_of(path) != file.size:
        return False
    with path.open("rb") as content:
        return file.sha256 is None or hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _get_network_error() -> type[Exception]:
    # The error class of the HTTP library of the hub client: httpx in 1.x, httpx2 in 2.x.
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    return HTTPError


def _describe(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    first_line = str(error).strip().partition("\n")[0] or "no message"
    return f"the connection failed ({type(error).__name__}: {first_line[:160]})"


def print_line(line: str) -> None:
    """Prints a line above a progress bar without buffering."""
    tqdm.write(line)
    sys.stdout.flush()


def format_bytes(count: float) -> str:
    """Formats a number of bytes in powers of 1000.

    Example:
        >>> format_bytes(1_073_741_824), format_bytes(401_000_000), format_bytes(800)
        ('1.07 GB', '401 MB', '800 bytes')
    """
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} bytes"
