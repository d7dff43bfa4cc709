"""The whole way in a few minutes: sample data, a short training, its pictures, and what a bare index would have given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from fireseg.burn_index import count_ratios, iou_at, normalised_burn_ratio, tune_threshold
from fireseg.data.bands import BAND_NAMES
from fireseg.rundir import RunFolder, create_folder

MARGIN = 0.05


def main() -> None:
    """Trains, compares with the burn ratio, says where everything is."""
    print(
        "This demo makes a small sample data set (synthetic scenes mixed from measured spectra), trains a small\n"
        "U-Net on it from scratch (model.weights=none: no download), and compares it with a threshold on the\n"
        "normalised burn ratio. A few minutes on two cores.\n",
        flush=True,
    )
    outputs = create_folder(Path("outputs"), "demo")
    command = [sys.executable, "-m", "fireseg.train", "experiment=sample_quick", f"output_dir={outputs}"]
    print("$ python " + " ".join(command[1:]), flush=True)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)
    run = RunFolder(next(path for path in outputs.iterdir() if path.is_dir()))
    facts = run.read_facts()
    best = max((row for row in run.read_metrics() if row["best"]), key=lambda row: row["epoch"])
    index = burn_ratio_iou(Path(facts["data"]["root"]))
    gain = best["val/fire_iou"] - index
    print(f"\nvalidation fire IoU   burn ratio, threshold tuned on train  {index:.3f}")
    print(f"                      U-Net, epoch {best['epoch']:<2}                       {best['val/fire_iou']:.3f}")
    print(f"                      gain over the index                   {gain:+.3f}\n")
    print(f"run folder      {run.path}")
    print(f"pictures        {run.batch}   what the model saw")
    print(f"                {run.samples}   composite, truth, prediction")
    print(f"                {run.curves}   loss and scores by epoch")
    print(f"tracking store  {Path('mlflow.db').resolve()}   (make ui opens it in a browser)")
    if gain < MARGIN:
        sys.exit(f"demo: the model gains {gain:+.3f} over the burn ratio, less than {MARGIN}: something is wrong")


def burn_ratio_iou(patches_root: Path) -> float:
    """Validation fire IoU of the burn ratio, its threshold tuned on the training split.

    Args:
        patches_root: Folder of patches in the project's seven bands.
    """
    counts = {split: count_split(patches_root / split) for split in ("train", "val")}
    return iou_at(counts["val"], tune_threshold(counts["train"]))


def count_split(folder: Path) -> np.ndarray:
    """Counts of `count_ratios` summed over a folder of patches."""
    total = 0
    for path in sorted(folder.glob("*_image.npy")):
        ratio = normalised_burn_ratio(np.load(path).transpose(2, 0, 1), BAND_NAMES)
        mask = np.load(path.with_name(path.name.replace("_image.npy", "_mask.npy")))
        total = total + count_ratios(ratio, mask)
    return np.asarray(total)


if __name__ == "__main__":
    main()
