"""One run, from settings to a finished folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from fireseg import config
from fireseg.engine import Interrupts
from fireseg.errors import FiresegError
from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
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

Run = Callable[..., RunFolder]


@pytest.fixture
def run(make_patches: Callable[..., Path], tmp_path: Path) -> Run:
    """Trains in this process, on look-alike patches, in a folder of its own."""

    def go(*overrides: str, point: ResumePoint | None = None, parent: Path | None = None, **patches: Any) -> RunFolder:
        root = tmp_path / "patches"
        if not root.exists():
            make_patches(root, **patches)
        typed = [f"data.root={root}", *QUICK, *overrides]
        with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
            settings = config.finalize(compose("train", typed), typed)
        point = point or ResumePoint(None, None, None)
        folder = point.folder or RunFolder.create(parent or tmp_path / "outputs", "run")
        train(settings, folder, point=point, interrupts=Interrupts())
        return folder

    return go


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the suite logs, which it otherwise keeps from the root logger."""
    logger = logging.getLogger("fireseg")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_a_run_leaves_all_that_it_promises(run: Run):
    folder = run("engine.epochs=2", "checkpoint.every=1", "checkpoint.keep=1")

    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/{name}.pt" for name in ("last", "best_model", "final_model", "checkpoint_epoch_2")}
    pictures = {"batch.png", "samples.png", "curves.png"}
    assert names == {"config.json", "run.json", "metrics.jsonl", *checkpoints, *pictures}


def test_config_json_is_enough_to_build_the_model_again(run: Run):
    folder = run()
    settings = json.loads(folder.config.read_text())
    best = load(folder.checkpoints / "best_model.pt")

    model = config.make({**settings["model"], "weights": "none"}, torch.nn.Module)
    model.load_state_dict(best["model"])

    assert best["bands"] == settings["data"]["bands"]
    assert best["class_names"] == ["background", "fire"]
    assert "${" not in folder.config.read_text()


def test_the_run_records_what_it_was_made_of(run: Run):
    facts = run().read_provenance()

    assert {"versions", "git_commit", "host", "data", "weights"} <= set(facts)
    assert len(facts["data"]["mean"]) == 7
    assert facts["weights"]["source"].startswith("none")


def test_the_model_carries_the_normalisation_of_the_training_split(run: Run, tmp_path: Path):
    folder = run()
    images = np.stack([np.load(path) for path in sorted((tmp_path / "patches/train").glob("*_image.npy"))])

    mean = load(folder.checkpoints / "best_model.pt")["model"]["mean"]

    np.testing.assert_allclose(mean.flatten().numpy(), images.mean((0, 1, 2)), rtol=1e-4)


def test_a_validation_split_without_fire_is_warned_of_and_its_best_model_is_the_last(
    run: Run, said: pytest.LogCaptureFixture, make_patches: Callable[..., Path], tmp_path: Path
):
    make_patches(tmp_path / "patches")
    for path in (tmp_path / "patches/val").glob("*_mask.npy"):
        np.save(path, np.full((32, 32), 255, np.uint8))

    folder = run("engine.epochs=2")

    first = said.text.index("epoch 1/2")
    assert "val" in said.text[:first]
    assert "fire" in said.text[:first]
    assert "never a number" in said.text
    assert [row["val/fire_iou"] for row in folder.read_metrics()] == [None, None]
    best, final = (load(folder.checkpoints / name) for name in ("best_model.pt", "final_model.pt"))
    assert best["epoch"] == final["epoch"] == 2


def test_a_warm_start_takes_the_weights_and_says_that_the_head_is_new(
    run: Run, said: pytest.LogCaptureFixture, make_patches: Callable[..., Path], tmp_path: Path
):
    before = run()
    shutil.rmtree(tmp_path / "patches")
    make_patches(tmp_path / "patches", num_classes=5)

    after = run("task=gra", f"model.weights={before.path}", "optimizer.lr=1e-12", "engine.limit_batches=1")

    old, new = (load(folder.checkpoints / "best_model.pt")["model"] for folder in (before, after))
    encoder = next(name for name in old if "encoder" in name and old[name].dim() == 4)
    torch.testing.assert_close(old[encoder], new[encoder])
    assert "head" in said.text
    assert len(after.read_provenance()["weights"]["sha256"]) == 64


def test_a_run_is_not_resumed_on_other_data(run: Run, make_patches: Callable[..., Path], tmp_path: Path):
    folder = run()
    shutil.rmtree(tmp_path / "patches")
    make_patches(tmp_path / "patches", seed=1)

    with pytest.raises(FiresegError, match=r"holds other patches than .*last\.pt was trained on.*model\.weights="):
        run("engine.epochs=2", point=find_resume_point(folder.path))


def test_weights_alone_are_not_resumed_from(run: Run):
    folder = run()
    best = folder.checkpoints / "best_model.pt"

    with pytest.raises(FiresegError, match=r"holds weights alone.*model\.weights=.*best_model\.pt"):
        run(point=find_resume_point(best))


def test_a_finished_run_resumed_has_nothing_left_to_do(run: Run, said: pytest.LogCaptureFixture):
    folder = run()
    rows = folder.read_metrics()

    run(point=find_resume_point(folder.path))

    assert "nothing is left to do after epoch 1" in said.text
    assert folder.read_metrics() == rows


def test_training_stops_when_patience_has_run_out(run: Run, said: pytest.LogCaptureFixture):
    folder = run("engine.epochs=50", "stopping.patience=1", "optimizer.lr=1e-9")

    assert "stopped early" in said.text
    assert len(folder.read_metrics()) < 50
    assert (folder.checkpoints / "final_model.pt").exists()


def test_a_class_that_does_not_occur_is_reported(run: Run, said: pytest.LogCaptureFixture):
    run("task=gra", num_classes=3)

    assert "no pixel of high, destroyed; it weighs 1" in said.text


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of two megabytes can be mounted by root alone")
def test_a_full_disk_is_one_clear_line_and_what_was_there_stays_whole(run: Run, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(FiresegError, match=r"best_model\.pt: the disk is full"):
            run(parent=small)
        (folder,) = small.iterdir()
        left = sorted(path.name for path in (folder / "checkpoints").iterdir())
        json.loads((folder / "config.json").read_text())
    finally:
        subprocess.run(["umount", str(small)], check=True)

    assert left == []
