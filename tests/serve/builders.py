"""Builders for tests of the server: a run, a server process on the loopback interface, and its client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.predict.builders import draw_image, write_run, write_scene

CLIENT = httpx.Client(verify=False, timeout=30)
"""One client for all requests: each call of `httpx.get` reads the certificates of the system."""


class Server:
    """A process of `python -m fireseg.serve`.

    Args:
        run: Run folder.
        out: Folder of its files.
        options: Further options.

    Attributes:
        url: Address without a slash at its end.
    """

    def __init__(self, run: Path, out: Path, *options: str, log: Path, port: int = 0) -> None:
        self._log = log
        command = [sys.executable, "-m", "fireseg.serve", str(run), "--out", str(out), "--port", str(port), *options]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=dict(os.environ))
        self.url = self._wait_for_address()
        self.port = int(self.url.rpartition(":")[2])

    def _wait_for_address(self) -> str:
        for _ in range(600):
            if match := re.search(r"http://\S+", self._log.read_text()):
                return match[0]
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"no address after 60 s: {self._log.read_text()}")

    def wait(self, scene_id: str, *, timeout_s: float = 120) -> dict[str, Any]:
        """Waits until a scene is done or has failed, and returns it."""
        deadline = time.monotonic() + timeout_s
        while True:
            scene = CLIENT.get(f"{self.url}/scenes/{scene_id}").json()
            if scene["state"] in ("done", "failed"):
                return scene
            assert time.monotonic() < deadline, (scene, self._log.read_text())
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.1)

    def upload(self, path: Path, *, name: str | None = None, **options: Any) -> httpx.Response:
        """Uploads a file."""
        headers = {"Content-Type": "application/octet-stream", **options.pop("headers", {})}
        parameters = {"name": name or path.name, **options}
        return CLIENT.post(
            f"{self.url}/scenes", params=parameters, content=path.read_bytes(), headers=headers, timeout=30
        )

    def pick(self, path: str, **options: Any) -> httpx.Response:
        """Asks for the map of a scene below --root."""
        return CLIENT.post(f"{self.url}/scenes", json={"path": path}, timeout=30, **options)

    def kill(self) -> None:
        """Kills the server, and waits until it has gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serve(folder: Path, *options: str, run: Path | None = None, port: int = 0) -> Iterator[Server]:
    """Runs a server whose files lie in `folder/served`; it is stopped at the end."""
    if run is None:
        run = folder / "run"
        if not run.exists():
            write_run(run)
    server = Server(run, folder / "served", *options, log=folder / "serve.log", port=port)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=30)


def write_odd_scene(path: Path) -> Path:
    """Writes a scene whose darkest pixels are near 0.1 in every band, as if the offset had been left on."""
    return write_scene(path, np.random.default_rng(0).uniform(0.1, 0.4, (7, 100, 120)).astype(np.float32))


def write_scenes(folder: Path) -> Path:
    """Writes a folder with a small scene, `scene.tif`."""
    write_scene(folder / "scene.tif", draw_image(96, 128))
    return folder
