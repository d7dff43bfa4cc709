"""Door: a finished run over new scenes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import metavar, run_command, start_logging

_PROGRAM = "python -m fireseg.predict"


def predict(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    scenes: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCENE ...", help_behavior_hint="(required)")
    ],
    /,
    *,
    out: Path = Path("maps"),
    overwrite: bool = False,
    geojson: bool = False,
    min_area_ha: float = 0.5,
    simplify_m: float = 0.0,
    fire_dtype: Literal["uint8", "float32"] = "uint8",
    threshold: Annotated[float | None, metavar("NUMBER")] = None,
    temperature: Annotated[float | None, metavar("NUMBER")] = None,
    tta: bool = False,
    offset: Annotated[float | None, metavar("NUMBER")] = None,
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto",
    batch_size: Annotated[int | None, metavar("INT")] = None,
    readers: int = 2,
) -> int:
    """Maps what burned in whole Sentinel-2 scenes.

    RUN is a run folder, a checkpoint file, or an address of MLflow (runs:/<id>). Each SCENE is a raster that
    has the bands of the run, of any size, reference system and type of numbers. For scene.tif the maps are
    scene_classes.tif, scene_fire.tif (probability of fire), scene_burned.gpkg (polygons with hectares), scene.json
    (a summary) and scene.png (a quick look): all of them or none. Memory grows with the width of a scene alone.
    It ends with 0 if all is well, 1 if a scene could not be mapped (the others are) or a map is there already
    (then nothing is done), and 2 for a wrong argument.

    Args:
        run: The model.
        scenes: Rasters to map.
        out: Folder for the maps.
        overwrite: Replace maps that are there.
        geojson: Write the polygons as scene_burned.geojson, too, in longitude and latitude.
        min_area_ha: Burned areas smaller than this get no polygon; the rasters keep them.
        simplify_m: How far an outline may move to need fewer corners, in metres.
        fire_dtype: Probabilities in steps of 0.004, or as they are.
        threshold: Least probability that counts as burned; by default the one chosen on val, else 0.5.
        temperature: What log-odds are divided by; by default the one chosen on val, else 1.
        tta: Average over the eight turns and flips: a little better, eight times as long.
        offset: What digital numbers have on top, as 1000 from baseline 04.00 on, where no metadata say so.
        device: Where the model computes.
        batch_size: Windows at a time; what suits the device if not given. Changes nothing but time and memory.
        readers: Threads that read. Their number changes nothing but the time.
    """
    # Only now: seconds that --help need not wait for.
    from fireseg.predict.options import Options
    from fireseg.predict.pipeline import PredictOptions, map_scenes

    start_logging()
    options = Options(
        threshold=threshold,
        temperature=temperature,
        tta=tta,
        fire_dtype=fire_dtype,
        min_area_ha=min_area_ha,
        simplify_m=simplify_m,
        geojson=geojson,
        overwrite=overwrite,
        offset=offset,
        batch_size=batch_size,
        readers=readers,
    )
    return _end(map_scenes(PredictOptions(run=run, scenes=scenes, out=out, device=device, options=options)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line, does what it says, and returns what to end with."""
    stopped = "maps that were finished are there, the one at work is not"
    return run_command(predict, arguments, program=_PROGRAM, stopped=stopped)


def _end(faults: Sequence[str]) -> int:
    """Says what is wrong with scenes, and what to end with."""
    if faults:
        print(f"\n{len(faults)} fault{'s' * (len(faults) > 1)}:", file=sys.stderr)
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
    return int(bool(faults))
