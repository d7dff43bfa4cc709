"""Maps one scene: reads, predicts, classifies, and writes all files of its map."""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fireseg.console import format_name, format_share
from fireseg.data.format import MAX_PIXEL_RATIO
from fireseg.geo import MapWriter, PixelAreas, Polygons, plan_sliding_windows, polygonize, write_polygons
from fireseg.geo.qgis import make_raster_style
from fireseg.geo.windows import MAX_COLS
from fireseg.plots.maps import plot_picture
from fireseg.predict.options import MapOptions
from fireseg.predict.outputs import (
    DecisionThreshold,
    MapFiles,
    check_outputs,
    describe_map,
    format_date,
    get_decision_threshold,
    get_file_name,
    staged_outputs,
)
from fireseg.predict.quicklook import Thumbnail, draw_quicklook
from fireseg.predict.statistics import MapStatistics, classify
from fireseg.runs import TrainedModel
from fireseg.runtime.engines import InferenceEngine, TorchEngine
from fireseg.runtime.inference import predict_rows
from fireseg.tiles import SceneReader, open_scene
from fireseg.tiles.clouds import CloudMask, is_cloudy
from fireseg.tiles.products import Scene, get_scene_name, parse_scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger("fireseg")

_MIN_COVERAGE = 0.99
"""Share of a scene that its cloud mask has to cover; below it the map is flagged."""

_CLASSIFIED_ROWS = 64
"""Rows classified at a time; few, so that their temporary arrays take little memory."""


@dataclass(frozen=True, kw_only=True)
class SceneMap:
    """The map of a scene.

    Attributes:
        files: Paths of its files.
        summary: Content of its JSON file.
        seconds: Time taken.
    """

    files: MapFiles
    summary: dict[str, Any]
    seconds: float

    def plot(self) -> Axes:
        """Plots the quicklook of the map and returns its matplotlib axes."""
        return plot_picture(self.files.picture)


def predict_scene(
    trained: TrainedModel,
    scene: Scene,
    out: Path,
    *,
    options: MapOptions,
    engine: InferenceEngine | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SceneMap:
    """Maps one scene: classes, fire probability, polygons, summary and quicklook.

    Reading, inference and writing overlap, and memory does not grow with the scene, but with the number of its burned
    areas. The files appear together at the end, or not at all.

    Args:
        trained: Model.
        scene: Raster with the bands of the model, of any size, CRS and data type, a SAFE product, or a STAC item; for a
            model that compares two scenes that after the fire.
        out: Output folder; created if missing.
        options: Options of the map.
        engine: Engine that computes the model; torch if None.
        on_progress: Receives the numbers of windows done and of all windows, after each batch.

    Raises:
        FiresegError: If the scene cannot be read, maps exist already, or the folder is not writable.
    """
    check_outputs([scene], out, overwrite=options.overwrite)
    start = time.monotonic()
    name = get_scene_name(scene)
    files = MapFiles.of(out, name)
    decision = get_decision_threshold(trained, options.threshold, options.temperature)
    engine = engine or TorchEngine(trained)
    with (
        open_map_scene(scene, trained.bands, options) as reader,
        staged_outputs(files, name) as staged,
        ThreadPoolExecutor(1, thread_name_prefix="background") as background,
    ):
        statistics, thumbnail = MapStatistics(trained.task.num_classes), Thumbnail.of_scene(reader)
        flags = _check_scene(trained, reader, engine)
        with _find_cloud_mask(reader, options) or nullcontext() as clouds:
            if clouds is not None and clouds.coverage < _MIN_COVERAGE:
                flags.append(
                    f"{clouds.name}: covers {format_share(clouds.coverage)} of the scene; the rest counts as cloud"
                )
            _write_rasters(
                trained,
                engine,
                reader,
                clouds,
                decision=decision,
                staged=staged,
                options=options,
                statistics=statistics,
                thumbnail=thumbnail,
                on_progress=on_progress,
            )
        # Polygons are mostly GDAL's work and the quicklook is Python's: together they take as long as one of them.
        flags_of_picture = tuple(flags)
        polygons = background.submit(_write_polygons, staged, trained, reader, flags, options)
        draw_quicklook(
            staged.picture,
            trained,
            reader=reader,
            thumbnail=thumbnail,
            statistics=statistics,
            decision=decision,
            flags=flags_of_picture,
        )
        summary = describe_map(
            trained,
            reader,
            clouds=clouds and clouds.name,
            decision=decision,
            statistics=statistics,
            polygons=polygons.result(),
            flags=flags,
            options=options,
            engine=engine,
        )
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        # The name of a run that is not UTF-8 becomes an escape of JSON.
        staged.summary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return SceneMap(files=files, summary=summary, seconds=time.monotonic() - start)


def open_map_scene(scene: Scene, bands: Sequence[str], options: MapOptions) -> SceneReader:
    """Opens a scene with the options of its map, and the one before the fire if the bands are those of a pair."""
    pre = None if options.pre is None else parse_scene(options.pre)
    return open_scene(scene, bands, options, pre=pre, ignores_clouds=options.clouds == "ignore")


def _check_scene(trained: TrainedModel, reader: SceneReader, engine: InferenceEngine) -> list[str]:
    """Refuses values that cannot be reflectance before any time is spent on them, and returns flags about odd ones."""
    if reader.ignored:
        log.info("%s: channels that are no Sentinel-2 band are not used: %s", reader.path, ", ".join(reader.ignored))
    flags = [*reader.check_values(), *(engine.int8.list_flags() if engine.int8 else [])]
    if trained.level and reader.level and trained.level != reader.level:
        flags.append(
            f"{reader.path}: level {reader.level}, but the model was trained on level {trained.level}; "
            f"expect errors, or use the product of level {trained.level}"
        )
    pixel_m = reader.grid.pixel_m
    if trained.pixel_m and not 1 / MAX_PIXEL_RATIO <= pixel_m / trained.pixel_m <= MAX_PIXEL_RATIO:
        flags.append(
            f"{reader.path}: pixels of {pixel_m:.3g} m, but the model was trained on {trained.pixel_m:.3g} m; "
            "expect errors, or resample the scene with gdalwarp -tr"
        )
    for flag in flags:
        log.warning("%s", flag)
    return flags


def _find_cloud_mask(reader: SceneReader, options: MapOptions) -> CloudMask | None:
    if options.clouds == "keep":
        return None
    clouds = reader.open_cloud_mask(options.cloud_mask)
    if clouds is None:
        log.info(
            "%s: no cloud mask found, so that clouds are mapped like land; name one with --cloud-mask", reader.path
        )
    return clouds


def _write_rasters(
    trained: TrainedModel,
    engine: InferenceEngine,
    reader: SceneReader,
    clouds: CloudMask | None,
    *,
    decision: DecisionThreshold,
    staged: MapFiles,
    options: MapOptions,
    statistics: MapStatistics,
    thumbnail: Thumbnail,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Predicts, classifies and writes all rows, and collects their statistics and thumbnail."""
    areas, task = PixelAreas(reader.grid), trained.task
    with MapWriter(
        staged.summary.parent,
        reader.grid,
        class_names=task.class_names,
        labels=task.labels,
        colours=task.colours,
        fire_dtype=options.fire_dtype,
    ) as writer:

        def write(top: int, left: int, probabilities: NDArray[np.float32], unknown: NDArray[np.bool_]) -> None:
            threshold, temperature = decision.threshold, decision.temperature
            height, width = unknown.shape
            if clouds is not None:
                cloudy = is_cloudy(clouds.read_codes(top, height, left=left, width=width)) & ~unknown
                unknown |= cloudy
                statistics.num_cloudy += int(cloudy.sum())
            for first in range(0, height, _CLASSIFIED_ROWS):
                rows = slice(first, first + _CLASSIFIED_ROWS)
                pixels = classify(probabilities[:, rows], unknown[rows], threshold=threshold, temperature=temperature)
                writer.write(top + first, pixels.classes, pixels.fire, left=left)
                statistics.add(pixels, areas.of_rows(top + first, len(pixels.classes), left=left, width=width))
                thumbnail.add_classes(top + first, pixels.classes, left=left)

        _predict_and_write(trained, engine, reader, options, thumbnail, write, on_progress)
        paths = writer.close()
    for path, staged_path in zip(paths, (staged.classes, staged.fire, staged.names), strict=True):
        path.replace(staged_path)
    staged.style.write_text(make_raster_style(task.labels, task.colours), encoding="utf-8")


def _predict_and_write(
    trained: TrainedModel,
    engine: InferenceEngine,
    reader: SceneReader,
    options: MapOptions,
    thumbnail: Thumbnail,
    write: Callable[..., None],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Passes all rows to `write`, one after the other, in a separate thread while the model predicts the next ones."""
    layout = plan_sliding_windows(reader.height, reader.width)
    pending: list[Future[None]] = []

    def wait_for_writer() -> None:
        while pending:
            pending.pop().result()

    num_windows = sum(block.windows.num_windows for block in layout.split_columns(MAX_COLS))
    is_alone = sys.stderr.isatty() and multiprocessing.parent_process() is None  # workers have one bar together
    bar = tqdm(total=num_windows, desc=format_name(reader.name), unit="window", leave=False, disable=not is_alone)
    num_done = 0

    def count_windows(number: int) -> None:
        nonlocal num_done
        num_done += number
        bar.update(number)
        if on_progress is not None:
            on_progress(num_done, num_windows)

    rows = predict_rows(
        trained,
        reader,
        layout,
        engine=engine,
        batch_size=options.batch_size,
        readers=options.readers,
        tta=options.tta,
        on_progress=count_windows,
        wait_for_consumer=wait_for_writer,
    )
    with bar, ThreadPoolExecutor(1, thread_name_prefix="writer") as pool, closing(rows):
        for top, left, probabilities, unknown, image in rows:
            thumbnail.add_image(top, image, unknown, left=left)
            pending.append(pool.submit(write, top, left, probabilities, unknown.copy()))
            del probabilities, unknown, image  # held by the writer alone from here on
        wait_for_writer()


def _write_polygons(
    staged: MapFiles, trained: TrainedModel, reader: SceneReader, flags: list[str], options: MapOptions
) -> Polygons:
    """Writes the burned areas as polygons, and adds a flag if there are too many."""
    polygons = polygonize(
        staged.classes,
        staged.fire,
        class_names=trained.task.class_names,
        min_area_ha=options.min_area_ha,
        simplify_m=options.simplify_m,
    )
    if polygons.num_omitted:
        num_found = len(polygons.geometries) + polygons.num_omitted
        flags.append(
            f"{reader.path}: {num_found:,} burned areas, more than any fires leave; the {polygons.num_omitted:,} "
            "smallest are in the rasters, but have no polygon; check the map for noise, or set --min-area-ha"
        )
        log.warning("%s", flags[-1])
    origin = {
        "date": format_date(reader.date),
        "scene": get_file_name(reader.path),
        "model": format_name(trained.name),
    }
    origin["flags"] = format_name("; ".join(flags))
    write_polygons(polygons, staged.burned, driver="GPKG", origin=origin)
    if options.geojson:
        write_polygons(polygons, staged.geojson, driver="GeoJSON", origin=origin)
    return polygons
