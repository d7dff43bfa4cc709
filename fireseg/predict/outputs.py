"""Outputs of a prediction: file names, staging, classes, statistics, and the JSON summary."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fireseg import __version__
from fireseg.decision import apply_threshold, min_log_odds, severity_classes
from fireseg.errors import FiresegError, SettingError
from fireseg.files import disk_error
from fireseg.geo import GDAL_VERSION, Polygons
from fireseg.geo.grid import M2_PER_HA
from fireseg.predict.options import PredictOptions
from fireseg.runs import TrainedModel
from fireseg.tiles import BandReader
from fireseg.tiles.metadata import SOFTWARE_TAG


class MapFiles(NamedTuple):
    """Paths of the files of a map.

    Attributes:
        classes: Class raster.
        names: Class names of that raster for GDAL (`.aux.xml`).
        fire: Fire probability raster.
        burned: Burned-area polygons as GeoPackage.
        geojson: Burned-area polygons as GeoJSON, if requested.
        picture: Quicklook.
        summary: Summary as JSON.
    """

    classes: Path
    names: Path
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
        suffixes = ("_classes.tif", "_classes.tif.aux.xml", "_fire.tif", "_burned.gpkg", "_burned.geojson")
        return cls(*(folder / f"{stem}{suffix}" for suffix in (*suffixes, ".png", ".json")))


def check_outputs(scenes: Sequence[Path], out: Path, *, overwrite: bool) -> None:
    """Checks that the maps overwrite neither each other nor existing files.

    Args:
        scenes: Rasters to map.
        out: Output folder.
        overwrite: Allow existing maps to be replaced.

    Raises:
        SettingError: If two scenes have the same name, or a map would overwrite a scene.
        FiresegError: If maps exist already, or a JSON file that is not the summary of a map.
    """
    counts = Counter(scene.stem for scene in scenes)
    faults = [
        f"{', '.join(str(scene) for scene in scenes if scene.stem == stem)}: {count} scenes whose maps would have "
        f"the same name {stem}; map them into different folders with --out"
        for stem, count in counts.items()
        if count > 1
    ]
    outputs = {path.absolute(): path for stem in counts for path in MapFiles.of(out, stem)}
    faults += [
        f"{scene}: a map would overwrite this scene; choose another folder with --out"
        for scene in scenes
        if scene.absolute() in outputs
    ]
    if faults:
        raise SettingError(*faults)
    for stem in counts:
        _check_summary(MapFiles.of(out, stem).summary)
    existing = [path for path in outputs.values() if path.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise FiresegError(f"{existing[0]}{more}: exists already; add --overwrite, or choose another folder with --out")


@contextmanager
def staged_outputs(files: MapFiles, stem: str) -> Iterator[MapFiles]:
    """Yields paths in a hidden staging folder; at the end the files written there are moved to their places.

    A killed process leaves only the staging folder, which the next call clears.

    Args:
        files: Final paths.
        stem: Name of the scene.

    Raises:
        FiresegError: If another process writes the same map, or the folder is not writable.
    """
    folder = files.summary.parent
    staging = folder / f".{stem}.part"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(staging / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FiresegError(f"{staging}: another process is writing this map; wait for it or stop it") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        _clear(staging)
        staged = MapFiles(*(staging / path.name for path in files))
        yield staged
        _publish(staged, files)
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        lock.release()


def _check_summary(path: Path) -> None:
    """Refuses to overwrite the metadata of a scene, which have the same name in the folder of the scenes."""
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get(SOFTWARE_TAG[0]) != SOFTWARE_TAG[1]:
        raise FiresegError(
            f"{path}: not the summary of a map, but a summary would overwrite it; choose another folder with --out"
        )


def _publish(staged: MapFiles, files: MapFiles) -> None:
    """Moves one file after the other, the summary last: if it exists, all other files belong to the same map."""
    for staged_path in staged:
        if staged_path.exists():
            with staged_path.open("rb+") as file:
                os.fsync(file.fileno())
    for old in (files.summary, files.geojson):  # the new map may have no GeoJSON to replace the old one
        old.unlink(missing_ok=True)
    for staged_path, path in zip(staged, files, strict=True):
        if staged_path.exists():
            staged_path.replace(path)


def _clear(staging: Path) -> None:
    for path in staging.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class PixelPrediction(NamedTuple):
    """Classes and fire probability of some pixels.

    Attributes:
        classes: Classes, `(H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown.
        fire: Calibrated fire probability, `(H, W)` float32 in [0, 1]; NaN where unknown.
    """

    classes: NDArray[np.uint8]
    fire: NDArray[np.float32]


def classify(
    probabilities: NDArray[np.float32], unknown: NDArray[np.bool_], *, threshold: float = 0.5, temperature: float = 1.0
) -> PixelPrediction:
    """Calibrates the fire probability and applies the threshold.

    With p the sum of the classes above 0 and d = log(p / (1 - p)), the calibrated probability is
    sigmoid(d / temperature). A pixel burned if it reaches the threshold; its class is then the likeliest one
    above 0. For two classes, temperature 1 and threshold 0.5 this is the argmax.

    The log-odds are computed in NumPy: torch's float32 log and exp differ from NumPy's in the last bit.

    Args:
        probabilities: Softmax, `(K, H, W)`, K at least 2.
        unknown: Pixels without a value in some band, `(H, W)`.
        threshold: Lowest calibrated fire probability that counts as burned, above 0 and below 1.
        temperature: Divisor of the log-odds, above 0; values above 1 reduce the confidence.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Example:
        >>> probabilities = np.array([[[0.7, 0.2]], [[0.3, 0.8]]], np.float32)
        >>> classify(probabilities, np.zeros((1, 2), bool), threshold=0.3).classes.tolist()
        [[0, 1]]
    """
    log_odds = _log_odds(probabilities)
    severity = severity_classes(torch.from_numpy(probabilities)[None])[0].numpy()  # shares memory, no copy
    classes = apply_threshold(log_odds, severity, threshold=threshold, temperature=temperature, unknown=unknown)
    log_odds /= -temperature
    with np.errstate(over="ignore"):  # exp(inf) is inf, and 1 / inf is the correct 0
        fire = np.exp(log_odds, out=log_odds)
    fire += 1
    np.reciprocal(fire, out=fire)
    fire[unknown] = np.nan
    return PixelPrediction(classes, fire)


def _log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    # The log of the ratio, not a difference of logs: its sign is then exactly that of p - (1 - p).
    fire = probabilities[1].copy() if len(probabilities) == 2 else probabilities[1:].sum(axis=0)
    with np.errstate(divide="ignore", over="ignore"):  # a probability of 0 or 1 gives infinite log-odds
        fire /= probabilities[0]
        return np.log(fire, out=fire)


@dataclass
class MapStatistics:
    """Running totals of a map: pixels and area by class, and the largest fire probability.

    Args:
        num_classes: Number of classes, unburned included.

    Attributes:
        pixels: Pixels by class, `(K,)`.
        area_m2: Geodesic area by class in m², `(K,)`.
        num_unknown: Pixels without a value in some band.
        confidence: Largest fire probability, 0 to 1; 0 if all pixels are unknown.
    """

    num_classes: int
    pixels: NDArray[np.int64] = field(init=False)
    area_m2: NDArray[np.float64] = field(init=False)
    num_unknown: int = 0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.area_m2 = np.zeros(self.num_classes)

    def add(self, rows: PixelPrediction, area_m2: NDArray[np.floating] | None = None) -> None:
        """Adds some rows.

        Args:
            rows: Prediction of the rows.
            area_m2: Pixel areas in m², `(n, W)`, or `(n, 1)` if equal within a row; None adds no area.
        """
        counts = np.bincount(rows.classes.ravel(), minlength=256)
        self.pixels += counts[: self.num_classes]
        self.num_unknown += int(rows.classes.size - counts[: self.num_classes].sum())
        if counts[: self.num_classes].any():
            self.confidence = max(self.confidence, float(np.nanmax(rows.fire)))
        if area_m2 is None:
            return
        for number in np.flatnonzero(counts[: self.num_classes]):
            is_class = rows.classes == number
            if area_m2.shape[1] == 1:
                self.area_m2[number] += float(is_class.sum(axis=1) @ area_m2[:, 0].astype(np.float64))
            else:
                self.area_m2[number] += float(np.sum(area_m2, where=is_class, dtype=np.float64))

    @property
    def fraction(self) -> float:
        """Burned share of the known pixels, 0 to 1; 0 if no pixel is known."""
        return float(self.pixels[1:].sum() / max(int(self.pixels.sum()), 1))

    @property
    def unknown_share(self) -> float:
        """Unknown share of all pixels, 0 to 1."""
        return self.num_unknown / max(self.num_unknown + int(self.pixels.sum()), 1)

    @property
    def has_fire(self) -> bool:
        """True if any pixel burned."""
        return bool(self.pixels[1:].any())

    @property
    def hectares(self) -> list[float]:
        """Area by class in hectares."""
        return [float(area) / M2_PER_HA for area in self.area_m2]

    @property
    def burned_ha(self) -> float:
        """Area of all burned classes in hectares."""
        return sum(self.hectares[1:])

    def as_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Returns plain values for the JSON summary."""
        return {
            "has_fire": self.has_fire,
            "confidence": self.confidence,
            "fraction": self.fraction,
            "burned_ha": self.burned_ha,
            "hectares": dict(zip(class_names, self.hectares, strict=True)),
            "unknown_share": self.unknown_share,
            "pixels": {**dict(zip(class_names, self.pixels.tolist(), strict=True)), "unknown": self.num_unknown},
        }


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

    A temperature without a threshold does not move the map: the threshold is converted to the same log-odds.

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
            threshold = 1 / (1 + math.exp(-min_log_odds(threshold, calibration.temperature) / temperature))
    if temperature is None:
        temperature = calibration.temperature if calibration else 1.0
    return DecisionThreshold(threshold=threshold, temperature=temperature, chosen_by=chosen_by)


def get_run_name(trained: TrainedModel) -> str:
    """Returns the name of the run folder, or of the checkpoint if there is no run folder."""
    return (trained.folder.path.resolve() if trained.folder else trained.checkpoint).name


def describe_map(
    trained: TrainedModel,
    reader: BandReader,
    decision: DecisionThreshold,
    statistics: MapStatistics,
    polygons: Polygons,
    options: PredictOptions,
) -> dict[str, Any]:
    """Returns the JSON summary of a map.

    Returns:
        `has_fire`, `confidence` (largest fire probability), `fraction` (burned share of the known pixels),
        `burned_ha`, `hectares` by class, `unknown_share`, `pixels` by class, `threshold`, `temperature`,
        `polygons`, then scene, grid, model, options and versions.
    """
    grid = reader.grid
    return {
        SOFTWARE_TAG[0]: SOFTWARE_TAG[1],
        "scene": str(reader.path),
        "date": reader.date,
        **statistics.as_dict(trained.task.class_names),
        "threshold": decision.threshold,
        "temperature": decision.temperature,
        "threshold_chosen_by": decision.chosen_by,
        "polygons": {
            "count": len(polygons.geometries),
            "dropped": polygons.num_dropped,
            "dropped_ha": polygons.dropped_ha,
        },
        "flags": list(reader.read_flags()),
        "grid": {
            "height": grid.height,
            "width": grid.width,
            "crs": grid.crs,
            "transform": list(grid.transform),
            "bounds_lonlat": list(grid.bounds_lonlat),
        },
        "model": _describe_model(trained),
        "options": options.as_dict(),
        "versions": _list_versions(),
    }


def _describe_model(trained: TrainedModel) -> dict[str, Any]:
    settings = trained.settings.get("model", {})
    return {
        "run": get_run_name(trained),
        "folder": str(trained.folder.path.resolve()) if trained.folder else None,
        "checkpoint": trained.checkpoint.name,
        "sha256": trained.sha256,
        "epoch": trained.epoch,
        "fingerprint": trained.fingerprint,
        "task": trained.task.name,
        "class_names": list(trained.task.class_names),
        "arch": settings.get("arch"),
        "encoder": settings.get("encoder"),
        "bands": list(trained.bands),
    }


def _list_versions() -> dict[str, str]:
    return {
        "fireseg": __version__,
        "torch": torch.__version__,
        "rasterio": metadata.version("rasterio"),
        "gdal": GDAL_VERSION,
    }
