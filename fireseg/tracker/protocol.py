"""What every tracker can do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended: as planned, by an error, by a signal."""


class Tracker(Protocol):
    """Records one run, from `start` to `finish`.

    Attributes:
        run_ids: The run's name with each service, `{"mlflow": "ab12…"}`. Empty while a service has
            not answered yet, so whoever keeps it looks again after every epoch.
    """

    @property
    def run_ids(self) -> dict[str, str]:
        """The run's name with each service."""
        ...

    def start(
        self,
        *,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        run_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Begins a run, or takes up the one that `run_ids` names.

        Args:
            run_name: What a person calls the run; the tracker's own `run_name` goes before it.
            params: The settings, nested as in config.json.
            tags: What to find the run by: task, git_commit, host, sweep.
            dataset: `name`, `digest` (at most 36 characters), `source` (a path or address), `profile` (JSON).
            run_ids: What `run_ids` gave when the run that goes on here was tracked before.

        Raises:
            FiresegError: If a setting of the tracker cannot be.
        """
        ...

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Records an epoch.

        Args:
            metrics: Readings in the order in which a chart shall offer them; what is not a finite number is left out.
            step: The epoch. One told twice with the same score is recorded once, so a resumed run may tell all again.
        """
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keeps a file, in `folder` of the run; a newer one of the same name takes its place."""
        ...

    def finish(self, status: Status) -> None:
        """Closes the run. Nothing can be told after it."""
        ...
