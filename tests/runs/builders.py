"""Builders for tests of runs: settings, checkpoints with random weights, and run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from fireseg import config
from fireseg.model import FireSegmentationModel
from fireseg.runs.folder import RunFolder

QUICK = ("model.encoder=tu-test_efficientnet", "model.weights=none", "engine.device=cpu", "tracker=none")
FINGERPRINT = "f00d" * 16


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
