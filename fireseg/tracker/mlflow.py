"""Reports runs to MLflow, and repeats what a server that was down did not receive."""

from __future__ import annotations

import getpass
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from fireseg.console import format_command
from fireseg.errors import FiresegError
from fireseg.files import CHECKPOINT_FOLDER
from fireseg.tracker.mlflow_store import (
    check_no_password,
    format_reason,
    get_experiment_id,
    get_store_errors,
    is_misconfigured,
    is_permanent,
    open_store,
    prepare_environment,
    redact_uri,
    resolve_uri,
)
from fireseg.tracker.protocol import (
    EpochMetrics,
    Status,
    TrackedModel,
    TrackedRun,
    as_key,
    finite,
    flatten,
    name_metric,
    now_ms,
    shorten,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


log = logging.getLogger("fireseg")

_ENTRIES_PER_CALL = 100

_MAX_TAG = 5000

_TRIES, _QUICK_SECONDS = 3, 1.0

# A server that does not answer may block one call for the whole timeout (10 s). Waiting ten times as long
# before the next one keeps this below a tenth of the training time.
_WAIT_FACTOR = 10.0


def create_mlflow_tracker(
    *,
    uri: Annotated[str | None, AfterValidator(check_no_password)] = None,
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "fireseg",
    run_name: str | None = None,
    log_model: bool = True,
) -> MlflowTracker:
    """Creates a tracker that reports to MLflow.

    A server that is down does not stop the training: what is missing is sent when it answers again, at
    the end of the run, or by `python -m fireseg.runs sync`.

    Args:
        uri: The tracking URI; None for MLFLOW_TRACKING_URI, or an SQLite file `mlflow.db` in the working folder.
        experiment: The experiment of the run.
        run_name: Display name of the run, in place of the default one.
        log_model: Store the best checkpoint as a model that `mlflow.pyfunc.load_model` and `mlflow models serve` load,
            instead of as a file of the run.

    Returns:
        A tracker for one run.

    Raises:
        SettingError: If MLflow has no such kind of store.

    Example:
        >>> tracker = create_mlflow_tracker(uri="http://127.0.0.1:5000", experiment="encoders")
    """
    return MlflowTracker(resolve_uri(uri), experiment, run_name, log_model=log_model)


class MlflowTracker:
    """Sends one run to MLflow; see `create_mlflow_tracker`.

    Each call sends what the service has not received yet: the run with its settings, then the recorded
    epochs in order, files, and the end. Every step can be repeated, so that one whose response was lost
    is not recorded twice.
    """

    def __init__(self, uri: str, experiment: str, run_name: str | None, *, log_model: bool) -> None:
        self._uri, self._experiment, self._run_name, self._log_model = uri, experiment, run_name, log_model
        self._service = f"MLflow at {redact_uri(uri)}"
        self._run: _MlflowRun | None = None
        self._first_steps: list[Callable[[], None]] = []
        self._last_epoch = 0
        self._times_ms: dict[int, int] = {}
        self._files: dict[tuple[str, str], Path] = {}
        self._model: TrackedModel | None = None
        self._status: Status | None = None
        self._retry_at = 0.0
        self._warned: set[str] = set()
        self._is_complete = True
        self.has_refusals = False
        """True if the service refused an entry for good: it is only in the run folder."""

    @property
    def run_ids(self) -> dict[str, str]:
        """`{"mlflow": id}`, empty until the store has created the run."""
        return {"mlflow": self._run.run_id} if self._run and self._run.run_id else {}

    @property
    def is_complete(self) -> bool:
        """True if everything so far was received, and nothing was refused."""
        return self._run is not None and self._is_complete and not self.has_refusals

    @property
    def num_sent(self) -> tuple[int, int]:
        """Number of epochs and of files sent so far, without those that the service had received before."""
        return (self._run.num_epochs, self._run.num_files) if self._run else (0, 0)

    def start(self, run: TrackedRun, run_ids: Mapping[str, str] | None = None) -> None:
        """Creates the run, or continues the one of `run_ids`.

        MLflow parameters cannot be changed: a setting that has another value on resume becomes a tag,
        `resumed.engine.epochs`.
        """
        prepare_environment()
        run_id = (run_ids or {}).get("mlflow", "")
        self._run = _MlflowRun(self._uri, self._experiment, self._run_name or run.name, run, run_id)
        self._first_steps = [self._run.open, self._run.log_params, self._run.log_dataset]
        self._send(self._run)

    def sync(self) -> None:
        """Sends the epochs and files that were not received before."""
        if self._run is None:
            return
        try:
            self._send(self._run)
        except FiresegError as error:
            # At the start this ends the program; hours later only the tracking ends.
            log.warning("%s; training continues untracked, all results are in the run folder (metrics.jsonl)", error)
            self._run = None

    def artifact(self, path: Path, folder: str = "") -> None:
        """Sends a file; of several with the same name that are waiting only the newest is sent."""
        self._files[folder, path.name] = path.absolute()
        self.sync()

    def model(self, checkpoint: Path, describe: Callable[[], TrackedModel]) -> None:
        """Sends the best checkpoint, as a model or as a file; a model that is stored already is not sent again."""
        if self._log_model:
            self._model = describe()
            self.sync()
        else:
            self.artifact(checkpoint, CHECKPOINT_FOLDER)

    def finish(self, status: Status) -> None:
        """Ends the run, after a last attempt to send what is missing."""
        self._status, self._retry_at = status, 0.0
        self.sync()
        if self._run is not None and not self._is_complete:
            folder = Path(self._run.record.tags.get("run_folder", "RUN"))
            command = format_command("runs", "sync", folder)
            log.info("%s did not receive everything; this sends it: %s", self._service, command)

    def _send(self, run: _MlflowRun) -> None:
        unsent = self._list_unsent(run.record)
        if (began := time.monotonic()) < self._retry_at:
            return
        was_complete, self._is_complete = self._is_complete, self._send_all(run, unsent)
        if not self._is_complete:
            self._retry_at = time.monotonic() + _WAIT_FACTOR * (time.monotonic() - began)
        elif not was_complete:
            log.info("%s: answers again, everything is sent", self._service)

    def _send_all(self, run: _MlflowRun, unsent: Sequence[EpochMetrics]) -> bool:
        while self._first_steps:
            if not self._try(self._first_steps[0]):
                return False
            self._first_steps.pop(0)
        for epoch, metrics in unsent:
            if not self._try(partial(run.log_epoch, epoch, metrics, self._times_ms[epoch])):
                return False
            self._last_epoch = epoch
        # A file storage that is down delays neither epochs nor the end.
        are_files_sent = self._send_files(run) and self._send_model(run)
        is_ended = self._status is None or self._try(partial(run.end, self._status))
        return are_files_sent and is_ended

    def _send_files(self, run: _MlflowRun) -> bool:
        for (folder, name), path in list(self._files.items()):
            if not self._try(partial(run.log_file, path, folder)):
                return False
            del self._files[folder, name]
        return True

    def _send_model(self, run: _MlflowRun) -> bool:
        if self._model is not None:
            if not self._try(partial(run.log_model, self._model)):
                return False
            self._model = None
        return True

    def _list_unsent(self, record: TrackedRun) -> list[EpochMetrics]:
        unsent = [(epoch, metrics) for epoch, metrics in record.read_epochs() if epoch > self._last_epoch]
        # The time of an epoch never changes, because MLflow stores an equal row with an equal time only once.
        # Of several new epochs the earlier ones are dated back by the duration of the later ones.
        time_ms = record.ended_ms or now_ms()
        for epoch, metrics in reversed(unsent):
            time_ms = self._times_ms.setdefault(epoch, time_ms) - int(1000 * _get_seconds(metrics))
        return unsent

    def _try(self, send: Callable[[], None]) -> bool:
        """Returns True if the call was accepted or refused for good, False if it has to be repeated later."""
        # Repeating at once is enough after a dropped connection, or if two processes wrote the same row.
        began = time.monotonic()
        for number in range(1, _TRIES + 1):
            try:
                send()
                break
            except get_store_errors() as error:
                if number < _TRIES and time.monotonic() - began < _QUICK_SECONDS:
                    continue
                reason = format_reason(error, self._uri)
                if not is_permanent(error):
                    self._warn("unreachable", f"{reason}; training continues, and this is sent later")
                    return False
                self.has_refusals = True
                self._warn("refused", f"refused an entry ({reason}); training continues without it")
                break
        return True

    def _warn(self, kind: str, message: str) -> None:
        level = logging.INFO if kind in self._warned else logging.WARNING
        self._warned.add(kind)
        log.log(level, "%s: %s; all results are in the run folder (metrics.jsonl)", self._service, message)


def _get_seconds(metrics: Mapping[str, float | None]) -> float:
    """Returns the duration of an epoch."""
    return next((metrics[name] for name in ("seconds", name_metric("seconds")) if name in metrics), None) or 0.0


class _MlflowRun:
    """A run in an MLflow store. Every method can be repeated without recording anything twice."""

    _client: MlflowClient

    def __init__(self, uri: str, experiment: str, name: str, record: TrackedRun, run_id: str) -> None:
        self.record, self.run_id = record, run_id
        self.num_epochs = self.num_files = 0
        self._uri, self._experiment, self._name = uri, experiment, name
        self._params: Mapping[str, str] = {}
        self._history: dict[str, dict[int, float]] = {}

    def open(self) -> None:
        try:
            self._client = open_store(self._uri)
            run = self._find() or self._create()
        except get_store_errors() as error:
            if not is_permanent(error):
                raise
            address, reason = redact_uri(self._uri), format_reason(error, self._uri)
            cure = "check the URI"
            if is_misconfigured(error):
                cure = "install the driver of the database with pip, or correct the URI"
            # Without the cause, whose message and traceback may contain the password.
            raise FiresegError(f"tracker.uri: {address} refuses the run ({reason}); {cure}") from None
        self.run_id, self._params = run.info.run_id, run.data.params
        for key in run.data.metrics:
            history = self._client.get_metric_history(self.run_id, key)
            self._history[key] = {metric.step: metric.value for metric in history}

    def _find(self) -> Run | None:
        from mlflow.exceptions import MlflowException

        if not self.run_id:
            return None
        run = None
        try:
            run = self._client.get_run(self.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        if run is None or run.info.lifecycle_stage == "deleted":
            log.warning("MLflow at %s: run %s does not exist; creating a new one", redact_uri(self._uri), self.run_id)
            self.run_id = ""
            return None
        self._client.update_run(self.run_id, status="RUNNING")
        _log_batches(self._client, self.run_id, tags=self.record.tags)
        return run

    def _create(self) -> Run:
        experiment_id = get_experiment_id(self._client, self._experiment, self._uri)
        started_ms = self.record.started_ms
        # An earlier call may have created the run although its response was lost.
        for run in self._client.search_runs([experiment_id], f"attributes.start_time = {started_ms}"):
            if run.info.run_name == self._name:
                return run
        tags = _as_tags({**_describe_source(self.record.tags), **self.record.tags})
        return self._client.create_run(experiment_id, start_time=started_ms, tags=tags, run_name=self._name)

    def log_params(self) -> None:
        params = flatten(self.record.params)
        new = {key: value for key, value in params.items() if key not in self._params}
        changed = {f"resumed.{key}": value for key, value in params.items() if self._params.get(key, value) != value}
        _log_batches(self._client, self.run_id, params=new, tags=changed)

    def log_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if not (dataset := self.record.dataset):
            return
        entry = Dataset(
            name=dataset["name"],
            digest=dataset["digest"],
            source_type="local",
            source=json.dumps({"uri": dataset.get("source", "")}),
            profile=dataset.get("profile"),
        )
        context = InputTag(key="mlflow.data.context", value="training")
        self._client.log_inputs(self.run_id, [DatasetInput(entry, [context])])

    def log_epoch(self, epoch: int, metrics: Mapping[str, float | None], time_ms: int) -> None:
        values = {as_key(name): value for name, value in finite(metrics).items()}
        known = {key: self._history[key][epoch] for key in values if epoch in self._history.get(key, {})}
        # An epoch that was repeated after a kill has the same score but another duration: it is one epoch, not
        # two. With another score both rows remain, because MLflow cannot delete one.
        if known and values[score := next(iter(known))] == known[score]:
            values = {key: value for key, value in values.items() if key not in known}
        _log_batches(self._client, self.run_id, metrics=values, step=epoch, time_ms=time_ms)
        self.num_epochs += bool(values)

    def log_file(self, path: Path, folder: str) -> None:
        if path.exists():  # a checkpoint may have been deleted in the meantime to limit their number
            self._client.log_artifact(self.run_id, str(path), folder or None)
            self.num_files += 1

    def log_model(self, model: TrackedModel) -> None:
        from mlflow.exceptions import MlflowException

        from fireseg.tracker.mlflow_model import log_model

        try:
            _, is_new = log_model(self._client, self.run_id, model)
        except MlflowException as error:
            if error.error_code not in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"):
                raise
            self.log_file(model.checkpoint, CHECKPOINT_FOLDER)  # a server older than MLflow 3
        else:
            self.num_files += is_new

    def end(self, status: Status) -> None:
        _set_note(self._client, self.run_id, self.record.read_description())
        self._client.set_terminated(self.run_id, status, end_time=self.record.ended_ms or now_ms())


def log_to_existing_run(
    tracker_uri: str | None,
    run_ids: Mapping[str, str],
    *,
    metrics: Mapping[str, float | None],
    step: int,
    artifacts: Sequence[Path] = (),
    folder: str = "",
    description: str = "",
) -> None:
    """Adds metrics and files to a run that was tracked before; its status and end time stay as they are.

    Failures are logged as a one-line warning and never raised.

    Args:
        tracker_uri: MLflow tracking URI, as `tracker.uri` of the run's settings; None for MLFLOW_TRACKING_URI, or
            `mlflow.db` in the working folder.
        run_ids: Id of the run by service, as in `run.json` under `tracking`. Nothing is sent to W&B.
        metrics: Metrics to add; NaN and None are left out, and so is a value that exists at the same step.
        step: Epoch of the checkpoint that was evaluated.
        artifacts: Files to add; a newer file of the same name replaces an older one.
        folder: Folder in the run; its root if empty.
        description: New description of the run in Markdown, in place of the one at the end of the training.
    """
    if "wandb" in run_ids:
        log.info("W&B: run %s is not changed; the results are in the run folder", run_ids["wandb"])
    if not (run_id := run_ids.get("mlflow")):
        return
    prepare_environment()
    service, uri = "MLflow", ""
    try:
        uri = resolve_uri(tracker_uri)
        service = f"MLflow at {redact_uri(uri)}"
        client = open_store(uri, create=False)
        if client.get_run(run_id).info.lifecycle_stage == "deleted":
            raise FiresegError("it was deleted there")
        new = {}
        for name, value in finite(metrics).items():
            history = client.get_metric_history(run_id, key := as_key(name))
            if (step, value) not in ((metric.step, metric.value) for metric in history):
                new[key] = value
        _log_batches(client, run_id, metrics=new, step=step, time_ms=now_ms())
        _set_note(client, run_id, description)
        for path in artifacts:
            client.log_artifact(run_id, str(path), folder or None)
    except (FiresegError, *get_store_errors()) as error:
        reason = " ".join(error.faults) if isinstance(error, FiresegError) else format_reason(error, uri)
        log.warning(
            "%s: nothing could be added to run %s (%s); the results are in the run folder", service, run_id, reason
        )


_NOTE = "mlflow.note.content"
"""Tag that MLflow shows as the description of a run."""


def _set_note(client: MlflowClient, run_id: str, text: str) -> None:
    """Sets the description of a run, unless the user has written another one."""
    note = client.get_run(run_id).data.tags.get(_NOTE, "") if text else ""
    if text and (not note or note.startswith(text.partition(" ")[0])):
        client.set_tag(run_id, _NOTE, shorten(text, _MAX_TAG))


def _log_batches(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    step: int = 0,
    time_ms: int = 0,
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    entries = {
        "params": [Param(key, value) for key, value in (params or {}).items()],
        "tags": [RunTag(key, value) for key, value in _as_tags(tags or {}).items()],
        "metrics": [Metric(key, value, time_ms, step) for key, value in (metrics or {}).items()],
    }
    for kind, values in entries.items():
        for first in range(0, len(values), _ENTRIES_PER_CALL):
            client.log_batch(run_id, **{kind: values[first : first + _ENTRIES_PER_CALL]})


def _as_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {as_key(key): shorten(value, _MAX_TAG) for key, value in tags.items()}


def _describe_source(tags: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags behind the columns User, Source and Version of MLflow's run table."""
    source = {"mlflow.source.name": "fireseg.train", "mlflow.source.type": "LOCAL"}
    if "git_commit" in tags:
        source["mlflow.source.git.commit"] = tags["git_commit"]
    with suppress(OSError, KeyError, ImportError):  # the user of a container may have no name
        source["mlflow.user"] = getpass.getuser()
    return source
