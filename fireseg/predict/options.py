"""Options of the `predict` command and of `fireseg.load(...).predict_scene`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fireseg.console import metavar
from fireseg.decision import TEMPERATURE_LIMITS
from fireseg.errors import SettingError
from fireseg.tiles.options import RasterOptions


@dataclass(frozen=True, kw_only=True)
class MapOptions(RasterOptions):
    """Options of a map.

    Attributes:
        overwrite: Replace existing maps.
        clouds: Leave pixels under cloud and cloud shadow unknown, or map them all the same.
        cloud_mask: Cloud mask of the scene, a raster of codes CM or SCL (default: <name>_CM.tif or <name>_SCL.tif
            beside the scene, else a channel SCL).
        pre: Scene before the fire, for a model that compares two (default: <name>_PRE.tif beside the scene); on another
            grid it is resampled.
        geojson: Also write the polygons as scene_burned.geojson in longitude and latitude.
        min_area_ha: Smallest burned area that gets a polygon, in hectares; the rasters keep smaller ones.
        simplify_m: Tolerance for simplifying polygon outlines, in metres.
        fire_dtype: Data type of the fire probability: uint8 in steps of 0.004, or float32.
        threshold: Lowest fire probability that counts as burned (default: of the calibration of the run, else 0.5).
        temperature: Divisor of the log-odds of fire (default: fitted on val, else 1).
        tta: Average over the 8 flips and 90° rotations: slightly better, eight times slower.
        batch_size: Windows per batch (default: 1 on a CPU, else 8); affects only speed and memory.
        readers: Threads that read; affects only speed.

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    overwrite: bool = False
    clouds: Literal["ignore", "keep"] = "ignore"
    cloud_mask: Annotated[Path | None, metavar("FILE")] = None
    pre: Annotated[str | None, metavar("SCENE")] = None
    geojson: bool = False
    min_area_ha: float = 0.5
    simplify_m: float = 0.0
    fire_dtype: Literal["uint8", "float32"] = "uint8"
    threshold: Annotated[float | None, metavar("NUMBER")] = None
    temperature: Annotated[float | None, metavar("NUMBER")] = None
    tta: bool = False
    batch_size: Annotated[int | None, metavar("INT")] = None
    readers: int = 2

    def __post_init__(self) -> None:
        low, high = TEMPERATURE_LIMITS
        is_valid = {
            "threshold": (self.threshold is None or 0 < self.threshold < 1, "a probability above 0 and below 1"),
            "temperature": (self.temperature is None or low <= self.temperature <= high, f"{low:g} to {high:g}"),
            "fire_dtype": (self.fire_dtype in ("uint8", "float32"), "uint8 or float32"),
            "min_area_ha": (0 <= self.min_area_ha < math.inf, "an area in hectares, 0 or more"),
            "simplify_m": (0 <= self.simplify_m < math.inf, "a distance in metres, 0 or more"),
            "batch_size": (self.batch_size is None or self.batch_size >= 1, "1 or more"),
            "readers": (self.readers >= 1, "1 or more"),
        }
        faults = [
            f"--{name.replace('_', '-')}: {getattr(self, name)}, but it must be {expected}"
            for name, (is_ok, expected) in is_valid.items()
            if not is_ok
        ]
        if self.clouds not in ("ignore", "keep"):
            faults.append(f"--clouds: {self.clouds}, but it must be ignore or keep")
        elif self.clouds == "keep" and self.cloud_mask is not None:
            faults.append(f"--cloud-mask {self.cloud_mask}: has no effect with --clouds keep; omit one of them")
        faults += self.list_faults()
        if faults:
            raise SettingError(*faults)

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields of `MapOptions` by name, for the JSON summary of a map; `pre` only if it is given."""
        values = {field.name: getattr(self, field.name) for field in fields(MapOptions)}
        if self.pre is None:  # summaries of earlier versions do not have it
            del values["pre"]
        return {**values, "cloud_mask": self.cloud_mask and str(self.cloud_mask)}


_MAX_WORKERS = 1000


@dataclass(frozen=True, kw_only=True)
class PredictOptions(MapOptions):
    """Run, scenes and options of a prediction.

    Attributes:
        run: Run folder, checkpoint file, or MLflow URI; RUN1,RUN2,… maps with the mean of several.
        scenes: Rasters, SAFE products, or STAC items to map; addresses such as https://… are passed to GDAL.
        out: Output folder.
        device: Device for inference.
        runtime: Engine that computes the model: auto (the fastest that is installed), torch, openvino or onnx.
        precision: Precision of the engine: auto (the fastest that keeps the map), fp32, bf16, or int8: faster still, by
            openvino, calibrated once on val patches of the run, where its effect is measured and kept with the maps.
        workers: Processes that map scenes at the same time, each with a model of its own; ray: tasks of a Ray cluster,
            as many as it has room for.
        cores_per_worker: CPU threads of a worker (default: those of this machine shared out; with ray 1).
        gpus_per_worker: ray: GPUs of a worker; 0.5 runs two on each (default: 1 if the cluster has any).
        address: ray: address of a running cluster (default: RAY_ADDRESS; without it a Ray of its own, here).

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    scenes: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCENE ...", help_behavior_hint="(required)")
    ]
    out: Path = Path("maps")
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    runtime: Literal["auto", "torch", "openvino", "onnx"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    workers: Annotated[str, tyro.conf.arg(metavar="N|ray")] = "1"
    cores_per_worker: Annotated[int | None, metavar("INT")] = None
    gpus_per_worker: Annotated[float | None, metavar("NUMBER")] = None
    address: Annotated[str | None, metavar("ADDRESS")] = None

    def __post_init__(self) -> None:
        faults = []
        try:
            super().__post_init__()
        except SettingError as error:
            faults += error.faults
        if self.workers != "ray" and not (self.workers.isdecimal() and 1 <= int(self.workers) <= _MAX_WORKERS):
            faults.append(f"--workers: {self.workers}, but it must be 1 to {_MAX_WORKERS}, or ray")
        if self.cores_per_worker is not None and self.cores_per_worker < 1:
            faults.append(f"--cores-per-worker: {self.cores_per_worker}, but it must be 1 or more")
        # Ray packs fractions on one device and gives several whole ones, of which a model uses one.
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            faults.append(f"--gpus-per-worker: {self.gpus_per_worker:g}, but it must be a share of one GPU, 0 to 1")
        for name in ("gpus_per_worker", "address"):
            if getattr(self, name) is not None and self.workers != "ray":
                option = f"--{name.replace('_', '-')}"
                faults.append(f"{option}: applies only to --workers ray; add it, or leave {option} out")
        if faults:
            raise SettingError(*faults)
