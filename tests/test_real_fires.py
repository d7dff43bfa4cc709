"""Preparation and training on real fires with real ImageNet weights."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fireseg import config
from fireseg.engine import Interrupts
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.train.build import build_training
from fireseg.train.run import run_epochs

BANDS = ("B02", "B03", "B04", "B08", "B12")

NBR_IOU = 0.758
"""Validation fire IoU of the NBR baseline on these fires, with the threshold tuned on the training fires."""

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.real,
    pytest.mark.skipif(
        "FIRESEG_REAL_DATA" not in os.environ, reason="FIRESEG_REAL_DATA, the folder of real fires, is not set"
    ),
]


@pytest.fixture(scope="module")
def real() -> Path:
    return Path(os.environ["FIRESEG_REAL_DATA"])


@pytest.fixture(scope="module")
def patches(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(real, tmp_path_factory.mktemp("california") / "patches", size=128, stride=56)


def prepare(real: Path, patches: Path, *, size: int, stride: int) -> Path:
    """Cuts the Californian fires into patches by the command."""
    options = ["--bands", *BANDS, "--size", str(size), "--stride", str(stride)]
    command = [sys.executable, "-m", "fireseg.prepare", str(real / "california"), str(patches)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return patches


def train(patches: Path, folder: Path, *overrides: str) -> list[dict[str, float]]:
    """Trains in this process and returns the rows of metrics.jsonl."""
    settings = [
        f"data.root={patches}",
        f"data.bands=[{','.join(BANDS)}]",
        "data.batch_size=8",
        "data.num_workers=0",
        "model.encoder=mobilenet_v2",
        "engine.device=cpu",
        "tracker=none",
        *overrides,
    ]
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        settled = config.finalize(compose("train", settings), settings)
    run = RunFolder.create(folder, "run")
    run_epochs(build_training(settled, run, ResumePoint(None, None, None)), Interrupts())
    return run.read_metrics()


def test_a_small_network_beats_the_nbr_baseline_on_real_fires(real: Path, patches: Path, tmp_path: Path):
    rows = train(
        patches,
        tmp_path,
        f"model.weights={real / 'weights' / 'mobilenet_v2.imagenet.safetensors'}",
        "scheduler=cosine",
        "scheduler.warmup_epochs=1",
        "optimizer.lr=0.004",
        "engine.epochs=16",
        "stopping.patience=0",
    )

    best = max(row["val/fire_iou"] for row in rows)
    print(f"validation fire IoU on the Californian fires: best {best:.4f}, last {rows[-1]['val/fire_iou']:.4f}")
    assert best > NBR_IOU


def test_imagenet_weights_have_a_lower_first_epoch_loss_than_random_ones(real: Path, tmp_path: Path):
    # Small windows with a small stride give an epoch of 200 steps. Random weights are better in the first 20,
    # while the pretrained encoder adapts to other bands.
    patches = prepare(real, tmp_path / "patches", size=64, stride=16)
    losses: dict[str, list[float]] = {}
    for weights in ("none", str(real / "weights" / "mobilenet_v2.imagenet.safetensors")):
        for seed in (0, 1):
            settings = (f"seed={seed}", "engine.epochs=1", "optimizer.lr=0.004")
            rows = train(patches, tmp_path, f"model.weights={weights}", *settings)
            losses.setdefault(weights, []).append(rows[0]["train/loss"])

    random, pretrained = (statistics.mean(values) for values in losses.values())
    print(f"first-epoch training loss: random {random:.4f}, ImageNet {pretrained:.4f}")
    assert pretrained < random
