"""Metadata of an exported model: what a user of the file needs to know, and the keys of the QGIS plugin Deepness."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from fireseg import __version__
from fireseg.decision import find_threshold, min_log_odds
from fireseg.export.options import Output
from fireseg.geo.windows import OVERLAP_PX, WINDOW_PX
from fireseg.runs import TrainedModel

_BYTE = 255.0


def describe_model(
    trained: TrainedModel, *, output: Output, size: int | None, precision: Literal["fp32", "int8"] = "fp32"
) -> dict[str, Any]:
    """Describes an exported model as plain values.

    Args:
        trained: Model.
        output: Output of the exported model.
        size: Fixed height and width of the image in pixels; None if any multiple of 32 is possible.
        precision: Precision of the weights and values.

    Returns:
        `threshold` is the lowest fire probability, 1 minus that of class 0, that counts as burned. For logits it is
        that of their softmax. `temperature` is that of the run; `temperature_applied` is true if it is inside.
        `members` are those of an ensemble.
    """
    calibration = trained.calibration
    threshold, temperature = (calibration.threshold, calibration.temperature) if calibration else (0.5, 1.0)
    if output != "calibrated":
        threshold = find_threshold(min_log_odds(threshold, temperature), 1.0)
    origin = trained.describe()
    return {
        "name": trained.name,
        "task": trained.task.name,
        "architecture": origin["arch"],
        "encoder": origin["encoder"],
        "bands": list(trained.bands),
        "indices": _list_indices(trained),
        "input": "surface reflectance, 0 to 1, (batch, bands, height, width) float32, "
        + (f"1 x {size} x {size} px" if size else "height and width multiples of 32 from 64 px"),
        "output": {"calibrated": "calibrated probabilities", "raw": "probabilities", "none": "logits"}[output],
        "classes": list(trained.task.class_names),
        "labels": list(trained.task.labels),
        "colours": list(trained.task.colours),
        "threshold": threshold,
        "threshold_origin": "calibration" if calibration else "default",
        "temperature": temperature,
        "temperature_applied": output == "calibrated",
        "pixel_m": trained.pixel_m,
        "level": trained.level,
        "precision": precision,
        "static_px": size,
        "tile_px": size or WINDOW_PX,
        "overlap_px": OVERLAP_PX,
        "checkpoint": origin["checkpoint"],
        "checkpoint_sha256": trained.sha256,
        "epoch": trained.epoch,
        "data_fingerprint": trained.fingerprint,
        **({"members": origin["members"]} if trained.members else {}),
        "software": f"fireseg {__version__}",
    }


def _list_indices(trained: TrainedModel) -> list[str]:
    members = trained.members or (trained,)
    return list(dict.fromkeys(name for one in members for name in one.settings["model"].get("indices", [])))


def describe_for_deepness(
    metadata: Mapping[str, Any], *, size: int, scale: float | None, offset: float | None
) -> dict[str, Any]:
    """Returns the metadata that the QGIS plugin Deepness reads, which processes layers with square tiles of fixed size.

    Deepness divides the values of a layer by 255 whatever their type, subtracts the mean and divides by the standard
    deviation; these are chosen so that the model gets reflectance. It sets probabilities below its threshold to 0 and
    takes the largest, so with more than two classes only a threshold of 0 gives the likeliest class.

    Args:
        metadata: From `describe_model`.
        size: Height and width of the tiles in pixels.
        scale: Reflectance per unit of the layer; 1 if None.
        offset: Value of the layer at a reflectance of 0; 0 if None.
    """
    num_bands, labels = len(metadata["bands"]), metadata["labels"]
    resolution = {} if metadata["pixel_m"] is None else {"resolution": 100 * metadata["pixel_m"]}  # in centimetres
    return {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(labels)),
        **resolution,
        # Versions of Deepness read one or the other name.
        "tile_size": size,
        "tiles_size": size,
        "tiles_overlap": round(100 * metadata["overlap_px"] / size),
        "seg_thresh": metadata["threshold"] if len(labels) == 2 else 0.0,
        "seg_small_segment": 0,
        "standardization_mean": [(offset or 0.0) / _BYTE] * num_bands,
        "standardization_std": [1 / ((scale or 1.0) * _BYTE)] * num_bands,
    }


def encode(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Encodes each value as JSON, because the formats store texts."""
    return {name: json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
