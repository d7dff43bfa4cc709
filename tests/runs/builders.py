"""Builders for tests of runs: settings, checkpoints with random weights, and run folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from fireseg import config
from fireseg.model import FireSegmentationModel
from fireseg.runs.folder import RunFolder

QUICK = ("model.encoder=tu-test_efficientnet", "model.weights=none", "engine.device=cpu", "tracker=none")
FINGERPRINT = "f00d" * 16

SELF_TRAINING: dict[str, Any] = {
    **{"teacher": "outputs/teacher", "teacher_sha256": "cafe" * 16, "confidence": 0.9, "patches": 12, "left_out": 3},
    **{"pixels": 5000, "labelled_share": 0.5, "burned_share": 0.25, "fingerprint": "beef" * 16},
    "leaks": ["overlap: val EMSR1_AOI01_01 and unlabelled EMSR2_AOI01_01"],
}
"""`self_training` of a run in run.json and its checkpoints."""


def make_settings(*overrides: str) -> dict[str, Any]:
    """Composes the settings of a run as a checkpoint contains them."""
    words = [*QUICK, *overrides]
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return config.finalize(compose("train", words), words)


def make_checkpoint(settings: dict[str, Any], *, seed: int = 0, epoch: int = 3) -> dict[str, Any]:
    """Creates the content of a checkpoint with random weights."""
    torch.manual_seed(seed)
    model = config.make(settings["model"], FireSegmentationModel)
    model.set_normalisation([0.2] * len(model.bands), [0.1] * len(model.bands))
    return {
        "format": 1,
        "config": settings,
        "class_names": settings["task"]["class_names"],
        "bands": settings["data"]["bands"],
        "fingerprint": FINGERPRINT,
        "versions": {"fireseg": "0"},
        "model": model.state_dict(),
        "epoch": epoch,
        "val/fire_iou": 0.5,
    }


def write_run(path: Path, *overrides: str, content: dict[str, Any] | None = None) -> RunFolder:
    """Writes a run folder with `config.json` and `checkpoints/best_model.pt`."""
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    content = make_checkpoint(make_settings(*overrides)) if content is None else content
    folder.write_config(content["config"])
    torch.save(content, folder.checkpoints / "best_model.pt")
    return folder


def write_finished_run(
    path: Path,
    *,
    settings: dict[str, Any] | None = None,
    ious: Sequence[float | None] = (0.5,),
    fires: Mapping[str, Mapping[str, float | None]] | None = None,
    fingerprint: str = FINGERPRINT,
    status: str = "FINISHED",
    num_parameters: int = 1_500_000,
    seconds: float = 30.0,
) -> RunFolder:
    """Writes the text files of a run without a checkpoint, as they are after its last epoch.

    Args:
        path: Run folder to create.
        settings: Settings by dotted key, besides those of a resnet18 with seed 0.
        ious: Fire IoU on val by epoch; the highest one is the best epoch.
        fires: IoU of each fire, by evaluated split.
        fingerprint: Fingerprint of the patches.
        status: Outcome that run.json notes.
        num_parameters: Number of parameters that run.json notes.
        seconds: Duration of an epoch.
    """
    path.mkdir(parents=True)
    folder = RunFolder(path)
    content: dict[str, Any] = {
        "task": {"name": "del", "num_classes": 2, "class_names": ["background", "fire"]},
        "data": {"root": "patches", "batch_size": 4},
        "model": {"arch": "unet", "encoder": "resnet18"},
        "optimizer": {"_target_": "fireseg.engine.optimizer.adamw", "lr": 0.001},
        "scheduler": None,
        "tracker": {"_target_": "fireseg.tracker.create_no_tracker"},
        "seed": 0,
        "output_dir": str(path.parent),
        "engine": {"epochs": 9},
    }
    for key, value in (settings or {}).items():
        group, _, name = key.rpartition(".")
        (content[group] if group else content)[name] = value
    folder.write_config(content)
    folder.write_provenance(
        {
            "data": {"root": "patches", "fingerprint": fingerprint, "class_counts": [90, 10]},
            "model": {"num_parameters": num_parameters},
            "peak_memory": {"process_bytes": 1_000_000_000},
            "tracked": {"status": status},
        }
    )
    best = -1.0
    for epoch, iou in enumerate(ious, start=1):
        is_best = (iou or 0.0) > best
        best = max(best, iou or 0.0)
        losses = {"train/loss": 1 / epoch, "val/loss": 1 / epoch, "lr": 0.001, "seconds": seconds}
        folder.append_metrics({"epoch": epoch, "val/fire_iou": iou, **losses, "best": is_best})
    for split, scores in (fires or {}).items():
        write_evaluation(folder, split, scores, epoch=1 + ious.index(max(iou or 0.0 for iou in ious)))
    return folder


def write_evaluation(folder: RunFolder, split: str, scores: Mapping[str, float | None], *, epoch: int) -> None:
    """Writes the part of an evaluation that comparisons of runs read."""
    run = {"name": folder.path.name, "sha256": "ab12", "checkpoint": "best_model.pt", "epoch": epoch, "task": "del"}
    fires = [{"name": name, "iou": iou, "truth_sha256": name} for name, iou in scores.items()]
    content = {
        "format": 4,
        "split": split,
        "run": {**run, "class_names": ["background", "fire"]},
        "data": {"fingerprint": FINGERPRINT},
        "methods": [{"pixels": {"fire_iou": None}, "unburned": {}}],
        "fires": fires,
    }
    folder.evaluation(split, "json").write_text(json.dumps(content))
