"""A trained model from disk: built, loaded, ready to be asked."""

from fireseg.runs.calibration import Calibration, read_calibration, write_calibration
from fireseg.runs.load import Trained, find_checkpoint, open_trained

__all__ = ["Calibration", "Trained", "find_checkpoint", "open_trained", "read_calibration", "write_calibration"]
