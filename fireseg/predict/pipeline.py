"""Predicts whole scenes and writes their maps."""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fireseg.console import format_hectares, format_name, format_seconds, format_share, format_table
from fireseg.errors import FiresegError, SettingError, convert_unexpected_errors
from fireseg.geo import MapWriter, PixelAreas, Polygons, plan_sliding_windows, polygonize, write_polygons
from fireseg.geo.qgis import make_raster_style
from fireseg.geo.windows import MAX_COLS
from fireseg.plots.maps import plot_picture
from fireseg.predict.collection import ALL_POLYGONS, ALL_ROWS, write_collection
from fireseg.predict.inference import predict_rows
from fireseg.predict.manifest import MANIFEST, Manifest, Settings, get_settings
from fireseg.predict.options import MapOptions, PredictOptions
from fireseg.predict.outputs import (
    DecisionThreshold,
    MapFiles,
    check_new,
    check_outputs,
    describe_map,
    format_date,
    get_decision_threshold,
    staged_outputs,
)
from fireseg.predict.quicklook import Thumbnail, draw_quicklook
from fireseg.predict.statistics import MapStatistics, classify
from fireseg.predict.workers import map_scenes, open_pool
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runtime.engines import InferenceEngine, TorchEngine, create_engine, describe_engine
from fireseg.tiles import BandReader, open_bands
from fireseg.tiles.clouds import CloudMask, is_cloudy
from fireseg.tiles.products import Scene, get_scene_name, parse_scene
from fireseg.workers import receiving_signals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger("fireseg")

_MAX_PIXEL_RATIO = 1.5
"""Ratio between the pixel sizes of a scene and of the training tiles above which the map is flagged."""

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


def predict_scenes(options: PredictOptions) -> list[str]:
    """Maps all scenes of the options; a scene that cannot be mapped, for any reason, does not stop the others.

    Several scenes have a manifest, with which the same command goes on after it was stopped, a table and their polygons
    in one file.

    Args:
        options: Run, scenes and options.

    Returns:
        Faults of the scenes that could not be mapped.

    Raises:
        FiresegError: If maps exist already, or the model cannot be loaded, with all faults; nothing was done then.
        SettingError: If there is no scene, or two scenes have the same name.
    """
    if not options.scenes:
        raise SettingError("no scene given; name at least one raster with Sentinel-2 bands")
    scenes = [parse_scene(text) for text in options.scenes]
    if len(scenes) > 1 and options.cloud_mask is not None:
        raise SettingError(f"--cloud-mask {options.cloud_mask}: belongs to one scene; map the scenes one by one")
    prepared = _prepare(options, scenes)
    trained, decision, done = prepared.trained, prepared.decision, prepared.done
    missing = [scene for scene in scenes if scene not in done]
    engine, computed_by = None, f"workers {options.workers}"
    if options.workers == "1":
        computed_by = f"device {trained.device}"
        if missing:
            engine = create_engine(trained, runtime=options.runtime, precision=options.precision)
            computed_by += f", {_format_engine(describe_engine(engine))}"
    log.info(
        "%s: threshold %.3g (%s), temperature %.3g, %s",
        trained.name,
        decision.threshold,
        {"user": "given", "calibration": "of the calibration of the run", "default": "default"}[decision.chosen_by],
        decision.temperature,
        computed_by,
    )
    manifest = prepared.manifest
    results: dict[Scene, SceneMap | FiresegError] = {}
    for scene, summary in done.items():
        results[scene] = SceneMap(files=_get_files(options.out, scene), summary=_shorten(summary), seconds=0.0)
    if done:
        log.info("%d of %d scenes are mapped already, see %s", len(done), len(scenes), options.out / MANIFEST)
    signals: list[int] = []
    with manifest.started(done) if manifest else nullcontext():
        outcomes = _map_scenes(trained, engine, missing, options, prepared.settings, signals)
        with closing(outcomes), _ScenesProgress(len(scenes), len(done), is_shown=options.workers != "1") as progress:
            for scene, result in outcomes:
                results[scene] = result
                if manifest:
                    manifest.record(scene, result.faults if isinstance(result, FiresegError) else None)
                progress.advance(scene, result)
        if signals:
            signal.raise_signal(signals[0])  # has its usual effect now that all is recorded
        # Missing only where the signal has no other effect, as in the background of a shell.
        stopped = FiresegError("not mapped, because the command was stopped; the same command goes on")
        results = {scene: results.get(scene, stopped) for scene in scenes}
        faults = [fault for one in results.values() if isinstance(one, FiresegError) for fault in one.faults]
        try:
            if manifest:
                write_collection(results, options.out)
        except FiresegError as error:  # the maps are there
            faults += error.faults
    for line in ["", *format_summary(results)]:
        log.info("%s", line)
    maps = [one for one in results.values() if isinstance(one, SceneMap)]
    if engines := sorted({_format_engine(one.summary["runtime"]) for one in maps}):
        log.info("computed by: %s", ", ".join(engines))
    if manifest:
        log.info("all scenes: %s, %s", options.out / ALL_ROWS, options.out / ALL_POLYGONS)
    return faults


def _format_engine(description: Mapping[str, str]) -> str:
    return " ".join(description[name] for name in ("name", "precision", "version"))


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What is checked before the first scene is mapped."""

    trained: TrainedModel
    decision: DecisionThreshold
    settings: Settings
    manifest: Manifest | None
    done: Mapping[Scene, dict[str, Any]]


def _prepare(options: PredictOptions, scenes: Sequence[Scene]) -> _Prepared:
    """Loads the model, finds the maps that are done, and checks the outputs, to report the faults of all together."""
    prepared, done, errors = None, {}, []
    try:
        # The command only describes the model if others map with it, perhaps on nodes with other devices.
        trained = load_trained_model(options.run, device=options.device if options.workers == "1" else "cpu")
        decision = get_decision_threshold(trained, options.threshold, options.temperature)
        settings = get_settings(trained.sha256, decision, options)
        manifest = Manifest(options.out, scenes, settings) if len(scenes) > 1 else None
        done = manifest.find_done(overwrite=options.overwrite) if manifest else {}
        prepared = _Prepared(trained=trained, decision=decision, settings=settings, manifest=manifest, done=done)
    except FiresegError as error:
        errors.append(error)
    try:
        names = (MANIFEST, ALL_ROWS, ALL_POLYGONS) if len(scenes) > 1 else ()
        others = [options.out / name for name in names]
        check_outputs(scenes, options.out, overwrite=options.overwrite, done=done, others=others)
        if others and not others[0].exists() and not options.overwrite:
            check_new(others[1:])
    except FiresegError as error:
        errors.append(error)
    if prepared is None or errors:
        kind = SettingError if any(isinstance(error, SettingError) for error in errors) else FiresegError
        raise kind(*(fault for error in errors for fault in error.faults))
    return prepared


def _map_scenes(
    trained: TrainedModel,
    engine: InferenceEngine | None,
    scenes: Sequence[Scene],
    options: PredictOptions,
    settings: Settings,
    signals: list[int],
) -> Generator[tuple[Scene, SceneMap | FiresegError]]:
    """Maps scenes and yields their maps or errors as they end, here or in workers."""
    if options.workers == "1" or not scenes:
        for scene in scenes:
            try:
                with convert_unexpected_errors(scene):
                    result = predict_scene(trained, scene, options.out, options=options, engine=engine)
            except FiresegError as error:
                yield scene, error
            else:
                yield scene, replace(result, summary=_shorten(result.summary))
        return
    with open_pool(options, settings, len(scenes)) as pool, receiving_signals(signals):
        for scene, result in map_scenes(pool, scenes, options.out, signals):
            if isinstance(result, FiresegError):
                yield scene, result
            else:
                summary, seconds = result
                yield scene, SceneMap(files=_get_files(options.out, scene), summary=_shorten(summary), seconds=seconds)


def _get_files(out: Path, scene: Scene) -> MapFiles:
    return MapFiles.of(out, get_scene_name(scene))


def _shorten(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a summary that the tables show, which is a third: there may be thousands of scenes."""
    return {name: value for name, value in summary.items() if name not in ("grid", "model", "options", "versions")}


class _ScenesProgress:
    """Logs the outcome of each scene with the time left, and shows a bar on a terminal.

    Args:
        total: Number of scenes.
        num_before: Those that are mapped already.
        is_shown: False if there is no bar, because each scene has one.
    """

    def __init__(self, total: int, num_before: int, *, is_shown: bool) -> None:
        self._total, self._before, self._done, self._start = total, num_before, num_before, time.monotonic()
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=num_before,
            desc="scenes",
            unit="scene",
            leave=False,
            disable=not (is_terminal and is_shown),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.close()

    def advance(self, scene: Scene, result: SceneMap | FiresegError) -> None:
        self._done += 1
        self._bar.update()
        if isinstance(result, FiresegError):
            outcome = "failed"
        else:
            outcome = f"{format_hectares(result.summary['burned_ha'])} burned, {format_seconds(result.seconds)}"
        if num_left := self._total - self._done:
            seconds = (time.monotonic() - self._start) / (self._done - self._before) * num_left
            outcome += f"; {format_seconds(seconds)} left"
        log.info("%d of %d  %s: %s", self._done, self._total, _get_file_name(scene), outcome)


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
        scene: Raster with the bands of the model, of any size, CRS and data type, a SAFE product, or a STAC item.
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
        open_bands(scene, trained.bands, options) as reader,
        staged_outputs(files, name) as staged,
        ThreadPoolExecutor(1, thread_name_prefix="background") as background,
    ):
        statistics, thumbnail = MapStatistics(trained.task.num_classes), Thumbnail.of_scene(reader)
        flags = _check_scene(trained, reader)
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
        polygons = background.submit(_write_polygons, staged, trained, reader, flags, options)
        draw_quicklook(
            staged.picture,
            trained,
            reader=reader,
            thumbnail=thumbnail,
            statistics=statistics,
            decision=decision,
            flags=flags,
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


def format_summary(results: Mapping[Scene, SceneMap | FiresegError]) -> list[str]:
    """Formats a table with a row for each scene, in the words of the JSON summary.

    Args:
        results: Map or error by scene.
    """
    rows = [
        ["scene", "burned_ha", "burned_fraction", "max_probability", "polygons", "unknown", "cloud", "flags", "map"]
    ]
    flags = []
    shown = _select_shown(results)
    for scene, result in shown.items():
        if isinstance(result, FiresegError):
            rows.append([_get_file_name(scene), "failed", *[""] * 7])
            continue
        summary = result.summary
        rows.append(
            [
                _get_file_name(scene),
                format_hectares(summary["burned_ha"]).removesuffix(" ha"),
                format_share(summary["burned_fraction"]),
                f"{summary['max_probability']:.2f}",
                str(summary["polygons"]["count"]),
                format_share(summary["unknown"]),
                "-" if summary["cloud"] is None else format_share(summary["cloud"]["share"]),
                str(len(summary["flags"])),
                str(result.files.classes),
            ]
        )
        flags += summary["flags"]
    lines = format_table(rows, align="<>>>>>>><")
    if num_hidden := len(results) - len(shown):
        lines.append(f"and {num_hidden:,} more scenes with less burned area; {ALL_ROWS} lists all, with their flags")
    return [*lines, *(f"flag: {flag}" for flag in flags)]


_MAX_ROWS = 100
"""Scenes of the table."""


def _select_shown(results: Mapping[Scene, SceneMap | FiresegError]) -> Mapping[Scene, SceneMap | FiresegError]:
    """Returns the scenes of which most burned, if there are too many for a table; faults are printed anyway."""
    if len(results) <= _MAX_ROWS:
        return results
    maps = [scene for scene, result in results.items() if not isinstance(result, FiresegError)]
    maps.sort(key=lambda scene: -results[scene].summary["burned_ha"])  # pyright: ignore[reportAttributeAccessIssue]
    return {scene: results[scene] for scene in maps[:_MAX_ROWS]}


def _get_file_name(scene: Scene) -> str:
    return format_name(scene.name if isinstance(scene, Path) else get_scene_name(scene))


def _check_scene(trained: TrainedModel, reader: BandReader) -> list[str]:
    """Refuses values that cannot be reflectance before any time is spent on them, and returns flags about odd ones."""
    if reader.ignored:
        log.info("%s: channels that are no Sentinel-2 band are not used: %s", reader.path, ", ".join(reader.ignored))
    flags = [*reader.check_values()]
    if trained.level and reader.level and trained.level != reader.level:
        flags.append(
            f"{reader.path}: level {reader.level}, but the model was trained on level {trained.level}; "
            f"expect errors, or use the product of level {trained.level}"
        )
    pixel_m = reader.grid.pixel_m
    if trained.pixel_m and not 1 / _MAX_PIXEL_RATIO <= pixel_m / trained.pixel_m <= _MAX_PIXEL_RATIO:
        flags.append(
            f"{reader.path}: pixels of {pixel_m:.3g} m, but the model was trained on {trained.pixel_m:.3g} m; "
            "expect errors, or resample the scene with gdalwarp -tr"
        )
    for flag in flags:
        log.warning("%s", flag)
    return flags


def _find_cloud_mask(reader: BandReader, options: MapOptions) -> CloudMask | None:
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
    reader: BandReader,
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
    reader: BandReader,
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
    staged: MapFiles, trained: TrainedModel, reader: BandReader, flags: Sequence[str], options: MapOptions
) -> Polygons:
    polygons = polygonize(
        staged.classes,
        staged.fire,
        class_names=trained.task.class_names,
        min_area_ha=options.min_area_ha,
        simplify_m=options.simplify_m,
    )
    origin = {
        "date": format_date(reader.date),
        "scene": _get_file_name(reader.path),
        "model": format_name(trained.name),
    }
    origin["flags"] = format_name("; ".join(flags))
    write_polygons(polygons, staged.burned, driver="GPKG", origin=origin)
    if options.geojson:
        write_polygons(polygons, staged.geojson, driver="GeoJSON", origin=origin)
    return polygons
