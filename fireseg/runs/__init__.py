"""A trained model from disk: built, loaded, ready to be asked."""

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
