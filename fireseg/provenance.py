"""What a result came out of: versions, commit, machine."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from fireseg import __version__

_PACKAGES = ("torch", "segmentation-models-pytorch", "timm", "albumentations", "hydra-core", "mlflow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Versions of what decides a result, without importing any of it."""
    found = {"fireseg": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def git_commit() -> str:
    """Commit of the checkout that runs, with `+changes` where files differ from it; empty outside one."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return ""
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):  # no git on the machine, or a checkout without a commit
        return ""


def host() -> str:
    """Name of the machine."""
    return socket.gethostname()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
