"""Kills a command at random times, repeats it, and compares the results with those of an uninterrupted run.

The whole process group is killed (SIGKILL). The command is repeated as its user is told: `train` with resume=, the
others as before. Results must be equal to the bit, and no unfinished file may be left.

python scripts/kill_test.py predict --kills 20 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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


def start(command: str, arguments: Sequence[object], cwd: Path) -> subprocess.Popen[str]:
    """Starts a command in a new process group; its temporary files are below its working folder."""
    temporary = cwd / ".tmp"
    temporary.mkdir(exist_ok=True)
    root = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", f"fireseg.{command}", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "TMPDIR": str(temporary)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a command and returns its output; raises RuntimeError if it failed."""
    output, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}:\n{output}")
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


def list_differences(folder: Path, other: Path) -> list[str]:
    """Compares all visible files of two folders to the bit, GeoPackages without the times of their making."""
    digests, others = read_digests(folder), read_digests(other)
    return [name for name in sorted({*digests, *others}) if digests.get(name) != others.get(name)]


def read_digests(folder: Path) -> dict[str, str]:
    """Returns a digest of every visible file below a folder, by its relative path, without the name of the folder."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(read_content(path).replace(bytes(folder.resolve()), b"")).hexdigest()
        for name, path in sorted(paths.items())
        if not any(part.startswith(".") for part in name.parts)
    }


def read_content(path: Path) -> bytes:
    """Reads a file; of a GeoPackage its tables, because it holds the time of its making."""
    if path.suffix == ".json":  # the summary of a map records that it was made with --overwrite
        return path.read_bytes().replace(b'"overwrite": true', b'"overwrite": false')
    if path.suffix != ".gpkg":
        return path.read_bytes()
    connection = sqlite3.connect(path)
    try:
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?'", "'", "\n".join(connection.iterdump())).encode()
    finally:
        connection.close()


def list_litter(folder: Path) -> list[str]:
    """Lists unfinished files and temporary folders below a folder, but not locks and caches, which stay."""
    paths = [path.relative_to(folder) for path in folder.rglob("*")]
    return sorted(path.as_posix() for path in paths if path.parts[0] != ".tmp" and path.name.endswith(".part"))


def make_inputs(folder: Path) -> None:
    """Makes tiles, their patches, and a run on these, from which all commands but `train` start."""
    from fireseg.synthetic.tiles import make_sample_tiles

    make_sample_tiles(folder / "tiles", train_scenes=4, val_scenes=2, test_scenes=2, smallest_px=64, largest_px=96)
    finish(start("prepare", ["tiles", "patches", "--size", 32], folder))
    settings = [*SETTINGS, "engine.epochs=1", "hydra.run.dir=run", "data.num_workers=0"]
    finish(start("train", [f"data.root={folder / 'patches'}", *settings], folder))


def list_arguments(command: str, inputs: Path, cwd: Path, workers: int) -> list[object]:
    """Returns the arguments of a command that writes into its working folder."""
    if command == "train":
        return [f"data.root={inputs / 'patches'}", *SETTINGS, "output_dir=outputs", f"data.num_workers={workers}"]
    if command == "prepare":
        return [inputs / "tiles", "patches", "--size", 32, "--workers", max(1, workers)]
    if command == "predict":
        scenes = sorted((inputs / "tiles").rglob("*_S2L2A.tif"))[:3]
        return [inputs / "run", *scenes, "--out", "maps", "--geojson"]
    if not (cwd / "run").exists():
        shutil.copytree(inputs / "run", cwd / "run")
    return ["run", "--no-track", "--workers", workers]


def repeat(command: str, arguments: list[object], cwd: Path, workers: int) -> str:
    """Repeats a killed command as its user is told, and returns how."""
    if command == "train":
        runs = [path for path in (cwd / "outputs").glob("*") if (path / "config.json").exists()]
        if run := next((path for path in runs if not path.is_symlink()), None):
            finish(start("train", [f"resume={run}", f"data.num_workers={workers}"], cwd))
            return "resume"
        shutil.rmtree(cwd / "outputs", ignore_errors=True)  # there is nothing to resume in the folder of the run
    finish(start(command, arguments, cwd))
    return "as before"


def compare(command: str, reference: Path, cwd: Path) -> list[str]:
    """Returns the differences between the results in two working folders, and the unfinished files."""
    if command == "train":
        changes = differences(only_run(reference / "outputs"), only_run(cwd / "outputs"))
    else:
        changes = list_differences(reference, cwd)
    return [*changes, *(f"left: {name}" for name in list_litter(cwd))]


@dataclass(frozen=True)
class Row:
    """The outcome of one kill."""

    number: int
    seconds: float
    was_killed: bool
    num_unfinished: int
    repeated: str
    faults: Sequence[str]

    def format(self) -> str:
        """Formats the row of the table."""
        killed = f"{self.seconds:7.1f} s" if self.was_killed else "    ended"
        return (
            f"{self.number:4}  {killed}  {self.num_unfinished:10}  {self.repeated:16}  "
            f"{'; '.join(self.faults) or 'equal'}"
        )


HEADING = "kill  killed at  unfinished  repeated          result"


def kill_once(command: str, inputs: Path, folder: Path, number: int, seconds: float, rng: random.Random) -> Row:
    """Kills a command after some seconds, repeats it, and compares the result with the reference."""
    cwd = folder / f"kill_{number}"
    cwd.mkdir()
    workers = rng.choice([(0, 2), (2, 0)])
    process = start(command, list_arguments(command, inputs, cwd, workers[0]), cwd)
    was_killed = False
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        was_killed = True
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    num_unfinished = len(list_litter(cwd))
    try:
        repeated = repeat(command, list_arguments(command, inputs, cwd, workers[1]), cwd, workers[1])
    except RuntimeError as error:
        return Row(number, seconds, was_killed, num_unfinished, "failed", [str(error)])
    faults = compare(command, folder / "reference", cwd)
    if not faults:
        shutil.rmtree(cwd)
    return Row(number, seconds, was_killed, num_unfinished, repeated, faults)


def main() -> None:
    """Runs the command undisturbed, then kills, repeats and compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "prepare", "predict", "evaluate"))
    parser.add_argument("--kills", type=int, default=20, help="number of times to kill it (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the times (default: 0)")
    parser.add_argument("--folder", type=Path, help="working folder (default: a new temporary folder)")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="fireseg_kills_"))).resolve()
    inputs, reference = folder / "inputs", folder / "reference"
    for path in (inputs, reference):
        path.mkdir(parents=True)
    if options.command == "train":
        write_patches(inputs / "patches")
    else:
        make_inputs(inputs)
    begin = time.perf_counter()
    finish(start(options.command, list_arguments(options.command, inputs, reference, 0), reference))
    duration = time.perf_counter() - begin
    print(f"{options.command} without a kill: {duration:.1f} s, {folder}\n\n{HEADING}", flush=True)
    rng, num_failed = random.Random(options.seed), 0
    for number in range(1, options.kills + 1):
        row = kill_once(options.command, inputs, folder, number, rng.uniform(0.3, 1.0) * duration, rng)
        num_failed += bool(row.faults)
        print(row.format(), flush=True)
    print(f"\n{options.kills - num_failed} equal, {num_failed} not")
    sys.exit(num_failed > 0)


if __name__ == "__main__":
    main()
