"""Where MLflow keeps its runs: an address checked at once, a local store made once."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from fireseg.disk import disk_error
from fireseg.errors import FiresegError, SettingError, did_you_mean

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_LOCK_SECONDS = 180.0

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # No retries inside the client: they sleep, and what failed is asked again by the outbox anyway.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare_environment() -> None:
    """What MLflow reads at import: no calls home, no banners, no long waits. What the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints a traceback of its own for every error that it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def resolve_uri(uri: str | None) -> str:
    """The tracking address, absolute.

    Args:
        uri: An address that MLflow knows; None for MLFLOW_TRACKING_URI, or `mlflow.db` in the working folder.

    Returns:
        The same address; a path in it no longer depends on the working folder.

    Raises:
        SettingError: If MLflow has no such kind of store.

    Example:
        >>> resolve_uri("sqlite:////runs/mlflow.db")
        'sqlite:////runs/mlflow.db'
    """
    place = "tracker.uri" if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    scheme = uri.partition(":")[0].partition("+")[0] if ":" in uri or uri == "databricks" else ""
    if not scheme or scheme == "file":
        path = Path(uri.removeprefix("file://").removeprefix("file:") or "mlruns")
        name = path if path.suffix == ".db" else path.parent / "mlflow.db"
        raise SettingError(f"{place}: '{uri}', but MLflow keeps runs in a database; try {_SQLITE}{name.absolute()}")
    if scheme not in _SCHEMES:
        raise SettingError(f"{place}: '{uri}', but MLflow knows {', '.join(_SCHEMES)}{did_you_mean(scheme, _SCHEMES)}")
    if scheme in ("http", "https") and not urlsplit(uri).hostname:
        raise SettingError(f"{place}: '{uri}' names no host; write it as http://127.0.0.1:5000")
    return _absolute_sqlite(uri, place) if scheme == "sqlite" else uri


def get_address(uri: str) -> str:
    """The address without a password, for messages.

    Example:
        >>> get_address("postgresql://forester:secret@db/mlflow")
        'postgresql://db/mlflow'
    """
    scheme, mark, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def get_database(uri: str) -> Path | None:
    """The file of a local store, None where the store is a server."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def open_store(uri: str) -> MlflowClient:
    """A client of the store; a local one is made first where there is none.

    Eight processes may do this together on a store that is not there yet: one makes it, the others wait.

    Args:
        uri: From `resolve_uri`.

    Raises:
        FiresegError: If the local store cannot be made or read.
    """
    prepare_environment()
    from mlflow import MlflowClient

    database = get_database(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # Opening migrates an old store, so even that is for one process at a time.
        with FileLock(database.with_name(f"{database.name}.lock"), timeout=_LOCK_SECONDS):
            _check_or_make(database)
            return _open_database(uri, database)
    except OSError as error:
        raise disk_error(database, error) from error


def open_existing(uri: str) -> MlflowClient:
    """A client of a store that is there already: a question makes none.

    Args:
        uri: From `resolve_uri`.

    Raises:
        FiresegError: If there is no local store, or it cannot be read.
    """
    database = get_database(uri)
    if database is not None and not database.is_file():
        raise FiresegError(f"{database}: no such MLflow store; name the right one in MLFLOW_TRACKING_URI")
    return open_store(uri)


def get_experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The id of an experiment, made where there is none; another process may make it at the same time.

    Raises:
        FiresegError: If the experiment was deleted: MLflow then accepts neither runs nor a new one of that name.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(
                name,
                artifact_location=_artifact_location(uri),
                tags={"mlflow.experimentKind": "custom_model_development"},  # opens on runs, not on chat traces
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise FiresegError(
            f"tracker.experiment: '{name}' was deleted from {get_address(uri)}; "
            "bring it back with `mlflow experiments restore`, or choose another name"
        )
    return experiment.experiment_id


def _absolute_sqlite(uri: str, place: str) -> str:
    name, mark, query = uri.removeprefix(_SQLITE).partition("?")
    if not uri.startswith(_SQLITE) or not name or name == ":memory:":
        raise SettingError(f"{place}: '{uri}' names no file; write it as {_SQLITE}{Path('mlflow.db').absolute()}")
    return f"{_SQLITE}{Path(name).expanduser().absolute()}{mark}{query}"


def _artifact_location(uri: str) -> str | None:
    # MLflow's own default is ./mlruns of whatever the working folder is; a server knows its own place.
    database = get_database(uri)
    return (database.parent / "mlartifacts").as_uri() if database else None


def _check_or_make(database: Path) -> None:
    if not database.exists() or database.stat().st_size == 0:
        _make_database(database)
        return
    with database.open("rb") as file:
        head = file.read(15)
    if head != b"SQLite format 3":
        raise FiresegError(f"{database}: not an SQLite file; move it away, or choose another tracker.uri")
    if not (os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)):  # SQLite keeps its journal beside
        raise FiresegError(f"{database}: cannot be written; choose another tracker.uri")


def _make_database(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # A process killed half-way through the migrations would leave a store that nobody can open again:
    # it is made beside, then renamed.
    part = database.with_name(f"{database.name}.part")
    for leftover in (part, part.with_name(f"{part.name}-journal")):
        leftover.unlink(missing_ok=True)
    part.touch()
    store = SqlAlchemyStore(f"{_SQLITE}{part}", _artifact_location(f"{_SQLITE}{database}"))
    store.engine.dispose()
    part.replace(database)


def _open_database(uri: str, database: Path) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient(tracking_uri=uri)
    except MlflowException as error:
        if error.error_code == "TEMPORARILY_UNAVAILABLE":  # another process writes at length
            raise
        raise FiresegError(
            f"{database}: this version of MLflow cannot read it ({str(error).splitlines()[0][:200]}); "
            f"copy it away and run `mlflow db upgrade {uri}`, or choose another tracker.uri"
        ) from error
