"""Outputs of a prediction: file names, staging, the threshold of the map, and its JSON summary."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from fireseg import __version__
from fireseg.console import format_name, is_plain_name
from fireseg.decision import find_threshold, min_log_odds
from fireseg.errors import FiresegError, SettingError
from fireseg.files import atomic_write, check_regular_file, disk_error
from fireseg.geo import GDAL_VERSION, Polygons
from fireseg.predict.options import MapOptions
from fireseg.predict.statistics import MapStatistics
from fireseg.runs import TrainedModel
from fireseg.runtime.engines import InferenceEngine, describe_engine
from fireseg.tiles import BandReader, SceneReader
from fireseg.tiles.metadata import SOFTWARE_TAG
from fireseg.tiles.products import Scene, get_scene_name


class MapFiles(NamedTuple):
    """Paths of the files of a map.

    Attributes:
        classes: Class raster.
        names: Labels of its classes for GDAL (`.aux.xml`).
        style: Its style for QGIS (`.qml`).
        fire: Fire probability raster.
        burned: Burned-area polygons as GeoPackage.
        geojson: Burned-area polygons as GeoJSON, if requested.
        picture: Quicklook.
        summary: Summary as JSON.
    """

    classes: Path
    names: Path
    style: Path
    fire: Path
    burned: Path
    geojson: Path
    picture: Path
    summary: Path

    @classmethod
    def of(cls, folder: Path, stem: str) -> MapFiles:
        """Returns the paths for a scene.

        Args:
            folder: Output folder.
            stem: File name of the scene without its extension.
        """
        rasters = ("_classes.tif", "_classes.tif.aux.xml", "_classes.qml", "_fire.tif")
        suffixes = (*rasters, "_burned.gpkg", "_burned.geojson", ".png", ".json")
        return cls(*(folder / f"{stem}{suffix}" for suffix in suffixes))


def check_outputs(
    scenes: Sequence[Scene], out: Path, *, overwrite: bool, done: Collection[Scene] = (), others: Sequence[Path] = ()
) -> None:
    """Checks that the maps overwrite neither each other nor existing files.

    Args:
        scenes: Rasters to map.
        out: Output folder.
        overwrite: Allow existing maps to be replaced.
        done: Those of the scenes that are mapped already, and stay.
        others: Files that are written besides the maps, which no map may have.

    Raises:
        SettingError: If two scenes have the same name, or a map would overwrite a scene.
        FiresegError: If maps exist already, or a JSON file that is not the summary of a map.
    """
    counts = Counter(map(get_scene_name, scenes))
    faults = [
        f"{', '.join(str(scene) for scene in scenes if get_scene_name(scene) == stem)}: {count} scenes whose maps "
        f"would have the same name {stem}; map them into different folders with --out"
        for stem, count in counts.items()
        if count > 1
    ]
    outputs = {path.absolute(): path for stem in counts for path in MapFiles.of(out, stem)}
    faults += [
        f"{scene}: a map would overwrite this scene; choose another folder with --out"
        for scene in scenes
        if isinstance(scene, Path) and scene.absolute() in outputs
    ]
    faults += [
        f"{outputs[path.absolute()]}: would be a file of a map and {path.name} of all scenes together; map this scene "
        "alone, or rename it"
        for path in others
        if path.absolute() in outputs
    ]
    if not is_plain_name(out):
        faults.append(f"--out {out}: its name is not UTF-8 or holds control characters; choose another folder")
    if faults:
        raise SettingError(*faults)
    errors = []
    for path in outputs.values():
        try:
            check_regular_file(path, cure="remove it, or choose another folder with --out")
        except FiresegError as error:
            errors += error.faults
    if errors:
        raise FiresegError(*errors)
    for stem in counts:
        _check_summary(MapFiles.of(out, stem).summary)
    kept = set(map(get_scene_name, done))
    existing = [
        path
        for stem in counts
        if stem not in kept
        if not _is_incomplete(files := MapFiles.of(out, stem), _get_staging_folder(out, stem))
        for path in files
        if path.exists()
    ]
    if not overwrite:
        check_new(existing)


def check_new(paths: Sequence[Path]) -> None:
    """Checks that outputs do not exist.

    Raises:
        FiresegError: If any exists; with the first one.
    """
    if existing := [path for path in paths if path.exists()]:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise FiresegError(f"{existing[0]}{more}: exists already; add --overwrite, or choose another folder with --out")


@contextmanager
def staged_outputs(files: MapFiles, stem: str) -> Iterator[MapFiles]:
    """Yields paths in a hidden staging folder; at the end the files written there are moved to their places.

    Symbolic links stay, and their targets are replaced. A killed process leaves the staging folder, which the next call
    clears. If it was killed while it moved the files, the next call removes those as well.

    Args:
        files: Final paths.
        stem: Name of the scene.

    Raises:
        FiresegError: If another process writes the same map, or the folder is not writable.
    """
    folder = files.summary.parent
    staging = _get_staging_folder(folder, stem)
    lock = FileLock(staging / ".lock")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        _remove_incomplete(files, staging)
        _clear(staging)
        staged = MapFiles(*(staging / path.name for path in files))
        yield staged
        _publish(staged, files)
    except Timeout as error:
        raise FiresegError(f"{staging}: another process is writing this map; wait for it or stop it") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        if lock.is_locked:
            _remove_incomplete(files, staging)
            shutil.rmtree(staging, ignore_errors=True)
            lock.release()
        else:  # interrupted before, or another process has the lock, and the folder is not empty
            with suppress(OSError):
                staging.rmdir()


def remove_unfinished(folder: Path, stem: str, *, wait_s: float = 0.0) -> None:
    """Removes what a lost process has left of a map; nothing if another one still writes it.

    Args:
        folder: Output folder.
        stem: Name of the scene.
        wait_s: Longest time in seconds to wait for a process that may be about to end, as on a node that is lost.
    """
    staging = _get_staging_folder(folder, stem)
    if not staging.is_dir():
        return
    with suppress(Timeout, OSError), FileLock(staging / ".lock", timeout=wait_s):
        _remove_incomplete(MapFiles.of(folder, stem), staging)
        shutil.rmtree(staging, ignore_errors=True)


def _check_summary(path: Path) -> None:
    """Refuses to overwrite the metadata of a scene, which have the same name in the folder of the scenes."""
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    # The manifest of a folder of maps lists scenes.
    is_ours = isinstance(content, dict) and content.get(SOFTWARE_TAG[0]) == SOFTWARE_TAG[1] and "scenes" not in content
    if not is_ours:
        raise FiresegError(
            f"{path}: not the summary of a map, but a summary would overwrite it; choose another folder with --out"
        )


_MARKER = ".publishing"
"""File in the staging folder from the time on when files are moved out of it."""


def _get_staging_folder(folder: Path, stem: str) -> Path:
    return folder / f".{stem}.part"


def _publish(staged: MapFiles, files: MapFiles) -> None:
    """Moves one file after the other, the summary last: if it exists, all other files belong to the same map."""
    for staged_path in staged:
        if staged_path.exists():
            with staged_path.open("rb+") as file:
                os.fsync(file.fileno())
    (staged.summary.parent / _MARKER).touch()
    for old in (files.summary, files.geojson):  # the new map may have no GeoJSON to replace the old one
        _remove(old)
    for staged_path, path in zip(staged, files, strict=True):
        if not staged_path.exists():
            continue
        if path.is_symlink():  # perhaps to another disk, to which files cannot be moved
            with atomic_write(path) as part:
                shutil.copyfile(staged_path, part)
        else:
            staged_path.replace(path)


def _is_incomplete(files: MapFiles, staging: Path) -> bool:
    """Returns True if a process was stopped while it moved files, so that those there are no whole map."""
    return (staging / _MARKER).exists() and not files.summary.exists()


def _remove_incomplete(files: MapFiles, staging: Path) -> None:
    if _is_incomplete(files, staging):
        for path in files:
            _remove(path)


def _remove(path: Path) -> None:
    """Removes a file; a symbolic link stays, and its target is removed."""
    Path(os.path.realpath(path)).unlink(missing_ok=True)


def _clear(staging: Path) -> None:
    for path in staging.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True, kw_only=True)
class DecisionThreshold:
    """Threshold and temperature of a map.

    Attributes:
        threshold: Lowest calibrated fire probability that counts as burned, above 0 and below 1.
        temperature: Divisor of the log-odds of fire, above 0.
        chosen_by: Origin of the threshold: `user`, `calibration` or `default`.
    """

    threshold: float
    temperature: float
    chosen_by: str


def get_decision_threshold(
    trained: TrainedModel, threshold: float | None = None, temperature: float | None = None
) -> DecisionThreshold:
    """Returns the user's values, else those of the run's calibration, else 0.5 and 1.

    A temperature without a threshold does not move the map: the threshold is converted to the same log-odds, as far
    as a probability below 1 can express them.

    Args:
        trained: Model.
        threshold: Threshold given by the user.
        temperature: Temperature given by the user.
    """
    calibration = trained.calibration
    if threshold is not None:
        chosen_by = "user"
    else:
        threshold, chosen_by = (calibration.threshold, "calibration") if calibration else (0.5, "default")
        if calibration and temperature is not None:
            threshold = find_threshold(min_log_odds(threshold, calibration.temperature), temperature)
    if temperature is None:
        temperature = calibration.temperature if calibration else 1.0
    return DecisionThreshold(threshold=threshold, temperature=temperature, chosen_by=chosen_by)


def describe_map(
    trained: TrainedModel,
    reader: SceneReader,
    *,
    clouds: str | None,
    decision: DecisionThreshold,
    statistics: MapStatistics,
    polygons: Polygons,
    flags: Sequence[str],
    options: MapOptions,
    engine: InferenceEngine,
) -> dict[str, Any]:
    """Returns the JSON summary of a map.

    Returns:
        `pre` (of a pair: the scene before the fire, its date, and whether it was resampled), `has_fire`,
        `max_probability` (largest fire probability), `burned_fraction` (burned share of the known pixels), `burned_ha`,
        `hectares` by class, `unknown` (unknown share of all pixels), `pixels` by class, `threshold`, `temperature`,
        `polygons`, `cloud` (name of the cloud mask and share of all pixels under cloud or shadow), `flags`, then scene,
        grid, model, runtime (the engine that computed it, and the effect of int8 on val), options and versions.
    """
    grid = reader.grid
    return {
        SOFTWARE_TAG[0]: SOFTWARE_TAG[1],
        "scene": str(reader.path),
        "date": reader.date,
        **({"pre": describe_pre(reader.pre)} if reader.pre else {}),
        **statistics.as_dict(trained.task.class_names),
        "threshold": decision.threshold,
        "temperature": decision.temperature,
        "threshold_chosen_by": decision.chosen_by,
        "polygons": {
            "count": len(polygons.geometries),
            "dropped": polygons.num_dropped,
            "dropped_ha": polygons.dropped_ha,
        },
        "cloud": None if clouds is None else {"mask": clouds, "share": statistics.cloud_share},
        "flags": list(flags),
        "grid": {
            "height": grid.height,
            "width": grid.width,
            "crs": grid.crs,
            "transform": list(grid.transform),
            "bounds_lonlat": list(grid.bounds_lonlat),
        },
        "model": {"run": trained.name, **trained.describe()},
        "runtime": describe_engine(engine),
        "options": options.as_dict(),
        "versions": _list_versions(),
    }


def describe_pre(pre: BandReader) -> dict[str, Any]:
    """Describes the scene before the fire for the summary of a map."""
    return {"scene": str(pre.path), "date": pre.date, "is_resampled": pre.is_resampled}


def get_file_name(scene: Scene) -> str:
    """Returns the name of a scene for tables and polygons, without its folder."""
    return format_name(scene.name if isinstance(scene, Path) else get_scene_name(scene))


def format_date(date: str | None) -> str | None:
    """Shortens a date or an interval in ISO 8601 to days.

    Example:
        >>> format_date("2018-06-02T10:00:00Z/2018-07-18T10:00:00Z")
        '2018-06-02/2018-07-18'
    """
    return "/".join(end[:10] for end in date.split("/")) if date else None


def _list_versions() -> dict[str, str]:
    return {
        "fireseg": __version__,
        "torch": metadata.version("torch"),
        "rasterio": metadata.version("rasterio"),
        "gdal": GDAL_VERSION,
    }
