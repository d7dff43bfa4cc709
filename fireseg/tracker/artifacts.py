"""A checkpoint that MLflow keeps, brought here."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fireseg.errors import FiresegError
from fireseg.files import disk_error
from fireseg.tracker.mlflow_store import (
    failures,
    find_reason,
    get_address,
    open_existing,
    prepare_environment,
    resolve_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


CHECKPOINT_NAMES = ("best_model.pt", "final_model.pt", "last.pt")
"""What is taken where no file is named, the first that is there."""

CALIBRATION_NAME = "calibration.json"
"""What is taken along, if it lies beside the checkpoint's folder."""

_RUN = re.compile(r"runs:/+(?P<run>[^/]+)/*(?P<path>.*)")

_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>\d+|latest))/*(?P<path>.*)")

_MODEL = re.compile(r"models:/+(?P<model>m-[^/@]+)/*(?P<path>.*)")

_FORMS = (
    "runs:/<id>, runs:/<id>/checkpoints/best_model.pt, models:/<name>/<version>, models:/<name>@<alias> "
    "or mlflow-artifacts:/<path>"
)


@dataclass(frozen=True, kw_only=True)
class _Shelf:
    """Where files lie.

    Attributes:
        root: An address that paths are relative to.
        path: What was asked for: a file or a folder.
        stamp: Changes whenever the files may; empty where nothing tells.
        names: The files in a folder.
        download: Brings a file into a folder, and says where it is then.
    """

    root: str
    path: str
    stamp: str
    names: Callable[[str], list[str]]
    download: Callable[[str, str], str]


def download_artifact(uri: str, *, tracking_uri: str | None = None) -> Path:
    """Brings a checkpoint from MLflow into the user's cache.

    It lies there as in a run folder: `checkpoints/best_model.pt`, and above it `calibration.json` where MLflow has
    one. Of a run that has ended the checkpoint is fetched once, everything else each time.

    Args:
        uri: `runs:/<id>`, `runs:/<id>/<path>`, `models:/<name>/<version>`, `models:/<name>@<alias>` or
            `mlflow-artifacts:/<path>`; the best checkpoint is taken where no `.pt` file is named.
        tracking_uri: MLflow's address; None for MLFLOW_TRACKING_URI, or `mlflow.db` in the working folder.

    Returns:
        The file, below `$XDG_CACHE_HOME/fireseg/mlflow` or `~/.cache/fireseg/mlflow`.

    Raises:
        FiresegError: If MLflow is away or has no such thing, or there is no checkpoint in it.
        SettingError: If the address of MLflow cannot be.

    Example:
        >>> fetch_artifact("models:/fireseg@champion", tracking_uri="http://127.0.0.1:5000")  # doctest: +SKIP
    """
    prepare_environment()
    address = resolve_uri(tracking_uri)
    try:
        shelf = _find_shelf(open_existing(address), address, uri)
        path = _choose(shelf, uri)
        folder = _make_folder(address, shelf, path)
        return _bring(shelf, path, folder)
    except FiresegError:
        raise
    except failures() as error:
        raise FiresegError(
            f"{uri}: MLflow at {get_address(address)} does not give it ({find_reason(error)}); "
            "is the name right, is the server up, and does MLFLOW_TRACKING_URI name the one that has it?"
        ) from error


def _find_shelf(client: MlflowClient, address: str, uri: str) -> _Shelf:
    if match := _RUN.fullmatch(uri):
        return _shelf_of_run(client, match["run"], match["path"])
    if uri.startswith("mlflow-artifacts:/"):
        return _shelf_of_address(address, uri)
    if match := _MODEL.fullmatch(uri):
        model = client.get_logged_model(match["model"])
        return _shelf_of_address(address, posixpath.join(model.artifact_location, match["path"]))
    if not (match := _VERSION.fullmatch(uri)):
        raise FiresegError(f"{uri}: names nothing that MLflow keeps; write it as {_FORMS}")
    name, version = match["name"], match["version"]
    if match["alias"]:
        version = client.get_model_version_by_alias(name, match["alias"]).version
    elif version == "latest":
        versions = client.search_model_versions(f"name = '{name}'")
        version = max((found.version for found in versions), key=int, default="1")
    source = client.get_model_version_download_uri(name, str(version))
    if source.startswith(("runs:/", "models:/m-")):
        return _find_shelf(client, address, posixpath.join(source, match["path"]))
    run_id = client.get_model_version(name, str(version)).run_id
    stamp = _get_stamp(client, run_id) if run_id else ""
    return _shelf_of_address(address, posixpath.join(source, match["path"]), stamp=stamp)


def _shelf_of_run(client: MlflowClient, run_id: str, path: str) -> _Shelf:
    return _Shelf(
        root=f"runs:/{run_id}",
        path=path.strip("/"),
        stamp=_get_stamp(client, run_id),
        names=lambda folder: [
            posixpath.basename(file.path) for file in client.list_artifacts(run_id, folder or None) if not file.is_dir
        ],
        download=lambda file, into: client.download_artifacts(run_id, file, into),
    )


def _shelf_of_address(address: str, uri: str, *, stamp: str = "") -> _Shelf:
    from mlflow import artifacts

    uri = uri.rstrip("/")
    folder, _, name = uri.rpartition("/") if uri.endswith(".pt") else (uri, "", "")
    root, _, last = folder.rpartition("/")
    root, path = (root, posixpath.join(last, name)) if last == "checkpoints" else (folder, name)

    def list_names(folder: str) -> list[str]:
        found = artifacts.list_artifacts(artifact_uri=posixpath.join(root, folder), tracking_uri=address)
        return [posixpath.basename(file.path) for file in found if not file.is_dir]

    def download(file: str, into: str) -> str:
        return artifacts.download_artifacts(
            artifact_uri=posixpath.join(root, file), dst_path=into, tracking_uri=address
        )

    return _Shelf(root=root, path=path.strip("/"), stamp=stamp, names=list_names, download=download)


def _get_stamp(client: MlflowClient, run_id: str) -> str:
    """A run that is resumed ends anew; while it runs, anything may change."""
    info = client.get_run(run_id).info
    return str(info.end_time or "") if info.status != "RUNNING" else ""


def _choose(shelf: _Shelf, uri: str) -> str:
    if shelf.path.endswith(".pt"):
        return shelf.path
    found: list[str] = []
    for folder in dict.fromkeys((shelf.path, posixpath.join(shelf.path, "checkpoints"))):
        names = shelf.names(folder)
        found += [posixpath.join(folder, name) for name in names]
        for name in CHECKPOINT_NAMES:
            if name in names:
                return posixpath.join(folder, name)
    there = f", only {', '.join(found[:8])}" if found else ""
    raise FiresegError(f"{uri}: no {CHECKPOINT_NAMES[0]} in it{there}; name a run, or the checkpoint itself")


def _make_folder(address: str, shelf: _Shelf, path: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    key = hashlib.sha256("\n".join((address, shelf.root, path, shelf.stamp)).encode()).hexdigest()[:32]
    folder = Path(cache) / "fireseg" / "mlflow" / key
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error
    return folder


def _bring(shelf: _Shelf, path: str, folder: Path) -> Path:
    """Fetches the checkpoint, unless it is there and cannot have changed, and what lies beside it."""
    checkpoint = folder / "checkpoints" / posixpath.basename(path)
    if not (shelf.stamp and checkpoint.exists()):
        _download(shelf, path, checkpoint)
    beside = posixpath.dirname(path)
    if posixpath.basename(beside) == "checkpoints":
        beside = posixpath.dirname(beside)
    calibration = folder / CALIBRATION_NAME
    if CALIBRATION_NAME in shelf.names(beside):
        _download(shelf, posixpath.join(beside, CALIBRATION_NAME), calibration)
    else:
        calibration.unlink(missing_ok=True)
    return checkpoint


def _download(shelf: _Shelf, path: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part") as scratch:
        Path(shelf.download(path, scratch)).replace(target)
