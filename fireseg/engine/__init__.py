"""Training loop: epochs, checkpoints, early stopping and signals."""

from fireseg.engine.checkpoint import Checkpoints
from fireseg.engine.device import get_device
from fireseg.engine.distributed import SINGLE_PROCESS, LostProcessError, Processes
from fireseg.engine.loop import Engine, Epoch
from fireseg.engine.signals import Interrupted, Interrupts
from fireseg.engine.state import TrainingState
from fireseg.engine.stopping import EarlyStopping

__all__ = [
    "SINGLE_PROCESS",
    "Checkpoints",
    "EarlyStopping",
    "Engine",
    "Epoch",
    "Interrupted",
    "Interrupts",
    "LostProcessError",
    "Processes",
    "TrainingState",
    "get_device",
]
