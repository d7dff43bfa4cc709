"""A catalogue for each test, and retries without waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fetch.builders import StacServer, serve_stac


@pytest.fixture
def stac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StacServer]:
    """A catalogue without items."""
    monkeypatch.setattr("fireseg.fetch.catalogue._RETRY_WAITS_S", (0.0, 0.0, 0.0))
    root = tmp_path / "server"
    root.mkdir()
    with serve_stac(root) as server:
        yield server
