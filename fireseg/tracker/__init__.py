"""Reports a run to MLflow, W&B, both or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fireseg.tracker.artifacts import download_artifact
from fireseg.tracker.mlflow import create_mlflow_tracker, log_to_existing_run
from fireseg.tracker.protocol import Status, Tracker
from fireseg.tracker.wandb import WandbMode, create_wandb_tracker

__all__ = [
    "Status",
    "Tracker",
    "create_mlflow_tracker",
    "create_mlflow_wandb_tracker",
    "create_no_tracker",
    "create_wandb_tracker",
    "download_artifact",
    "log_to_existing_run",
]


def create_no_tracker() -> Tracker:
    """A tracker that tells nobody; the run folder has every number all the same."""
    return SeveralTrackers([])


def create_mlflow_wandb_tracker(
    *,
    uri: str | None = None,
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "fireseg",
    project: Annotated[str, Field(min_length=1, max_length=128)] = "fireseg",
    entity: str | None = None,
    mode: WandbMode | None = None,
    run_name: str | None = None,
) -> Tracker:
    """A tracker that tells MLflow and W&B the same.

    Args:
        uri: MLflow's tracking address; None for MLFLOW_TRACKING_URI, or `mlflow.db` in the working folder.
        experiment: The experiment in MLflow.
        project: The project in W&B.
        entity: The user or team in W&B; None for one's own.
        mode: Whether W&B is told now (`online`) or keeps everything in `wandb/` (`offline`); None for WANDB_MODE.
        run_name: What the run is called, in place of the name that it would get.

    Returns:
        A tracker for one run.

    Raises:
        FiresegError: If the address is of no kind that MLflow knows, or W&B is not installed.
    """
    return SeveralTrackers(
        [
            create_mlflow_tracker(uri=uri, experiment=experiment, run_name=run_name),
            create_wandb_tracker(project=project, entity=entity, mode=mode, run_name=run_name),
        ]
    )


class SeveralTrackers:
    """Tells every tracker the same, in order.

    Args:
        trackers: Each for the same one run; none at all is allowed.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    @property
    def run_ids(self) -> dict[str, str]:
        """The ids of all of them."""
        return {service: run_id for tracker in self._trackers for service, run_id in tracker.run_ids.items()}

    def start(
        self,
        *,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        run_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Begins the run with each."""
        for tracker in self._trackers:
            tracker.start(run_name=run_name, params=params, tags=tags, dataset=dataset, run_ids=run_ids)

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Records an epoch with each."""
        for tracker in self._trackers:
            tracker.log(metrics, step)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keeps a file with each."""
        for tracker in self._trackers:
            tracker.artifact(path, folder)

    def finish(self, status: Status) -> None:
        """Closes the run with each."""
        for tracker in self._trackers:
            tracker.finish(status)
