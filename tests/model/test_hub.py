"""A file from the hub: fetched from a real server, then from the cache, or refused within 5 seconds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

FILE = "smp-hub/tiny.imagenet/resolve/" + "3f" * 20 + "/model.safetensors"

# In a process of its own, because huggingface_hub reads its environment when it is imported.
PROGRAM = """
import json, sys, time
import huggingface_hub
from fireseg.errors import FiresegError
from fireseg.model.hub import HubFile, fetch

start = time.monotonic()
try:
    answer = {"path": str(fetch(HubFile("smp-hub/tiny.imagenet", "3f" * 20, "model.safetensors")))}
except FiresegError as error:
    answer = {"error": str(error)}
print(json.dumps(answer | {"seconds": time.monotonic() - start}))
"""


def fetch_elsewhere(endpoint: str, home: Path, **environ: str) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    kept |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONWARNINGS": "error"} | environ
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(answer.stdout) | {"stderr": answer.stderr}


def assert_refused(answer: dict, endpoint: str, home: Path) -> None:
    assert answer["seconds"] < 5
    message = answer["error"]
    assert message.startswith("model.weights: model.safetensors of smp-hub/tiny.imagenet (revision 3f3f")
    assert f"cache {home}/hub" in message
    assert f"nor to be had from {endpoint}" in message
    assert "models--smp-hub--tiny.imagenet" in message
    assert "model.weights=/path/to" in message
    assert "model.weights=none" in message
    assert answer["stderr"] == ""


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """Accepts a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def hanging_endpoint() -> Iterator[str]:
    """Does not even accept: its queue is full, so that connecting hangs, as behind a firewall that drops packets."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(hub: Any, tmp_path: Path) -> None:
    hub.files[FILE] = b"weights" * 1000
    first = fetch_elsewhere(hub.endpoint, tmp_path)
    assert Path(first["path"]).read_bytes() == hub.files[FILE]
    assert {path for _, path in (line.split() for line in hub.asked)} == {f"/{FILE}"}
    hub.asked.clear()
    assert fetch_elsewhere(hub.endpoint, tmp_path)["path"] == first["path"]
    assert hub.asked == []


def test_a_file_that_the_hub_does_not_have_is_refused_at_once(hub: Any, tmp_path: Path) -> None:
    answer = fetch_elsewhere(hub.endpoint, tmp_path)
    assert_refused(answer, hub.endpoint, tmp_path)
    assert "RevisionNotFoundError" in answer["error"]


def test_a_refused_connection_is_told_within_5_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert_refused(fetch_elsewhere(endpoint, tmp_path), endpoint, tmp_path)


def test_a_server_that_never_answers_is_told_within_5_seconds(silent_endpoint: str, tmp_path: Path) -> None:
    answer = fetch_elsewhere(silent_endpoint, tmp_path)
    assert_refused(answer, silent_endpoint, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels refuse where Linux lets a full queue hang")
def test_a_connection_that_hangs_is_told_within_5_seconds(hanging_endpoint: str, tmp_path: Path) -> None:
    answer = fetch_elsewhere(hanging_endpoint, tmp_path)
    assert_refused(answer, hanging_endpoint, tmp_path)


def test_a_firewall_before_the_storage_of_large_files_is_told_within_5_seconds(
    hub: Any, silent_endpoint: str, tmp_path: Path
) -> None:
    hub.files[FILE] = b"weights"
    hub.storage = silent_endpoint
    assert_refused(fetch_elsewhere(hub.endpoint, tmp_path), hub.endpoint, tmp_path)
    assert hub.asked == [f"HEAD /{FILE}"]


def test_a_large_file_comes_from_the_storage(hub: Any, storage: Any, tmp_path: Path) -> None:
    hub.files[FILE] = storage.files[FILE] = b"weights" * 1000
    hub.storage = storage.endpoint
    answer = fetch_elsewhere(hub.endpoint, tmp_path)
    assert Path(answer["path"]).read_bytes() == hub.files[FILE]


def test_offline_mode_asks_nobody(hub: Any, tmp_path: Path) -> None:
    answer = fetch_elsewhere(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1")
    assert_refused(answer, hub.endpoint, tmp_path)
    assert "HF_HUB_OFFLINE" in answer["error"]
    assert hub.asked == []
