"""Quantisation of a trained model to int8 by nncf, calibrated and judged on val patches."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fireseg.console import format_command
from fireseg.data import WildfireDataModule, WildfirePatchDataset
from fireseg.decision import fire_log_odds, min_log_odds
from fireseg.errors import FiresegError
from fireseg.runs import TrainedModel
from fireseg.runs.patches import mirror_image, open_val_patches, select_evenly
from fireseg.runtime.int8 import Int8Comparison, get_operating_point
from fireseg.runtime.openvino import OpenVinoEngine, import_openvino, read_graph
from fireseg.task import IGNORE_INDEX

log = logging.getLogger("fireseg")

CALIBRATION_PATCHES = 64

_COMPARED_PATCHES = 512


def quantise(trained: TrainedModel, onnx_path: Path, *, data: Path | None) -> tuple[Any, Int8Comparison]:
    """Quantises a model and compares its decisions with those in float32, both on val patches.

    Args:
        trained: Model.
        onnx_path: Its ONNX file.
        data: Folder of the patches given by the user; None for those of the run.

    Returns:
        A model of OpenVINO.

    Raises:
        FiresegError: If the val patches are not available, or nncf is not installed.
    """
    nncf = _import_nncf()
    module = _open_patches(trained, data)
    if module.fingerprint != trained.fingerprint:
        log.warning("int8: calibrated on other patches than those of the training")
    log.info("%s: quantised to int8, once for each checkpoint and threshold", trained.name)
    numbers = select_evenly(len(module.val), CALIBRATION_PATCHES)
    graph = read_graph(onnx_path)
    with _silence():
        quantised = _quantise(nncf, graph, module.val, numbers)
    engines = OpenVinoEngine(graph, "fp32"), OpenVinoEngine(quantised, "int8")
    threshold, temperature = get_operating_point(trained)
    compared = _compare(*engines, module.val, min_log_odds(threshold, temperature))
    comparison = Int8Comparison(
        **compared,
        threshold=threshold,
        temperature=temperature,
        calibration_patches=len(numbers),
        patches=" ".join(str(root.resolve()) for root in module.roots),
        nncf=metadata.version("nncf"),
    )
    return quantised, comparison


def _open_patches(trained: TrainedModel, data: Path | None) -> WildfireDataModule:
    try:
        return open_val_patches(trained, data)
    except FiresegError as error:
        if data is not None:
            raise
        reason = error.faults[0].rpartition("; ")[0] or error.faults[0]  # without its cure
        command = format_command("export", Path(trained.argument), "--to", "openvino", "--precision", "int8", "--data")
        raise FiresegError(
            f"--precision int8: needs val patches once, but {reason}; name their folder by {command} PATCHES, "
            "which keeps the int8 model for maps, too"
        ) from error


def _quantise(nncf: Any, graph: Any, patches: WildfirePatchDataset, numbers: list[int]) -> Any:
    def read(number: int) -> NDArray[np.float32]:
        return _to_input(patches[number].image)

    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    from openvino._offline_transformations import apply_moc_transformations

    graph = graph.clone()
    # Clips and batch norms of ONNX become single operations; only then nncf corrects biases.
    apply_moc_transformations(graph, cf=False)
    parameters = nncf.AdvancedQuantizationParameters(
        # Half of the range of weights: instructions of CPUs without VNNI overflow with the whole one, so that decisions
        # would depend on the CPU.
        overflow_fix=nncf.OverflowFix.ENABLE,
        # The largest value of all patches, not the mean of the largest ones of each, which clips bright ground: with
        # that, three times as many decisions change (U-Net with mobilenet_v2), and a map gains 2.5 % instead of 0.5 %.
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
    )
    return nncf.quantize(
        graph,
        nncf.Dataset(numbers, read),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(numbers),
        advanced_parameters=parameters,
        # Quotients of differences of bands lose more than the 8 bits of their operands.
        ignored_scope=nncf.IgnoredScope(names=_list_input_operations(graph)),
    )


def _list_input_operations(graph: Any) -> list[str]:
    """Lists the operations between the input and the first convolutions: normalisation, indices and padding."""
    found: list[str] = []
    pending = list(graph.get_parameters())
    while pending:
        for output in pending.pop().outputs():
            for target in output.get_target_inputs():
                node = target.get_node()
                if "Convolution" not in node.get_type_name() and node.get_friendly_name() not in found:
                    found.append(node.get_friendly_name())
                    pending.append(node)
    return found


def _to_input(image: Tensor) -> NDArray[np.float32]:
    return mirror_image(image.numpy().astype(np.float32))[None]


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
            logits = torch.from_numpy(engine.predict_logits(_to_input(image))[..., :height, :width])
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
def _silence() -> Iterator[None]:
    """Hides progress bars, log and warnings of nncf, which tell nothing that a user could change."""
    # The second one has remarks on compilers of CUDA, which nncf looks for. Only loggers: `nncf.set_log_level` would
    # change the handlers, too, which may be those of others.
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
