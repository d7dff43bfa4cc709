"""Runs the whole workflow on synthetic data: tiles, patches, training, evaluation and a map of a scene."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireseg.console import print_error
from fireseg.data import WildfirePatchDataset
from fireseg.errors import FiresegError
from fireseg.evaluate.baseline import count_ratios, iou_at, normalised_burn_ratio, tune_threshold
from fireseg.runs.folder import RunFolder, create_folder
from fireseg.synthetic.tiles import make_sample_scene, make_sample_tiles

TILES, PATCHES, SCENE = (Path("data/sample") / name for name in ("tiles", "patches", "scene"))
MIN_GAIN = 0.05
"""Smallest gain in validation fire IoU over the NBR baseline; the demo fails below it."""


def main(overrides: Sequence[str]) -> None:
    """Runs the five steps of the demo and prints a summary.

    Args:
        overrides: Further settings of the training, such as `engine.threads=1`.
    """
    print(
        "This demo runs the whole workflow on synthetic Sentinel-2 tiles. Nothing is downloaded, and it takes a few\n"
        "minutes on two cores. The scores say nothing about real fires.",
        flush=True,
    )
    workers = min(os.cpu_count() or 1, 4)
    announce(1, f"Making 64 synthetic tiles with burned-area masks in {TILES}.")
    make_sample_tiles(TILES, train_scenes=40, val_scenes=16, test_scenes=8, workers=workers)
    announce(2, f"Cutting the tiles into patches of 128 x 128 pixels in {PATCHES}.")
    run("fireseg.prepare", TILES, PATCHES, "--size", 128, "--stride", 112, "--workers", workers)
    announce(3, "Training a small U-Net from random weights to segment burned areas.")
    outputs = create_folder(Path("outputs"), "demo")
    run("fireseg.train", "experiment=sample_tiles", f"data.root={PATCHES}", f"output_dir={outputs}", *overrides)
    trained = RunFolder(next(path for path in outputs.iterdir() if path.is_dir() and not path.is_symlink()))
    announce(4, "Evaluating the model on the test patches, which were not used in training.")
    run("fireseg.evaluate", trained.path, "--split", "test")
    announce(5, f"Mapping the burned areas of a whole scene, {SCENE}, which was not cut into patches.")
    scene = make_sample_scene(SCENE, seed=1)
    run("fireseg.predict", trained.path, scene, "--out", outputs / "maps")
    best = max((row for row in trained.read_metrics() if row["best"]), key=lambda row: row["epoch"])
    baseline = baseline_iou(PATCHES)
    print_summary(trained, outputs / "maps", epoch=best["epoch"], model=best["val/fire_iou"], baseline=baseline)
    if (gain := best["val/fire_iou"] - baseline) < MIN_GAIN:
        sys.exit(f"demo: the model gains {gain:+.3f} over the NBR baseline; expected at least {MIN_GAIN:+.3f}")


def announce(number: int, sentence: str) -> None:
    """Prints the number and the description of a step."""
    print(f"\nStep {number} of 5: {sentence}", flush=True)


def run(module: str, *arguments: object) -> None:
    """Prints and runs a command of fireseg; exits with its code if it fails."""
    command = ["-m", module, *map(str, arguments)]
    print(f"$ python {shlex.join(command)}", flush=True)
    if code := subprocess.run([sys.executable, *command], check=False).returncode:
        sys.exit(code)


def print_summary(trained: RunFolder, maps: Path, *, epoch: int, model: float, baseline: float) -> None:
    """Prints what was trained, its score against the NBR baseline, and the paths of all results."""
    map_picture = next(maps.glob("*.png"))
    print(
        f"""
Done. Trained a U-Net on the synthetic patches; best epoch {epoch}.

Validation fire IoU
  U-Net                 {model:.3f}
  NBR baseline          {baseline:.3f}   threshold on the normalised burn ratio, tuned on the training patches
  gain                 {model - baseline:+.3f}

Results
  tiles                 {TILES}
  patches               {PATCHES}
  data report           {PATCHES / "report.html"}
  run folder            {trained.path}
  training curves       {trained.curves}
  model input           {trained.batch}
  predictions           {trained.samples}
  evaluation page       {trained.evaluation("test", "html")}
  map                   {map_picture}
  burned areas          {map_picture.with_name(f"{map_picture.stem}_burned.gpkg")}   (polygons, for QGIS)
  MLflow runs           {Path("mlflow.db").resolve()}   (`make ui` opens them in a browser)"""
    )


def baseline_iou(patches_root: Path) -> float:
    """Computes the validation fire IoU of the NBR baseline, with the threshold tuned on the training split.

    Args:
        patches_root: Folder of prepared patches with the seven default bands.
    """
    counts = {split: count_split(patches_root / split) for split in ("train", "val")}
    return iou_at(counts["val"], tune_threshold(counts["train"]))


def count_split(folder: Path) -> NDArray[np.int64]:
    """Sums the histograms of `count_ratios` over all patches of a split."""
    patches = WildfirePatchDataset(folder)
    total = 0
    for number in range(len(patches)):
        image, mask, _ = patches[number]
        total = total + count_ratios(normalised_burn_ratio(image.numpy(), patches.bands), mask.numpy())
    return np.asarray(total)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FiresegError as error:
        sys.exit(print_error(error))
