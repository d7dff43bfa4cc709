"""A tracker that tells MLflow, whether it listens or not."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fireseg.errors import FiresegError
from fireseg.tracker.mlflow_store import (
    Lane,
    Outbox,
    failures,
    find_reason,
    get_address,
    get_experiment_id,
    is_refusal,
    log,
    open_existing,
    open_store,
    prepare_environment,
    resolve_uri,
)
from fireseg.tracker.protocol import Status, Tracker, as_key, finite, flatten, shorten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


_ENTRIES_A_CALL = 100

_MAX_TAG, _MAX_DIGEST = 5000, 36


class MlflowRun:
    """One run in one store.

    Args:
        uri: From `resolve_uri`.
        experiment: The experiment that the run belongs to.
        run_id: A run to take up; None for a new one.

    Attributes:
        run_id: The run's id, None until the store has given one.
    """

    def __init__(self, uri: str, experiment: str, run_id: str | None) -> None:
        self.run_id = run_id
        self._uri, self._experiment = uri, experiment
        self._opened: MlflowClient | None = None
        self._params: Mapping[str, str] = {}
        self._told: dict[str, dict[int, float]] = {}
        self._creating = False

    def begin(self, name: str, started: int, tags: Mapping[str, str]) -> None:
        """Creates the run, or takes it up.

        Args:
            name: What a person calls it.
            started: When it began, in milliseconds.
            tags: What to find it by.

        Raises:
            FiresegError: If the store cannot be opened, or takes no run.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._opened = self._opened or open_store(self._uri)
            run = self._find(self.run_id) if self.run_id else None
            if run is not None:
                self._take_up(run, tags)
                return
            experiment_id = get_experiment_id(self._client, self._experiment, self._uri)
            self.run_id = self._create(experiment_id, name, started, {**_source_tags(tags), **tags})
        except MlflowException as error:
            if is_refusal(error):
                raise FiresegError(f"tracker.uri: {get_address(self._uri)} takes no run ({error})") from error
            raise

    def tell_params(self, params: Mapping[str, str]) -> None:
        """Adds settings. One that was told with another value stays; the new value becomes a tag."""
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in params.items() if key not in self._params]
        for first in range(0, len(new), _ENTRIES_A_CALL):
            self._client.log_batch(self._id, params=new[first : first + _ENTRIES_A_CALL])
        changed = {key: value for key, value in params.items() if self._params.get(key, value) != value}
        self._tell_tags({f"resumed.{key}": value for key, value in changed.items()})

    def tell_dataset(self, dataset: Mapping[str, str]) -> None:
        """Names the data set as an input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = Dataset(
            name=dataset["name"],
            digest=dataset["digest"][:_MAX_DIGEST],
            source_type="local",
            source=json.dumps({"uri": dataset.get("source", "")}),
            profile=dataset.get("profile"),
        )
        context = InputTag(key="mlflow.data.context", value="training")
        self._client.log_inputs(self._id, [DatasetInput(entry, [context])])

    def tell_metrics(self, metrics: Mapping[str, float], step: int, timestamp: int) -> None:
        """Adds an epoch.

        Args:
            metrics: Finite readings, the one to compare by first.
            step: The epoch.
            timestamp: When it was read, in milliseconds: told twice, the same row is the same row.
        """
        from mlflow.entities import Metric

        rows = {as_key(name): value for name, value in metrics.items()}
        told = {key: self._told[key][step] for key in rows if step in self._told.get(key, {})}
        # An epoch done again after a kill has the same score but other seconds: it is one epoch, not
        # two. With another score both rows stand, for MLflow cannot take one back.
        if told and rows[score := next(iter(told))] == told[score]:
            rows = {key: value for key, value in rows.items() if key not in told}
        if rows:
            self._client.log_batch(self._id, [Metric(key, value, timestamp, step) for key, value in rows.items()])

    def tell_file(self, path: Path, folder: str) -> None:
        """Keeps a file, if it is still there: a checkpoint may have made room while it waited."""
        if path.exists():
            self._client.log_artifact(self._id, str(path), folder or None)

    def end(self, status: Status, ended: int) -> None:
        """Closes the run, at `ended` milliseconds."""
        self._client.set_terminated(self._id, status, end_time=ended)

    @property
    def _client(self) -> MlflowClient:
        assert self._opened is not None, "nothing is told before begin"
        return self._opened

    @property
    def _id(self) -> str:
        assert self.run_id is not None, "nothing is told before begin"
        return self.run_id

    def _find(self, run_id: str) -> Run | None:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage == "deleted":
            log.warning("MLflow at %s: run %s is not there any more; a new one begins", get_address(self._uri), run_id)
            self.run_id = None
            return None
        return run

    def _take_up(self, run: Run, tags: Mapping[str, str]) -> None:
        self._client.update_run(self._id, status="RUNNING")
        self._params = run.data.params
        self._tell_tags(tags)
        for key in run.data.metrics:
            self._told[key] = {metric.step: metric.value for metric in self._client.get_metric_history(self._id, key)}

    def _create(self, experiment_id: str, name: str, started: int, tags: Mapping[str, str]) -> str:
        if self._creating:  # an earlier try may have got through with its answer lost
            for run in self._client.search_runs([experiment_id], f"attributes.start_time = {started}"):
                if run.info.run_name == name:
                    return run.info.run_id
        self._creating = True
        run = self._client.create_run(experiment_id, start_time=started, tags=_as_tags(tags), run_name=name)
        return run.info.run_id

    def _tell_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in _as_tags(tags).items()]
        for first in range(0, len(entries), _ENTRIES_A_CALL):
            self._client.log_batch(self._id, tags=entries[first : first + _ENTRIES_A_CALL])


def _as_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {as_key(key): shorten(str(value), _MAX_TAG) for key, value in tags.items()}


def _source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What the columns User, Source and Version of the run table show."""
    found = {"mlflow.source.name": "fireseg.train", "mlflow.source.type": "LOCAL"}
    if "git_commit" in tags:
        found["mlflow.source.git.commit"] = tags["git_commit"]
    with suppress(OSError, KeyError, ImportError):  # a container may run under a user that has no name
        found["mlflow.user"] = getpass.getuser()
    return found


def create_mlflow_tracker(
    *,
    uri: str | None = None,
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "fireseg",
    run_name: str | None = None,
) -> Tracker:
    """A tracker that tells MLflow.

    A server that is down or dies does not cost the training: what it was not told is kept and told
    when it answers again, at the latest at the end.

    Args:
        uri: The tracking address; None for MLFLOW_TRACKING_URI, or an SQLite file `mlflow.db` in the working folder.
        experiment: The experiment that the run belongs to.
        run_name: What the run is called, in place of the name that it would get.

    Returns:
        A tracker for one run.

    Raises:
        SettingError: If MLflow has no such kind of store.

    Example:
        >>> tracker = create_mlflow_tracker(uri="http://127.0.0.1:5000", experiment="encoders")
    """
    return MlflowTracker(resolve_uri(uri), experiment, run_name)


class MlflowTracker:
    """One run in MLflow. See `create_mlflow_tracker`."""

    def __init__(self, uri: str, experiment: str, run_name: str | None) -> None:
        self._uri, self._experiment, self._run_name = uri, experiment, run_name
        self._service = f"MLflow at {get_address(uri)}"
        self._outbox = Outbox(self._service, failures=failures, is_refusal=is_refusal)
        self._run: MlflowRun | None = None

    @property
    def run_ids(self) -> dict[str, str]:
        """`{"mlflow": id}`, or nothing until the store has given one."""
        return {"mlflow": self._run.run_id} if self._run and self._run.run_id else {}

    def start(
        self,
        *,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        run_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Begins a run, or takes up an earlier one.

        MLflow never lets go of a parameter: on resume new ones are added, and one that has changed
        becomes a tag, `resumed.engine.epochs`.

        Raises:
            FiresegError: If the local store cannot be opened, or the experiment takes no runs.
        """
        prepare_environment()
        run = self._run = MlflowRun(self._uri, self._experiment, (run_ids or {}).get("mlflow"))
        self._outbox.put(partial(run.begin, self._run_name or run_name, _now(), dict(tags)))
        self._outbox.put(partial(run.tell_params, flatten(params)))
        if dataset:
            self._outbox.put(partial(run.tell_dataset, dict(dataset)))
        self._outbox.deliver()

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Records an epoch, the first metric first: MLflow's compare page opens on it."""
        if self._run is not None:
            self._outbox.put(partial(self._run.tell_metrics, finite(metrics), step, _now()))
            self._deliver()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keeps a file; one that still waits under the same name is told only once."""
        if self._run is not None:
            path = path.absolute()
            tell = partial(self._run.tell_file, path, folder)
            self._outbox.put(tell, lane=Lane.FILES, key=(folder, path.name))
            self._deliver()

    def finish(self, status: Status) -> None:
        """Closes the run, with one last try to deliver what was kept back."""
        if self._run is None:
            return
        self._outbox.put(partial(self._run.end, status, _now()), lane=Lane.CLOSING)
        self._deliver(last=True)
        if len(self._outbox):
            log.info("%s: %d entries were never delivered", self._service, len(self._outbox))
            self._outbox.clear()

    def _deliver(self, *, last: bool = False) -> None:
        try:
            self._outbox.deliver(last=last)
        except FiresegError as error:
            # At the start this ends the program; hours later it may cost the tracking, not the training.
            log.warning("%s; training goes on untracked, every number stays in the run folder (metrics.jsonl)", error)
            self._outbox.clear()
            self._run = None


def _now() -> int:
    return int(time.time() * 1000)


def log_to_existing_run(
    tracker_uri: str | None,
    run_ids: Mapping[str, str],
    *,
    metrics: Mapping[str, float | None],
    step: int,
    artifacts: Sequence[Path] = (),
    folder: str = "",
) -> None:
    """Adds readings and files to a run that was tracked before; its status and its end stay what they were.

    Nothing here is worth failing for: what cannot be told is warned of in one line.

    Args:
        tracker_uri: MLflow's address, as `tracker.uri` of the run's settings; None for MLFLOW_TRACKING_URI, or
            `mlflow.db` in the working folder.
        run_ids: The run's name with each service, as `run.json` has it under `tracking`. W&B is told nothing.
        metrics: Readings; what is not a finite number is left out. One that is there already, with the same value
            at the same step, is not told again.
        step: The epoch that was looked at.
        artifacts: Files to keep; a newer one of the same name takes the place of an older.
        folder: Where in the run they are kept; its root where empty.
    """
    if "wandb" in run_ids:
        log.info("W&B: run %s is left as it is; the results stay in the run folder", run_ids["wandb"])
    if not (run_id := run_ids.get("mlflow")):
        return
    prepare_environment()
    address = "MLflow"
    try:
        uri = resolve_uri(tracker_uri)
        address = f"MLflow at {get_address(uri)}"
        client = open_existing(uri)
        if client.get_run(run_id).info.lifecycle_stage == "deleted":
            raise FiresegError("it was deleted there")
        _tell_metrics(client, run_id, finite(metrics), step)
        for path in artifacts:
            client.log_artifact(run_id, str(path), folder or None)
    except (FiresegError, *failures()) as error:
        reason = " ".join(error.faults) if isinstance(error, FiresegError) else find_reason(error)
        log.warning(
            "%s: nothing could be added to run %s (%s); the results stay in the run folder", address, run_id, reason
        )


def _tell_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = []
    for name, value in metrics.items():
        history = client.get_metric_history(run_id, key := as_key(name))
        if not any(metric.step == step and metric.value == value for metric in history):
            rows.append(Metric(key, value, now, step))
    for first in range(0, len(rows), _ENTRIES_A_CALL):
        client.log_batch(run_id, metrics=rows[first : first + _ENTRIES_A_CALL])
