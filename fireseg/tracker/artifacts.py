"""Downloads checkpoints from MLflow into a local cache."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fireseg.errors import FiresegError, did_you_mean
from fireseg.files import BEST_CHECKPOINT, CHECKPOINT_FOLDER, CHECKPOINT_NAMES, disk_error
from fireseg.tracker.mlflow_model import MODEL_NAME
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
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion


CALIBRATION_NAME = "calibration.json"
"""File that is downloaded as well if it exists beside the folder of the checkpoint."""

_RUN = re.compile(r"runs:/+(?P<run>[^/]+)(?P<path>.*)")

_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>\d+|latest))(?P<path>.*)")

_LOGGED_MODEL = re.compile(r"models:/+(?P<model>m-[^/@]+)(?P<path>.*)")

_MAX_NAMES = 1000

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
        origin = _find_origin(client, uri)
        source = origin.address
        if not source.endswith(".pt"):
            source = _choose_checkpoint(source, store, uri)
        folder = _create_cache_folder(store, source, origin.version)
        checkpoint = folder / CHECKPOINT_FOLDER / posixpath.basename(source)
        if not (origin.version and checkpoint.exists()):
            _download(source, store, checkpoint)
        parent = posixpath.dirname(source)
        is_in_run = posixpath.basename(parent) == CHECKPOINT_FOLDER
        run_folder = origin.run_folder or (posixpath.dirname(parent) if is_in_run else parent)
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


class _Origin(NamedTuple):
    """The place of a checkpoint in the storage.

    Attributes:
        address: URI of the checkpoint, or of a folder with it.
        version: Text that changes with the content; empty if that may change at any time.
        run_folder: URI of the folder with the calibration, if it is not the one of the checkpoint.
    """

    address: str
    version: str
    run_folder: str = ""


def _find_origin(client: MlflowClient, uri: str) -> _Origin:
    if match := _RUN.fullmatch(uri):
        return _find_in_run(client, client.get_run(match["run"]), match["path"].strip("/"))
    if uri.startswith("mlflow-artifacts:/"):
        return _Origin(_join(uri), "")
    if match := _LOGGED_MODEL.fullmatch(uri):
        model = client.get_logged_model(match["model"])
        return _Origin(_join(model.artifact_location, match["path"]), model.model_id if _is_ready(model) else "")
    if not (match := _VERSION.fullmatch(uri)):
        raise FiresegError(f"{uri}: not an address of MLflow; write it as {_FORMS}")
    version = find_version(client, match["name"], alias=match["alias"], number=match["version"])
    stored = f"models:/{version.model_id}" if version.model_id else str(version.source)
    if _LOGGED_MODEL.fullmatch(stored):
        return _find_origin(client, f"{stored}{match['path']}")
    source = _join(client.get_model_version_download_uri(match["name"], str(version.version)), match["path"])
    if source.startswith(("runs:/", "models:/m-")):
        return _find_origin(client, source)
    return _Origin(source, _get_run_version(client.get_run(version.run_id)) if version.run_id else "")


def _find_in_run(client: MlflowClient, run: Run, path: str) -> _Origin:
    """Finds the best checkpoint in the newest model of a run, or else, and any other file, among the files of the run.

    The calibration is that of the run in either case: an evaluation made after the training is in the run only.
    """
    root, version = _join(run.info.artifact_uri), _get_run_version(run)
    if path in ("", CHECKPOINT_FOLDER, f"{CHECKPOINT_FOLDER}/{BEST_CHECKPOINT}"):
        outputs = run.outputs.model_outputs if run.outputs else []
        for output in sorted(outputs, key=lambda output: output.step, reverse=True):
            model = client.get_logged_model(output.model_id)
            if model.name == MODEL_NAME and _is_ready(model):
                return _Origin(_join(model.artifact_location, f"artifacts/{BEST_CHECKPOINT}"), version, root)
    return _Origin(_join(root, path), version)


def _is_ready(model: LoggedModel) -> bool:
    return str(model.status) == "READY"


def find_version(client: MlflowClient, name: str, *, alias: str | None, number: str | None) -> ModelVersion:
    """Finds a version of a registered model.

    Args:
        client: Client of the store.
        name: Name of the registered model.
        alias: Alias of the version; None if its number is given.
        number: Number of the version, or `latest`.

    Raises:
        FiresegError: If there is no such model, alias or version; with the nearest one.
    """
    from mlflow.exceptions import MlflowException

    shown = f"models:/{name}@{alias}" if alias else f"models:/{name}/{number}"
    store = redact_uri(client.tracking_uri)
    cure = "`fireseg register RUN` registers a model; check MLFLOW_TRACKING_URI"
    try:
        registered = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [model.name for model in client.search_registered_models(max_results=_MAX_NAMES)]
        raise FiresegError(
            f"{shown}: no model {name} is registered in MLflow at {store}{did_you_mean(name, names)}; {cure}"
        ) from error
    if alias:
        if (version := registered.aliases.get(alias)) is None:
            known = f"its aliases: {', '.join(sorted(registered.aliases)) or 'none'}"
            hint = did_you_mean(alias, registered.aliases)
            raise FiresegError(f"{shown}: {name} has no alias {alias} in MLflow at {store}{hint}; {known}; {cure}")
        return client.get_model_version(name, str(version))
    versions = {str(version.version): version for version in client.search_model_versions(f"name = '{name}'")}
    newest = max(versions, key=int, default="none")
    wanted = newest if number == "latest" else str(number)
    if wanted not in versions:
        raise FiresegError(f"{shown}: no such version in MLflow at {store}; the newest is {newest}; {cure}")
    return versions[wanted]


def _join(root: str | None, path: str = "") -> str:
    return posixpath.join(root or "", path.strip("/")).rstrip("/")


def _get_run_version(run: Run) -> str:
    """Returns the end time of a run, which changes when it is resumed; empty while it is running."""
    info = run.info
    return str(info.end_time or "") if info.status != "RUNNING" else ""


def _choose_checkpoint(source: str, store: str, uri: str) -> str:
    available: list[str] = []
    for folder in ("", CHECKPOINT_FOLDER, "artifacts"):
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
