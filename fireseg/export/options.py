"""Options of the `export` command."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import metavar
from fireseg.errors import SettingError

Format = Literal["onnx", "openvino", "torch", "mlflow"]
"""Formats: ONNX, the intermediate representation of OpenVINO, a program of `torch.export`, and a model of MLflow."""

Output = Literal["calibrated", "raw", "none"]
"""Class probabilities with the temperature of the run or without it; none gives logits."""

_STEP_PX, _MAX_PX = 32, 4096


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Run, format and content of an export.

    Attributes:
        run: Run folder, checkpoint file, or MLflow URI; RUN1,RUN2,… exports the mean of several.
        to: Format.
        precision: Precision of the weights and values: fp32, or for openvino int8, which is calibrated once on val
            patches of the run.
        out: Output folder (default: export_<format> in the run folder, for int8 export_openvino_int8).
        probabilities: Output of the model: class probabilities, calibrated with the temperature of the run or raw, or
            none for logits.
        static: Fixed height and width of the image, one image at a time, as the QGIS plugin Deepness needs it
            (default: any multiple of 32, any batch).
        scale: Reflectance per unit of the values of the layer in QGIS: 0.0001 for digital numbers.
        offset: Radiometric offset of the layer in QGIS, subtracted from its values: 1000 for digital numbers of
            products since 2022.
        data: Folder of the patches for the parity check and for int8, if they have moved since the training.
        licence: Licence of the weights, for the model card and the STAC item, such as CC-BY-4.0.
        overwrite: Replace an existing export.

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    to: Format
    precision: Literal["fp32", "int8"] = "fp32"
    out: Annotated[Path | None, metavar("DIR")] = None
    probabilities: Output = "calibrated"
    static: Annotated[int | None, metavar("PIXELS")] = None
    scale: Annotated[float | None, metavar("NUMBER")] = None
    offset: Annotated[float | None, metavar("NUMBER")] = None
    data: Annotated[Path | None, metavar("PATCHES")] = None
    licence: Annotated[str | None, metavar("NAME")] = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        faults = []
        if self.precision == "int8" and self.to != "openvino":
            faults.append(f"--precision: int8 is not available with --to {self.to}; use --to openvino")
        if self.to == "mlflow":
            given = {"--probabilities": self.probabilities != "calibrated", "--static": self.static is not None}
            faults += [
                f"{name}: has no effect on --to mlflow, whose models take images of any size and give classes and "
                "calibrated fire probabilities; omit it"
                for name, is_given in given.items()
                if is_given
            ]
        if self.static is not None and not (self.static % _STEP_PX == 0 and 2 * _STEP_PX <= self.static <= _MAX_PX):
            faults.append(
                f"--static: {self.static}, but it must be a multiple of {_STEP_PX} from {2 * _STEP_PX} to {_MAX_PX}, "
                "such as 512"
            )
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            if value is not None and (self.to != "onnx" or self.static is None):
                faults.append(f"--{name}: describes a layer in QGIS, so it needs --to onnx and --static 512")
        if self.scale is not None and not 0 < self.scale < math.inf:
            faults.append(f"--scale: {self.scale:g}, but it must be above 0, such as 0.0001 for digital numbers")
        if self.offset is not None and self.scale is None:
            faults.append(f"--offset: {self.offset:g}, but it counts in units of the layer; give --scale 0.0001, too")
        elif self.offset is not None and not math.isfinite(self.offset):
            faults.append(f"--offset: {self.offset:g}, but it must be a number, such as 1000")
        if faults:
            raise SettingError(*faults)
