"""Reports runs to MLflow, W&B, both or neither, and downloads checkpoints from MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from fireseg.tracker.artifacts import download_artifact
from fireseg.tracker.mlflow import create_mlflow_tracker, log_to_existing_run
from fireseg.tracker.mlflow_store import check_no_password, describe_charts
from fireseg.tracker.protocol import EpochMetrics, Status, TrackedModel, TrackedRun, Tracker
from fireseg.tracker.wandb import WandbMode, create_wandb_tracker

__all__ = [
    "EpochMetrics",
    "Status",
    "TrackedModel",
    "TrackedRun",
    "Tracker",
    "create_mlflow_tracker",
    "create_mlflow_wandb_tracker",
    "create_no_tracker",
    "create_wandb_tracker",
    "describe_charts",
    "download_artifact",
    "log_to_existing_run",
]


def create_no_tracker() -> Tracker:
    """Creates a tracker that reports nothing; the run folder holds every result all the same."""
    return MultiTracker([])


def create_mlflow_wandb_tracker(
    *,
    uri: Annotated[str | None, AfterValidator(check_no_password)] = None,
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "fireseg",
    project: Annotated[str, Field(min_length=1, max_length=128)] = "fireseg",
    entity: str | None = None,
    mode: WandbMode | None = None,
    run_name: str | None = None,
    log_model: bool = True,
) -> Tracker:
    """Creates a tracker that reports to MLflow and to W&B.

    Args:
        uri: MLflow tracking URI; None for MLFLOW_TRACKING_URI, or `mlflow.db` in the working folder.
        experiment: The experiment in MLflow.
        project: The project in W&B.
        entity: The user or team in W&B; None for the default one of the account.
        mode: `online`, `offline` (W&B keeps everything in `wandb/`) or `disabled`; None for WANDB_MODE.
        run_name: Display name of the run, in place of the default one.
        log_model: Store the best checkpoint in MLflow as a model, see `create_mlflow_tracker`.

    Returns:
        A tracker for one run.

    Raises:
        FiresegError: If MLflow does not support the URI, or W&B is not installed.
    """
    return MultiTracker(
        [
            create_mlflow_tracker(uri=uri, experiment=experiment, run_name=run_name, log_model=log_model),
            create_wandb_tracker(project=project, entity=entity, mode=mode, run_name=run_name),
        ]
    )


class MultiTracker:
    """Forwards every call to several trackers, in order.

    Args:
        trackers: Trackers of the same run; may be empty.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    @property
    def run_ids(self) -> dict[str, str]:
        """The ids of all trackers."""
        return {service: run_id for tracker in self._trackers for service, run_id in tracker.run_ids.items()}

    @property
    def is_complete(self) -> bool:
        """True if all trackers are complete."""
        return all(tracker.is_complete for tracker in self._trackers)

    def start(self, run: TrackedRun, run_ids: Mapping[str, str] | None = None) -> None:
        """Starts the run in every service."""
        for tracker in self._trackers:
            tracker.start(run, run_ids)

    def sync(self) -> None:
        """Sends to every service what it has not received."""
        for tracker in self._trackers:
            tracker.sync()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Sends a file to every service."""
        for tracker in self._trackers:
            tracker.artifact(path, folder)

    def model(self, checkpoint: Path, describe: Callable[[], TrackedModel]) -> None:
        """Sends the best checkpoint to every service."""
        for tracker in self._trackers:
            tracker.model(checkpoint, describe)

    def finish(self, status: Status) -> None:
        """Ends the run in every service."""
        for tracker in self._trackers:
            tracker.finish(status)
