"""Stores and servers that are created once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import find_free_port
from tests.tracker.builders import Server


@pytest.fixture
def store(created_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tracking URI of a copy of the store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(created_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def server(created_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(created_store, folder / "mlflow.db")
    server = Server(folder, find_free_port())
    server.start()
    yield server
    server.kill()
