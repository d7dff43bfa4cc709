"""What a run leaves on disk, by name."""

from __future__ import annotations

import json
import logging
import math
import platform
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from fireseg import __version__
from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error


class RunFolder:
    """The folder of one run.

    Args:
        path: An existing folder.

    Attributes:
        checkpoints: `best_model.pt`, `final_model.pt`, `last.pt`, `checkpoint_epoch_{n}.pt`.
        config: `config.json`, every setting, resolved.
        facts: `run.json`, what the run was made of: versions, commit, data, weights, tracked where.
        metrics: `metrics.jsonl`, one row an epoch.
        log: `train.log`.
        batch, samples, curves: The pictures.
        calibration: `calibration.json`, how probabilities become decisions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.config = path / "config.json"
        self.facts = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "train.log"
        self.batch = path / "batch.png"
        self.samples = path / "samples.png"
        self.curves = path / "curves.png"
        self.calibration = path / "calibration.json"

    @classmethod
    def create(cls, parent: Path, name: str) -> Self:
        """Makes a folder that no other run has, with a number behind the name where that is taken.

        Args:
            parent: Where run folders lie; made if it is not there.
            name: The wished name; what does not belong in a file name becomes a hyphen.

        Raises:
            FiresegError: If the folder cannot be made.
        """
        return cls(create_folder(parent, name))

    def evaluation(self, split: str, kind: Literal["json", "html"]) -> Path:
        """Where the evaluation on a split lies: `evaluation_{split}.json`, or the page beside it."""
        return self.path / f"evaluation_{split}.{kind}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps the folder for one process; a killed one lets go by itself.

        Raises:
            FiresegError: If another process has it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise FiresegError(f"{self.path}: another process is training in it; wait for it or end it") from error
        try:
            for part in self.path.rglob(".*.part"):  # what a killed process was writing
                part.unlink()
            yield
        finally:
            lock.release()

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Writes `config.json`."""
        _write_json(self.config, settings)

    def write_provenance(self, facts: Mapping[str, Any]) -> None:
        """Lays facts over those in `run.json`."""
        _write_json(self.facts, {**self.read_provenance(), **facts})

    def read_provenance(self) -> dict[str, Any]:
        """What `run.json` holds, nothing where there is none yet."""
        return json.loads(self.facts.read_text(encoding="utf-8")) if self.facts.exists() else {}

    def write_calibration(self, content: Mapping[str, Any]) -> None:
        """Writes `calibration.json`."""
        _write_json(self.calibration, content)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds one epoch to `metrics.jsonl`; what is not a number becomes null."""
        line = json.dumps({name: _plain(value) for name, value in row.items()})
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise disk_error(self.metrics, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`; a last line cut short by a kill does not count."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def cut_metrics(self, last_epoch: int) -> None:
        """Takes away the rows after an epoch: what a checkpoint does not know has not happened."""
        rows = [row for row in self.read_metrics() if row["epoch"] <= last_epoch]
        with atomic_write(self.metrics) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    @contextmanager
    def logging_to_file(self) -> Iterator[None]:
        """Within, whatever the suite logs goes to `train.log` as well."""
        handler = _Log(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("fireseg")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()


class _Log(logging.FileHandler):
    """A log that a full disk silences: whoever writes results says so, once and clearly."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Attributes:
        folder: The run's own folder to go on in, or None for a new run.
        checkpoint: The state to go on from, or None where there is none yet.
        parent: The folder of the run that a new one descends from, or None.
    """

    folder: RunFolder | None
    checkpoint: Path | None
    parent: RunFolder | None


def find_resume_point(path: Path) -> ResumePoint:
    """What going on from a path means.

    A run folder, or its `last.pt`, goes on in place: from its first epoch, where it was killed
    before there was a `last.pt`. Any other checkpoint begins a new run.

    Args:
        path: A run folder or a checkpoint file with the state of a training.

    Raises:
        FiresegError: If there is nothing of the kind.
    """
    if path.is_dir():
        folder = RunFolder(path)
        last = folder.checkpoints / "last.pt"
        return ResumePoint(folder, last if last.exists() else None, None)
    if not path.is_file():
        raise FiresegError(f"resume: {path}: no such run folder or checkpoint; outputs/ and multirun/ hold the runs")
    holder = RunFolder(path.resolve().parent.parent)
    has_run = holder.config.exists() and path.resolve().parent == holder.checkpoints
    if has_run and path.name == "last.pt":
        return ResumePoint(holder, path, None)
    return ResumePoint(None, path, holder if has_run else None)


def create_folder(parent: Path, name: str) -> Path:
    """Makes `parent/name`, or `parent/name-2` and so on: the first that nobody else made.

    Raises:
        FiresegError: If it cannot be made.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:90] or "run"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = parent / (slug if number == 1 else f"{slug}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise disk_error(parent, error) from error
    raise FiresegError(f"{parent}: ten thousand runs are called {slug}; choose another output_dir")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
    here = Path(__file__).resolve().parents[2]
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
