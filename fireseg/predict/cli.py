"""Command line of `predict`."""

from __future__ import annotations

from collections.abc import Sequence

from fireseg.console import print_faults, run_command, start_logging
from fireseg.predict.options import PredictOptions


def predict(options: PredictOptions) -> int:
    """Maps burned areas in whole Sentinel-2 scenes.

    RUN is a run folder, a checkpoint file, or an MLflow URI (runs:/ID, models:/NAME@ALIAS); RUN1,RUN2,… maps with the
    mean probability of several. Each SCENE is a raster with the bands of the run, of any size, CRS and data type, a
    SAFE product, or a STAC item. For scene.tif it
    writes scene_classes.tif (with labels and a style for QGIS beside it), scene_fire.tif (fire probability),
    scene_burned.gpkg (polygons of burned areas in hectares), scene.json (summary) and scene.png (quicklook): all of
    them or none. Memory does not grow with the size of a scene.
    Several scenes also get all_burned.csv (a row each: hectares, flags, faults), all_burned.gpkg (all polygons
    together), and maps.json, with which the same command maps only what is missing after it was stopped or killed.
    The exit code is 0 on success, 1 if a scene could not be mapped (the others are) or a map of another model, scene
    or option exists already (then nothing is done), and 2 for an invalid argument.
    """
    # Imported here, so that --help answers without waiting for torch and rasterio.
    from fireseg.predict.pipeline import predict_scenes

    start_logging()
    faults = predict_scenes(options)
    print_faults(faults)
    return int(bool(faults))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments, `sys.argv[1:]` if None, and returns the exit code."""
    stopped = "finished maps are kept and unfinished ones removed; the same command goes on"
    return run_command(predict, arguments, program="python -m fireseg.predict", stopped=stopped)
