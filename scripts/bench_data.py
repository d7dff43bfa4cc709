"""Measures the cost of loading batches from patches on disk, compared with stock albumentations on .npy files.

    python scripts/bench_data.py --rounds 7

Reports CPU time per sample of this process and its workers, as medians over rounds in which the pipelines take
turns. The stock pipeline is np.load, the albumentations transforms with the same probabilities and a plain
DataLoader, with the same settings: one thread, persistent workers, masks of one byte. The floor pipeline reads
and scales without augmentation.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing import active_children  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.data import DataLoader, Dataset

from fireseg.data import WildfireDataModule, get_strong_augmentation, get_training_augmentation
from fireseg.data.bands import BAND_NAMES, SCALE, to_reflectance

PROBABILITIES: dict[str, dict[str, Any]] = {
    "standard": {"flip": 0.5, "turn": 0.5, "elastic": 0.0, "light": 0.5, "noise": 0.3},
    "strong": {"flip": 0.7, "turn": 0.7, "elastic": 0.3, "light": 0.8, "noise": 0.5},
}
AUGMENTATIONS = {"standard": get_training_augmentation, "strong": get_strong_augmentation}

MakeLoader = Callable[[int], Iterable[Any]]


class StockDataset(Dataset[tuple[Tensor, Tensor]]):
    """Patches in one .npy file each, augmented by stock transforms."""

    def __init__(self, folder: Path, transform: A.Compose) -> None:
        self.images, self.transform = sorted(folder.glob("*_image.npy")), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Loads and augments an image and its mask."""
        path = self.images[index]
        mask = np.load(path.with_name(path.name.replace("_image", "_mask")))
        augmented = self.transform(image=np.load(path), mask=mask)
        image = np.ascontiguousarray(augmented["image"].transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(augmented["mask"]))


def main() -> None:
    """Prints costs, ratios and sizes on disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=192, help="number of patches (default: 192)")
    parser.add_argument("--size", type=int, default=256, help="patch size in pixels (default: 256)")
    parser.add_argument("--batch-size", type=int, default=16, help="patches per batch (default: 16)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="worker counts (default: 0 2)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds after a warm-up round (default: 5)")
    parser.add_argument("--folder", type=Path, help="folder of the temporary patches (default: that of the system)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="fireseg_bench_", dir=options.folder) as name:
        root = Path(name)
        write_patches(root, options)
        print(f"python {sys.version.split()[0]}, torch {torch.__version__}, albumentations {A.__version__},", end=" ")
        print(f"{options.patches} patches of {options.size} px, batch {options.batch_size}", flush=True)
        for num_workers in options.workers:
            compare(root, num_workers, options)
        report_sizes(root)


def write_patches(root: Path, options: argparse.Namespace) -> None:
    """Writes one data set of noise in both layouts; the content does not affect the cost."""
    rng = np.random.default_rng(0)
    side, counts = options.size, {"train": options.patches, "val": 1}
    for split, count in counts.items():
        packed, files = root / "packed" / split, root / "files" / split
        for folder in (packed, files):
            folder.mkdir(parents=True)
        images = rng.integers(0, 4000, (count, side, side, len(BAND_NAMES)), dtype=np.uint16)
        masks = rng.integers(0, 2, (count, side, side), dtype=np.uint8)
        names = [f"bench_r0_c{number:06d}" for number in range(count)]
        np.save(packed / "images.npy", images)
        np.save(packed / "masks_del.npy", masks)
        np.save(packed / "masks_gra.npy", masks)
        with (packed / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["patch_id"], *([name] for name in names)])
        for name, image, mask in zip(names, images, masks, strict=True):
            np.save(files / f"{name}_image.npy", to_reflectance(image))
            np.save(files / f"{name}_mask.npy", mask)
    manifest = {"format": 1, "layout": "packed", "bands": BAND_NAMES, "scale": SCALE, "patches": counts}
    (root / "packed" / "manifest.json").write_text(json.dumps(manifest))


def compare(root: Path, num_workers: int, options: argparse.Namespace) -> None:
    """Runs the pipelines in turns, round by round, and prints medians."""
    pipelines = {"floor": make_fireseg_loader(root / "packed", None, num_workers, options)}
    for strength in PROBABILITIES:
        pipelines[f"{strength}: stock"] = make_stock_loader(root / "files", strength, num_workers, options)
        pipelines[f"{strength}: packed"] = make_fireseg_loader(root / "packed", strength, num_workers, options)
        pipelines[f"{strength}: files"] = make_fireseg_loader(root / "files", strength, num_workers, options)
    costs: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(options.rounds + 1):
        for name, make_loader in pipelines.items():
            before = cpu_seconds()
            for _ in make_loader(number):
                pass
            cost = (cpu_seconds() - before) / options.patches * 1000
            if number:
                costs[name].append(cost)
    print(f"\n{num_workers} workers          CPU ms per sample   relative to stock (median, min to max)")
    for name, values in costs.items():
        line = f"{name:18s} {statistics.median(values):12.2f}"
        if (stock := f"{name.partition(':')[0]}: stock") in costs and name != stock:
            ratios = sorted(cost / other for cost, other in zip(values, costs[stock], strict=True))
            line += f" {statistics.median(ratios):14.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(line, flush=True)


def make_fireseg_loader(root: Path, strength: str | None, num_workers: int, options: argparse.Namespace) -> MakeLoader:
    """Returns the training loader of the data module."""
    augment = AUGMENTATIONS[strength](**PROBABILITIES[strength]) if strength else None
    data = WildfireDataModule(root, options.batch_size, num_workers=num_workers, augment=augment)
    data.setup()
    return data.train_dataloader


def make_stock_loader(root: Path, strength: str, num_workers: int, options: argparse.Namespace) -> MakeLoader:
    """Returns a plain loader with stock transforms."""
    chance = PROBABILITIES[strength]
    transform = A.Compose(
        [
            A.HorizontalFlip(p=chance["flip"]),
            A.VerticalFlip(p=chance["flip"]),
            A.RandomRotate90(p=chance["turn"]),
            *([A.ElasticTransform(p=chance["elastic"])] if chance["elastic"] else []),
            A.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.1, p=chance["light"]),
            A.GaussNoise(std_range=(0.0, 0.005), p=chance["noise"]),
        ]
    )
    loader = DataLoader(
        StockDataset(root / "train", transform),
        options.batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    return lambda number: loader


def cpu_seconds() -> float:
    """CPU time of this process and its workers so far, all threads."""
    workers = (worker.pid for worker in active_children())
    # The CPU clock of another process, computed as by clock_getcpuclockid(3) on Linux.
    return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in workers if pid)


def report_sizes(root: Path) -> None:
    """Prints sizes on disk and their ratios."""

    def measure(pattern: str) -> int:
        return sum(path.stat().st_size for path in root.glob(pattern))

    images = measure("packed/*/images.npy")
    both = sum(path.stat().st_size for path in (root / "packed").rglob("*") if path.is_file())
    file_images, files = measure("files/*/*_image.npy"), measure("files/*/*.npy")
    print("\ndisk                          packed     files     ratio")
    for name, one, other in (
        ("images", images, file_images),
        ("two tasks (two folders)", both, 2 * files),
        ("one task (both masks packed)", both, files),
    ):
        print(f"{name:28s} {one / 1e6:6.1f} MB {other / 1e6:6.1f} MB     {one / other:.3f}")


if __name__ == "__main__":
    main()
