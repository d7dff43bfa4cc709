"""The interface of trackers, the description of a run, and the text form of settings."""

from __future__ import annotations

import json
import math
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""Outcome of a run: as planned, by an error, by a signal."""

EpochMetrics = tuple[int, Mapping[str, float | None]]
"""Epoch number and its metrics in the order in which charts list them; NaN and None are not sent."""


def now_ms() -> int:
    """Returns the time in milliseconds since 1970, the unit of MLflow."""
    return int(time.time() * 1000)


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """Description of a run, and access to its recorded epochs.

    Attributes:
        name: Display name; `run_name` of the tracker takes precedence.
        params: Settings, nested as in config.json.
        tags: Search tags: task, git_commit, host, sweep.
        dataset: `name`, `digest` (at most 36 characters), `source` (path or URI), `profile` (text), or nothing.
        read_epochs: Returns the epochs recorded so far, in order.
        started_ms: Start time in milliseconds since 1970.
        ended_ms: End time in milliseconds since 1970; None for the time at which `finish` is called.
        read_description: Returns the result in Markdown when the run ends; empty for none.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping[str, str] = field(default_factory=dict)
    read_epochs: Callable[[], Sequence[EpochMetrics]] = tuple
    started_ms: int = field(default_factory=now_ms)
    ended_ms: int | None = None
    read_description: Callable[[], str] = str


@dataclass(frozen=True, kw_only=True)
class TrackedModel:
    """Description of a checkpoint as a model that others load.

    Attributes:
        checkpoint: Checkpoint file.
        sha256: SHA-256 of that file, 64 hexadecimal digits.
        epoch: Epoch after which the checkpoint was saved.
        bands: Sentinel-2 bands of the channels, in order.
        class_names: One name per class.
        threshold: Lowest calibrated fire probability that counts as burned, above 0 and below 1.
        temperature: Divisor of the log-odds of fire, above 0.
        calibration: File that the two were read from; None for the default values.
        metadata: Further plain values: architecture, scores, patches.
    """

    checkpoint: Path
    sha256: str
    epoch: int
    bands: tuple[str, ...]
    class_names: tuple[str, ...]
    threshold: float = 0.5
    temperature: float = 1.0
    calibration: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Returns what a user of the model has to know, as plain values."""
        return {
            **self.metadata,
            "bands": list(self.bands),
            "class_names": list(self.class_names),
            "threshold": self.threshold,
            "temperature": self.temperature,
            "checkpoint_sha256": self.sha256,
            "epoch": self.epoch,
        }


class Tracker(Protocol):
    """Reports one run to a tracking service, from `start` to `finish`.

    The run folder is the record. A service that cannot be reached costs one warning: whatever it has not
    received is sent at the next call.
    """

    @property
    def run_ids(self) -> dict[str, str]:
        """Id of the run by service, `{"mlflow": "ab12…"}`; a service adds its id with its first response."""
        ...

    @property
    def is_complete(self) -> bool:
        """True if the services have received every epoch, every file and the end of the run."""
        ...

    def start(self, run: TrackedRun, run_ids: Mapping[str, str] | None = None) -> None:
        """Creates a run, or continues an earlier one.

        Args:
            run: The run to report.
            run_ids: Former value of the property `run_ids` if the run was tracked before.

        Raises:
            FiresegError: If a setting of the tracker is invalid, or the service refuses the run.
        """
        ...

    def sync(self) -> None:
        """Sends every recorded epoch and every file that was not sent before."""
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """Sends a file into a folder of the run; a newer file of the same name replaces it."""
        ...

    def model(self, checkpoint: Path, describe: Callable[[], TrackedModel]) -> None:
        """Sends the best checkpoint of the run, as a model if the service has such.

        Args:
            checkpoint: Checkpoint file.
            describe: Returns its description; called only if a model is stored, because it reads the file.
        """
        ...

    def finish(self, status: Status) -> None:
        """Ends the run, after a last attempt to send what is missing."""
        ...


# These differ in every run and would hide the relevant settings from a page of differences.
_KEYS_THAT_DIFFER = frozenset({"tracker.run_name", "output_dir", "resume"})

_MAX_KEY, _MAX_VALUE = 250, 6000


def strip(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Removes the keys that only build objects (`_target_`, `_partial_`) or name the run.

    Args:
        params: Settings, nested.
        prefix: Position of `params` in the tree, ending in a dot.

    Returns:
        The remaining settings, nested as before.
    """
    stripped = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if name in _KEYS_THAT_DIFFER or re.fullmatch(r"_[a-z]+_", str(key)):
            continue
        stripped[str(key)] = strip(value, f"{name}.") if isinstance(value, Mapping) else value
    return stripped


def flatten(params: Mapping[str, Any]) -> dict[str, str]:
    """Converts settings to MLflow parameters.

    Args:
        params: Settings, nested; `_target_` and names of the run are left out.

    Returns:
        One text of at most 6000 characters per setting, in the order of the tree. Values other than
        strings are written as JSON, so `None` becomes `null` and `True` becomes `true`, as in YAML.

    Example:
        >>> flatten({"model": {"_target_": "f", "arch": "unet"}, "data": {"bands": ["B02"], "root": None}})
        {'model.arch': 'unet', 'data.bands': '["B02"]', 'data.root': 'null'}
    """
    return {as_key(name): shorten(_as_text(value)) for name, value in _leaves(strip(params), "")}


FRONT_METRICS = ("val/fire_iou", "val/best_fire_iou", "val/loss", "train/loss", "lr")
"""Metrics of a training by which runs are compared; all others are named behind them."""

_FRONT_SCORES = ("test/fire_iou", "test/mean_fire_iou")

_OTHERS = "z_details/"


def name_metric(name: str) -> str:
    """Returns the name of a metric in trackers, which show one chart for each, sorted by name.

    Args:
        name: Name of the metric in `metrics.jsonl`, or of a score of an evaluation.

    Example:
        >>> name_metric("val/fire_iou"), name_metric("val/iou_background")
        ('val/fire_iou', 'z_details/val/iou_background')
    """
    return name if name in FRONT_METRICS or name in _FRONT_SCORES else f"{_OTHERS}{name}"


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the metrics that are finite numbers, which are all that a chart can show."""
    return {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def as_key(name: str) -> str:
    """Returns the name as a valid MLflow key: letters, digits and `_ - . : /`, and no `..` in a path."""
    key = re.sub(r"[^/\w.\-: ]", "_", name)[:_MAX_KEY]
    if key.startswith("/") or posixpath.normpath(key) != key or key.startswith(".."):
        key = key.replace("/", "_").replace("..", "_")
    return key if key.strip(". ") else "_"


def shorten(text: str, max_length: int = _MAX_VALUE) -> str:
    """Cuts a text to a maximum length, with an ellipsis at the end if it was longer."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


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
