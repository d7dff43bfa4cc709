"""Describes a run folder to trackers, and sends MLflow what it has not received."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fireseg import __version__
from fireseg.console import format_command, format_count, format_interval, format_score
from fireseg.errors import FiresegError, did_you_mean
from fireseg.files import (
    BEST_CHECKPOINT,
    CHECKPOINT_FOLDER,
    FINAL_CHECKPOINT,
    LAST_CHECKPOINT,
    check_regular_file,
    hash_file,
)
from fireseg.runs.calibration import get_calibration
from fireseg.runs.checkpoint import read_checkpoint
from fireseg.runs.folder import RunFolder
from fireseg.runs.leaderboard import Entry, format_settings
from fireseg.runs.summary import read_run
from fireseg.tracker import EpochMetrics, Status, TrackedModel, TrackedRun, Tracker
from fireseg.tracker.mlflow import create_mlflow_tracker
from fireseg.tracker.mlflow_store import get_database, redact_uri, resolve_uri
from fireseg.tracker.protocol import FRONT_METRICS, name_metric, now_ms

log = logging.getLogger("fireseg")

_BEST = "val/best_fire_iou"

_MAX_DIGEST = 32

_CURE = "restore it, or delete the run"


@dataclass(frozen=True, kw_only=True)
class _Named:
    name: str


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The part of config.json that is read to describe a run."""

    task: _Named
    tracker: dict[str, Any]
    data: dict[str, Any]


def start_tracking(
    tracker: Tracker, folder: RunFolder, *, name: str, tags: Mapping[str, str], num_epochs_done: int
) -> None:
    """Starts or continues the tracking of a run, and notes in `run.json` what a later `sync` needs.

    Args:
        tracker: The tracker of the run.
        folder: The run folder, with its settings and provenance.
        name: Display name of the run.
        tags: Further search tags, such as the sweep.
        num_epochs_done: Epochs before this start; those inherited from a parent run are not reported.

    Raises:
        FiresegError: If a setting of the tracker is invalid, or the service refuses the run.
    """
    earlier = folder.read_provenance().get("tracked", {})
    note = {
        "name": name,
        "tags": dict(tags),
        "first_epoch": min(num_epochs_done + 1, earlier.get("first_epoch", num_epochs_done + 1)),
        "started_ms": earlier.get("started_ms", now_ms()),
    }
    folder.write_provenance({"tracked": note})
    tracker.start(describe_run(folder), folder.read_provenance().get("tracking"))
    note_run_ids(tracker, folder)


def note_run_ids(tracker: Tracker, folder: RunFolder) -> None:
    """Writes the ids of the run to `run.json`; a server that was down assigns them later."""
    earlier = folder.read_provenance().get("tracking", {})
    # A tracker that gave up has no id, but the run that it began is still the one to continue.
    if (run_ids := {**earlier, **tracker.run_ids}) != earlier:
        folder.write_provenance({"tracking": run_ids})


def finish_tracking(tracker: Tracker, folder: RunFolder, status: Status) -> None:
    """Ends the tracking of a run, and notes in `run.json` whether everything was received.

    Args:
        tracker: The tracker of the run.
        folder: The run folder.
        status: Outcome of the run.
    """
    note: dict[str, Any] = {**folder.read_provenance().get("tracked", {}), "ended_ms": now_ms(), "status": status}
    tracker.finish(status)
    with suppress(FiresegError):  # a full disk: the error that ended the run is the one to report
        note_run_ids(tracker, folder)
        if tracker.is_complete and "mlflow" in tracker.run_ids:
            note["sent_to"] = _get_address(_read_settings(folder)["tracker"])
        folder.write_provenance({"tracked": note})


def describe_run(folder: RunFolder) -> TrackedRun:
    """Describes a run to trackers, from `config.json`, `run.json` and `metrics.jsonl`."""
    settings, provenance = _read_settings(folder), folder.read_provenance()
    tracked, data = provenance.get("tracked", {}), provenance["data"]
    tags = {
        "task": settings["task"]["name"],
        "git_commit": provenance.get("git_commit") or "unknown",
        "host": provenance.get("host", ""),
        "run_folder": str(folder.path.resolve()),
        **({"parent": provenance["parent"]} if "parent" in provenance else {}),
    }
    dataset = {
        "name": " and ".join(Path(root).name for root in _list_roots(settings["data"].get("root") or data["root"])),
        "digest": data["fingerprint"][:_MAX_DIGEST],
        "source": " ".join(_list_roots(data["root"])),
        "profile": f"class counts {data['class_counts']}",
    }
    return TrackedRun(
        name=tracked.get("name", folder.path.name),
        params={
            **settings,
            "weights_sha256": provenance.get("weights", {}).get("sha256", ""),
            **({"self_training": provenance["self_training"]} if "self_training" in provenance else {}),
        },
        tags={**tags, **tracked.get("tags", {})},
        dataset=dataset,
        read_epochs=lambda: list_epochs(folder, tracked.get("first_epoch", 1)),
        started_ms=tracked.get("started_ms") or int(1000 * folder.config.stat().st_mtime),
        ended_ms=tracked.get("ended_ms"),
        read_description=lambda: describe_results(folder),
    )


def describe_results(folder: RunFolder) -> str:
    """Describes the result of a run in Markdown: best epoch, mean over fires, and the commands to type next.

    Args:
        folder: The run folder; its evaluations are read.

    Returns:
        The description; empty if no epoch has ended, or the folder is damaged.
    """
    try:
        run = read_run(folder)
    except FiresegError:
        return ""
    if not run.rows:
        return ""
    swa = run.provenance.get("swa", {})
    origin = f"mean of the last {swa['epochs']} epochs" if swa.get("is_best") else f"epoch {run.best_epoch}"
    lines = [f"Best: {origin}, fire IoU on val {format_score(run.val_fire_iou, undefined='undefined')}"]
    for split in run.evaluations:
        interval = Entry(values={}, runs=(run,)).fire_interval(split)
        if interval is not None:
            lines.append(f"- IoU over fires of {split}: {format_interval(interval._asdict())}")
    path = folder.path.resolve()
    commands = [format_command("evaluate", path), format_command("predict", path, Path("SCENE.tif"))]
    return "\n".join([*lines, "", "```", *commands, "```"])


def describe_checkpoint(checkpoint: Path) -> TrackedModel:
    """Describes a checkpoint as a model, with the threshold and the temperature of its run.

    Args:
        checkpoint: Checkpoint file, in a run folder or alone.

    Raises:
        FiresegError: If it is not a checkpoint of fireseg, or `calibration.json` is damaged.
    """
    content = read_checkpoint(checkpoint, with_weights=False)
    sha256 = hash_file(checkpoint)
    is_in_folder = checkpoint.parent.name == CHECKPOINT_FOLDER
    folder = RunFolder(checkpoint.parent.parent)
    calibration = get_calibration(folder, sha256) if is_in_folder else None
    settings = content.config.get("model", {})
    metadata = {
        "task": content.config.get("task", {}).get("name"),
        "arch": settings.get("arch"),
        "encoder": settings.get("encoder"),
        "fingerprint": content.fingerprint,
        "val_fire_iou": content.val_fire_iou,
        "pixel_m": content.pixel_m,
        "level": content.level,
        "fireseg": __version__,
    }
    return TrackedModel(
        checkpoint=checkpoint.absolute(),
        sha256=sha256,
        epoch=content.epoch,
        bands=content.bands,
        class_names=content.class_names,
        threshold=calibration.threshold if calibration else 0.5,
        temperature=calibration.temperature if calibration else 1.0,
        calibration=folder.calibration.absolute() if calibration else None,
        # An undefined score is NaN, which is not equal to itself.
        metadata={name: value for name, value in metadata.items() if value is not None and value == value},
    )


def name_run(overrides: str) -> str:
    """Names a job of a sweep by the settings that differ, in words.

    Args:
        overrides: The settings as Hydra joins them.

    Example:
        >>> name_run("model.encoder=resnet18,data.bands=[B04,B12],seed=1")
        'resnet18, bands [B04,B12], seed 1'
    """
    words = [word.partition("=") for word in re.split(r",(?=[\w.@/+~]+=)", overrides) if word]
    return format_settings({key.lstrip("+~").replace("/", "."): value.strip("'\"") for key, _, value in words})


def list_epochs(folder: RunFolder, first_epoch: int = 1) -> list[EpochMetrics]:
    """Lists the metrics of each epoch as charts show them, `val/fire_iou` first.

    Args:
        folder: The run folder.
        first_epoch: First epoch to list.

    Returns:
        The rows of `metrics.jsonl`, with `val/best_fire_iou`: a chart shows the last value of a run, and runs are
        compared by their best. The metrics that few compare are named behind the others, see `name_metric`.
    """
    epochs: list[EpochMetrics] = []
    best: float | None = None
    for row in folder.read_metrics():
        best = row.get("val/fire_iou") if row.get("best") else best
        metrics = {**{name: value for name, value in row.items() if name not in ("epoch", "best")}, _BEST: best}
        front = {name: metrics[name] for name in FRONT_METRICS if name in metrics}
        epochs.append((row["epoch"], {name_metric(name): value for name, value in {**front, **metrics}.items()}))
    return [(epoch, metrics) for epoch, metrics in epochs if epoch >= first_epoch]


def send_files(tracker: Tracker, folder: RunFolder) -> None:
    """Passes the files of a run and its best checkpoint to a tracker.

    Args:
        tracker: A tracker that was started with the run.
        folder: The run folder.

    Raises:
        FiresegError: If the tracker stores models, and the checkpoint is damaged.
    """
    for path in (folder.config, folder.provenance, folder.metrics, folder.batch, folder.samples, folder.curves):
        if path.exists():
            tracker.artifact(path)
    if (checkpoint := folder.checkpoints / BEST_CHECKPOINT).exists():
        tracker.model(checkpoint, partial(describe_checkpoint, checkpoint))


def sync_run(path: Path) -> str:
    """Sends MLflow the epochs and files of a run that it has not received.

    Args:
        path: A run folder.

    Returns:
        One line that says what was sent.

    Raises:
        FiresegError: If the folder holds no run or a running one, or MLflow did not receive everything.
        SettingError: If the tracking URI is invalid.
    """
    folder, node = _open_run(path)
    if "mlflow" not in node["_target_"]:
        cure = "; `wandb sync` sends the folders in wandb/" if "wandb" in node["_target_"] else ""
        return f"{path}: not tracked by MLflow, nothing sent{cure}"
    with folder.locked():
        address = _get_address(node)
        provenance = folder.read_provenance()
        if "data" not in provenance:
            return f"{path}: stopped before its training began, nothing to send"
        if provenance.get("tracked", {}).get("sent_to") == address:
            return f"{path}: MLflow at {address} is up to date"
        # Runs of earlier versions, without the setting, stored the checkpoint as a file.
        return f"{path}: {_send(folder, node, log_model=node.get('log_model', False))}"


def log_run(path: Path) -> tuple[str, str]:
    """Sends a run to MLflow if that has not received it, whatever tracker it was trained with.

    Args:
        path: A run folder.

    Returns:
        The URI of the store, with its password if it has one, and the id of the run.

    Raises:
        FiresegError: If the folder holds no run or a running one, or MLflow did not receive everything.
        SettingError: If the tracking URI is invalid.
    """
    folder, node = _open_run(path)
    uri = resolve_uri(node.get("uri"))
    with folder.locked():
        provenance = folder.read_provenance()
        if "data" not in provenance:
            raise FiresegError(f"{path}: stopped before its training began; name a run with a checkpoint")
        sent_to, database = provenance.get("tracked", {}).get("sent_to"), get_database(uri)
        if sent_to and sent_to != redact_uri(uri) and database and not database.exists():
            raise FiresegError(
                f"{path}: tracked in {sent_to}, but MLflow would be {uri}, which does not exist; "
                f"set MLFLOW_TRACKING_URI={sent_to}"
            )
        if sent_to != redact_uri(uri):
            log.info("%s: %s", path, _send(folder, node, log_model=True))
        return uri, folder.read_provenance()["tracking"]["mlflow"]


def _open_run(path: Path) -> tuple[RunFolder, dict[str, Any]]:
    """Returns a run folder, and the settings of its tracker."""
    folder = RunFolder(path)
    if not folder.config.is_file():
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = "" if path.exists() else did_you_mean(path.name, siblings)
        raise FiresegError(
            f"{path}: no run folder: config.json not found{hint}; outputs/ and multirun/ contain the runs"
        )
    return folder, _read_settings(folder)["tracker"]


def _send(folder: RunFolder, node: Mapping[str, Any], *, log_model: bool) -> str:
    """Sends a run to MLflow, and says what was sent."""
    tracked = folder.read_provenance().get("tracked", {})
    folder.write_provenance({"tracked": {**_describe_end(folder), **tracked}})
    provenance, address = folder.read_provenance(), _get_address(node)
    options = {key: node[key] for key in ("uri", "experiment", "run_name") if key in node}
    options.setdefault("experiment", os.environ.get("MLFLOW_EXPERIMENT_NAME", "fireseg"))
    tracker = create_mlflow_tracker(**options, log_model=log_model)
    tracker.start(describe_run(folder), provenance.get("tracking", {}))
    send_files(tracker, folder)
    tracker.finish(provenance["tracked"]["status"])
    num_epochs, num_files = tracker.num_sent
    sent = f"{format_count(num_epochs, 'epoch')} and {format_count(num_files, 'file')} sent to MLflow at {address}"
    note_run_ids(tracker, folder)
    if tracker.has_refusals:
        return f"{sent}; it refused the rest, which is only in the run folder"
    if not tracker.is_complete:
        raise FiresegError(f"{folder.path}: {sent}, but it did not receive everything; try again later")
    folder.write_provenance({"tracked": {**provenance["tracked"], "sent_to": address}})
    return sent


def _get_address(node: Mapping[str, Any]) -> str:
    return redact_uri(resolve_uri(node.get("uri")))


def _describe_end(folder: RunFolder) -> dict[str, Any]:
    """Returns end time and status of a process that was killed or is older than these notes, from its files."""
    state, final = (_get_time(folder.checkpoints / name) for name in (LAST_CHECKPOINT, FINAL_CHECKPOINT))
    ended = max(_get_time(folder.config), _get_time(folder.metrics), final)
    return {"ended_ms": int(1000 * ended), "status": "FINISHED" if 0 < state <= final else "KILLED"}


def _get_time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _read_settings(folder: RunFolder) -> dict[str, Any]:
    check_regular_file(folder.config)
    try:
        settings = json.loads(folder.config.read_bytes())
        TypeAdapter(_Settings).validate_python(settings)
    except ValidationError as error:
        faults = (f"{folder.config}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {_CURE}" for one in error.errors())
        raise FiresegError(*faults) from error
    except (OSError, ValueError, RecursionError) as error:
        raise FiresegError(f"{folder.config}: cannot be read ({error}); {_CURE}") from error
    return settings


def _list_roots(root: str | list[str]) -> list[str]:
    return [root] if isinstance(root, str) else root
