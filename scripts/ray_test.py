"""Runs a sweep on a real Ray of two nodes, one of which is killed, and compares the runs with an undisturbed sweep.

    python scripts/ray_test.py

The nodes are processes of this machine on 127.0.0.2 and 127.0.0.3; each declares half of its jobs' cores and one GPU,
on which two jobs are packed. Takes some minutes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.kill_test import differences, write_patches
from scripts.slurm_test import SETTINGS, wait_for

HEAD, OTHER, PORT = "127.0.0.3", "127.0.0.2", 6413


@contextmanager
def start_ray(folder: Path) -> Iterator[dict[str, str]]:
    """Starts two nodes, and ends them with all processes that they have started; yields the environment."""
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ADDRESS": f"{HEAD}:{PORT}",
        "RAY_raylet_start_wait_time_s": "300",
    }
    common = ["--num-cpus=2", "--num-gpus=1", "--disable-usage-stats"]
    ray = str(Path(sys.executable).with_name("ray"))
    head = [f"--node-ip-address={HEAD}", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        starts = (["--head", *head, *common], [f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}", *common])
        for words in starts:
            subprocess.run([ray, "start", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        yield environment
    finally:
        for pid in find_processes(str(folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def find_processes(*texts: str) -> list[int]:
    """Finds the processes whose command line has all texts."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if all(text in path.read_bytes().decode(errors="replace") for text in texts):
                pids.append(int(path.parent.name))
    return pids


def main() -> None:
    """Kills the raylet of the second node when a job on it has trained its first epoch."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(prefix="ray_") as ray_name:
        cwd, folder = Path(name), Path(ray_name)
        write_patches(cwd / "patches")
        command = [sys.executable, "-m", "fireseg.train", "-m", *SETTINGS, "seed=0,1,2,3", "engine.epochs=6"]
        start = time.perf_counter()
        subprocess.run([*command, "hydra.sweep.dir=undisturbed"], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
        print(f"four jobs one after the other: {time.perf_counter() - start:.0f} s")
        with start_ray(folder) as environment:
            start = time.perf_counter()
            words = ["hydra.sweep.dir=fires", "--engine", "ray", "--gpus-per-job", "0.5"]
            process = subprocess.Popen([*command, *words], cwd=cwd, env=environment)
            sockets = {ip: find_processes("raylet/raylet", f"--node_ip_address={ip}") for ip in (HEAD, OTHER)}
            print(f"raylets: {sockets}")
            (raylet,) = sockets[OTHER]

            def is_training_there() -> bool:
                workers = {pid for pid in find_processes("ray::_run_job") if get_parent(pid) == raylet}
                jobs = {path.parent: json.loads(path.read_text()) for path in cwd.glob("fires/*/job.json")}
                return any(
                    (run / "checkpoints/last.pt").exists() and get_parent(job["pid"]) in workers
                    for run, job in jobs.items()
                    if job["state"] == "running"
                )

            wait_for(lambda: is_training_there() or process.poll() is not None, 400)
            print(f"raylet {raylet} of {OTHER} is killed after {time.perf_counter() - start:.0f} s")
            os.kill(raylet, signal.SIGKILL)
            code = process.wait()
            print(f"exit code {code}, {time.perf_counter() - start:.0f} s")
        runs = sorted((cwd / "fires").glob("*/config.json"))
        undisturbed = sorted((cwd / "undisturbed").glob("*/config.json"))
        faults = 0
        for run, other in zip(runs, undisturbed, strict=True):
            different = differences(run.parent, other.parent)
            attempts = json.loads((run.parent / "job.json").read_text())["attempts"]
            print(f"{run.parent.name}: attempts {attempts}, {different or 'equal to the undisturbed run'}")
            faults += bool(different)
        sys.exit(1 if faults or code else 0)


def get_parent(pid: int) -> int:
    """Returns the parent of a process, 0 if it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


if __name__ == "__main__":
    main()
