"""Converts a model to ONNX, OpenVINO and `torch.export`, and opens exported models."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from fireseg.export.metadata import encode
from fireseg.export.options import Format
from fireseg.model.ensemble import SegmentationModel
from fireseg.runtime.cache import INPUT_NAME
from fireseg.runtime.onnx import DeployedModel, convert_to_onnx, make_dynamic_shapes, make_example
from fireseg.runtime.openvino import add_probabilities, get_core, import_openvino, read_graph
from fireseg.tracker.mlflow_model import open_mlflow_model

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Runs an exported model on images `(B, C, H, W)`: classes along axis 1, or only unburned and burned."""

MODEL_FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "torch": "model.pt2",
    "mlflow": "model/MLmodel",
}
"""File of a model to open, by format."""

METADATA = "metadata.json"
"""Name of the metadata inside of a .pt2 file."""


def trace_model(model: SegmentationModel, *, temperature: float | None, size: int | None) -> ExportedProgram:
    """Traces a model, in float32 on the CPU.

    Args:
        model: Model in eval mode.
        temperature: Divisor of the log-odds of fire; None for logits instead of probabilities.
        size: Fixed height and width of single images in pixels; None for any batch of any multiples of 32, from 64
            pixels, because torch takes the size of 1 that 32 pixels have in the middle of a network as a constant.

    Returns:
        A program that needs no code of fireseg.
    """
    example = torch.rand(1, len(model.bands), size, size) if size else make_example(model)
    shapes = None if size else make_dynamic_shapes()
    with _quiet_libraries():
        return torch.export.export(DeployedModel(model, temperature=temperature), (example,), dynamic_shapes=shapes)


def write_model(
    model: SegmentationModel,
    folder: Path,
    *,
    to: Format,
    temperature: float | None,
    size: int | None,
    metadata: Mapping[str, Any],
    int8: Any = None,
) -> None:
    """Writes the model files of a format to an existing folder, with metadata inside.

    Args:
        model: Model in eval mode.
        folder: Folder of the model.
        to: Format; that of MLflow is written by `tracker.mlflow_model`.
        temperature: Divisor of the log-odds of fire; None for logits instead of probabilities.
        size: Fixed height and width of single images in pixels; None for any.
        metadata: Plain values to store.
        int8: Quantised model of OpenVINO that computes logits, to write instead.

    Raises:
        FiresegError: If the packages that convert are not installed, or the disk is full.
    """
    path = folder / MODEL_FILES[to]
    with _quiet_libraries():
        if to == "torch":
            content = json.dumps(metadata, ensure_ascii=False, indent=1)
            program = trace_model(model, temperature=temperature, size=size)
            torch.export.save(program, path, extra_files={METADATA: content})
        elif to == "onnx":
            _write_onnx(model, path, temperature=temperature, size=size, metadata=metadata)
        elif int8 is None:
            _write_openvino(model, path, temperature=temperature, size=size, metadata=metadata)
        else:
            _write_int8(int8, path, temperature=temperature, size=size, metadata=metadata)


def _write_onnx(
    model: SegmentationModel,
    path: Path,
    *,
    temperature: float | None,
    size: int | None,
    metadata: Mapping[str, Any],
) -> None:
    import onnx
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    convert_to_onnx(model, path, temperature=temperature)
    graph = onnx.load_model(path)
    if size:
        (output,) = graph.graph.output
        num_classes = output.type.tensor_type.shape.dim[1].dim_value
        shapes = {INPUT_NAME: [1, len(model.bands), size, size]}, {output.name: [1, num_classes, size, size]}
        graph = update_inputs_outputs_dims(graph, *shapes)
    onnx.helper.set_model_props(graph, encode(metadata))
    onnx.checker.check_model(graph)
    onnx.save_model(graph, path)


def _write_openvino(
    model: SegmentationModel,
    path: Path,
    *,
    temperature: float | None,
    size: int | None,
    metadata: Mapping[str, Any],
) -> None:
    onnx_path = path.with_suffix(".onnx")
    _write_onnx(model, onnx_path, temperature=temperature, size=size, metadata={})
    _save_graph(read_graph(onnx_path), path, metadata)
    onnx_path.unlink()


def _write_int8(
    graph: Any, path: Path, *, temperature: float | None, size: int | None, metadata: Mapping[str, Any]
) -> None:
    graph = add_probabilities(graph, temperature) if temperature is not None else graph
    if size:
        num_bands = graph.input(0).partial_shape[1].get_length()
        graph.reshape({INPUT_NAME: [1, num_bands, size, size]})
    _save_graph(graph, path, metadata)


def _save_graph(graph: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    for name, text in encode(metadata).items():
        graph.set_rt_info(text, ["fireseg", name])
    import_openvino().save_model(graph, path, compress_to_fp16=False)


def open_model(folder: Path, to: Format) -> Predict:
    """Opens an exported model with the library of its format: in float32 on the CPU, but for MLflow.

    Args:
        folder: Folder of the model.
        to: Format.
    """
    path = folder / MODEL_FILES[to]
    openers = {"onnx": _open_onnx, "openvino": _open_openvino, "torch": _open_torch, "mlflow": _open_mlflow}
    return openers[to](path)


def _open_onnx(path: Path) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {INPUT_NAME: image})[0])


def _open_openvino(path: Path) -> Predict:
    # Without this hint, CPUs with AMX compute in bfloat16.
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    compiled = get_core().compile_model(path, "CPU", config)
    return lambda image: np.array(compiled(image)[0])


def _open_torch(path: Path) -> Predict:
    with _quiet_libraries():
        module = torch.export.load(path).module()
    return lambda image: module(torch.from_numpy(image)).detach().numpy()


def _open_mlflow(path: Path) -> Predict:
    model = open_mlflow_model(path.parent)

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        fire = model(image)["fire"]
        return np.stack([1 - fire, fire], axis=1)

    return predict


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silences what torch and its converter say about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir", "openvino")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
