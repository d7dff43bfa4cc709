"""Engines that compute the probabilities of a map: torch, OpenVINO and ONNX Runtime; the last two without torch."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fireseg.decision import class_probabilities, softmax
from fireseg.errors import FiresegError, SettingError
from fireseg.hardware import get_num_threads, has_amx
from fireseg.runs import TrainedModel
from fireseg.runtime.cache import INPUT_NAME, open_onnx
from fireseg.runtime.int8 import Int8Comparison, load_int8
from fireseg.runtime.openvino import OpenVinoEngine, read_graph

log = logging.getLogger("fireseg")

RuntimeName = Literal["auto", "torch", "openvino", "onnx"]

RuntimePrecision = Literal["auto", "fp32", "bf16", "int8"]

_PRECISIONS = {"torch": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32",)}
"""Precisions of each engine on a CPU."""


class InferenceEngine(Protocol):
    """Computes the class probabilities of a trained model.

    Attributes:
        name: `torch`, `openvino` or `onnx`.
        precision: `fp32`, `bf16`, `fp16` or `int8`.
        version: Version of the package.
        int8: Effect of int8 on the decisions; None for other precisions.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    @property
    def int8(self) -> Int8Comparison | None: ...  # noqa: D102

    def predict_probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the softmax, `(B, K, H, W)`, of reflectance, `(B, C, H, W)` float32, H and W multiples of 32."""
        ...


def describe_engine(engine: InferenceEngine) -> dict[str, Any]:
    """Returns name, precision, version and the effect of int8, if any, as the JSON summary of a map has them."""
    int8 = {} if engine.int8 is None else {"int8": engine.int8.as_dict()}
    return {"name": engine.name, "precision": engine.precision, "version": engine.version, **int8}


def create_engine(
    trained: TrainedModel, *, runtime: RuntimeName = "auto", precision: RuntimePrecision = "auto"
) -> InferenceEngine:
    """Creates the engine that computes a model for maps.

    `auto` is torch on CUDA and MPS; on a CPU it is OpenVINO, or torch if OpenVINO is not installed. The precision
    `auto` is that of training on CUDA and MPS; on a CPU it is bfloat16 where the CPU has AMX, else float32: without AMX
    bfloat16 is slower than float32. int8 is never chosen by `auto`; it is calibrated on val patches of the run. All
    engines use as many threads as torch does.

    Args:
        trained: Model.
        runtime: `auto`, `torch`, `openvino` or `onnx`.
        precision: `auto`, `fp32`, `bf16` or `int8`.

    Raises:
        SettingError: If the engine, or its precision, is not available on the device of the model.
        FiresegError: If its package is not installed, or the model cannot be converted for it, or the val patches that
            int8 needs once are not available.
    """
    _check_names(runtime, precision)
    is_cpu = trained.device == "cpu"
    if precision == "int8" and trained.members:
        raise SettingError("--precision: int8 is not available for several runs as one model; use auto, or one run")
    if precision == "int8" and runtime == "auto":
        runtime = "openvino"
    if not is_cpu and runtime in ("openvino", "onnx"):
        raise SettingError(
            f"--runtime: {runtime} computes on the CPU, but the device is {trained.device}; add --device cpu"
        )
    name = runtime if runtime != "auto" else _choose_runtime(is_cpu=is_cpu)
    if name == "torch" and not is_cpu and precision != "int8":
        return TorchEngine(trained, precision)
    if precision == "auto":
        precision = "bf16" if has_amx() and "bf16" in _PRECISIONS[name] else "fp32"
    elif precision not in _PRECISIONS[name]:
        cure = "use --runtime openvino" if precision == "int8" else "use auto"
        raise SettingError(f"--precision: {precision} is not available with {name} on {trained.device}; {cure}")
    elif precision == "bf16" and not has_amx():
        raise SettingError("--precision: bf16 is slower than fp32 on a CPU without AMX; use auto")
    if name == "torch":
        assert precision != "int8"
        return TorchEngine(trained, precision)
    if not _is_installed(name):
        extra = "onnx" if name == "onnx" else "fast"
        raise FiresegError(f"--runtime: {name} is not installed; install it with pip install 'fireseg[{extra}]'")
    if precision == "int8":
        graph, int8 = load_int8(trained)
        return OpenVinoEngine(graph, precision, int8=int8)
    try:
        with open_onnx(trained) as path:
            return OnnxEngine(path) if name == "onnx" else OpenVinoEngine(read_graph(path), precision)
    except FiresegError as error:
        if runtime != "auto":
            raise
        log.info("%s; torch computes the map", error)
        return TorchEngine(trained, precision)


def _check_names(runtime: str, precision: str) -> None:
    named = (("runtime", runtime, get_args(RuntimeName)), ("precision", precision, get_args(RuntimePrecision)))
    if faults := [
        f"--{key}: {value}, but it must be {', '.join(names)}" for key, value, names in named if value not in names
    ]:
        raise SettingError(*faults)


def _choose_runtime(*, is_cpu: bool) -> Literal["torch", "openvino"]:
    if not is_cpu:
        return "torch"
    if _is_installed("openvino"):
        return "openvino"
    log.info("OpenVINO is not installed, so torch computes the map, more slowly; pip install 'fireseg[fast]'")
    return "torch"


def _is_installed(name: Literal["openvino", "onnx"]) -> bool:
    packages = {"openvino": "openvino", "onnx": "onnxruntime"}
    return all(find_spec(package) for package in (packages[name], "onnx", "onnxscript"))


class TorchEngine:
    """Computes the probabilities by torch, on any device.

    Args:
        trained: Model.
        precision: `fp32` or `bf16`; on CUDA also `auto`.
    """

    name, int8 = "torch", None

    def __init__(self, trained: TrainedModel, precision: Literal["auto", "fp32", "bf16"] = "fp32") -> None:
        import torch

        from fireseg.engine.device import get_autocast_dtype

        dtype = get_autocast_dtype(torch.device(trained.device), precision)
        self.precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
        self.version = torch.__version__
        self._trained = trained
        self._precision: Literal["auto", "fp32", "bf16"] = precision
        if trained.device == "cpu":  # a third faster for small encoders
            trained.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in the stubs

    def predict_probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the softmax of a batch, on the device of the model."""
        import torch

        logits = self._trained.predict_logits(torch.from_numpy(image), precision=self._precision)
        with torch.inference_mode():
            return class_probabilities(logits).cpu().numpy()


class OnnxEngine:
    """Computes the probabilities by ONNX Runtime, on the CPU.

    Args:
        path: ONNX file.
    """

    name, precision, int8 = "onnx", "fp32", None

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = get_num_threads()
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from those that read and write.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict_probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the softmax of a batch."""
        return softmax(np.asarray(self._session.run(None, {INPUT_NAME: np.ascontiguousarray(image)})[0]))
