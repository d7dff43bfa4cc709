"""Scenes into maps, one after the other."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fireseg.console import format_seconds
from fireseg.engine.device import DeviceName
from fireseg.errors import FiresegError, SettingError
from fireseg.geo import MapWriter, PixelAreas, Polygons, plan_sliding_windows, polygonize, write_polygons
from fireseg.plots.maps import format_hectares, render_map
from fireseg.plots.scores import format_share
from fireseg.plots.style import choose_composite
from fireseg.predict.inference import predict_rows, prepare_model
from fireseg.predict.options import Options
from fireseg.predict.outputs import (
    MapFiles,
    MapStatistics,
    OperatingPoint,
    check_outputs,
    classify,
    describe_map,
    get_operating_point,
    get_run_name,
    staged_outputs,
)
from fireseg.predict.quicklook import Thumbnail
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.task import Task
from fireseg.tiles import BandReader, open_bands

log = logging.getLogger("fireseg")

_ROWS_AT_ONCE = 64
"""Few, so that what lies between probabilities and files takes little memory beside them."""


@dataclass(frozen=True, kw_only=True)
class SceneMap:
    """A map that was made.

    Attributes:
        files: Where its files are.
        summary: What the json among them says.
        seconds: How long it took.
    """

    files: MapFiles
    summary: dict[str, Any]
    seconds: float


def map_scene(trained: TrainedModel, path: Path, out: Path, options: Options | None = None) -> SceneMap:
    """Maps what burned in a scene: classes, probabilities, polygons, a summary, a picture.

    Reading, model and writing overlap, and memory grows with the width of the scene alone. The files appear
    together at the end, or not at all.

    Args:
        trained: The model.
        path: The scene: a raster with the model's bands, of any size, reference system and type of numbers.
        out: Folder for the map; made if it is not there.
        options: What may be chosen.

    Raises:
        FiresegError: If the scene cannot be read, maps are there already, or the folder cannot be written.
    """
    options = options or Options()
    check_outputs([path], out, overwrite=options.overwrite)
    begin = time.monotonic()
    files = MapFiles.of(out, path.stem)
    decision = get_operating_point(trained, options.threshold, options.temperature)
    with (
        open_bands(path, trained.bands, offset=options.offset) as reader,
        staged_outputs(files, path.stem) as drafts,
        ThreadPoolExecutor(1, thread_name_prefix="aside") as aside,
    ):
        tally = MapStatistics(trained.task.num_classes)
        thumb = Thumbnail(reader.height, reader.width, _choose_shown(trained.bands))
        looked = aside.submit(_look, reader)
        _draw_rasters(trained, reader, decision, drafts, options, tally, thumb)
        # The outlines are mostly GDAL's work, the picture Python's: together they take as long as one of them.
        outlined = aside.submit(_draw_polygons, drafts, trained.task, options)
        _draw_picture(trained, reader, decision, tally, thumb, drafts.picture)
        looked.result()
        summary = describe_map(trained, reader, decision, tally, outlined.result(), options)
        drafts.summary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return SceneMap(files=files, summary=summary, seconds=time.monotonic() - begin)


def _look(reader: BandReader) -> None:
    """Says what looks strange about a scene as soon as it is known, and not when all is done."""
    for flag in reader.read_flags():
        log.warning("%s", flag)


def _draw_rasters(
    trained: TrainedModel,
    reader: BandReader,
    decision: OperatingPoint,
    drafts: MapFiles,
    options: Options,
    tally: MapStatistics,
    thumb: Thumbnail,
) -> None:
    """Classes and probabilities, row by row: threads read ahead, and another one writes behind."""
    areas = PixelAreas(reader.grid)
    task = trained.task
    with MapWriter(
        drafts.summary.parent,
        reader.grid,
        class_names=task.class_names,
        colours=task.colours,
        fire_dtype=options.fire_dtype,
    ) as writer:

        def write(top: int, probabilities: NDArray[np.float32], unknown: NDArray[np.bool_]) -> None:
            numbers = {"threshold": decision.threshold, "temperature": decision.temperature}
            for first in range(0, len(unknown), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                decided = classify(probabilities[:, rows], unknown[rows], **numbers)
                writer.write(top + first, decided.classes, decided.fire)
                tally.add(decided, areas.of_rows(top + first, len(decided.classes)))
                thumb.add_classes(top + first, decided.classes)

        _predict(trained, reader, options, thumb, write)
        paths = writer.close()
    for path, draft in zip(paths, (drafts.classes, drafts.fire, drafts.names), strict=True):
        path.replace(draft)


def _predict(
    trained: TrainedModel, reader: BandReader, options: Options, thumb: Thumbnail, write: Callable[..., None]
) -> None:
    """Hands all rows to `write`, in order, in a thread of its own, while the model is at those that follow."""
    layout = plan_sliding_windows(reader.height, reader.width)
    pending: list[Future[None]] = []

    def settle() -> None:
        while pending:
            pending.pop().result()

    bar = tqdm(
        total=layout.num_windows, desc=reader.path.stem, unit="window", leave=False, disable=not sys.stderr.isatty()
    )
    rows = predict_rows(
        prepare_model(trained.model, trained.device),
        reader,
        layout,
        num_classes=trained.task.num_classes,
        device=trained.device,
        batch_size=options.batch_size,
        readers=options.readers,
        tta=options.tta,
        advance=bar.update,
        settle=settle,
    )
    with bar, ThreadPoolExecutor(1, thread_name_prefix="writer") as pool, closing(rows):
        for top, probabilities, unknown, image in rows:
            thumb.add_image(top, image, unknown)
            pending.append(pool.submit(write, top, probabilities, unknown.copy()))
            del probabilities  # the writer's alone from here on
        settle()


def _draw_polygons(drafts: MapFiles, task: Task, options: Options) -> Polygons:
    polygons = polygonize(
        drafts.classes,
        drafts.fire,
        class_names=task.class_names,
        min_area_ha=options.min_area_ha,
        simplify_m=options.simplify_m,
    )
    write_polygons(polygons, drafts.burned, driver="GPKG")
    if options.geojson:
        write_polygons(polygons, drafts.geojson, driver="GeoJSON")
    return polygons


def _draw_picture(
    trained: TrainedModel,
    reader: BandReader,
    decision: OperatingPoint,
    tally: MapStatistics,
    thumb: Thumbnail,
    path: Path,
) -> None:
    ground = reader.grid.pixel_spacing()
    recipe = choose_composite(trained.bands)
    days = "/".join(moment[:10] for moment in (reader.date or "").split("/"))
    burned = f"{format_hectares(tally.burned_ha)} burned, {format_share(tally.fraction)} of the ground that is known"
    rule = f"threshold {decision.threshold:.3g}, temperature {decision.temperature:.3g}"
    thinned = f" Of {thumb.step} x {thumb.step} pixels one is shown." if thumb.step > 1 else ""
    render_map(
        thumb.image,
        thumb.classes,
        bands=recipe.bands,
        task=trained.task,
        path=path,
        title=f"{reader.path.stem}{', ' + days if days else ''}",
        notes=[f"{burned}.", f"Run {get_run_name(trained)}, {rule}.{thinned}"],
        hectares=tally.hectares,
        unknown_share=tally.unknown_share,
        pixel_m=(ground.column_m * thumb.step, ground.row_m * thumb.step),
        north_deg=ground.north_deg,
    )


def _choose_shown(bands: Sequence[str]) -> list[int]:
    return [list(bands).index(band) for band in choose_composite(bands).bands]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What the user asks for.

    Attributes:
        run: Run folder, checkpoint file, or MLflow address of the model.
        scenes: Rasters to map.
        out: Folder for the maps.
        device: Where the model computes.
        options: What else may be chosen.
    """

    run: str
    scenes: tuple[Path, ...]
    out: Path
    device: DeviceName = "auto"
    options: Options = field(default_factory=Options)


def map_scenes(wish: PredictOptions) -> Sequence[str]:
    """Maps all scenes; one that cannot be mapped does not stop the others.

    Args:
        wish: What is asked for.

    Returns:
        What is wrong with scenes, one line each; empty if all are mapped.

    Raises:
        FiresegError: If maps are there already, or the model cannot be had: then nothing was done.
        SettingError: If there is no scene, or two would give maps of one name.
    """
    if not wish.scenes:
        raise SettingError("no scene; name one raster or more with the bands of Sentinel-2")
    check_outputs(wish.scenes, wish.out, overwrite=wish.options.overwrite)
    trained = load_trained_model(wish.run, device=wish.device)
    decision = get_operating_point(trained, wish.options.threshold, wish.options.temperature)
    origin = {"user": "as you say", "calibration": "chosen on val", "default": "nothing was chosen on val"}
    log.info(
        "%s: threshold %.3g (%s), temperature %.3g, on %s",
        get_run_name(trained),
        decision.threshold,
        origin[decision.chosen_by],
        decision.temperature,
        trained.device,
    )
    found: dict[Path, SceneMap | FiresegError] = {}
    for number, scene in enumerate(wish.scenes, 1):
        try:
            done = found[scene] = map_scene(trained, scene, wish.out, wish.options)
        except FiresegError as error:
            found[scene] = error
            said = "failed"
        else:
            said = f"{format_hectares(done.summary['burned_ha'])} burned, {format_seconds(done.seconds)}"
        log.info("%d of %d  %s: %s", number, len(wish.scenes), scene.name, said)
    for line in tabulate(found):
        log.info("%s", line)
    return [fault for scene in found.values() if isinstance(scene, FiresegError) for fault in scene.faults]


def tabulate(found: dict[Path, SceneMap | FiresegError]) -> list[str]:
    """One line a scene, below a heading.

    Args:
        found: What became of each scene.
    """
    rows = [["scene", "burned", "of known", "surest", "areas", "unknown", "map"]]
    for scene, result in found.items():
        if isinstance(result, FiresegError):
            rows.append([scene.name, "failed", "", "", "", "", ""])
            continue
        said = result.summary
        rows.append(
            [
                scene.name,
                format_hectares(said["burned_ha"]),
                format_share(said["fraction"]),
                f"{said['confidence']:.2f}",
                str(said["polygons"]["count"]),
                format_share(said["unknown_share"]),
                str(result.files.classes),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["", *(_align(row, widths) for row in rows)]


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    is_word = [place in (0, len(row) - 1) for place in range(len(row))]
    cells = zip(row, widths, is_word, strict=True)
    return "  ".join(f"{cell:<{width}}" if left else f"{cell:>{width}}" for cell, width, left in cells).rstrip()
