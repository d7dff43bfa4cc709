"""Kills training runs at random times, resumes them and compares the results with an uninterrupted run.

python scripts/kill_test.py --kills 20 --folder /tmp/kills
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

TIMINGS = {"seconds", "images_per_second"}
SETTINGS = (
    "model.weights=none",
    "model.encoder=tu-test_efficientnet",
    "data.batch_size=4",
    "data.weighted_sampling=true",
    "engine.epochs=4",
    "engine.device=cpu",
    "engine.ema_decay=0.9",
    "optimizer.lr=0.001",
    "checkpoint.every=2",
    "tracker=none",
)


def write_patches(root: Path, *, train: int = 12, val: int = 4, size: int = 32) -> Path:
    """Writes a few patches with a learnable pattern under `root/{train,val}`."""
    rng = np.random.default_rng(0)
    for split, count, tile in (("train", train, "EMSR001_AOI01_01"), ("val", val, "EMSR002_AOI01_01")):
        folder = root / split
        folder.mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((size, size), np.uint8)
            mask[: int(rng.integers(0, size)), : int(rng.integers(1, size))] = 1
            image = rng.uniform(0.05, 0.15, (size, size, 7)).astype(np.float32)
            image[..., 3] += np.where(mask > 0, 0.0, 0.3).astype(np.float32)
            np.save(folder / f"{tile}_r0_c{number}_image.npy", image)
            np.save(folder / f"{tile}_r0_c{number}_mask.npy", mask)
    return root


def start(arguments: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    """Starts a training in a new process group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "fireseg.train", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a training and returns its output; raises RuntimeError if it failed."""
    output, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"training failed with exit code {process.returncode}:\n{output}")
    return output


def only_run(outputs: Path) -> Path:
    """Returns the only run folder in a folder."""
    (run,) = (path for path in outputs.iterdir() if path.is_dir() and not path.is_symlink())
    return run


def differences(run: Path, other: Path) -> list[str]:
    """Compares two run folders: weights to the bit, metrics without timings, names of checkpoints."""
    lines = []
    for name in ("last.pt", "best_model.pt", "final_model.pt"):
        a, b = (torch.load(path / "checkpoints" / name, weights_only=True) for path in (run, other))
        lines += [f"{name}: {key}" for key in a["model"] if not torch.equal(a["model"][key], b["model"][key])]
        if a["epoch"] != b["epoch"]:
            lines.append(f"{name}: epoch {a['epoch']} and {b['epoch']}")
    rows, other_rows = read_rows(run), read_rows(other)
    if rows != other_rows:
        lines.append(f"metrics.jsonl:\n  {rows}\n  {other_rows}")
    names, other_names = ({file.name for file in (path / "checkpoints").iterdir()} for path in (run, other))
    if names != other_names:
        lines.append(f"checkpoints: {sorted(names)} and {sorted(other_names)}")
    return lines


def read_rows(run: Path) -> list[dict[str, float | None]]:
    """Reads the rows of metrics.jsonl without timings."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]


def main() -> None:
    """Trains the reference run, then kills, resumes and compares the other runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of runs to kill (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the times (default: 0)")
    parser.add_argument("--folder", type=Path, help="working folder (default: a new temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fireseg_kills_"))
    patches = write_patches(folder / "patches")
    arguments = [f"data.root={patches}", *SETTINGS]
    begin = time.perf_counter()
    finish(start([*arguments, f"output_dir={folder / 'reference'}", "data.num_workers=0"], folder))
    duration = time.perf_counter() - begin
    reference = only_run(folder / "reference")
    print(f"reference: {duration:.1f} s, {reference}", flush=True)
    rng, failures = random.Random(options.seed), 0
    for number in range(1, options.kills + 1):
        delay, workers = rng.uniform(0.3, 1.0) * duration, rng.choice([(0, 2), (2, 0)])
        changes = kill_once(folder / f"kill_{number}", arguments, reference, delay, workers)
        failures += bool(changes)
        setup = f"after {delay:5.1f} s, workers {workers[0]} then {workers[1]}"
        print(f"kill {number:2}: {setup}: {changes or 'equal'}", flush=True)
    print(f"{options.kills - failures} equal, {failures} different")
    sys.exit(failures > 0)


def kill_once(
    outputs: Path, arguments: Sequence[str], reference: Path, delay: float, workers: tuple[int, int]
) -> list[str]:
    """Kills one run after `delay` seconds, resumes it and returns its differences from the reference."""
    outputs.mkdir()
    process = start([*arguments, f"output_dir={outputs}", f"data.num_workers={workers[0]}"], outputs)
    try:
        process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    runs = [path for path in outputs.iterdir() if (path / "config.json").exists() and not path.is_symlink()]
    if not runs:  # killed before the run folder was created, so there is no run to resume
        finish(start([*arguments, f"output_dir={outputs / 'again'}", f"data.num_workers={workers[1]}"], outputs))
        return differences(reference, only_run(outputs / "again"))
    finish(start([f"resume={runs[0]}", f"data.num_workers={workers[1]}"], outputs))
    return differences(reference, runs[0])


if __name__ == "__main__":
    main()
