"""Downloads checkpoints from MLflow into a local cache."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fireseg.errors import FiresegError
from fireseg.files import CHECKPOINT_FOLDER, CHECKPOINT_NAMES, disk_error
from fireseg.tracker.mlflow_store import (
    format_reason,
    get_store_errors,
    open_store,
    prepare_environment,
    redact_uri,
    resolve_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


CALIBRATION_NAME = "calibration.json"
"""File that is downloaded as well if it exists beside the folder of the checkpoint."""

_RUN = re.compile(r"runs:/+(?P<run>[^/]+)(?P<path>.*)")

_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>\d+|latest))(?P<path>.*)")

_LOGGED_MODEL = re.compile(r"models:/+(?P<model>m-[^/@]+)(?P<path>.*)")

_FORMS = (
    "runs:/ID, runs:/ID/checkpoints/best_model.pt, models:/NAME/VERSION, models:/NAME@ALIAS or mlflow-artifacts:/PATH"
)


def download_artifact(uri: str, *, tracking_uri: str | None = None) -> Path:
    """Downloads a checkpoint from MLflow into the user's cache.

    The cache has the layout of a run folder: `checkpoints/best_model.pt`, and beside `checkpoints` the file
    `calibration.json` if MLflow has one. The checkpoint of a run that has ended is downloaded once, everything
    else each time.

    Args:
        uri: `runs:/<id>`, `runs:/<id>/<path>`, `models:/<name>/<version>`, `models:/<name>@<alias>` or
            `mlflow-artifacts:/<path>`; the best checkpoint is chosen if no `.pt` file is named.
        tracking_uri: MLflow tracking URI; None for MLFLOW_TRACKING_URI, or `mlflow.db` in the working folder.

    Returns:
        The downloaded file, below `$XDG_CACHE_HOME/fireseg/mlflow` or `~/.cache/fireseg/mlflow`.

    Raises:
        FiresegError: If MLflow cannot be reached, has no such artifact, or there is no checkpoint in it.
        SettingError: If the tracking URI is invalid.

    Example:
        >>> download_artifact("models:/fireseg@champion", tracking_uri="http://127.0.0.1:5000")  # doctest: +SKIP
    """
    prepare_environment()
    store = resolve_uri(tracking_uri)
    try:
        client = open_store(store, create=False)
        source, run_id = _resolve_source(client, uri)
        if not source.endswith(".pt"):
            source = _choose_checkpoint(source, store, uri)
        version = _get_run_version(client, run_id) if run_id else ""
        folder = _create_cache_folder(store, source, version)
        checkpoint = folder / CHECKPOINT_FOLDER / posixpath.basename(source)
        if not (version and checkpoint.exists()):
            _download(source, store, checkpoint)
        parent = posixpath.dirname(source)
        run_folder = posixpath.dirname(parent) if posixpath.basename(parent) == CHECKPOINT_FOLDER else parent
        calibration = folder / CALIBRATION_NAME
        if CALIBRATION_NAME in _list_names(run_folder, store):
            _download(posixpath.join(run_folder, CALIBRATION_NAME), store, calibration)
        else:
            calibration.unlink(missing_ok=True)
    except get_store_errors() as error:
        raise FiresegError(
            f"{uri}: not available from MLflow at {redact_uri(store)} ({format_reason(error, store)}); "
            "check the name, the server, and MLFLOW_TRACKING_URI"
        ) from error
    return checkpoint


def _resolve_source(client: MlflowClient, uri: str) -> tuple[str, str | None]:
    """Returns the URI of the files in their storage, and the id of their run if that is known."""
    if match := _RUN.fullmatch(uri):
        return _join(client.get_run(match["run"]).info.artifact_uri, match["path"]), match["run"]
    if uri.startswith("mlflow-artifacts:/"):
        return _join(uri), None
    if match := _LOGGED_MODEL.fullmatch(uri):
        location = client.get_logged_model(match["model"]).artifact_location
        return _join(location, match["path"]), None
    if not (match := _VERSION.fullmatch(uri)):
        raise FiresegError(f"{uri}: not an address of MLflow; write it as {_FORMS}")
    name, number = match["name"], match["version"]
    if match["alias"]:
        number = client.get_model_version_by_alias(name, match["alias"]).version
    elif number == "latest":
        versions = client.search_model_versions(f"name = '{name}'")
        number = max((version.version for version in versions), key=int, default="1")
    source = _join(client.get_model_version_download_uri(name, str(number)), match["path"])
    if source.startswith(("runs:/", "models:/m-")):
        return _resolve_source(client, source)
    return source, client.get_model_version(name, str(number)).run_id


def _join(root: str | None, path: str = "") -> str:
    return posixpath.join(root or "", path.strip("/")).rstrip("/")


def _get_run_version(client: MlflowClient, run_id: str) -> str:
    """Returns the end time of a run, which changes when it is resumed; empty while it is running."""
    info = client.get_run(run_id).info
    return str(info.end_time or "") if info.status != "RUNNING" else ""


def _choose_checkpoint(source: str, store: str, uri: str) -> str:
    available: list[str] = []
    for folder in ("", CHECKPOINT_FOLDER):
        names = _list_names(posixpath.join(source, folder), store)
        available += [posixpath.join(folder, name) for name in names]
        for name in CHECKPOINT_NAMES:
            if name in names:
                return posixpath.join(source, folder, name)
    hint = f"; available: {', '.join(available[:8])}" if available else ""
    raise FiresegError(f"{uri}: {CHECKPOINT_NAMES[0]} not found{hint}; name a run, or the checkpoint itself")


def _list_names(source: str, store: str) -> list[str]:
    from mlflow.artifacts import list_artifacts

    files = list_artifacts(artifact_uri=source.rstrip("/"), tracking_uri=store)
    return [posixpath.basename(file.path) for file in files if not file.is_dir]


def _create_cache_folder(store: str, source: str, version: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    key = hashlib.sha256("\n".join((store, source, version)).encode()).hexdigest()[:32]
    folder = Path(cache) / "fireseg" / "mlflow" / key
    try:
        (folder / CHECKPOINT_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error
    return folder


def _download(source: str, store: str, target: Path) -> None:
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part") as folder:
        Path(download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=store)).replace(target)
