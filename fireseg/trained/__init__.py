"""A trained model from disk: built, loaded, ready to be asked."""

from fireseg.trained.calibration import Calibration, read_calibration, write_calibration
from fireseg.trained.find import find_checkpoint
from fireseg.trained.open import Trained, open_trained

__all__ = ["Calibration", "Trained", "find_checkpoint", "open_trained", "read_calibration", "write_calibration"]
