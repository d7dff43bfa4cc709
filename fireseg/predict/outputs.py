"""The files of a map by name, which appear together or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fireseg import __version__
from fireseg.errors import FiresegError, SettingError
from fireseg.files import disk_error
from fireseg.geo import GDAL_VERSION, Polygons
from fireseg.predict.options import Options
from fireseg.runs import TrainedModel
from fireseg.task import IGNORE_INDEX
from fireseg.tiles import BandReader
from fireseg.tiles.metadata import SOFTWARE_TAG


class MapFiles(NamedTuple):
    """Where the map of a scene goes.

    Attributes:
        classes: What burned, and how badly.
        names: Class names beside it, for GDAL.
        fire: How sure that is.
        burned: Polygons.
        geojson: The same for the web, where wished for.
        picture: A quick look.
        summary: In numbers.
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
        """Those of a scene.

        Args:
            folder: Where maps go.
            stem: Name of the scene's file without its ending.
        """
        endings = ("_classes.tif", "_classes.tif.aux.xml", "_fire.tif", "_burned.gpkg", "_burned.geojson")
        return cls(*(folder / f"{stem}{ending}" for ending in (*endings, ".png", ".json")))


def check_outputs(scenes: Sequence[Path], out: Path, *, overwrite: bool) -> None:
    """Refuses what would be lost or mixed up, before any work.

    Args:
        scenes: The rasters to map.
        out: Where maps go.
        overwrite: Whether existing maps may be replaced.

    Raises:
        SettingError: If two scenes have one name, or a map would take the place of a scene.
        FiresegError: If maps are there already, or a json that is none of ours.
    """
    counts = Counter(scene.stem for scene in scenes)
    faults = [
        f"{', '.join(str(scene) for scene in scenes if scene.stem == stem)}: {count} scenes whose maps would all be "
        f"called {stem}; map them into different folders with --out"
        for stem, count in counts.items()
        if count > 1
    ]
    outputs = {path.absolute(): path for stem in counts for path in MapFiles.of(out, stem)}
    faults += [
        f"{scene}: a map would take the place of this scene; choose another folder with --out"
        for scene in scenes
        if scene.absolute() in outputs
    ]
    if faults:
        raise SettingError(*faults)
    for stem in counts:
        _refuse_strange_summary(MapFiles.of(out, stem).summary)
    there = [path for path in outputs.values() if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise FiresegError(f"{there[0]}{more}: is there already; add --overwrite, or choose another folder with --out")


@contextmanager
def staged_outputs(files: MapFiles, stem: str) -> Iterator[MapFiles]:
    """Yields the same names in a scratch folder beside; what was written there appears at the end.

    Killed on the way, a folder with a dot in front is all that is left, and the next call clears it.

    Args:
        files: Where the files go in the end.
        stem: Name of the scene.

    Raises:
        FiresegError: If another process writes the same map, or the folder cannot be written.
    """
    folder = files.summary.parent
    scratch = folder / f".{stem}.part"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        lock = FileLock(scratch / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FiresegError(f"{scratch}: another process is writing this map; wait for it or end it") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        _clear(scratch)
        drafts = MapFiles(*(scratch / path.name for path in files))
        yield drafts
        _release(drafts, files)
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _refuse_strange_summary(path: Path) -> None:
    """In the folder of the scenes, a json of that name may be what tells when a scene was taken."""
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get(SOFTWARE_TAG[0]) != SOFTWARE_TAG[1]:
        raise FiresegError(
            f"{path}: is no summary of a map, and one would take its place; choose another folder with --out"
        )


def _release(drafts: MapFiles, files: MapFiles) -> None:
    """Renames one file after the other, the summary last: where it is, all the others are of the same map."""
    for draft in drafts:
        if draft.exists():
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
    for old in (files.summary, files.geojson):  # the latter may not be among those that take its place
        old.unlink(missing_ok=True)
    for draft, path in zip(drafts, files, strict=True):
        if draft.exists():
            draft.replace(path)


def _clear(scratch: Path) -> None:
    for path in scratch.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Classified(NamedTuple):
    """What is said of every pixel.

    Attributes:
        classes: `(H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown.
        fire: `(H, W)` float32, calibrated probability that the pixel burned, 0 to 1; NaN where unknown.
    """

    classes: NDArray[np.uint8]
    fire: NDArray[np.float32]


def classify(
    probabilities: NDArray[np.float32], unknown: NDArray[np.bool_], *, threshold: float = 0.5, temperature: float = 1.0
) -> Classified:
    """Calibrates the fire probability, holds it against the threshold, and grades what burned.

    With p the sum of the classes above 0 and d = log(p / (1 - p)), the calibrated probability is
    sigmoid(d / temperature). A pixel burned where that reaches the threshold; its grade is the likeliest of
    the classes above 0. For two classes, temperature 1 and threshold 0.5 this is the argmax.

    Args:
        probabilities: Softmax, `(K, H, W)`, K at least 2.
        unknown: `(H, W)`, True where a band has no value.
        threshold: Above 0 and below 1.
        temperature: Above 0; above 1 makes less sure.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Example:
        >>> probabilities = np.array([[[0.7, 0.2]], [[0.3, 0.8]]], np.float32)
        >>> decide(probabilities, np.zeros((1, 2), bool), threshold=0.3).classes.tolist()
        [[0, 1]]
    """
    odds = _log_odds(probabilities)
    grade, best = np.ones(odds.shape, np.uint8), probabilities[1]
    for number, rival in enumerate(probabilities[2:], 2):
        grade[rival > best] = number
        best = np.maximum(best, rival)
    # Compared as odds: a probability in float32 rounds to the threshold from below.
    grade[odds < temperature * math.log(threshold / (1 - threshold))] = 0
    grade[unknown] = IGNORE_INDEX
    odds /= -temperature
    with np.errstate(over="ignore"):  # exp(inf) is inf, and 1 / inf is the 0 that is meant
        fire = np.exp(odds, out=odds)
    fire += 1
    np.reciprocal(fire, out=fire)
    fire[unknown] = np.nan
    return Classified(grade, fire)


def _log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    # The log of the ratio, not a difference of logs: its sign is then exactly that of p - (1 - p).
    fire = probabilities[1].copy() if len(probabilities) == 2 else probabilities[1:].sum(axis=0)
    with np.errstate(divide="ignore", over="ignore"):  # a probability of 0 or 1 is infinite odds
        fire /= probabilities[0]
        return np.log(fire, out=fire)


_HA_M2 = 10_000.0


@dataclass
class MapStatistics:
    """Pixels and hectares of each class, and how sure the surest pixel is.

    Args:
        num_classes: Unburned included.

    Attributes:
        pixels: Of each class, `(K,)`.
        area_m2: Of each class, `(K,)`, on the ellipsoid.
        num_unknown: Pixels that a band has no value for.
        confidence: Largest fire probability of all pixels, 0 to 1; 0 where all are unknown.
    """

    num_classes: int
    pixels: NDArray[np.int64] = field(init=False)
    area_m2: NDArray[np.float64] = field(init=False)
    num_unknown: int = 0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.area_m2 = np.zeros(self.num_classes)

    def add(self, decided: Classified, area_m2: NDArray[np.floating] | None = None) -> None:
        """Counts some rows.

        Args:
            decided: Of these rows.
            area_m2: Of their pixels, `(n, W)`, or `(n, 1)` where those of a row are alike; None: of no size.
        """
        counts = np.bincount(decided.classes.ravel(), minlength=256)
        self.pixels += counts[: self.num_classes]
        self.num_unknown += int(decided.classes.size - counts[: self.num_classes].sum())
        if counts[: self.num_classes].any():
            self.confidence = max(self.confidence, float(np.nanmax(decided.fire)))
        if area_m2 is None:
            return
        for number in np.flatnonzero(counts[: self.num_classes]):
            is_it = decided.classes == number
            if area_m2.shape[1] == 1:
                self.area_m2[number] += float(is_it.sum(axis=1) @ area_m2[:, 0].astype(np.float64))
            else:
                self.area_m2[number] += float(np.sum(area_m2, where=is_it, dtype=np.float64))

    @property
    def fraction(self) -> float:
        """Share of the known pixels that burned, 0 to 1; 0 where none is known."""
        return float(self.pixels[1:].sum() / max(int(self.pixels.sum()), 1))

    @property
    def unknown_share(self) -> float:
        """Share of all pixels that nothing is known of, 0 to 1."""
        return self.num_unknown / max(self.num_unknown + int(self.pixels.sum()), 1)

    @property
    def has_fire(self) -> bool:
        """Whether any pixel burned."""
        return bool(self.pixels[1:].any())

    @property
    def hectares(self) -> list[float]:
        """Of each class."""
        return [float(area) / _HA_M2 for area in self.area_m2]

    @property
    def burned_ha(self) -> float:
        """Hectares of all burned classes together."""
        return sum(self.hectares[1:])

    def as_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """In plain values, for a json file."""
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
class OperatingPoint:
    """When a pixel burned.

    Attributes:
        threshold: Least calibrated fire probability, above 0 and below 1.
        temperature: What the log-odds of fire are divided by, above 0.
        chosen_by: `user`, `calibration` or `default`: where the threshold comes from.
    """

    threshold: float
    temperature: float
    chosen_by: str


def get_operating_point(
    trained: TrainedModel, threshold: float | None = None, temperature: float | None = None
) -> OperatingPoint:
    """What the user says, else what the run's calibration says, else 0.5 and 1.

    Args:
        trained: The model.
        threshold: The user's.
        temperature: The user's.
    """
    known = trained.calibration
    if threshold is not None:
        chosen_by = "user"
    else:
        threshold, chosen_by = (known.threshold, "calibration") if known else (0.5, "default")
        if known and temperature is not None:  # the same odds burn, whatever they are called now
            odds = known.temperature * math.log(threshold / (1 - threshold))
            threshold = 1 / (1 + math.exp(-odds / temperature))
    if temperature is None:
        temperature = known.temperature if known else 1.0
    return OperatingPoint(threshold=threshold, temperature=temperature, chosen_by=chosen_by)


def get_run_name(trained: TrainedModel) -> str:
    """What people call the run: its folder, else its checkpoint."""
    return (trained.folder.path.resolve() if trained.folder else trained.checkpoint).name


def describe_map(
    trained: TrainedModel,
    reader: BandReader,
    decision: OperatingPoint,
    tally: MapStatistics,
    polygons: Polygons,
    options: Options,
) -> dict[str, Any]:
    """The summary of a map in plain values.

    Returns:
        `has_fire`, `confidence` (largest fire probability), `fraction` (burned share of the known pixels),
        `burned_ha`, `hectares` by class, `unknown_share`, `pixels` by class, `threshold`, `temperature`,
        `polygons`, then what was mapped and with what.
    """
    grid = reader.grid
    return {
        SOFTWARE_TAG[0]: SOFTWARE_TAG[1],
        "scene": str(reader.path),
        "date": reader.date,
        **tally.as_dict(trained.task.class_names),
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
        "options": asdict(options),
        "versions": _list_versions(),
    }


def _describe_model(trained: TrainedModel) -> dict[str, Any]:
    network = trained.settings.get("model", {})
    return {
        "run": get_run_name(trained),
        "folder": str(trained.folder.path.resolve()) if trained.folder else None,
        "checkpoint": trained.checkpoint.name,
        "sha256": trained.sha256,
        "epoch": trained.epoch,
        "fingerprint": trained.fingerprint,
        "task": trained.task.name,
        "class_names": list(trained.task.class_names),
        "arch": network.get("arch"),
        "encoder": network.get("encoder"),
        "bands": list(trained.bands),
    }


def _list_versions() -> dict[str, str]:
    return {
        "fireseg": __version__,
        "torch": torch.__version__,
        "rasterio": metadata.version("rasterio"),
        "gdal": GDAL_VERSION,
    }
