"""An installed wheel contains conf/ and the commands work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the wheel into an empty folder; its dependencies come from the environment."""
    built = tmp_path_factory.mktemp("wheel")
    made = run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(CHECKOUT), cwd=built)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = built.glob("*.whl")
    installed = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(installed))
    done = run("-m", "pip", "install", *options, str(wheel), cwd=built)
    assert done.returncode == 0, done.stdout + done.stderr
    return installed


def test_an_installed_wheel_uses_its_own_conf(site: Path, tmp_path: Path) -> None:
    program = "from fireseg.config import CONF_DIR; print(CONF_DIR)"
    assert run("-c", program, cwd=tmp_path, PYTHONPATH=str(site)).stdout.strip() == str(site / "fireseg/conf")


def test_an_installed_wheel_shows_settings(site: Path, tmp_path: Path) -> None:
    done = run("-m", "fireseg.train", "--cfg", "job", "task=gra", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "name: gra" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_installed_wheel_rejects_a_misspelt_setting(site: Path, tmp_path: Path) -> None:
    done = run("-m", "fireseg.train", "model.encodr=x", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 2
    assert done.stderr.startswith("fireseg: model.encodr: ")
    assert list(tmp_path.iterdir()) == []
