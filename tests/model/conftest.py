"""A local Hugging Face hub, and checkpoints as a run writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from fireseg.model import FireSegmentationModel, create_segmentation_model

SaveCheckpoint = Callable[..., tuple[FireSegmentationModel, Path]]


class Hub:
    """A server that answers HEAD and GET of `/{repo}/resolve/{revision}/{file}` as the Hugging Face hub does.

    Attributes:
        files: Content by path, such as `smp-hub/resnet18.imagenet/resolve/3f23/model.safetensors`.
        storage: Endpoint that requests are redirected to, as the hub does for large files; empty for no redirection.
        requests: Method and path of every request.
        endpoint: Value for HF_ENDPOINT.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.storage = ""
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.make_handler())
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def make_handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.wfile.write(self.answer())

            def answer(self) -> bytes:
                hub.requests.append(f"{self.command} {self.path}")
                content = hub.files.get(self.path.lstrip("/"))
                self.send_response(404 if content is None else 302 if hub.storage else 200)
                if content is None:
                    self.send_header("X-Error-Code", "RevisionNotFound")
                else:
                    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                    self.send_header("X-Repo-Commit", self.path.split("/resolve/")[1].split("/")[0])
                if hub.storage:
                    self.send_header("Location", hub.storage + self.path)
                    self.send_header("X-Linked-Size", str(len(content or b"")))
                    content = b""
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                return content or b""

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def storage() -> Iterator[Hub]:
    """Another host that serves large files."""
    with serve_hub() as storage:
        yield storage


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> SaveCheckpoint:
    """Creates a model with a normalisation and saves its checkpoint as a run does."""

    def save(name: str = "best_model.pt", **request: Any) -> tuple[FireSegmentationModel, Path]:
        request = {"arch": "unet", "encoder": "resnet18", "num_classes": 2} | request
        model = create_segmentation_model(weights="none", **request)
        channels = len(model.bands)
        model.set_normalisation([0.1] * channels, [0.2] * channels)
        settings = request | {"in_channels": channels, "bands": list(model.bands)}
        path = tmp_path / "run" / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": model.state_dict(), "config": {"model": settings}, "epoch": 3}, path)
        return model, path

    return save
