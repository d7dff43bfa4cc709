"""A tracker that tells MLflow, whether it listens or not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fireseg.errors import FiresegError
from fireseg.tracker.mlflow_errors import failures, is_refusal
from fireseg.tracker.mlflow_run import MlflowRun
from fireseg.tracker.mlflow_store import get_address, prepare_environment, resolve_uri
from fireseg.tracker.outbox import Lane, Outbox, log
from fireseg.tracker.parameters import finite, flatten
from fireseg.tracker.protocol import Status, Tracker


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
