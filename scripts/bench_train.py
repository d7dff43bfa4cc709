"""Measures the overhead of a training epoch over the bare model on the same number of images.

    python scripts/bench_train.py --encoder resnet34 --batch-size 16 --workers 2

The non-model share is the cost of loading, augmentation, loss, metrics, logging and checkpoints: 1 - bare / epoch.
The bare time is that of forward, backward and step for the training images and of forward for the validation images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from fireseg import config
from fireseg.engine import Interrupts
from fireseg.engine.optimizer import adamw
from fireseg.runs.folder import ResumePoint, RunFolder
from fireseg.runs.sync import describe_run
from fireseg.train.build import Training, build_training
from fireseg.train.run import run_epochs


def main() -> None:
    """Prints the non-model share and the speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet34", help="encoder of the model (default: resnet34)")
    parser.add_argument("--batch-size", type=int, default=16, help="patches per batch (default: 16)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the loader (default: 2)")
    parser.add_argument("--size", type=int, default=256, help="patch size in pixels (default: 256)")
    parser.add_argument("--train", type=int, default=96, help="number of training patches (default: 96)")
    parser.add_argument("--val", type=int, default=32, help="number of validation patches (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, help="measured epochs after a warm-up epoch (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fireseg_bench_") as name:
        folder = Path(name)
        write_patches(folder / "patches", options)
        training = build(folder, options)
        time_epoch(training)
        epochs, bares = [], []
        for number in range(options.rounds):
            bares.append(time_bare(training, options))
            epochs.append(time_epoch(training))
            print(f"round {number + 1}: bare {bares[-1]:.2f} s, epoch {epochs[-1]:.2f} s", flush=True)
        report(epochs, bares, time_data(training), options)


def write_patches(root: Path, options: argparse.Namespace) -> None:
    """Writes patches of noise, half of them with a burned square; the content does not affect the cost."""
    rng = np.random.default_rng(0)
    for split, count in (("train", options.train), ("val", options.val)):
        (root / split).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((options.size, options.size), np.uint8)
            mask[: options.size // 2, : options.size // 2] = number % 2
            image = rng.random((options.size, options.size, 7), np.float32)
            np.save(root / split / f"bench_r0_c{number}_image.npy", image)
            np.save(root / split / f"bench_r0_c{number}_mask.npy", mask)


def build(folder: Path, options: argparse.Namespace) -> Training:
    """Builds a training with default settings and its own tracking store."""
    overrides = [
        f"data.root={folder / 'patches'}",
        f"data.batch_size={options.batch_size}",
        f"data.num_workers={options.workers}",
        f"model.encoder={options.encoder}",
        "model.weights=none",
        "stopping.patience=0",
        f"tracker.uri=sqlite:///{folder / 'mlflow.db'}",
    ]
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        settings = config.finalize(compose("train", overrides), overrides)
    run = RunFolder.create(folder, "run")
    run.write_config(settings)
    training = build_training(settings, run, ResumePoint(None, None, None))
    training.tracker.start(describe_run(run))
    return training


def time_epoch(training: Training) -> float:
    """Measures one more epoch of the run in seconds."""
    training.engine.epochs = training.state.epoch + 1
    begin = time.perf_counter()
    run_epochs(training, Interrupts())
    return time.perf_counter() - begin


def time_bare(training: Training, options: argparse.Namespace) -> float:
    """Measures forward, backward and step for the training images and forward for the validation images."""
    model = training.state.model
    optimizer = adamw(model.parameters(), lr=1e-12)
    image = torch.rand(options.batch_size, 7, options.size, options.size)
    image = image.to(training.engine.device).contiguous(memory_format=torch.channels_last)
    begin = time.perf_counter()
    model.train()
    for _ in range(options.train // options.batch_size):
        optimizer.zero_grad()
        model(image).mean().backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        for _ in range(options.val // options.batch_size):
            model(image)
    return time.perf_counter() - begin


def time_data(training: Training) -> float:
    """Measures CPU milliseconds per sample of the data pipeline alone, in this process without workers."""
    from fireseg.data.dataset import SampleIndex

    dataset = training.data.train
    begin = time.process_time()
    for position in range(len(dataset)):
        dataset[SampleIndex(epoch=1, position=position, patch=position)]
    return (time.process_time() - begin) / len(dataset) * 1000


def report(epochs: list[float], bares: list[float], data_ms: float, options: argparse.Namespace) -> None:
    """Prints medians and ratios."""
    share = statistics.median(1 - bare / epoch for bare, epoch in zip(bares, epochs, strict=True))
    print(f"\n{options.encoder}, batch {options.batch_size}, {options.size} px, {options.workers} workers,", end=" ")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, python {sys.version.split()[0]}")
    images = options.train + options.val
    print(f"bare model      {images / statistics.median(bares):6.2f} images/s (training and validation images)")
    print(f"epoch           {images / statistics.median(epochs):6.2f} images/s")
    print(f"non-model share {share:6.1%} of an epoch's wall time (median of {len(epochs)})")
    print(f"data pipeline   {data_ms:6.2f} CPU ms per sample")


if __name__ == "__main__":
    main()
