"""Where MLflow keeps its runs: an address checked at once, a local store made once."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.files import disk_error

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


# What asking again cannot mend: the operation itself is not to MLflow's liking.
_REFUSALS = frozenset(
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

_PASSING_STATUS = frozenset({401, 403, 408, 429})

# Databases and artifact stores raise errors of their own; each is known only where its library has been imported.
_STORE_ERRORS = {
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "azure.core.exceptions": ("AzureError",),
}


def failures() -> tuple[type[Exception], ...]:
    """What MLflow and the stores behind it raise when they are away (errors of requests are OSErrors)."""
    from mlflow.exceptions import MlflowException

    known = [
        getattr(sys.modules[module], name)
        for module, names in _STORE_ERRORS.items()
        if module in sys.modules
        for name in names
    ]
    return (MlflowException, OSError, ImportError, *known)


def is_refusal(error: Exception) -> bool:
    """Whether the same operation would fail again, however often it is tried.

    Args:
        error: One of `failures()`.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _PASSING_STATUS
    return isinstance(error, ImportError) or getattr(error, "error_code", None) in _REFUSALS


log = logging.getLogger("fireseg")

_TRIES = 3

_QUICK_SECONDS = 1.0

# A silent server may hold up one call in full (10 s with our timeout); asking again only after ten
# times as long keeps its cost below a tenth of the training.
_PATIENCE = 10.0


class Lane(IntEnum):
    """What waits for what: records go first, and a store that refuses files does not hold up records."""

    RECORDS = 0
    FILES = 1
    CLOSING = 2


@dataclass(frozen=True, kw_only=True)
class _Entry:
    deliver: Callable[[], None]
    key: Hashable


class Outbox:
    """Operations on a service that may be away.

    An operation that fails stays at the head of its lane and is tried again at the next call; it must
    bear being carried out twice. The first failure is warned of, later ones are not.

    Args:
        service: What the warning calls the service, address included.
        failures: The exceptions that mean "not now", asked when one is met so that it needs no import before.
        is_refusal: Whether such an exception means "never": after three tries the operation is dropped.
    """

    def __init__(
        self,
        service: str,
        *,
        failures: Callable[[], tuple[type[Exception], ...]],
        is_refusal: Callable[[Exception], bool],
    ) -> None:
        self._service = service
        self._failures = failures
        self._is_refusal = is_refusal
        self._lanes: dict[Lane, deque[_Entry]] = {lane: deque() for lane in Lane}
        self._not_before = 0.0
        self._is_away = False
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def put(self, deliver: Callable[[], None], *, lane: Lane = Lane.RECORDS, key: Hashable = None) -> None:
        """Adds an operation; one that waits under the same key is forgotten for it."""
        entries = self._lanes[lane]
        if key is not None:
            entries = deque(entry for entry in entries if entry.key != key)
        entries.append(_Entry(deliver=deliver, key=key))
        self._lanes[lane] = entries

    def clear(self) -> None:
        """Forgets everything."""
        for lane in self._lanes.values():
            lane.clear()

    def deliver(self, *, last: bool = False) -> None:
        """Carries out what waits, as far as the service answers.

        Args:
            last: Whether there will be no other time: the service is asked even if it was silent a moment ago.
        """
        if time.monotonic() < self._not_before and not last:
            return
        for lane in Lane:
            began = time.monotonic()
            if not self._empty(self._lanes[lane]):
                self._not_before = time.monotonic() + _PATIENCE * (time.monotonic() - began)
                if lane is Lane.RECORDS:
                    return
        if self._is_away and not len(self):
            log.info("%s: answers again, everything kept back is delivered", self._service)
            self._is_away = False

    def _empty(self, entries: deque[_Entry]) -> bool:
        while entries:
            error = self._try(entries[0])
            if error is not None and not self._is_refusal(error):
                self._is_away = True
                self._warn("away", f"{find_reason(error)}; training goes on, and this is tried again later")
                return False
            if error is not None:
                self._warn("refused", f"refused an entry for good ({find_reason(error)}); training goes on without it")
            entries.popleft()
        return True

    def _try(self, entry: _Entry) -> Exception | None:
        # A second try at once mends a dropped connection, or two processes that wrote the same row.
        began, failure = time.monotonic(), None
        for _ in range(_TRIES):
            try:
                entry.deliver()
            except self._failures() as error:
                failure = error
            else:
                return None
            if time.monotonic() - began > _QUICK_SECONDS:
                break
        return failure

    def _warn(self, kind: str, message: str) -> None:
        level = logging.INFO if kind in self._warned else logging.WARNING
        self._warned.add(kind)
        log.log(level, "%s: %s; every number stays in the run folder (metrics.jsonl)", self._service, message)


def find_reason(error: BaseException) -> str:
    """Why an operation failed: the words of the operating system where they are at the root of it, else the first line.

    Args:
        error: What was raised.
    """
    root = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    if isinstance(root, OSError) and type(root).__module__ in ("builtins", "socket"):
        return root.strerror or str(root)
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
