"""Address, creation and errors of MLflow tracking stores."""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.files import check_regular_file, disk_error

if TYPE_CHECKING:
    from mlflow import MlflowClient


log = logging.getLogger("fireseg")

_SQLITE = "sqlite:///"

_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")

# Jobs of a sweep open a store one after the other, each in seconds. A wait is told before it gets long.
_LOCK_SECONDS, _QUIET_LOCK_SECONDS = 180.0, 5.0

_BUSY_SECONDS = 10.0
"""Time to wait for a transaction of another program."""

_ARTIFACTS = "mlartifacts"
"""Folder of artifacts beside an SQLite store."""

_ARTIFACT_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow stores paths of artifacts."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # No retries inside the client: they sleep, and the tracker repeats a failed call anyway.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # A lock file in the working folder is not that of a stored model.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def prepare_environment() -> None:
    """Sets the variables that MLflow reads at import: no telemetry, no banners, short timeouts.

    Variables that the user has set are left as they are.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Logs a traceback for every error that it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def resolve_uri(uri: str | None) -> str:
    """Checks a tracking URI and makes a path in it absolute.

    Args:
        uri: MLflow tracking URI; None for MLFLOW_TRACKING_URI, or `mlflow.db` in the working folder.

    Returns:
        The URI, independent of the working folder.

    Raises:
        SettingError: If MLflow has no such kind of store.

    Example:
        >>> resolve_uri("sqlite:////runs/mlflow.db")
        'sqlite:////runs/mlflow.db'
    """
    setting = "tracker.uri" if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    shown = redact_uri(uri)
    scheme = uri.partition(":")[0].partition("+")[0] if ":" in uri or uri == "databricks" else ""
    if not scheme or scheme == "file":
        path = Path(uri.removeprefix("file://").removeprefix("file:") or "mlruns")
        name = path if path.suffix == ".db" else path.parent / "mlflow.db"
        raise SettingError(f"{setting}: '{shown}', but MLflow keeps runs in a database; try {_SQLITE}{name.absolute()}")
    if scheme not in _SCHEMES:
        raise SettingError(
            f"{setting}: '{shown}', but MLflow supports {', '.join(_SCHEMES)}{did_you_mean(scheme, _SCHEMES)}"
        )
    if scheme in ("http", "https") and not _get_host(uri):
        raise SettingError(f"{setting}: '{shown}' has no host name; write it as http://127.0.0.1:5000")
    if scheme not in ("sqlite", "databricks") and not _has_valid_port(uri):
        raise SettingError(
            f"{setting}: '{shown}' has no valid port; write it as HOST:5432, and a / in a password as %2F"
        )
    if scheme != "sqlite":
        return uri
    path, mark, query = uri.removeprefix(_SQLITE).partition("?")
    if not uri.startswith(_SQLITE) or not path or path == ":memory:":
        raise SettingError(f"{setting}: '{uri}' has no file name; write it as {_SQLITE}{Path('mlflow.db').absolute()}")
    database = Path(path).expanduser().absolute()
    try:
        check_regular_file(database)
    except FiresegError as error:
        raise SettingError(f"{setting}: {error}; such as {_SQLITE}{Path('mlflow.db').absolute()}") from error
    return f"{_SQLITE}{database}{mark}{query}"


def _get_host(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:  # brackets that do not match
        return None


def _has_valid_port(uri: str) -> bool:
    try:
        _ = urlsplit(uri).port  # raises an error if it is no number from 0 to 65535
    except ValueError:
        return False
    return True


def check_no_password(uri: str | None) -> str | None:
    """Checks that a tracking URI in the settings has no password: config.json and the tracker would store it.

    Args:
        uri: The setting.

    Returns:
        The same.

    Raises:
        ValueError: If it has a password.
    """
    if uri and redact_uri(uri) != uri and (":" in uri.partition("://")[2].rpartition("@")[0] or "?" in uri):
        raise ValueError(
            f"'{redact_uri(uri)}' with a password, which config.json would store; set the environment variable "
            "MLFLOW_TRACKING_URI to the URI with its password, and leave tracker.uri=null"
        )
    return uri


def redact_uri(uri: str) -> str:
    """Removes user name, password and query from the URI of a server, for messages.

    Example:
        >>> redact_uri("postgresql://forester:secret@db/mlflow?sslpassword=secret")
        'postgresql://db/mlflow'
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.partition("+")[0] in ("sqlite", "file"):
        return uri
    # A password may contain unescaped slashes and question marks; it ends at the last @.
    return f"{scheme}{mark}{rest.rpartition('@')[2].partition('?')[0]}"


def redact_text(text: str, uri: str) -> str:
    """Removes the user name and password of a URI from a message of a library.

    Args:
        text: The message.
        uri: URI that may stand in it, whole or in parts.
    """
    if redact_uri(uri) == uri:
        return text
    user, _, server = uri.partition("://")[2].rpartition("@")
    password, query = user.partition(":")[2], server.partition("?")[2]
    for secret in (f"{user}@" * bool(user), f"?{query}" * bool(query)):
        text = text.replace(secret, "") if secret else text
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


def describe_charts(uri: str | None) -> str:
    """Returns the command that shows the charts of a local store, or the address of a server.

    Args:
        uri: MLflow tracking URI, see `resolve_uri`.
    """
    store = resolve_uri(uri)
    if store.startswith("http"):
        return redact_uri(store)
    return f"python -m mlflow ui --backend-store-uri {shlex.quote(redact_uri(store))}"


def get_database(uri: str) -> Path | None:
    """Returns the file of an SQLite store, None for a server."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def open_store(uri: str, *, create: bool = True) -> MlflowClient:
    """Opens a store; an SQLite store is created if it does not exist.

    Several processes may do this at the same time: one creates the store, the others wait.

    Args:
        uri: URI from `resolve_uri`.
        create: Whether an SQLite store may be created.

    Raises:
        FiresegError: If the SQLite store cannot be created or read, or does not exist and may not be created.
    """
    prepare_environment()
    from mlflow import MlflowClient

    database = get_database(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri)
    if not create and not database.is_file():
        raise FiresegError(f"{database}: no such MLflow store; set MLFLOW_TRACKING_URI to the right one")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # Opening migrates the schema of an older MLflow, which only one process may do at a time.
        with _locked(database):
            if not database.exists() or database.stat().st_size == 0:
                _create_database(database)
            return _open_database(uri, database)
    except OSError as error:
        raise disk_error(database, error) from error


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    lock = FileLock(database.with_name(f"{database.name}.lock"))
    try:
        try:
            lock.acquire(timeout=_QUIET_LOCK_SECONDS)
        except Timeout:
            log.info(
                "%s: another process is opening it; waiting for at most %.0f s, Ctrl-C stops", database, _LOCK_SECONDS
            )
            lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as error:
        raise FiresegError(
            f"{database}: another process has held {lock.lock_file} for {_LOCK_SECONDS:.0f} s; end that process, or "
            "choose another tracker.uri"
        ) from error
    try:
        yield
    finally:
        lock.release()


def get_experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """Returns the id of an experiment, which is created if it does not exist.

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
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # created by another process in the meantime
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise FiresegError(
            f"tracker.experiment: '{name}' was deleted from {redact_uri(uri)}; "
            "restore it with `mlflow experiments restore`, or choose another name"
        )
    return experiment.experiment_id


def _artifact_location(uri: str) -> str | None:
    # MLflow's default is ./mlruns in the current working folder; a server has a location configured.
    database = get_database(uri)
    return (database.parent / _ARTIFACTS).as_uri() if database else None


def relocate_artifacts(database: Path) -> None:
    """Corrects the absolute paths of artifacts in an SQLite store that was moved or copied with its `mlartifacts`.

    MLflow stores the path of every run: it would look for files in the former folder, and create that again to
    write into. Paths elsewhere are left alone if they exist and the store has no files of the same runs.

    Args:
        database: An existing store with the schema of the installed MLflow.

    Raises:
        FiresegError: If the store cannot be changed.
    """
    root = database.parent / _ARTIFACTS
    try:
        with closing(sqlite3.connect(database, timeout=_BUSY_SECONDS)) as connection, connection:
            rows = [row for place in _ARTIFACT_COLUMNS for row in _list_artifacts(connection, place)]
            former = {row.root for row in rows if row.root != root and not _is_same(row.root, root)}
            moved = {old for old in former if not _exists(old) or any(_is_below(row, old, root) for row in rows)}
            for row in rows:
                new = root / row.path
                if row.root in moved and (_exists(new) or not _exists(row.root / row.path)):
                    table, column = row.place
                    update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
                    connection.execute(update, (new.as_uri(), row.number))
    except sqlite3.Error as error:
        raise FiresegError(f"{database}: cannot be updated ({error}); close other programs that use it") from error
    for old in sorted(moved & {row.root for row in rows if row.place[0] == "runs"}):
        log.info("%s: moved here from %s; files of its runs are read and written in %s", database, old.parent, root)


class _Artifacts(NamedTuple):
    """A path of artifacts in a store: its place in the database, `mlartifacts`, and the path below."""

    place: tuple[str, str]
    number: int
    root: Path
    path: Path


def _list_artifacts(connection: sqlite3.Connection, place: tuple[str, str]) -> Iterator[_Artifacts]:
    table, column = place
    for number, uri in connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%{_ARTIFACTS}%'"):
        path = Path(url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri)
        if path.is_absolute() and _ARTIFACTS in path.parts:
            depth = len(path.parts) - path.parts[::-1].index(_ARTIFACTS)
            root = Path(*path.parts[:depth])
            yield _Artifacts(place, number, root, path.relative_to(root))


def _is_below(row: _Artifacts, old: Path, root: Path) -> bool:
    """Returns True if files of a run, recorded below the folder `old`, are in `root`."""
    return row.root == old and row.path != Path() and _exists(root / row.path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be read
        return False


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _create_database(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # A process killed during the migrations would leave a store that cannot be opened again:
    # the store is created under another name, then renamed.
    target = Path(os.path.realpath(database))  # a symbolic link stays
    part = target.with_name(f"{target.name}.part")
    for leftover in (part, part.with_name(f"{part.name}-journal")):
        leftover.unlink(missing_ok=True)
    part.touch()
    store = SqlAlchemyStore(f"{_SQLITE}{part}", _artifact_location(f"{_SQLITE}{database}"))
    store.engine.dispose()
    part.replace(target)


def _open_database(uri: str, database: Path) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with database.open("rb") as file:
        if file.read(15) != b"SQLite format 3":
            raise FiresegError(f"{database}: not an SQLite file; move it away, or choose another tracker.uri")
    # SQLite writes its journal into the same folder.
    if not (os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)):
        raise FiresegError(f"{database}: cannot be written; choose another tracker.uri")
    try:
        client = MlflowClient(tracking_uri=uri)
    except MlflowException as error:
        if error.error_code == "TEMPORARILY_UNAVAILABLE":  # locked by a long write of another process
            raise
        raise FiresegError(
            f"{database}: this version of MLflow cannot read it ({str(error).splitlines()[0][:200]}); "
            f"make a copy and run `mlflow db upgrade {shlex.quote(uri)}`, or choose another tracker.uri"
        ) from error
    relocate_artifacts(database)
    return client


# A repeated call would fail with these again.
_PERMANENT_CODES = frozenset(
    {
        "BAD_REQUEST",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)

_TEMPORARY_STATUS = frozenset({401, 403, 408, 429})

# Databases and artifact stores raise errors of their libraries, which can occur only once these are imported.
_LIBRARY_ERRORS = {
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "azure.core.exceptions": ("AzureError",),
}


def get_store_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions that MLflow and its storage raise when they fail (those of requests are OSErrors)."""
    from mlflow.exceptions import MlflowException

    library_errors = [
        getattr(sys.modules[module], name)
        for module, names in _LIBRARY_ERRORS.items()
        if module in sys.modules
        for name in names
    ]
    return (MlflowException, OSError, ImportError, *library_errors)


def is_permanent(error: Exception) -> bool:
    """Returns True if the same call would fail again, however often it is repeated.

    Args:
        error: One of `get_store_errors()`.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _TEMPORARY_STATUS
    return is_misconfigured(error) or getattr(error, "error_code", None) in _PERMANENT_CODES


def is_misconfigured(error: Exception) -> bool:
    """Returns True if the driver of a database is unknown or not installed."""
    is_unknown = "sqlalchemy.exc" in sys.modules and isinstance(error, sys.modules["sqlalchemy.exc"].ArgumentError)
    return is_unknown or isinstance(error, ImportError)


def format_reason(error: BaseException, uri: str) -> str:
    """Formats the cause of a failed call: the message of the operating system if that is the root, else the first line.

    Args:
        error: The exception raised.
        uri: URI of the store, whose password is left out.
    """
    root = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    if isinstance(root, OSError) and type(root).__module__ in ("builtins", "socket"):
        return root.strerror or str(root)
    lines = str(error).strip().splitlines()
    return redact_text(lines[0], uri)[:300] if lines else type(error).__name__
