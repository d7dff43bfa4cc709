"""Runs the download script against a fake hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scripts.builders import PARTS, ROOT, FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub = FakeHub(dict(PARTS))
    yield hub
    hub.close()


Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def start(hub: FakeHub, tmp_path: Path) -> Start:
    """Starts the download into `tmp_path / "cems"`."""

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables |= {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        command = [sys.executable, str(ROOT / "scripts" / "download_cems.py"), str(tmp_path / "cems"), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture
def run(start: Start) -> Run:
    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        script = start(*arguments, **environment)
        out, error = script.communicate(timeout=120)
        assert "Traceback" not in error
        return script.returncode, out, error

    return run
