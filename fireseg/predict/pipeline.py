"""Maps one scene after the other, or several at the same time, and sums up their maps."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from fireseg.console import format_command, format_hectares, format_seconds, format_share, format_table
from fireseg.errors import FiresegError, SettingError, convert_unexpected_errors
from fireseg.predict.collection import ALL_POLYGONS, ALL_ROWS, write_collection
from fireseg.predict.manifest import MANIFEST, Manifest, Settings, get_settings
from fireseg.predict.options import PredictOptions
from fireseg.predict.outputs import (
    DecisionThreshold,
    MapFiles,
    check_new,
    check_outputs,
    get_decision_threshold,
    get_file_name,
)
from fireseg.predict.scene import SceneMap, predict_scene
from fireseg.predict.workers import map_scenes, open_pool
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runtime.engines import InferenceEngine, create_engine, describe_engine
from fireseg.runtime.int8 import format_comparison
from fireseg.tiles.products import Scene, get_scene_name, parse_scene
from fireseg.workers import receiving_signals

log = logging.getLogger("fireseg")


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
    if len(scenes) > 1 and options.pre is not None:
        raise SettingError(
            f"--pre {options.pre}: belongs to one scene; map the scenes one by one, or put <name>_PRE.tif beside each"
        )
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
    if trained.members and decision.chosen_by == "default":
        log.info(
            "no threshold was chosen for these runs as one model; choose it on val with %s",
            format_command("evaluate", Path(trained.argument)),
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
    for line in sorted(
        {format_comparison(one.summary["runtime"]["int8"]) for one in maps if "int8" in one.summary["runtime"]}
    ):
        log.info("%s", line)
    if manifest:
        log.info("all scenes: %s, %s", options.out / ALL_ROWS, options.out / ALL_POLYGONS)
    return faults


def _format_engine(description: Mapping[str, Any]) -> str:
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
        device = options.device if options.workers == "1" else "cpu"
        trained = load_trained_model(options.run, device=device, build=False)
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
        log.info("%d of %d  %s: %s", self._done, self._total, get_file_name(scene), outcome)


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
            rows.append([get_file_name(scene), "failed", *[""] * 7])
            continue
        summary = result.summary
        rows.append(
            [
                get_file_name(scene),
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
