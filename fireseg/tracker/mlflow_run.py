"""What MLflow is told of one run, each piece by a call that may be made twice."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fireseg.errors import FiresegError
from fireseg.tracker.mlflow_errors import is_refusal
from fireseg.tracker.mlflow_store import get_address, get_experiment_id, open_store
from fireseg.tracker.outbox import log
from fireseg.tracker.parameters import as_key, shorten
from fireseg.tracker.protocol import Status

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
