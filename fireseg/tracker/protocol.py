"""What every tracker can do."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
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


# What is another one in every run hides the settings that matter from a page that shows the differences.
_NAMES_OF_THE_RUN = frozenset({"tracker.run_name", "output_dir", "resume"})

_MAX_KEY, _MAX_VALUE = 250, 6000


def strip(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings without what only builds objects (`_target_` and its like) or names the run.

    Args:
        params: Settings, nested.
        prefix: Where in the tree they stand, with a dot behind it.

    Returns:
        The rest, nested as before.
    """
    kept = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if name in _NAMES_OF_THE_RUN or re.fullmatch(r"_[a-z]+_", str(key)):
            continue
        kept[str(key)] = strip(value, f"{name}.") if isinstance(value, Mapping) else value
    return kept


def flatten(params: Mapping[str, Any]) -> dict[str, str]:
    """The settings as MLflow takes them.

    Args:
        params: Settings, nested; `_target_` and names of the run are left out.

    Returns:
        One text of at most 6000 characters a setting, in the order of the tree. What is not a text is
        written as JSON, so `None` reads `null` and `True` reads `true`, as one types them.

    Example:
        >>> flatten({"model": {"_target_": "f", "arch": "unet"}, "data": {"bands": ["B02"], "root": None}})
        {'model.arch': 'unet', 'data.bands': '["B02"]', 'data.root': 'null'}
    """
    return {as_key(name): shorten(_as_text(value)) for name, value in _leaves(strip(params), "")}


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The readings that are numbers: a chart has no place for the others."""
    return {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def as_key(name: str) -> str:
    """A name that MLflow takes: letters, digits and `_ - . : /`, and no path that leads elsewhere."""
    key = re.sub(r"[^/\w.\-: ]", "_", name)[:_MAX_KEY]
    if key.startswith("/") or posixpath.normpath(key) != key or key.startswith(".."):
        key = key.replace("/", "_").replace("..", "_")
    return key if key.strip(". ") else "_"


def shorten(text: str, most: int = _MAX_VALUE) -> str:
    """The text, cut with an ellipsis where it is too long to store."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _leaves(params: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_text(value: Any) -> str:
    if isinstance(value, str | PurePath):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)
