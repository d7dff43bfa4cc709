"""Engine that computes the logits of a trained model by OpenVINO, on the CPU."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fireseg.decision import softmax
from fireseg.hardware import get_num_threads

if TYPE_CHECKING:
    from fireseg.runtime.int8 import Int8Comparison


class OpenVinoEngine:
    """Computes the logits by OpenVINO, on the CPU.

    Args:
        graph: Model of OpenVINO.
        precision: `fp32`, `bf16` or `int8`; for the last the graph is a quantised one.
        int8: Effect of int8 on the decisions.
    """

    name = "openvino"

    def __init__(
        self, graph: Any, precision: Literal["fp32", "bf16", "int8"], *, int8: Int8Comparison | None = None
    ) -> None:
        self.precision, self.int8 = precision, int8
        self.version = import_openvino().__version__.split("-")[0]
        properties = {
            # Set in any case: without it OpenVINO chooses bfloat16 where the CPU has instructions for it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        }
        self._compiled = get_core().compile_model(graph, "CPU", properties)

    def predict_logits(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the logits of a batch, `(B, K, H, W)`, of reflectance, `(B, C, H, W)`."""
        return self._compiled(np.ascontiguousarray(image))[0]

    def predict_probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the softmax of a batch."""
        return softmax(self.predict_logits(image))


def read_graph(path: Path) -> Any:
    """Reads an ONNX file or an IR.

    Raises:
        RuntimeError: If OpenVINO cannot read it.
    """
    return get_core().read_model(path)


def add_probabilities(graph: Any, temperature: float) -> Any:
    """Adds to a model of logits the calibrated probability of every class, as in `DeployedModel`.

    Args:
        graph: Model of OpenVINO.
        temperature: Divisor of the log-odds of fire.

    Returns:
        Another model, whose output `probabilities` is `(B, K, H, W)` float32.
    """
    openvino = import_openvino()
    ops = openvino.opset13
    graph = graph.clone()
    logits = graph.output(0).get_node().input_value(0)
    axis = ops.constant([1], dtype=np.int64)
    unburned, burned = ops.variadic_split(logits, 1, [1, -1]).outputs()
    largest = ops.reduce_max(burned, axis, keep_dims=True)
    total = ops.reduce_sum(ops.exp(ops.subtract(burned, largest)), axis, keep_dims=True)
    log_odds = ops.subtract(ops.add(ops.log(total), largest), unburned)
    log_odds = ops.divide(log_odds, np.float32(temperature))
    fire = ops.multiply(ops.sigmoid(log_odds), ops.softmax(burned, 1))
    output = ops.concat([ops.sigmoid(ops.negative(log_odds)), fire], 1)
    output.output(0).set_names({"probabilities"})
    return openvino.Model([output], graph.get_parameters(), graph.get_friendly_name())


@functools.cache
def get_core() -> Any:
    """Returns the OpenVINO runtime of this process, which is never unloaded.

    Its CPU plugin installs a stack for signals in the thread that loads it and frees the memory when it is unloaded in
    any thread. From another one the first thread keeps the freed stack, and its next signal (SIGCHLD, Ctrl-C) ends the
    process with a segmentation fault.
    """
    core = import_openvino().Core()
    # Models are read into memory: their file may be temporary, or be replaced.
    core.set_property({"ENABLE_MMAP": False})
    core.get_versions("CPU")  # loads the plugin, before a library that quantises loads and frees it
    return core


def import_openvino() -> Any:
    """Imports OpenVINO without its telemetry, which sends a message and writes into the home folder on each import."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - an absent module
    import openvino

    return openvino
