"""The whole way in a few minutes: sample tiles, patches, a short training, its evaluation, and a map of a scene."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireseg.data import WildfirePatchDataset
from fireseg.errors import FiresegError
from fireseg.evaluate.baseline import count_ratios, iou_at, normalised_burn_ratio, tune_threshold
from fireseg.runs.folder import RunFolder, create_folder
from fireseg.synthetic.tiles import make_sample_scene, make_sample_tiles

TILES, PATCHES, SCENE = (Path("data/sample") / name for name in ("tiles", "patches", "scene"))
MARGIN = 0.05


def main(overrides: Sequence[str]) -> None:
    """Goes from tiles to a trained model, compares it with the burn ratio, says where everything is.

    Args:
        overrides: Settings of the training beyond the recipe, such as `engine.threads=1`.
    """
    print(
        "This demo goes the way of your own data with synthetic tiles, mixed from measured spectra: it cuts them\n"
        "into patches, trains a small U-Net on these from scratch (model.weights=none: no download), compares it with\n"
        "a threshold on the normalised burn ratio, judges it on the test tiles, and draws the map of a scene.\n"
        "A few minutes on two cores.\n",
        flush=True,
    )
    workers = min(os.cpu_count() or 1, 4)
    print(f"1. sample tiles in CEMS layout -> {TILES}", flush=True)
    make_sample_tiles(TILES, train_scenes=40, val_scenes=16, test_scenes=8, workers=workers)
    print("\n2. tiles -> patches", flush=True)
    run("fireseg.prepare", TILES, PATCHES, "--size", 128, "--stride", 112, "--workers", workers)
    print("\n3. patches -> model", flush=True)
    outputs = create_folder(Path("outputs"), "demo")
    run("fireseg.train", "experiment=sample_tiles", f"data.root={PATCHES}", f"output_dir={outputs}", *overrides)
    trained = RunFolder(next(path for path in outputs.iterdir() if path.is_dir()))
    best = max((row for row in trained.read_metrics() if row["best"]), key=lambda row: row["epoch"])
    index = burn_ratio_iou(PATCHES)
    gain = best["val/fire_iou"] - index
    print(f"\nvalidation fire IoU   burn ratio, threshold tuned on train  {index:.3f}")
    print(f"                      U-Net, epoch {best['epoch']:<2}                       {best['val/fire_iou']:.3f}")
    print(f"                      gain over the index                   {gain:+.3f}\n")
    print("4. what the run is worth on the test split", flush=True)
    run("fireseg.evaluate", trained.path, "--split", "test")
    print(f"\n5. a scene that nobody cut into patches -> {SCENE}, and its map", flush=True)
    scene = make_sample_scene(SCENE, seed=1)
    run("fireseg.predict", trained.path, scene, "--out", outputs / "maps")
    show_places(trained, outputs / "maps")
    if gain < MARGIN:
        sys.exit(f"demo: the model gains {gain:+.3f} over the burn ratio, less than {MARGIN}: something is wrong")


def run(door: str, *words: object) -> None:
    """Calls a door as a user would; ends with it if it ends badly."""
    command = ["-m", door, *map(str, words)]
    print("$ python " + " ".join(command), flush=True)
    if code := subprocess.run([sys.executable, *command], check=False).returncode:
        sys.exit(code)


def show_places(trained: RunFolder, maps: Path) -> None:
    """Says where everything is."""
    print(f"\ntiles           {TILES}   12 bands, DEL, GRA, CM and json, as the real ones lie on disk")
    print(f"patches         {PATCHES}   {PATCHES / 'report.html'} shows what is in them")
    print(f"run folder      {trained.path}")
    print(f"pictures        {trained.batch}   what the model saw")
    print(f"                {trained.samples}   composite, truth, prediction")
    print(f"                {trained.curves}   loss and scores by epoch")
    print(f"evaluation      {trained.evaluation('test', 'html')}   open it in a browser")
    stem = next(maps.glob("*.png")).with_suffix("")
    print(f"map             {stem}.png   to look at")
    print(f"                {stem}_burned.gpkg   burned areas, for QGIS; _classes.tif and _fire.tif the same as pixels")
    print(f"tracking store  {Path('mlflow.db').resolve()}   (make ui opens it in a browser)")


def burn_ratio_iou(patches_root: Path) -> float:
    """Validation fire IoU of the burn ratio, its threshold tuned on the training split.

    Args:
        patches_root: Folder of prepared patches in the project's seven bands.
    """
    counts = {split: count_split(patches_root / split) for split in ("train", "val")}
    return iou_at(counts["val"], tune_threshold(counts["train"]))


def count_split(folder: Path) -> NDArray[np.int64]:
    """Counts of `count_ratios` summed over a folder of patches."""
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
        sys.exit("\n".join(f"demo: {fault}" for fault in error.faults))
