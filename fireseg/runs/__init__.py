"""A training run on disk: its folder, its trained model and its calibration."""

from fireseg.runs.calibration import Calibration, read_calibration, write_calibration
from fireseg.runs.load import TrainedModel, load_trained_model

__all__ = [
    "Calibration",
    "TrainedModel",
    "load_trained_model",
    "read_calibration",
    "write_calibration",
]
