"""Runs with a small model, as a test's helper and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from fireseg import config
from fireseg.engine import Interrupts
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.train.build import build_training
from fireseg.train.run import train

QUICK = (
    "model.encoder=mobilenet_v2",
    "model.weights=none",
    "data.num_workers=0",
    "data.batch_size=4",
    "engine.epochs=1",
    "engine.device=cpu",
    "tracker=none",
)


def train_run(parent: Path, patches: Path, *overrides: str, name: str = "run") -> RunFolder:
    """Trains in this process, in a folder of its own below `parent`."""
    settings, folder = _settle(patches, *overrides), RunFolder.create(parent, name)
    train(settings, folder, point=ResumePoint(None, None, None), interrupts=Interrupts())
    return folder


def make_run(parent: Path, patches: Path, *overrides: str, name: str = "run") -> RunFolder:
    """A run as training leaves it, but with the weights that it began with."""
    settings, folder = _settle(patches, *overrides), RunFolder.create(parent, name)
    folder.write_config(settings)
    begun = build_training(settings, folder, ResumePoint(None, None, None))
    begun.checkpoints.save_best(
        {
            "format": 1,
            "config": settings,
            "class_names": list(begun.task.class_names),
            "bands": list(begun.data.bands),
            "fingerprint": begun.data.fingerprint,
            "model": begun.state.eval_model.state_dict(),
            "epoch": 0,
            "val/fire_iou": None,
        }
    )
    return folder


def _settle(patches: Path, *overrides: str) -> dict[str, Any]:
    typed = [f"data.root={patches}", *QUICK, *overrides]
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return config.settle(compose("train", typed), typed)


def cut_tiles(tiles: Path, patches: Path, **recipe: Any) -> Path:
    """Cuts tiles into patches of 32 pixels, as prepare does."""
    prepare(PrepareOptions(tiles=tiles, patches=patches, tiling=TilingOptions(size=32, **recipe)))
    return patches


def read_json(path: Path) -> dict[str, Any]:
    """What a strict reader finds in the file."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path}: {word} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)
