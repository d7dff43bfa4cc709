"""Files of a data set on the Hugging Face hub: what there is, and onto disk, resumed and checked."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fireseg.errors import FiresegError

# `hf_hub_download` throws a partial file away (since 1.31), so the bytes are fetched here, with the hub's own session.
_FETCHES = 3  # how often a file is fetched whole before its checksum is believed to be wrong for good
_PATIENCE_SECONDS, _LONGEST_WAIT = 30.0, 60.0
_LONGEST_PAUSE = 300.0  # that a server may ask for: the window over which the hub counts requests
_GO_ON = "what is here is kept, and the same command goes on from there"

Advance = Callable[[int], object]


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it.

    Attributes:
        path: Where it is in the repository, with `/`.
        size: Bytes.
        sha256: Of its content, in hex; None where the hub keeps none (small files outside LFS).
    """

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """What a data set holds at one commit."""

    repo: str
    endpoint: str
    revision: str
    licence: str
    files: tuple[HubFile, ...]

    def get_url(self, file: HubFile) -> str:
        """Where the content of a file is answered, at this commit."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, file.path, repo_type="dataset", revision=self.revision, endpoint=self.endpoint)


class _BrokenOffError(Exception):
    """A transfer that did not end well, and may if it is tried again."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def list_files(repo: str) -> Listing:
    """Asks the hub (or the mirror that HF_ENDPOINT names) what a data set holds.

    Args:
        repo: Such as `owner/name`.

    Raises:
        FiresegError: If the hub cannot be reached, or has no such data set.
    """
    from huggingface_hub import HfApi, constants, errors

    endpoint = constants.ENDPOINT
    try:
        info = HfApi().dataset_info(repo, files_metadata=True, timeout=_PATIENCE_SECONDS)
    except errors.OfflineModeIsEnabled as error:
        raise FiresegError(f"{repo}: not asked for, because HF_HUB_OFFLINE is set; unset it to download") from error
    except errors.RepositoryNotFoundError as error:
        raise FiresegError(
            f"{repo}: no such data set at {endpoint}, or not open to you; look there, or log in"
        ) from error
    except (_get_network_error(), OSError, ValueError) as error:  # ValueError: a login page instead of an answer
        raise FiresegError(
            f"{repo}: its list of files was wanted from {endpoint}, but {_describe(error)}; "
            "look at the network (HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror), then start again"
        ) from error
    files = tuple(
        HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None) for file in info.siblings or ()
    )
    licence = str((info.card_data or {}).get("license") or "not stated")
    return Listing(repo, endpoint, info.sha or "main", licence, files)


def fetch(url: str, file: HubFile, path: Path, *, retries: int, advance: Advance) -> None:
    """Brings a file to `path`, from where an earlier call stopped; under its name it is whole and right.

    Args:
        url: Where it is answered. It may redirect.
        file: Its size and checksum.
        path: Where it goes. Until it is whole it is `<path>.partial`.
        retries: How often in a row a connection may bring nothing before the call gives up.
        advance: Called with the bytes that came, or went (negative) where a part starts again.

    Raises:
        FiresegError: If it does not come, or comes wrong again and again.
        OSError: If the disk is full or not writable.
    """
    if path.exists() and _is_right(path, file):
        advance(file.size)
        return
    path.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    advance(_size_of(partial))
    for _ in range(_FETCHES):
        _complete(url, file, partial, retries=retries, advance=advance)
        if _is_right(partial, file):
            partial.replace(path)
            return
        advance(-_size_of(partial))
        partial.unlink()
        say(f"{file.path}: came with a wrong checksum; fetched again")
    raise FiresegError(
        f"{file.path}: fetched {_FETCHES} times from {url}, and its sha256 was never the one that the hub lists "
        f"({file.sha256}); something on the way changes it: try another network, or report it to the hub"
    )


def _complete(url: str, file: HubFile, partial: Path, *, retries: int, advance: Advance) -> None:
    fruitless = 0
    while (before := _size_of(partial)) != file.size:
        try:
            _continue(url, file, partial, advance)
            continue
        except _BrokenOffError as error:
            reason, wait = str(error), error.wait_seconds
        except _get_network_error() as error:
            reason, wait = _describe(error), 0.0
        fruitless = 0 if _size_of(partial) > before else fruitless + 1
        if fruitless > retries:
            came = f"{format_bytes(_size_of(partial))} of {format_bytes(file.size)} came"
            raise FiresegError(f"{file.path}: {came} from {url}, then {reason}; {_GO_ON}")
        wait = max(wait, min(2.0**fruitless, _LONGEST_WAIT))
        say(f"{file.path}: {reason}; tried again in {wait:.0f} s")
        time.sleep(wait)


def _continue(url: str, file: HubFile, partial: Path, advance: Advance) -> None:
    """One connection: appends what it brings."""
    from huggingface_hub.utils import build_hf_headers, get_session

    have = _size_of(partial)
    if have > file.size:  # left by another version of the file
        have = _start_again(partial, advance)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with get_session().stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=_PATIENCE_SECONDS
    ) as response:
        if response.status_code == 416:  # the file there is shorter than what is here
            have = _start_again(partial, advance)
        _refuse(response.status_code, response.headers.get("Retry-After", ""), file, url)
        if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _BrokenOffError(f"bytes from {have} on were wanted, but other ones came")
        if response.status_code == 200 and have:  # a server that cannot continue
            have = _start_again(partial, advance)
        with partial.open("ab") as target:
            for chunk in response.iter_raw():
                wanted = chunk[: file.size - have]
                target.write(wanted)
                have += len(wanted)
                advance(len(wanted))
    if have < file.size:
        raise _BrokenOffError("the connection closed too early")


def _refuse(status: int, retry_after: str, file: HubFile, url: str) -> None:
    if status in (200, 206):
        return
    if status in (408, 416, 429) or status >= 500:
        asked = float(retry_after) if retry_after.isdigit() else 0.0
        raise _BrokenOffError(f"the answer was HTTP {status}", min(asked, _LONGEST_PAUSE))
    raise FiresegError(
        f"{file.path}: wanted from {url}, but the answer was HTTP {status}; "
        f"open the address in a browser to see why; {_GO_ON}"
    )


def _start_again(partial: Path, advance: Advance) -> int:
    advance(-_size_of(partial))
    partial.unlink(missing_ok=True)
    return 0


def _is_right(path: Path, file: HubFile) -> bool:
    if _size_of(path) != file.size:
        return False
    with path.open("rb") as content:
        return file.sha256 is None or hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _get_network_error() -> type[Exception]:
    # Of whichever HTTP library the hub's client stands on: httpx in 1.x, httpx2 in 2.x.
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    return HTTPError


def _describe(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the answer was HTTP {status}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no more was said"
    return f"the connection failed ({type(error).__name__}: {first[:160]})"


def say(line: str) -> None:
    """Prints a line above a progress bar, at once even into a file."""
    tqdm.write(line)
    sys.stdout.flush()


def format_bytes(count: float) -> str:
    """Bytes as a person says them, in powers of a thousand.

    Example:
        >>> format_bytes(1_073_741_824), format_bytes(401_000_000), format_bytes(800)
        ('1.07 GB', '401 MB', '800 bytes')
    """
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} bytes"
