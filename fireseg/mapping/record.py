"""What is written down about a map: where it lies, what it says, and what made it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from fireseg import __version__
from fireseg.data.tiles import BandReader
from fireseg.data.tiles.raster import MADE_BY
from fireseg.mapping.options import Options
from fireseg.mapping.tally import Tally
from fireseg.scene import GDAL_VERSION, Polygons
from fireseg.trained import Trained


@dataclass(frozen=True, kw_only=True)
class Decision:
    """When a pixel burned.

    Attributes:
        threshold: Least calibrated fire probability, above 0 and below 1.
        temperature: What the log-odds of fire are divided by, above 0.
        chosen_by: `user`, `calibration` or `default`: where the threshold comes from.
    """

    threshold: float
    temperature: float
    chosen_by: str


def choose_decision(trained: Trained, threshold: float | None = None, temperature: float | None = None) -> Decision:
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
    return Decision(threshold=threshold, temperature=temperature, chosen_by=chosen_by)


def get_run_name(trained: Trained) -> str:
    """What people call the run: its folder, else its checkpoint."""
    return (trained.folder.path.resolve() if trained.folder else trained.checkpoint).name


def describe_map(
    trained: Trained, reader: BandReader, decision: Decision, tally: Tally, polygons: Polygons, options: Options
) -> dict[str, Any]:
    """The summary of a map in plain values.

    Returns:
        `has_fire`, `confidence` (largest fire probability), `fraction` (burned share of the known pixels),
        `burned_ha`, `hectares` by class, `unknown_share`, `pixels` by class, `threshold`, `temperature`,
        `polygons`, then what was mapped and with what.
    """
    place = reader.place
    return {
        MADE_BY[0]: MADE_BY[1],
        "scene": str(reader.path),
        "date": place.date,
        **tally.as_dict(trained.task.class_names),
        "threshold": decision.threshold,
        "temperature": decision.temperature,
        "threshold_chosen_by": decision.chosen_by,
        "polygons": {
            "count": len(polygons.geometries),
            "dropped": polygons.num_dropped,
            "dropped_ha": polygons.dropped_ha,
        },
        "flags": list(reader.look()),
        "grid": {
            "height": place.height,
            "width": place.width,
            "crs": place.crs,
            "transform": list(place.transform),
            "bounds_lonlat": list(place.bounds_lonlat),
        },
        "model": _describe_model(trained),
        "options": asdict(options),
        "versions": _list_versions(),
    }


def _describe_model(trained: Trained) -> dict[str, Any]:
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
