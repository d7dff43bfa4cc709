"""A training run on disk: its folder, its trained model and its calibration.

The names below are imported at first use: loading a model needs torch, which takes seconds to import, but
`fireseg.runs.folder` and the `--help` of the commands do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireseg.runs.calibration import Calibration, read_calibration, write_calibration
    from fireseg.runs.load import TrainedModel, load_trained_model

__all__ = [
    "Calibration",
    "TrainedModel",
    "load_trained_model",
    "read_calibration",
    "write_calibration",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fireseg.runs' has no attribute '{name}'")
    module = "load" if name in ("TrainedModel", "load_trained_model") else "calibration"
    return getattr(import_module(f"fireseg.runs.{module}"), name)
