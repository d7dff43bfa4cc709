"""Registers a run: sends it to MLflow, stores its best checkpoint as a model, and makes that a version."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from fireseg.console import format_command, format_score
from fireseg.errors import FiresegError
from fireseg.files import BEST_CHECKPOINT
from fireseg.runs.folder import RunFolder
from fireseg.runs.leaderboard import Entry
from fireseg.runs.summary import RunSummary, read_run
from fireseg.runs.sync import describe_checkpoint, describe_results, log_run
from fireseg.tracker.mlflow_registry import RegisteredVersion, check_names, register_model
from fireseg.tracker.mlflow_store import redact_uri, resolve_uri
from fireseg.tracker.protocol import finite


def register_run(path: Path, *, name: str, alias: str | None = None) -> list[str]:
    """Registers the best model of a run.

    Args:
        path: Run folder.
        name: Name of the registered model.
        alias: Alias that is to stand for the version; None for none.

    Returns:
        Lines for the terminal: the version, and the commands that use it.

    Raises:
        FiresegError: If the folder holds no run with a checkpoint, or MLflow does not receive or refuses it.
        SettingError: If a name or the address of MLflow is invalid.
    """
    check_names(name, alias)
    folder = RunFolder(path.expanduser())
    checkpoint = folder.checkpoints / BEST_CHECKPOINT
    if folder.config.is_file() and not checkpoint.is_file():
        continued = format_command("train", settings={"resume": folder.path})
        raise FiresegError(
            f"{folder.path}: a run without {BEST_CHECKPOINT}; wait for its first epoch, or continue it: {continued}"
        )
    uri, run_id = log_run(folder.path)
    model = describe_checkpoint(checkpoint)
    run = read_run(folder)
    version = register_model(
        uri,
        run_id,
        model,
        name=name,
        alias=alias,
        tags={**model.describe(), **list_scores(run), "run_folder": str(folder.path.resolve())},
        description=describe_results(folder),
    )
    return _format_lines(version, run, uri)


def list_scores(run: RunSummary) -> dict[str, Any]:
    """Lists the scores of a run that are finite, for the tags of its version.

    Args:
        run: The run.

    Returns:
        `val_fire_iou`; for each evaluated split the mean IoU over its fires, as `test_mean_fire_iou`, with their
        number, and the ends of the 95 % interval if there are enough fires for one.
    """
    scores: dict[str, float | None] = {"val_fire_iou": run.val_fire_iou}
    for split in run.evaluations:
        interval = Entry(values={}, runs=(run,)).fire_interval(split)
        if interval is not None:
            ends = {f"{split}_fire_iou_low": interval.low, f"{split}_fire_iou_high": interval.high}
            scores |= {f"{split}_mean_fire_iou": interval.mean, **ends, f"{split}_fires": interval.num}
    return {name: round(value, 4) for name, value in finite(scores).items()}


def _format_lines(version: RegisteredVersion, run: RunSummary, uri: str) -> list[str]:
    known = "" if version.is_new else ", registered before"
    score = format_score(run.val_fire_iou)
    lines = [
        f"{version.name} version {version.number}{known}: {run.path}, fire IoU on val {score}",
        f"in MLflow at {redact_uri(uri)}",
    ]
    if run.outcome:
        lines.append(f"not a finished run: {run.outcome}")
    if version.alias:
        former = version.former_number
        moved = f", before version {former}" if former not in ("", version.number) else ""
        lines.append(f"alias {version.alias}: version {version.number}{moved}")
    address = f"models:/{version.name}" + (f"@{version.alias}" if version.alias else f"/{version.number}")
    store = f"MLFLOW_TRACKING_URI={shlex.quote(redact_uri(uri))} "
    prefix = "" if resolve_uri(None) == uri else store
    serve = f"mlflow models serve -m {shlex.quote(address)} --env-manager local --port 5001"
    return [
        *lines,
        "next:",
        f"  {prefix}{format_command('predict', address, Path('SCENE.tif'))}",
        f"  {store}{serve}",
        f"  in Python: fireseg.load({address!r})",
    ]
