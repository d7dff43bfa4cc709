"""Maps scenes on a real Ray of two nodes, one of which is killed, and compares the maps with those of one process.

    python scripts/ray_predict_test.py

The nodes are processes of this machine on 127.0.0.2 and 127.0.0.3 with two cores each. Takes some minutes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.kill_test import list_litter, read_digests
from scripts.ray_test import HEAD, OTHER, find_processes, get_parent, start_ray
from scripts.slurm_test import wait_for
from tests.predict.builders import draw_image, write_run, write_scene

NUM_SCENES = 8


def main() -> None:
    """Kills the raylet of the second node while an actor on it maps a scene."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(prefix="ray_") as ray_name:
        cwd, folder = Path(name), Path(ray_name)
        run = write_run(cwd / "run")
        scenes = [write_scene(cwd / f"scene_{number}.tif", draw_image(300, 260)) for number in range(NUM_SCENES)]
        command = [sys.executable, "-m", "fireseg.predict", str(run), *map(str, scenes), "--device", "cpu", "--out"]
        start = time.perf_counter()
        subprocess.run([*command, "whole"], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
        print(f"{NUM_SCENES} scenes in one process: {time.perf_counter() - start:.0f} s")
        with start_ray(folder) as environment:
            start = time.perf_counter()
            words = ["maps", "--workers", "ray", "--gpus-per-worker", "0"]
            process = subprocess.Popen([*command, *words], cwd=cwd, env=environment)
            raylets = {ip: find_processes("raylet/raylet", f"--node_ip_address={ip}") for ip in (HEAD, OTHER)}
            print(f"raylets: {raylets}")
            (raylet,) = raylets[OTHER]

            def find_mapping() -> list[int]:
                return [pid for pid in find_processes("ray::", "map_scene") if get_parent(pid) == raylet]

            wait_for(lambda: find_mapping() or process.poll() is not None, 400)
            print(f"{OTHER} maps {len(find_mapping())} scenes, and is killed after {time.perf_counter() - start:.0f} s")
            os.kill(raylet, signal.SIGKILL)
            code = process.wait()
            print(f"exit code {code}, {time.perf_counter() - start:.0f} s")
        maps, whole = read_digests(cwd / "maps"), read_digests(cwd / "whole")
        names = {*maps, *whole} - {"all_burned.csv"}  # has the paths of the maps
        different = sorted(name for name in names if maps.get(name) != whole.get(name))
        litter = list_litter(cwd / "maps")
        print(f"different from the maps of one process: {different or 'none'}; left behind: {litter or 'nothing'}")
        sys.exit(1 if different or litter or code else 0)


if __name__ == "__main__":
    main()
