"""One file from the Hugging Face hub: from the cache, or fetched, or within seconds a word about why not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlsplit

from fireseg.errors import FiresegError

# Before huggingface_hub is imported by anybody: it would else ask the hub which agent runs it, which costs three
# more seconds where nothing answers.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

ANSWER_SECONDS = 4.0
"""How long the hub may take to say that it has the file. The library alone would try for 24 to 47 s."""


class HubFile(NamedTuple):
    """A file on the hub."""

    repo: str
    revision: str
    name: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}/{self.name}"


def fetch(file: HubFile) -> Path:
    """The file on this disk.

    Args:
        file: Which one.

    Returns:
        Its path in the hub's cache folder.

    Raises:
        FiresegError: If it is not in the cache and cannot be had; says so within 5 seconds of asking.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        _ask(file)
        return Path(hf_hub_download(file.repo, file.name, revision=file.revision))
    # Whatever goes wrong between here and the hub, and the libraries in between have a class for each, the user is
    # told the same: what was wanted, where it was looked for, and the ways out.
    except Exception as error:
        raise _refusal(file, error) from error


def _ask(file: HubFile) -> None:
    """Asks the hub for the file's headers, once, and gives up after `ANSWER_SECONDS`.

    Raises:
        TimeoutError: If there was no answer in time.
    """
    from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE forbids to ask")
    url = hf_hub_url(file.repo, file.name, revision=file.revision)

    def ask() -> None:
        location = get_hf_file_metadata(url, timeout=ANSWER_SECONDS).location
        if urlsplit(location).netloc != urlsplit(url).netloc:
            # The hub hands large files over to another host, which a firewall may well forbid. Any answer will do:
            # that address is signed for GET alone.
            get_session().head(location, timeout=ANSWER_SECONDS)

    _within(ANSWER_SECONDS, ask)


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Calls in a thread of its own: name resolution and connecting to several addresses take no time limit."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # handed over to the thread that waits
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if errors:
        raise errors[0]


def _refusal(file: HubFile, error: Exception) -> FiresegError:
    from huggingface_hub import constants

    lines = str(error).strip().splitlines()
    folder = "models--" + file.repo.replace("/", "--")
    return FiresegError(
        f"model.weights: {file.name} of {file.repo} (revision {file.revision}) is wanted, but it is neither in the "
        f"cache {constants.HF_HUB_CACHE} nor to be had from {constants.ENDPOINT} "
        f"({type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}); "
        f"copy the folder {folder} into that cache from a machine that has it (HF_HOME names another cache), "
        "or set model.weights=/path/to/an/encoder/file, or model.weights=none to start from random weights"
    )
