"""Trains: one epoch after the other, to be stopped and resumed at any of them."""

from fireseg.engine.checkpoint import Checkpoints
from fireseg.engine.device import get_device
from fireseg.engine.loop import Engine, Epoch
from fireseg.engine.signals import Interrupted, Interrupts
from fireseg.engine.state import TrainingState
from fireseg.engine.stopping import EarlyStopping

__all__ = [
    "Checkpoints",
    "EarlyStopping",
    "Engine",
    "Epoch",
    "Interrupted",
    "Interrupts",
    "TrainingState",
    "get_device",
]
