"""The int8 model of a run: its file in the cache, and the effect of int8 on the decisions."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from fireseg.files import convert_disk_errors
from fireseg.runs import TrainedModel
from fireseg.runtime.cache import LOCK, get_stem, is_intact, open_onnx, read_record, write_record
from fireseg.runtime.openvino import import_openvino, read_graph

MAX_IOU_DROP = 0.01
"""Largest drop of the fire IoU on val that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Int8Comparison:
    """Decisions of the int8 model on val patches, compared with those of the model in float32.

    Attributes:
        fire_iou: Fire IoU of the int8 model, 0 to 1; None if no pixel of the patches burned.
        fire_iou_fp32: The same in float32.
        changed_share: Share of the labelled pixels whose decision differs.
        threshold: Lowest fire probability that counts as burned: that of the run.
        temperature: Divisor of the log-odds.
        calibration_patches: Number of patches that the ranges of values were taken from.
        compared_patches: Number of patches of this comparison.
        patches: Folder of the patches.
        nncf: Version of the package that quantised.
    """

    fire_iou: float | None
    fire_iou_fp32: float | None
    changed_share: float
    threshold: float
    temperature: float
    calibration_patches: int
    compared_patches: int
    patches: str
    nncf: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the attributes by name."""
        return asdict(self)

    def list_flags(self) -> list[str]:
        """Returns remarks about an effect that makes maps less trustworthy."""
        if self.fire_iou is None or self.fire_iou_fp32 is None:
            return ["int8: nothing burned on the val patches, so its effect on maps is not known; use --precision fp32"]
        if self.fire_iou_fp32 - self.fire_iou > MAX_IOU_DROP:
            return [
                f"int8: val fire IoU {self.fire_iou:.4f} instead of {self.fire_iou_fp32:.4f} in float32; "
                "use --precision fp32"
            ]
        return []


def format_comparison(comparison: dict[str, Any]) -> str:
    """Formats `Int8Comparison.as_dict()` as one line."""
    scores = [comparison[name] for name in ("fire_iou", "fire_iou_fp32")]
    int8, fp32 = ("unknown" if score is None else f"{score:.4f}" for score in scores)
    return (
        f"int8: val fire IoU {int8}, float32 {fp32}, {100 * comparison['changed_share']:.2f} % of decisions changed, "
        f"{comparison['calibration_patches']} val patches calibrate, {comparison['compared_patches']} compared"
    )


def load_int8(trained: TrainedModel, *, data: Path | None = None) -> tuple[Any, Int8Comparison]:
    """Loads the int8 model, which computes logits as the ONNX file does, and its effect on the decisions.

    It is made once for a checkpoint and its threshold, and kept beside the ONNX file. Only then the val patches and
    nncf are needed.

    Args:
        trained: Model.
        data: Folder of the patches given by the user; None for those of the run.

    Returns:
        A model of OpenVINO, in memory.

    Raises:
        FiresegError: If the val patches are not available, or a package is not installed.
    """
    with open_onnx(trained) as onnx_path:
        path = onnx_path.with_name(f"{get_stem(trained)}_int8.xml")
        with FileLock(path.parent / LOCK):
            if kept := _read(path, trained, data):
                return kept
            # Imported here because patches and their settings take a second, and nncf need not be installed.
            from fireseg.runtime.quantisation import quantise

            graph, comparison = quantise(trained, onnx_path, data=data)
            _write(graph, path, {"int8": comparison.as_dict()})
            return read_graph(path), comparison


def _read(path: Path, trained: TrainedModel, data: Path | None) -> tuple[Any, Int8Comparison] | None:
    """Reads the files if they are intact and of the current threshold and the given patches."""
    if not is_intact(path):
        return None
    try:
        comparison = TypeAdapter(Int8Comparison).validate_python(read_record(path).get("int8"))
        if (comparison.threshold, comparison.temperature) != get_operating_point(trained):
            return None
        if data is not None and comparison.patches != str(data.resolve()):
            return None
        return read_graph(path), comparison
    except (ValidationError, RuntimeError):
        return None


def get_operating_point(trained: TrainedModel) -> tuple[float, float]:
    """Returns threshold and temperature of a run, at which the decisions are compared."""
    calibration = trained.calibration
    return (calibration.threshold, calibration.temperature) if calibration else (0.5, 1.0)


def _write(graph: Any, path: Path, content: dict[str, Any]) -> None:
    """Writes the IR and its record, which names both files and is written last."""
    part = path.with_name(f".{path.stem}")
    with convert_disk_errors(path):
        shutil.rmtree(part, ignore_errors=True)  # of a killed process
        part.mkdir()
        try:
            import_openvino().save_model(graph, part / path.name, compress_to_fp16=False)
            for suffix in (".bin", ".xml"):
                (part / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))
        finally:
            shutil.rmtree(part, ignore_errors=True)
    write_record(path, content)
