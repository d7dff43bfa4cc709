"""Times the map of a large scene with each engine, and the bare engine on the same windows.

    python scripts/bench_predict.py --size 2048 --engines torch:fp32 openvino:fp32 onnx:fp32
    python scripts/bench_predict.py --size 10980 --rounds 1
    python scripts/bench_predict.py --run outputs/latest --engines openvino:fp32 openvino:int8

The scene is a mosaic of synthetic landscapes, written to disk as a tiled GeoTIFF. All engines are timed alternately in
one process: a whole map with its stages, and the engine alone on the same number of windows. Medians are printed, and
their ratios to the first engine; seconds of the CPU are comparable on a busy machine, too. The stage `rasters` is
reading, model, blending and writing, which overlap; `polygons` and `quicklook` follow at the same time. Memory is the
peak of the process after the first map, before others are made. Without --run the model is untrained: its threshold is
set so that a tenth of the pixels burned, in more and smaller areas than any real fire has; int8 needs a run, whose val
patches calibrate it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.windows import Window

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.synthetic.scene import make_scene

MOSAIC_PX = 1024

# Run in a separate process, whose peak memory is that of the map.
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
import torch
import fireseg.predict.scene as scene_maps
from fireseg.data.bands import BAND_NAMES
from fireseg.geo import plan_sliding_windows
from fireseg.model import create_segmentation_model
from fireseg.predict.api import Run
from fireseg.runtime.inference import get_batch_size, predict_windows
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runs.folder import RunFolder
from fireseg.runtime.engines import create_engine
from fireseg.task import Task, get_class_names
from fireseg.tiles import open_bands

scene, out, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
device, threshold = "cpu", None


def make_untrained():
    torch.manual_seed(0)
    num_classes = options["classes"]
    model = create_segmentation_model(options["arch"], options["encoder"], weights="none", num_classes=num_classes)
    model.set_normalisation([0.1] * 7, [0.1] * 7)
    task = Task(name="bench", num_classes=num_classes, class_names=get_class_names(num_classes))
    return TrainedModel(
        build_model=lambda: model, task=task, bands=BAND_NAMES, settings={}, device=device, checkpoint=Path("bench.pt"),
        sha256="0" * 64, epoch=1, fingerprint="", folder=RunFolder(Path(sys.argv[2]).parent), calibration=None,
    )


trained = load_trained_model(options["run"], device="cpu") if options["run"] else make_untrained()
trained.model.eval()
engines = {}
for name in options["engines"]:
    runtime, precision = name.split(":")
    engines[name] = create_engine(trained, runtime=runtime, precision=precision)
if not options["run"]:
    with open_bands(scene, BAND_NAMES) as reader:
        window, _ = reader.read(0, 0, min(512, reader.height), min(512, reader.width))
    threshold = float(np.quantile(1 - predict_windows(next(iter(engines.values())), window[None])[0, 0], 0.9))
layout = plan_sliding_windows(options["rows"], options["size"])
batch_size = options["batch_size"] or get_batch_size(device)
chosen = {"batch_size": options["batch_size"], "readers": options["readers"], "threshold": threshold}


def run_bare(engine, num_windows):
    image = np.random.default_rng(0).random((batch_size, layout.size_rows, layout.size_cols, 7), np.float32)
    image = image.transpose(0, 3, 1, 2)
    begin = time.perf_counter()
    for _ in range(0, num_windows, batch_size):
        engine.predict_probabilities(image)
    return (time.perf_counter() - begin) * layout.num_windows / (-(-num_windows // batch_size) * batch_size)


seconds = {}


def time_stage(stage, function):
    def timed(*arguments, **named):
        begin = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[stage] = time.perf_counter() - begin
    return timed


stages = {"rasters": "_write_rasters", "polygons": "_write_polygons", "quicklook": "draw_quicklook"}
for stage, function in stages.items():
    setattr(scene_maps, function, time_stage(stage, getattr(scene_maps, function)))
rounds, peak = {name: [] for name in engines}, 0.0
for _ in range(options["rounds"]):
    for name, engine in engines.items():
        begin, cpu = time.perf_counter(), time.process_time()
        Run(trained, engine).predict_scene(scene, out, overwrite=True, **chosen)
        seconds["whole"] = time.perf_counter() - begin
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        seconds["whole CPU"], cpu = time.process_time() - cpu, time.process_time()
        seconds["bare"] = run_bare(engine, min(layout.num_windows, options["bare_windows"]))
        num_bare = min(layout.num_windows, options["bare_windows"])
        seconds["bare CPU"] = (time.process_time() - cpu) * layout.num_windows / num_bare
        rounds[name].append(dict(seconds))
        print(f"{name}: map {seconds['whole']:.1f} s, engine {seconds['bare']:.1f} s", file=sys.stderr, flush=True)
print(json.dumps({
    "rounds": rounds, "peak_mb": peak, "windows": layout.num_windows, "pixels": layout.num_pixels,
    "window": [layout.size_rows, layout.size_cols], "threads": torch.get_num_threads(), "batch_size": batch_size,
}))
"""


def main() -> None:
    """Runs the benchmark and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="side of the scene in pixels, up to 10980 and beyond")
    parser.add_argument("--rows", type=int, help="rows of the scene (default: --size)")
    parser.add_argument("--dtype", default="uint16", choices=["uint16", "float32"])
    parser.add_argument("--engines", nargs="+", default=["torch:fp32"], help="engine:precision, as torch:fp32")
    parser.add_argument("--run", help="trained run with the seven bands (default: an untrained model)")
    parser.add_argument("--arch", default="unet")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--classes", type=int, default=2, choices=[2, 5])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--bare-windows", type=int, default=60, help="maximum number of windows to time the bare model on"
    )
    parser.add_argument("--folder", type=Path, help="folder for the temporary files (default: that of the system)")
    options = parser.parse_args()
    if not options.run and any(name.endswith(":int8") for name in options.engines):
        parser.error("int8 is calibrated on val patches of a run; name one with --run")
    options.rows = options.rows or options.size
    folder = Path(tempfile.mkdtemp(prefix="fireseg_bench_", dir=options.folder))
    try:
        scene = write_scene(folder / "scene.tif", options)
        report(run(scene, folder / "maps", options), scene, options)
    finally:
        shutil.rmtree(folder)


def write_scene(path: Path, options: argparse.Namespace) -> Path:
    """Writes a scene of mirrored copies of one synthetic landscape, block row by block row."""
    reflectance = make_scene(0, 1, height=MOSAIC_PX, width=MOSAIC_PX, fire_share=1.0).reflectance
    ground = reflectance[..., [CEMS_BANDS.index(band) for band in BAND_NAMES]].transpose(2, 0, 1)
    if options.dtype == "uint16":
        ground = np.rint(ground * 10_000).astype(np.uint16)
    across = np.pad(np.arange(MOSAIC_PX), (0, max(0, options.size - MOSAIC_PX)), mode="symmetric")[: options.size]
    down = np.pad(np.arange(MOSAIC_PX), (0, max(0, options.rows - MOSAIC_PX)), mode="symmetric")[: options.rows]
    grid = {"crs": "EPSG:32629", "transform": Affine(10, 0, 500_000, 0, -10, 4_400_000)}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    profile = {"driver": "GTiff", "count": len(ground), "dtype": ground.dtype, **grid, **layout}
    with rasterio.open(path, "w", height=options.rows, width=options.size, **profile) as raster:
        for top in range(0, options.rows, 512):
            rows = down[top : top + 512]
            window = Window(0, top, options.size, len(rows))  # pyright: ignore[reportCallIssue]
            raster.write(ground[:, rows][:, :, across], window=window)
        for channel, band in enumerate(BAND_NAMES, 1):
            raster.set_band_description(channel, band)
    return path


def get_cpu_name() -> str:
    """Returns the name of the CPU that Linux gives, or of the platform."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def run(scene: Path, out: Path, options: argparse.Namespace) -> dict[str, float]:
    """Runs the program and returns the measurements that it prints last."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    chosen = {name: value for name, value in vars(options).items() if name != "folder"}
    command = [sys.executable, "-c", PROGRAM, str(scene), str(out), json.dumps(chosen)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(measured: dict, scene: Path, options: argparse.Namespace) -> None:
    """Prints the measurements beside their limits."""
    scene_px = options.rows * options.size
    size = f"{options.rows} x {options.size} x {len(BAND_NAMES)} {options.dtype}, {scene.stat().st_size / 1e6:.0f} MB"
    what = options.run or f"{options.arch} {options.encoder}, {options.classes} classes, untrained"
    print(f"\n{size}; {what}")
    print(
        f"{get_cpu_name()}, {os.cpu_count()} cores, {measured['threads']} threads of torch, {options.readers} readers, "
        f"batches of {measured['batch_size']}; python {sys.version.split()[0]}, rasterio {rasterio.__version__}"
    )
    print(f"{measured['windows']} windows of {' x '.join(map(str, measured['window']))}; seconds:\n")
    stages = ("bare", "rasters", "polygons", "quicklook", "whole", "bare CPU", "whole CPU")
    print(
        f"{'engine':16}"
        + "".join(f"{stage:>11}" for stage in stages)
        + "  whole / bare   CPU of bare and whole against the first"
    )
    first = {}
    for name, rounds in measured["rounds"].items():
        medians = {stage: statistics.median(one[stage] for one in rounds) for stage in stages}
        first = first or medians
        gains = [first[stage] / medians[stage] for stage in ("bare CPU", "whole CPU")]
        ratios = f"{gains[0]:.2f}, {gains[1]:.2f} times as fast"
        numbers = "".join(f"{medians[stage]:11.2f}" for stage in stages)
        print(f"{name:16}{numbers}{medians['whole'] / medians['bare']:14.2f}   {ratios}")
    print(f"\nwindows        {measured['pixels'] / scene_px:8.2f} x the scene's pixels (at most 1.35)")
    print(f"memory         {measured['peak_mb']:8.0f} MB at most (at most 2000)")


if __name__ == "__main__":
    main()
