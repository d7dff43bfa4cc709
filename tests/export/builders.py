"""Builders for tests of exports: runs with small models, and an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fireseg.export.options import ExportOptions
from fireseg.export.pipeline import export_model
from fireseg.files import hash_file
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.folder import RunFolder
from tests.runs import builders

OPERATING_POINT = 0.6, 2.0
"""Threshold and temperature of the runs."""


def write_run(path: Path, *overrides: str, patches: Path | None = None) -> RunFolder:
    """Writes a run with a random model of the smallest encoder, a calibration, and patches for the comparison."""
    root = [] if patches is None else [f"data.root={patches}"]
    folder = builders.write_run(path, *overrides, *root)
    set_threshold(folder, OPERATING_POINT[0])
    return folder


def set_threshold(folder: RunFolder, threshold: float) -> None:
    """Writes the calibration of the best checkpoint."""
    calibration = Calibration(
        temperature=OPERATING_POINT[1],
        threshold=threshold,
        rule_min_pixels=1,
        rule_min_odds=0.0,
        checkpoint_sha256=hash_file(folder.checkpoints / "best_model.pt"),
        fingerprint=builders.FINGERPRINT,
    )
    write_calibration(folder, calibration)


def load(folder: RunFolder) -> TrainedModel:
    """Loads a run on the CPU."""
    return load_trained_model(folder.path, device="cpu")


def export(folder: RunFolder, **options: Any) -> Path:
    """Exports a run, and returns the folder of the export."""
    return export_model(ExportOptions(run=str(folder.path), **options))


def write_evaluation(folder: RunFolder, *, leaks: tuple[str, ...] = (), split: str = "test") -> None:
    """Writes an evaluation of the best model: two fires, a tuned NBR, and one false alarm on three tiles."""
    interval = {"mean": 0.75, "low": None, "high": None, "num": 2, "values": [0.7, 0.8]}
    methods = [
        {
            "name": "model",
            "is_there": True,
            "pixels": {"fire_iou": 0.8},
            "fires": {"iou": interval},
            "unburned": {"num": 3, "num_false_alarms": 1, "predicted_ha": 12.34},
        },
        {"name": "index_tuned", "is_there": True, "pixels": {"fire_iou": 0.5}},
    ]
    run = {
        "name": "run",
        "sha256": hash_file(folder.checkpoints / "best_model.pt"),
        "task": "del",
        "class_names": ["background", "fire"],
    }
    content = {
        "format": 4,
        "split": split,
        "run": run,
        "data": {"fingerprint": builders.FINGERPRINT, "is_same": True, "fires": 2, "leaks": list(leaks)},
        "decision": {"is_optimistic": split == "val"},
        "methods": methods,
        "fires": [{"name": "a", "iou": 0.7, "truth_sha256": ""}, {"name": "b", "iou": 0.8, "truth_sha256": ""}],
    }
    folder.evaluation(split, "json").write_text(json.dumps(content))
