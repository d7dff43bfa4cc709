"""A trained model, wherever it is kept."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fireseg.engine.device import DeviceName, get_device, set_threads
from fireseg.model import FireSegmentationModel
from fireseg.rundir import RunFolder
from fireseg.task import Task
from fireseg.trained.calibration import Calibration, get_calibration
from fireseg.trained.checkpoint import build_model, read_checkpoint
from fireseg.trained.find import find_checkpoint, find_run

_MLFLOW = re.compile(r"(runs|models|mlflow-artifacts):/")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with what one must know of it.

    Attributes:
        model: In eval mode, without gradients, on `device`.
        task: What its classes mean.
        bands: The Sentinel-2 bands of its channels, in order.
        settings: The settings of its run, as in config.json.
        device: Where it computes.
        checkpoint: The file that it was read from; inside the cache where that was an MLflow URI.
        sha256: Of that file, 64 hexadecimal digits.
        epoch: After which epoch it was kept.
        fingerprint: Of the patches that it was trained on.
        folder: The run folder that holds the checkpoint; None for a file on its own or from MLflow.
        calibration: What was chosen for this very checkpoint; None where nothing was.
    """

    model: FireSegmentationModel
    task: Task
    bands: tuple[str, ...]
    settings: dict[str, Any]
    device: torch.device
    checkpoint: Path
    sha256: str
    epoch: int
    fingerprint: str
    folder: RunFolder | None
    calibration: Calibration | None


def open_trained(path: Path | str, *, device: DeviceName = "auto", threads: int | None = None) -> Trained:
    """Opens a run, a checkpoint, or a model that MLflow keeps.

    Everything comes from the checkpoint: it does not matter where a run has been moved, or what lies at the paths
    in its settings. A checkpoint is data, not code: nothing in it can run.

    Args:
        path: A run folder (its `best_model.pt`, else `final_model.pt`, else `last.pt`), a checkpoint file, or an
            address of MLflow: `runs:/<id>`, `runs:/<id>/checkpoints/best_model.pt`, `models:/name/3`,
            `models:/name@alias`, `mlflow-artifacts:/…`.
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: CPU threads for torch, for the whole process; None leaves them as they are.

    Raises:
        FiresegError: If there is no such thing, or it is no checkpoint of fireseg.
        SettingError: If the machine has no such device.

    Example:
        >>> trained = open_trained("outputs/del_unet_resnet34", device="cpu")  # doctest: +SKIP
    """
    if threads is not None:
        set_threads(threads)
    place = get_device(device)
    folder, beside = None, None
    if _MLFLOW.match(str(path)):
        from fireseg.tracker import fetch_artifact

        checkpoint = fetch_artifact(str(path))
        beside = RunFolder(checkpoint.parent.parent)
    else:
        checkpoint = find_checkpoint(Path(path).expanduser())
        folder = beside = find_run(checkpoint)
    kept = read_checkpoint(checkpoint)
    task, model = build_model(kept, checkpoint)
    with checkpoint.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Trained(
        model=model.requires_grad_(False).eval().to(place),
        task=task,
        bands=model.bands,
        settings=kept.config,
        device=place,
        checkpoint=checkpoint,
        sha256=sha256,
        epoch=kept.epoch,
        fingerprint=kept.fingerprint,
        folder=folder,
        calibration=get_calibration(beside, sha256) if beside else None,
    )
