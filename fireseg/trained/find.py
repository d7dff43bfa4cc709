"""Which file a path of a run means."""

from __future__ import annotations

from pathlib import Path

from fireseg.engine.checkpoint import BEST, FINAL, LAST
from fireseg.errors import FiresegError, did_you_mean
from fireseg.rundir import RunFolder

CHECKPOINT_NAMES = (BEST, FINAL, LAST)
"""What of a run folder's checkpoints is taken, the first that is there."""


def find_checkpoint(path: Path) -> Path:
    """The file that a path names: itself, or the best checkpoint of a run folder.

    Args:
        path: A run folder, its `checkpoints`, or a file.

    Raises:
        FiresegError: If there is no such path, or it is something else; says what it is and what would be right.
    """
    if path.is_dir():
        for name in CHECKPOINT_NAMES:
            if (found := _checkpoints_of(path) / name).is_file():
                return found
        raise FiresegError(f"{path}: {_describe_folder(path)}")
    if not path.is_file():
        siblings = [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        raise FiresegError(
            f"{path}: no such run folder or checkpoint{near}; outputs/ and multirun/ hold the runs, "
            "and what MLflow keeps is named runs:/… or models:/…"
        )
    return path


def find_run(checkpoint: Path) -> RunFolder | None:
    """The run folder around a checkpoint, unless the file lies on its own."""
    folder = RunFolder(checkpoint.parent.parent)
    return folder if checkpoint.parent.name == "checkpoints" and folder.config.exists() else None


def _checkpoints_of(path: Path) -> Path:
    return path if path.name == "checkpoints" else path / "checkpoints"


def _describe_folder(path: Path) -> str:
    if (path / "config.json").exists():
        return f"a run without any checkpoint; wait for its first epoch, or go on with resume={path}"
    runs = [
        run.parent for run in path.glob("*/checkpoints") if any((run / name).is_file() for name in CHECKPOINT_NAMES)
    ]
    if runs:
        return f"a folder of {len(runs)} runs, but one is wanted; name it, as {max(runs)}"
    if (path / "train").is_dir() or (path / "val").is_dir():
        return "a folder of patches or tiles, but a run is wanted; outputs/ and multirun/ hold the runs"
    return f"no run folder: it holds none of {', '.join(CHECKPOINT_NAMES)}; outputs/ and multirun/ hold the runs"
