"""The download script, set on a server that speaks as the hub does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scripts.look_alike_cems import PARTS
from tests.scripts.look_alike_hub import LookAlikeHub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub() -> Iterator[LookAlikeHub]:
    hub = LookAlikeHub(dict(PARTS))
    yield hub
    hub.close()


Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def start(hub: LookAlikeHub, tmp_path: Path) -> Start:
    """Starts the script on `tmp_path / "cems"`."""

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        given |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, str(ROOT / "scripts" / "download_cems.py"), str(tmp_path / "cems"), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=given, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture
def run(start: Start) -> Run:
    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        script = start(*arguments, **environment)
        out, error = script.communicate(timeout=120)
        assert "Traceback" not in error
        return script.returncode, out, error

    return run
