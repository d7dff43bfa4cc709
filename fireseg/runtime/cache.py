"""Converted models on disk, which are written once for each checkpoint."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, hash_file
from fireseg.runs import TrainedModel

log = logging.getLogger("fireseg")

CACHE_NAME = "runtime"
"""Folder of converted models in a run folder."""

LOCK = ".lock"
"""File in it that is locked while another is written."""

INPUT_NAME = "image"
"""Input of a converted model."""

_CONVERSION = 1
"""Number in the names of the files, raised when the same checkpoint is converted to another file."""


@contextmanager
def open_onnx(trained: TrainedModel) -> Iterator[Path]:
    """Yields the ONNX file of a trained model, which is written if it is missing or damaged.

    It is kept in the folder `runtime` of the run, or in the user's cache if the checkpoint is not in a run folder. If
    neither can be written, the file is temporary.

    Args:
        trained: Model.

    Raises:
        FiresegError: If the packages that convert are not installed, or the model cannot be converted.
    """
    with _open_folder(trained) as folder:
        path = folder / f"{get_stem(trained)}.onnx"
        with FileLock(folder / LOCK):  # of several processes that need the file, the first writes it
            if not is_intact(path):
                from fireseg.runtime.onnx import check_converter, convert_to_onnx  # imports torch

                check_converter("runtime")
                log.info("%s: converted to ONNX, once for each checkpoint", trained.name)
                convert_to_onnx(trained.model, path)
                write_record(path, {})
        yield path


def get_stem(trained: TrainedModel) -> str:
    """Returns the name of the converted files of a checkpoint, without extension."""
    return f"{trained.sha256}_{_CONVERSION}"


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Writes `<name>.json` beside a converted file: its SHA-256, that of its weights, and what else is known of it."""
    with atomic_write(_get_record(path)) as part:
        part.write_text(json.dumps({**_hash_files(path), **content}, indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Reads what `write_record` wrote; empty if there is none, or it is damaged."""
    try:
        content = json.loads(_get_record(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_intact(path: Path) -> bool:
    """Returns True if a converted file is there, with its weights, and is the one that its record names."""
    record = read_record(path)
    try:
        return path.is_file() and all(record.get(name) == value for name, value in _hash_files(path).items())
    except OSError:
        return False


def _hash_files(path: Path) -> dict[str, str]:
    hashes = {"sha256": hash_file(path)}
    if path.suffix == ".xml":  # an IR of OpenVINO is two files
        hashes["weights_sha256"] = hash_file(path.with_suffix(".bin"))
    return hashes


def _get_record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


@contextmanager
def _open_folder(trained: TrainedModel) -> Iterator[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireseg"
    folder = (trained.folder.path if trained.folder else cache) / CACHE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK)
    except OSError:
        is_writable = False
    if is_writable:
        yield folder
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="fireseg_")
    except OSError as error:
        raise FiresegError(
            f"{folder}: cannot be written, nor can a temporary folder ({error.strerror or error}); "
            "make room, or use --runtime torch"
        ) from error
    log.info("%s: cannot be written, so the model is converted for this time only", folder)
    with temporary as name:
        yield Path(name)
