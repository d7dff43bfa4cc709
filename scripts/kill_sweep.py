"""Kills a sweep and its jobs at random times, repeats the command and compares the results with a sweep never killed.

python scripts/kill_sweep.py --jobs 12 --kills 5 --folder /tmp/kills
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
from pathlib import Path

from scripts.kill_test import differences, write_patches

EPOCHS = 2
SETTINGS = (
    "model.weights=none",
    "model.encoder=tu-test_efficientnet",
    "data.batch_size=4",
    "data.num_workers=2",
    f"engine.epochs={EPOCHS}",
    "engine.device=cpu",
    "optimizer.lr=0.001",
    "tracker=none",
)


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    """Starts a sweep in a new process group; its output is added to output.txt."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with (cwd / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "fireseg.train", "-m", *arguments],
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def list_jobs(sweep: Path) -> list[Path]:
    """Lists the run folders of a sweep in the order of its jobs."""
    return sorted((path.parent for path in sweep.glob("*/job.json")), key=lambda path: int(path.name.split("_")[0]))


def kill_a_job(sweep: Path, rng: random.Random) -> str:
    """Kills the process of a running job; its loader processes have to end by themselves."""
    records = [(path, json.loads((path / "job.json").read_text())) for path in list_jobs(sweep)]
    running = [(path, record["pid"]) for path, record in records if record["state"] == "running"]
    if not running:
        return "no job was running"
    path, pid = rng.choice(running)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return "the job had just ended"
    return f"job {path.name}"


def count_lines(run: Path, text: str) -> int:
    """Counts the lines of the log of a run that contain a text."""
    return sum(text in line for line in (run / "train.log").read_text().splitlines())


def main() -> None:
    """Runs the reference sweep, then kills and repeats the other one, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=12, help="number of jobs (default: 12)")
    parser.add_argument("--kills", type=int, default=5, help="number of kills (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the times (default: 0)")
    parser.add_argument("--folder", type=Path, help="working folder (default: a new temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fireseg_kills_"))
    folder.mkdir(parents=True, exist_ok=True)
    patches = write_patches(folder / "patches")
    seeds = f"seed=range({options.jobs})"
    arguments = [f"data.root={patches}", *SETTINGS, seeds, "hydra.sweep.dir=sweep", "--jobs", "2"]
    reference, killed = folder / "reference", folder / "killed"
    for path in (reference, killed):
        path.mkdir()
    begin = time.perf_counter()
    if start(arguments, reference).wait():
        sys.exit((reference / "output.txt").read_text())
    duration = time.perf_counter() - begin
    print(f"reference: {options.jobs} jobs in {duration:.0f} s", flush=True)

    rng = random.Random(options.seed)
    times = sorted(rng.uniform(0.05, 0.85) * duration for _ in range(options.kills))
    begin, process = time.perf_counter(), start(arguments, killed)
    for number, moment in enumerate(times, start=1):
        try:
            process.wait(max(0.1, moment - (time.perf_counter() - begin)))
            print(f"kill {number}: too late, the sweep had ended")
            break
        except subprocess.TimeoutExpired:
            pass
        if rng.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = start(arguments, killed)
            target = "the command"
        else:
            target = kill_a_job(killed / "sweep", rng)
        print(f"kill {number}: after {moment:.0f} s: {target}", flush=True)
    exit_code = process.wait()

    runs, others = list_jobs(killed / "sweep"), list_jobs(reference / "sweep")
    changes = {run.name: found for run, other in zip(runs, others, strict=True) if (found := differences(run, other))}
    epochs = sum(count_lines(run, f"/{EPOCHS}  train loss") for run in runs)
    results = sum(count_lines(run, "best: epoch") for run in runs)
    attempts = sum(json.loads((run / "job.json").read_text())["attempts"] for run in runs)
    print(f"exit code {exit_code}, {len(runs)} results, different: {changes or 'none'}")
    print(f"{attempts} attempts, {epochs} epochs trained for {len(runs) * EPOCHS}, {results} times written results")
    sys.exit(exit_code != 0 or len(runs) != options.jobs or bool(changes))


if __name__ == "__main__":
    main()
