"""Stores made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fireseg.tracker.mlflow_store import open_store
from tests.tracker.service import Server, find_free_port


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ours: making one takes seconds, so it is made once, where making it is hardest."""
    folder = tmp_path_factory.mktemp("store") / "fires of 50% in März"
    folder.mkdir()
    (folder / "mlflow.db").touch()
    (folder / "mlflow.db.part").write_bytes(b"half a store, of a process that was killed")
    open_store(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture
def store(made_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a copy."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(made_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def server(made_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(made_store, folder / "mlflow.db")
    server = Server(folder, find_free_port())
    server.start()
    yield server
    server.kill()
