"""Quantisation of a trained model to int8, calibrated on val patches, and its effect on the decisions."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from tqdm import tqdm

from fireseg.console import format_command, format_share
from fireseg.data import WildfireDataModule, WildfirePatchDataset
from fireseg.decision import fire_log_odds, min_log_odds
from fireseg.errors import FiresegError
from fireseg.files import convert_disk_errors
from fireseg.runs import TrainedModel
from fireseg.runs.patches import mirror_image, open_val_patches, select_evenly
from fireseg.runtime.cache import LOCK, get_stem, is_intact, open_onnx, read_record, write_record
from fireseg.runtime.openvino import OpenVinoEngine, import_openvino, read_graph
from fireseg.task import IGNORE_INDEX

log = logging.getLogger("fireseg")

MAX_IOU_DROP = 0.01
"""Largest drop of the fire IoU on val that is accepted."""

CALIBRATION_PATCHES = 64

_COMPARED_PATCHES = 512


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
        f"int8: val fire IoU {int8}, float32 {fp32}, {format_share(comparison['changed_share'])} of decisions changed, "
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
            return _read(path, trained, data) or _make(path, trained, data, onnx_path)


def _read(path: Path, trained: TrainedModel, data: Path | None) -> tuple[Any, Int8Comparison] | None:
    """Reads the files if they are intact and of the current threshold and the given patches."""
    if not is_intact(path):
        return None
    try:
        comparison = TypeAdapter(Int8Comparison).validate_python(read_record(path).get("int8"))
        if (comparison.threshold, comparison.temperature) != _get_operating_point(trained):
            return None
        if data is not None and comparison.patches != str(data.resolve()):
            return None
        return read_graph(path), comparison
    except (ValidationError, RuntimeError):
        return None


def _make(path: Path, trained: TrainedModel, data: Path | None, onnx_path: Path) -> tuple[Any, Int8Comparison]:
    """Quantises, compares and writes the model; the record is written last."""
    nncf = _import_nncf()
    module = _open_patches(trained, data)
    if module.fingerprint != trained.fingerprint:
        log.warning("int8: calibrated on other patches than those of the training")
    log.info("%s: quantised to int8, once for each checkpoint and threshold", trained.name)
    numbers = select_evenly(len(module.val), CALIBRATION_PATCHES)
    graph = read_graph(onnx_path)
    with _silence(nncf):
        quantised = _quantise(nncf, graph, module.val, numbers)
    engines = OpenVinoEngine(graph, "fp32"), OpenVinoEngine(quantised, "int8")
    threshold, temperature = _get_operating_point(trained)
    compared = _compare(*engines, module.val, min_log_odds(threshold, temperature))
    comparison = Int8Comparison(
        **compared,
        threshold=threshold,
        temperature=temperature,
        calibration_patches=len(numbers),
        patches=" ".join(str(root.resolve()) for root in module.roots),
        nncf=metadata.version("nncf"),
    )
    _write(quantised, path, {"int8": comparison.as_dict()})
    return read_graph(path), comparison


def _open_patches(trained: TrainedModel, data: Path | None) -> WildfireDataModule:
    try:
        return open_val_patches(trained, data)
    except FiresegError as error:
        if data is not None:
            raise
        reason = error.faults[0].rpartition("; ")[0] or error.faults[0]  # without its cure
        run = trained.folder.path if trained.folder else trained.checkpoint
        command = format_command("export", run, "--to", "openvino", "--precision", "int8", "--data")
        raise FiresegError(
            f"--precision int8: needs val patches once, but {reason}; name their folder by {command} PATCHES, "
            "which keeps the int8 model for maps, too"
        ) from error


def _get_operating_point(trained: TrainedModel) -> tuple[float, float]:
    calibration = trained.calibration
    return (calibration.threshold, calibration.temperature) if calibration else (0.5, 1.0)


def _quantise(nncf: Any, graph: Any, patches: WildfirePatchDataset, numbers: list[int]) -> Any:
    def read(number: int) -> NDArray[np.float32]:
        return _to_input(patches[number].image).numpy()

    # Half of the range of weights, because the instructions of CPUs without VNNI overflow with the whole one: decisions
    # would depend on the CPU. On a U-Net with mobilenet_v2 it changes fewer decisions there, 0.20 against 0.22 %.
    return nncf.quantize(
        graph.clone(),
        nncf.Dataset(numbers, read),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(numbers),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )


def _to_input(image: Tensor) -> Tensor:
    return torch.from_numpy(mirror_image(image.numpy().astype(np.float32)))[None]


def _compare(fp32: OpenVinoEngine, int8: OpenVinoEngine, patches: WildfirePatchDataset, limit: float) -> dict[str, Any]:
    """Compares the decisions on labelled pixels.

    Args:
        fp32: Engine in float32.
        int8: The other engine.
        patches: Patches with masks.
        limit: Lowest log-odds that count as burned.
    """
    numbers = select_evenly(len(patches), _COMPARED_PATCHES)
    hits, unions, num_burned, num_changed, num_pixels = [0, 0], [0, 0], 0, 0, 0
    for number in tqdm(numbers, desc="int8", unit="patch", leave=False, disable=not sys.stderr.isatty()):
        image, mask, _ = patches[number]
        height, width = mask.shape
        labelled = (mask != IGNORE_INDEX).numpy()
        truth = mask.numpy()[labelled] > 0
        decisions = []
        for which, engine in enumerate((fp32, int8)):
            logits = engine.predict_logits(_to_input(image))[..., :height, :width]
            burned = (fire_log_odds(logits)[0] >= limit).numpy()[labelled]
            hits[which] += int((burned & truth).sum())
            unions[which] += int((burned | truth).sum())
            decisions.append(burned)
        num_burned += int(truth.sum())
        num_changed += int((decisions[0] != decisions[1]).sum())
        num_pixels += truth.size
    ious = [hit / union if num_burned else None for hit, union in zip(hits, unions, strict=True)]
    return {
        "fire_iou_fp32": ious[0],
        "fire_iou": ious[1],
        "changed_share": num_changed / max(1, num_pixels),
        "compared_patches": len(numbers),
    }


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


def _import_nncf() -> Any:
    """Imports nncf without its telemetry and its effect on the classes of loggers.

    Raises:
        FiresegError: If it is not installed.
    """
    import_openvino()
    telemetry, logger_class = sys.modules.get("openvino_telemetry"), logging.getLoggerClass()
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType] - an absent module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise FiresegError(
            f"--precision int8: {error.name} is not installed; install it with pip install 'fireseg[int8]'"
        ) from error
    finally:
        logging.setLoggerClass(logger_class)
        if telemetry is not None:
            sys.modules["openvino_telemetry"] = telemetry
    return nncf


@contextmanager
def _silence(nncf: Any) -> Iterator[None]:
    """Hides progress bars, log and warnings of nncf, which tell nothing that a user could change."""
    nncf.set_log_level(logging.ERROR)
    extensions = logging.getLogger("torch.utils.cpp_extension")  # remarks on compilers of CUDA, which nncf looks for
    level = extensions.level
    extensions.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        extensions.setLevel(level)
