"""A training run on disk: its folder, its trained model and its calibration.

The names below are imported at first use: loading a model needs torch, which takes seconds to import, but
`fireseg.runs.folder` and the `--help` of the commands do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireseg.runs.calibration import Calibration, read_calibration, write_calibration
    from fireseg.runs.load import TrainedModel, find_checkpoint, load_trained_model

__all__ = [
    "Calibration",
    "TrainedModel",
    "find_checkpoint",
    "load_trained_model",
    "read_calibration",
    "write_calibration",
]

_LOAD = ("TrainedModel", "find_checkpoint", "load_trained_model")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fireseg.runs' has no attribute '{name}'")
    return getattr(import_module(f"fireseg.runs.{'load' if name in _LOAD else 'calibration'}"), name)
