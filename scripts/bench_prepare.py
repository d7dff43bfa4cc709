"""Benchmarks `prepare` on large tiles against reading the tiles once and writing their patches once.

    python scripts/bench_prepare.py --tiles 20 --rows 2085 --columns 2045

The baseline reads the bands and masks of every tile with rasterio, and writes every patch of the finished store
into one array per split, without windows, checks or fingerprints. Every run is a separate process; runs alternate and
medians are printed. Memory is the peak of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS

SPLITS = ("train", "val", "test")

# The time does not include the start of Python.
BASELINE = """
import json, os, sys, time
from pathlib import Path
import numpy as np, rasterio
tiles, made, out, indexes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
out.mkdir()
begin, cpu = time.perf_counter(), time.process_time()
for image in sorted(tiles.rglob("*_S2L2A.tif")):
    with rasterio.open(image) as raster:
        raster.read(indexes)
    for kind in ("DEL", "GRA", "CM"):
        with rasterio.open(str(image).replace("S2L2A", kind)) as raster:
            raster.read(1)
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
for number, array in enumerate(sorted(made.rglob("*.npy"))):
    patches = np.load(array)
    begin, before = time.perf_counter(), time.process_time()
    with (out / f"{number}.npy").open("wb") as file:
        for patch in patches:
            file.write(patch.data)
        file.flush()
        os.fsync(file.fileno())
    seconds, cpu = seconds + time.perf_counter() - begin, cpu + time.process_time() - before
print(json.dumps({"seconds": seconds, "cpu": cpu}))
"""

PREPARE = """
import json, resource, sys, time
from pathlib import Path
from fireseg.console import start_logging
from fireseg.prepare.options import PrepareOptions
from fireseg.prepare.pipeline import prepare
if __name__ == "__main__":
    begin, cpu = time.perf_counter(), time.process_time()
    prepare(PrepareOptions(tiles=Path(sys.argv[1]), patches=Path(sys.argv[2]), workers=int(sys.argv[3])))
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - cpu + used.ru_utime + used.ru_stime
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    parent, worker = (resource.getrusage(one).ru_maxrss / 1000 for one in who)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "parent_mb": parent, "worker_mb": worker}))
"""


def main() -> None:
    """Runs the benchmark and prints times, ratios and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tiles", type=int, default=20, help="number of tiles; two thirds train, the rest val and test"
    )
    parser.add_argument("--rows", type=int, default=2085)
    parser.add_argument("--columns", type=int, default=2045)
    parser.add_argument("--compress", default="none", choices=["none", "deflate"], help="compression of the GeoTIFFs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fireseg_bench_", dir=options.folder))
    try:
        write_tiles(folder / "tiles", options)
        report(folder, options)
    finally:
        shutil.rmtree(folder)


def write_tiles(root: Path, options: argparse.Namespace) -> None:
    """Writes tiles with noise over a coarse pattern, half burned, a tenth under cloud."""
    rng = np.random.default_rng(0)
    height, width = options.rows, options.columns
    burned = np.zeros((height, width), np.uint8)
    burned[: height // 2] = 1
    cloud = np.zeros_like(burned)
    cloud[:, : width // 10] = 1
    for number in range(options.tiles):
        split = SPLITS[max(0, number - options.tiles * 2 // 3 + 1) % 3]
        name = f"EMSR{100 + number}_AOI01_01"
        # A different pattern for each tile, or the audit reports near-duplicates.
        cells = rng.uniform(0.05, 0.4, (20, 20)).astype(np.float32)
        pattern = cells[np.arange(height)[:, None] * 20 // height, np.arange(width) * 20 // width]
        folder = root / split / f"EMSR{100 + number}" / name
        folder.mkdir(parents=True)
        grid = {"crs": "EPSG:4326", "transform": from_origin(8.0 + number, 40.0, 0.0001, 0.0001)}
        profile = {"driver": "GTiff", "height": height, "width": width, "compress": options.compress, **grid}
        with rasterio.open(folder / f"{name}_S2L2A.tif", "w", count=12, dtype="float32", **profile) as raster:
            for band in range(1, len(CEMS_BANDS) + 1):
                noise = rng.integers(0, 500, (height, width)).astype(np.float32) / np.float32(10000)
                raster.write(pattern + noise, band)
        for kind, mask in (("DEL", burned), ("GRA", burned * np.uint8(3)), ("CM", cloud)):
            with rasterio.open(folder / f"{name}_{kind}.tif", "w", count=1, dtype="uint8", **profile) as raster:
                raster.write(mask, 1)
        (folder / f"{name}_S2L2A.json").write_text(json.dumps({"acquisition_date": "2019-08-28T11:52:21Z"}))


def report(folder: Path, options: argparse.Namespace) -> None:
    """Runs the baseline and `prepare` alternately and prints medians."""
    indexes = json.dumps([CEMS_BANDS.index(band) + 1 for band in BAND_NAMES])
    results: dict[str, list[dict[str, float]]] = {"baseline": [], "one": [], "two": []}
    for number in range(options.rounds):
        one, two, baseline = (folder / f"{name}_{number}" for name in ("one", "two", "baseline"))
        results["one"].append(run(PREPARE, folder / "tiles", one, 1))
        results["two"].append(run(PREPARE, folder / "tiles", two, 2))
        results["baseline"].append(run(BASELINE, folder / "tiles", one, baseline, indexes))
        for output in (one, two, baseline):
            shutil.rmtree(output)
        print(
            f"round {number + 1}: "
            + ", ".join(f"{name} {rows[-1]['seconds']:.1f} s" for name, rows in results.items()),
            flush=True,
        )
    baseline, one, two = (statistics.median(row["seconds"] for row in rows) for rows in results.values())
    cpus = [statistics.median(row["cpu"] for row in rows) for rows in results.values()]
    size = f"{options.tiles} tiles of {options.rows} x {options.columns} x 12 float32, {options.compress} compression"
    print(f"\n{size}, {os.cpu_count()} cores, python {sys.version.split()[0]}, rasterio {rasterio.__version__}")
    print(f"baseline (read and write once) {baseline:7.2f} s")
    print(f"one worker                     {one:7.2f} s, {one / baseline:.2f} x the baseline (at most 1.5)")
    print(f"two workers                    {two:7.2f} s, {one / two:.2f} x as fast as one (at least 1.7)")
    print(
        f"CPU time                       {cpus[0]:7.2f} s, {cpus[1]:.2f} s ({cpus[1] / cpus[0]:.2f} x), {cpus[2]:.2f} s"
    )
    print(f"memory, one worker             {max(row['parent_mb'] for row in results['one']):7.0f} MB (at most 700)")
    print(f"memory, each of two workers    {max(row['worker_mb'] for row in results['two']):7.0f} MB")


def run(program: str, *arguments: object) -> dict[str, float]:
    """Runs a program and returns the JSON object that it prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "program.py"
        script.write_text(program)
        command = [sys.executable, str(script), *map(str, arguments)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
