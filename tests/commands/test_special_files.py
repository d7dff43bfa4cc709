"""Pipes and sockets in place of inputs are refused at once, because reading them may never end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fireseg.config import compose_settings
from fireseg.data.bands import BAND_NAMES
from fireseg.data.format import read_manifest
from fireseg.data.positions import read_metadata
from fireseg.data.reader import map_array
from fireseg.errors import FiresegError
from fireseg.prepare.journal import Journal
from fireseg.runs.calibration import read_calibration
from fireseg.runs.folder import RunFolder
from fireseg.runs.load import load_trained_model, read_checkpoint
from fireseg.runs.summary import read_evaluation
from fireseg.tiles import open_bands
from fireseg.tiles.clouds import CloudMask
from fireseg.tiles.raster_file import open_raster

LIMIT_S = 5


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """Ends a test that waits for a pipe."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not refused within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def enter(context: Any) -> None:
    with context:
        pass


def log_to_file(folder: Path) -> None:
    with RunFolder(folder).logging_to_file():
        pass


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest of patches": ("manifest.json", lambda path: read_manifest(path.parent)),
    "packed images": ("images.npy", map_array),
    "patches as settings": ("config.json", lambda path: compose_settings([f"resume={path.parent}"])),
    "table of patches": ("metadata.csv", read_metadata),
    "evaluation": ("evaluation_test.json", read_evaluation),
    "journal": ("tiles.jsonl", Journal),
    "calibration": ("calibration.json", lambda path: read_calibration(RunFolder(path.parent))),
    "provenance": ("run.json", lambda path: RunFolder(path.parent).read_provenance()),
    "metrics": ("metrics.jsonl", lambda path: RunFolder(path.parent).read_metrics()),
    "log": ("train.log", lambda path: log_to_file(path.parent)),
    "checkpoint": ("a.pt", read_checkpoint),
    "run": ("a.pt", lambda path: load_trained_model(str(path))),
    "raster": ("a.tif", lambda path: enter(open_raster(path))),
    "scene": ("a.tif", lambda path: open_bands(path, BAND_NAMES)),
    "product": ("a.SAFE.zip", lambda path: open_bands(path, BAND_NAMES)),
    "item": ("a.json", lambda path: open_bands(path, BAND_NAMES)),
    "cloud mask": ("a_CM.tif", lambda path: enter(CloudMask(path, None))),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("reader", READERS, ids=[name.replace(" ", "_") for name in READERS])
def test_a_pipe_or_a_socket_is_refused_at_once(reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name, read = READERS[reader]
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "pipe":
            os.mkfifo(name)
        else:
            server.bind(name)

        with pytest.raises(FiresegError, match=name.replace(".", r"\.")):
            read(tmp_path / name)
