"""The folder of a run: its files, its lock, and how a run is resumed from it."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import PositiveInt, TypeAdapter, ValidationError

from fireseg import __version__
from fireseg.errors import FiresegError
from fireseg.files import (
    CHECKPOINT_FOLDER,
    LAST_CHECKPOINT,
    atomic_write,
    check_regular_file,
    convert_disk_errors,
    disk_error,
    find_run_folder,
    read_error,
)
from fireseg.runs.checkpoint import SelfTraining


class RunBusyError(FiresegError):
    """Another process holds the lock of a run folder."""


class RunFolder:
    """The folder of one training run.

    Args:
        path: An existing folder.

    Attributes:
        checkpoints: Folder of `best_model.pt`, `final_model.pt`, `last.pt` and `checkpoint_epoch_{n}.pt`.
        config: `config.json`, all settings, resolved.
        provenance: `run.json`, versions, commit, data, initial weights and tracking of the run.
        metrics: `metrics.jsonl`, one row per epoch.
        log: `train.log`.
        batch: Picture of a training batch.
        samples: Picture of validation samples.
        curves: Picture of the learning curves.
        calibration: `calibration.json`, threshold and temperature.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINT_FOLDER
        self.config = path / "config.json"
        self.provenance = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "train.log"
        self.batch = path / "batch.png"
        self.samples = path / "samples.png"
        self.curves = path / "curves.png"
        self.calibration = path / "calibration.json"

    @classmethod
    def create(cls, parent: Path, name: str) -> Self:
        """Creates the folder of a new run, see `create_folder`."""
        return cls(create_folder(parent, name))

    def evaluation(self, split: str, kind: Literal["json", "html"]) -> Path:
        """Returns the path of the evaluation on a split: `evaluation_{split}.json` or `evaluation_{split}.html`."""
        return self.path / f"evaluation_{split}.{kind}"

    @contextmanager
    def locked(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Locks the folder for this process; the lock of a killed process is released by the system.

        Args:
            wait_s: Seconds to wait for a lock that another process holds.

        Raises:
            RunBusyError: If another process holds the lock.
            FiresegError: If the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=wait_s)
        except Timeout as error:
            raise RunBusyError(f"{self.path}: another process is training in it; wait for it or stop it") from error
        except OSError as error:
            raise disk_error(self.path, error) from error
        try:
            with convert_disk_errors(self.path):
                for part in self.path.rglob(".*.part"):  # unfinished files of a killed process
                    part.unlink()
            yield
        finally:
            lock.release()

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Writes `config.json`."""
        _write_json(self.config, settings)

    def write_provenance(self, entries: Mapping[str, Any]) -> None:
        """Adds entries to `run.json`, replacing those of the same key."""
        _write_json(self.provenance, {**self.read_provenance(), **entries})

    def read_provenance(self) -> dict[str, Any]:
        """Reads `run.json`; empty if there is none yet.

        Raises:
            FiresegError: If it is damaged or cannot be read.
        """
        check_regular_file(self.provenance)
        try:
            content = json.loads(self.provenance.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise read_error(self.provenance, error) from error
        except (ValueError, RecursionError):
            content = None
        cure = "restore it, or delete it: a resumed run writes it again, and is tracked as a new one"
        if not isinstance(content, dict):
            raise FiresegError(f"{self.provenance}: damaged, not a JSON object; {cure}")
        try:
            TypeAdapter(_Provenance).validate_python(content)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise FiresegError(*(f"{self.provenance}: damaged, {fault}; {cure}" for fault in faults)) from error
        return content

    def write_calibration(self, content: Mapping[str, Any]) -> None:
        """Writes `calibration.json`."""
        _write_json(self.calibration, content)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Appends one epoch to `metrics.jsonl` and flushes it to disk; NaN and infinity become null."""
        line = json.dumps({name: _nan_to_none(value) for name, value in row.items()})
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())  # before last.pt of this epoch: a power cut loses no row that is not repeated
        except OSError as error:
            raise disk_error(self.metrics, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """Reads the rows of `metrics.jsonl`, without a last line that a kill or a power cut left incomplete.

        Raises:
            FiresegError: If another line is damaged, or the file cannot be read.
        """
        check_regular_file(self.metrics)
        try:
            content = self.metrics.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise read_error(self.metrics, error) from error
        # After a power cut, a file may have its new length, but NULs in place of the last row.
        rows = [_parse_row(line) for line in content.rstrip(b"\0").split(b"\n")[:-1]]
        if damaged := [str(number) for number, row in enumerate(rows, start=1) if row is None]:
            raise FiresegError(
                f"{self.metrics}: line {', '.join(damaged)} damaged, not the metrics of an epoch; restore the file, "
                "or delete these lines: the curves then lack their epochs"
            )
        return [row for row in rows if row is not None]

    def cut_metrics(self, last_epoch: int, *, parent: RunFolder | None = None) -> None:
        """Removes the rows after an epoch, which training repeats from the checkpoint of that epoch.

        Args:
            last_epoch: Last epoch to keep.
            parent: Run that this one branched off; its rows replace those of this run.
        """
        rows = [row for row in (parent or self).read_metrics() if row["epoch"] <= last_epoch]
        with atomic_write(self.metrics) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    @contextmanager
    def logging_to_file(self) -> Iterator[None]:
        """Writes the log messages of fireseg to `train.log` as well while the context is open."""
        check_regular_file(self.log, cure="remove it")
        with convert_disk_errors(self.log):
            handler = _QuietFileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("fireseg")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()


@dataclass(frozen=True, kw_only=True)
class _DataProvenance:
    root: str | list[str]
    fingerprint: str
    class_counts: list[int]


@dataclass(frozen=True, kw_only=True)
class _Tracked:
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    first_epoch: PositiveInt = 1
    started_ms: PositiveInt = 1
    ended_ms: PositiveInt | None = None
    status: str = ""
    sent_to: str = ""


@dataclass(frozen=True, kw_only=True)
class _Pruned:
    epoch: PositiveInt


@dataclass(frozen=True, kw_only=True)
class _Swa:
    epochs: PositiveInt
    epoch: PositiveInt
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class _Provenance:
    """The part of `run.json` that is read again; fields that are missing have no effect."""

    parent: str = ""
    git_commit: str = ""
    host: str = ""
    data: _DataProvenance = field(default_factory=lambda: _DataProvenance(root="", fingerprint="", class_counts=[]))
    weights: dict[str, Any] = field(default_factory=dict)
    tracking: dict[str, Any] = field(default_factory=dict)
    tracked: _Tracked = field(default_factory=_Tracked)
    pruned: _Pruned | None = None
    swa: _Swa | None = None
    self_training: SelfTraining | None = None


class _QuietFileHandler(logging.FileHandler):
    """Ignores write errors: on a full disk, writing the results raises one clear error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


@dataclass(frozen=True)
class ResumePoint:
    """Folder and checkpoint from which training continues.

    Attributes:
        folder: Folder of the run to continue in place; None for a new run.
        checkpoint: Training state to continue from; None if there is none yet.
        parent: Folder of the run that it branches off; None if there is none.
        is_branch: True if the checkpoint is not the last one of `folder`.
    """

    folder: RunFolder | None = None
    checkpoint: Path | None = None
    parent: RunFolder | None = None

    @property
    def is_branch(self) -> bool:
        """True if training goes on from a checkpoint that is not the last one of its own folder."""
        return self.checkpoint is not None and (
            self.folder is None or self.checkpoint != self.folder.checkpoints / LAST_CHECKPOINT
        )


def find_resume_point(path: Path) -> ResumePoint:
    """Finds the folder and the checkpoint from which `resume=<path>` continues.

    A run folder, or its `last.pt`, continues in place; a run that was killed before its first `last.pt` starts
    from its first epoch, or from the checkpoint that it branched off. Any other checkpoint starts a new run.

    Args:
        path: Run folder, or checkpoint file with a training state.

    Raises:
        FiresegError: If the path does not exist or cannot be read, or the run has lost its checkpoints.
    """
    path = follow_latest(path)
    try:
        if path.is_dir():
            return _find_last_state(RunFolder(path))
        if not path.is_file():
            raise FiresegError(f"resume: {path}: no such run folder or checkpoint; runs are in outputs/ and multirun/")
        run = find_run_folder(path)
    except OSError as error:
        raise read_error(path, error) from error
    folder = RunFolder(run) if run else None
    if folder and path.name == LAST_CHECKPOINT:
        return ResumePoint(folder, path)
    return ResumePoint(checkpoint=path, parent=folder)


def _find_last_state(folder: RunFolder) -> ResumePoint:
    """Finds the checkpoint of a run; raises rather than starting a run again that has lost it."""
    checkpoints, last = folder.checkpoints, folder.checkpoints / LAST_CHECKPOINT
    if last.is_file():
        return ResumePoint(folder, last)
    for path in (checkpoints, last):
        if path.is_symlink() and not path.exists():
            raise FiresegError(f"{path}: a link to {path.readlink()}, which does not exist; restore that")
    if last.exists() or (checkpoints.exists() and not checkpoints.is_dir()):
        path, kind = (last, "file") if last.exists() else (checkpoints, "folder")
        raise FiresegError(f"{path}: not a {kind}, so the run cannot be resumed; restore it, or start a new run")
    parent = folder.read_provenance().get("parent")
    if parent is not None:
        checkpoint = Path(parent)
        if not checkpoint.is_file():
            raise FiresegError(
                f"{folder.path}: has no checkpoint yet, and branched off {parent}, which does not exist; restore that, "
                "or start a new run"
            )
        run = find_run_folder(checkpoint)
        return ResumePoint(folder, checkpoint, RunFolder(run) if run else None)
    # The first last.pt is written just after the first row.
    if num_rows := len(folder.read_metrics()[1:]):
        raise FiresegError(
            f"{last}: no such file, but {folder.metrics.name} has {num_rows + 1} epochs; restore it, or start a new run"
        )
    return ResumePoint(folder)


def create_folder(parent: Path, name: str) -> Path:
    """Creates `parent/name`, or `parent/name-2` and so on if that exists; safe with concurrent processes.

    Args:
        parent: Parent folder; created if missing.
        name: Requested name; characters that do not belong in a file name become hyphens.

    Raises:
        FiresegError: If it cannot be created.
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
    raise FiresegError(f"{parent}: there are 10,000 folders named {slug}; choose another output_dir")


LATEST = "latest"
"""Name of the link to the last run, beside the run folders."""


def link_latest(run: Path) -> None:
    """Makes the link `latest` beside a run folder point at it, at once; does nothing where links cannot be made.

    Args:
        run: An existing run folder. A file or folder that is named `latest` is left as it is.
    """
    link, part = run.parent / LATEST, run.parent / f".{LATEST}.{os.getpid()}.part"
    if run.name == LATEST or (link.exists() and not link.is_symlink()):
        return
    with suppress(OSError, NotImplementedError):
        try:
            part.symlink_to(run.name, target_is_directory=True)  # relative: it stays right if all runs are moved
            part.replace(link)
        finally:
            part.unlink(missing_ok=True)


def follow_latest(path: Path) -> Path:
    """Replaces the link to the last run by its target, because the next run changes the link."""
    for link in (path, *path.parents):
        if link.name == LATEST and link.is_symlink():
            return link.parent / link.readlink() / path.relative_to(link)
    return path


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Returns a row of `metrics.jsonl`, or None if the line is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and type(row.get("epoch")) is int and row["epoch"] > 0
    return row if is_row and all(isinstance(value, int | float | None) for value in row.values()) else None


def _nan_to_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_PACKAGES = ("torch", "segmentation-models-pytorch", "timm", "albumentations", "hydra-core", "mlflow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Returns the versions of fireseg, Python and the packages that affect results, without importing them."""
    result = {"fireseg": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            result[package] = "not installed"
    return result


@cache
def git_commit() -> str:
    """Returns the commit of the running checkout, with `+changes` if files differ from it; empty outside of git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):  # git is not installed, or there is no commit yet
        return ""


def host() -> str:
    """Returns the host name of the machine."""
    return socket.gethostname()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
