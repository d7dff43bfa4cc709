"""What is learnt of a run after it has ended, told where it was tracked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fireseg.errors import FiresegError
from fireseg.tracker.mlflow_errors import failures
from fireseg.tracker.mlflow_store import get_address, open_existing, prepare_environment, resolve_uri
from fireseg.tracker.outbox import find_reason, log
from fireseg.tracker.parameters import as_key, finite

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENTRIES_A_CALL = 100


def add_to_run(
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
