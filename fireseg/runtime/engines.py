"""Engines that compute the logits of a trained model for a map: torch, OpenVINO and ONNX Runtime."""

from __future__ import annotations

import functools
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from fireseg.engine.device import get_autocast_dtype, has_amx
from fireseg.errors import FiresegError, SettingError
from fireseg.runs import TrainedModel
from fireseg.runtime.cache import open_onnx
from fireseg.runtime.onnx import INPUT_NAME

log = logging.getLogger("fireseg")

RuntimeName = Literal["auto", "torch", "openvino", "onnx"]

RuntimePrecision = Literal["auto", "fp32", "bf16"]

_PRECISIONS = {"torch": ("fp32", "bf16"), "openvino": ("fp32", "bf16"), "onnx": ("fp32",)}
"""Precisions of each engine on a CPU."""


class InferenceEngine(Protocol):
    """Computes the logits of a trained model.

    Attributes:
        name: `torch`, `openvino` or `onnx`.
        precision: `fp32`, `bf16` or `fp16`.
        version: Version of the package.
        device: Device on which images are fastest prepared.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def predict_logits(self, image: Tensor) -> Tensor:
        """Computes the logits, `(B, K, H, W)`, of reflectance, `(B, C, H, W)` float32, H and W multiples of 32."""
        ...


def describe_engine(engine: InferenceEngine) -> dict[str, str]:
    """Returns name, precision and version of an engine, as the JSON summary of a map has them."""
    return {"name": engine.name, "precision": engine.precision, "version": engine.version}


def create_engine(
    trained: TrainedModel, *, runtime: RuntimeName = "auto", precision: RuntimePrecision = "auto"
) -> InferenceEngine:
    """Creates the engine that computes a model for maps.

    `auto` is torch on CUDA and MPS; on a CPU it is OpenVINO, or torch if OpenVINO is not installed. The precision
    `auto` is that of training on CUDA and MPS; on a CPU it is bfloat16 where the CPU has AMX, else float32: without AMX
    bfloat16 is slower than float32. All engines use as many threads as torch does.

    Args:
        trained: Model.
        runtime: `auto`, `torch`, `openvino` or `onnx`.
        precision: `auto`, `fp32` or `bf16`.

    Raises:
        SettingError: If the engine, or its precision, is not available on the device of the model.
        FiresegError: If its package is not installed, or the model cannot be converted for it.
    """
    _check_names(runtime, precision)
    is_cpu = trained.device.type == "cpu"
    if not is_cpu and runtime in ("openvino", "onnx"):
        raise SettingError(
            f"--runtime: {runtime} computes on the CPU, but the device is {trained.device.type}; add --device cpu"
        )
    name = runtime if runtime != "auto" else _choose_runtime(is_cpu=is_cpu)
    if name == "torch" and not is_cpu:
        return TorchEngine(trained, precision)
    if precision == "auto":
        precision = "bf16" if has_amx() and "bf16" in _PRECISIONS[name] else "fp32"
    elif precision not in _PRECISIONS[name]:
        raise SettingError(f"--precision: {precision} is not available with {name} on {trained.device.type}; use auto")
    elif precision == "bf16" and not has_amx():
        raise SettingError("--precision: bf16 is slower than fp32 on a CPU without AMX; use auto")
    if name == "torch":
        return TorchEngine(trained, precision)
    if not _is_installed(name):
        extra = "onnx" if name == "onnx" else "fast"
        raise FiresegError(f"--runtime: {name} is not installed; install it with pip install 'fireseg[{extra}]'")
    try:
        with open_onnx(trained) as path:
            return OnnxEngine(path) if name == "onnx" else OpenVinoEngine(path, precision)
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
    """Computes the logits by torch, on any device.

    Args:
        trained: Model.
        precision: `fp32` or `bf16`; on CUDA also `auto`.
    """

    name = "torch"

    def __init__(self, trained: TrainedModel, precision: Literal["auto", "fp32", "bf16"] = "fp32") -> None:
        dtype = get_autocast_dtype(trained.device, precision)
        self.precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
        self.version = torch.__version__
        self.device = trained.device
        self._trained = trained
        self._precision: Literal["auto", "fp32", "bf16"] = precision
        if trained.device.type == "cpu":  # a third faster for small encoders
            trained.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in the stubs

    def predict_logits(self, image: Tensor) -> Tensor:
        """Computes the logits of a batch, on the device of the model."""
        return self._trained.predict_logits(image, precision=self._precision)


class OpenVinoEngine:
    """Computes the logits by OpenVINO, on the CPU.

    Args:
        path: ONNX file.
        precision: `fp32` or `bf16`.
    """

    name, device = "openvino", torch.device("cpu")

    def __init__(self, path: Path, precision: Literal["fp32", "bf16"]) -> None:
        self.precision = precision
        self.version = import_openvino().__version__.split("-")[0]
        properties = {
            # Set in any case: without it OpenVINO chooses bfloat16 where the CPU has instructions for it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        }
        core = get_openvino_core()
        self._compiled = core.compile_model(core.read_model(path), "CPU", properties)

    def predict_logits(self, image: Tensor) -> Tensor:
        """Computes the logits of a batch."""
        return torch.from_numpy(self._compiled(_as_contiguous(image))[0])


class OnnxEngine:
    """Computes the logits by ONNX Runtime, on the CPU.

    Args:
        path: ONNX file.
    """

    name, precision, device = "onnx", "fp32", torch.device("cpu")

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from those that read and write.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict_logits(self, image: Tensor) -> Tensor:
        """Computes the logits of a batch."""
        return torch.from_numpy(self._session.run(None, {INPUT_NAME: _as_contiguous(image)})[0])


def _as_contiguous(image: Tensor) -> Any:
    return image.contiguous().numpy()


@functools.cache
def get_openvino_core() -> Any:
    """Returns the OpenVINO runtime of this process, which is never unloaded.

    Its CPU plugin installs a stack for signals in the thread that loads it and frees the memory when it is unloaded in
    any thread. From another one the first thread keeps the freed stack, and its next signal (SIGCHLD, Ctrl-C) ends the
    process with a segmentation fault.
    """
    core = import_openvino().Core()
    # Models are read into memory: their file may be temporary, or be replaced.
    core.set_property({"ENABLE_MMAP": False})
    return core


def import_openvino() -> Any:
    """Imports OpenVINO without its telemetry, which sends a message and writes into the home folder on each import."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - an absent module
    import openvino

    return openvino
