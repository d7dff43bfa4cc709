"""Early stopping, and the best epoch so far."""

from __future__ import annotations

import math
from typing import Any

from pydantic import NonNegativeInt


class EarlyStopping:
    """Tracks the best score and the number of epochs since.

    Without a score (NaN: a validation split without a burned pixel), the epoch with the lowest validation loss is the
    best, and training never stops early: a low loss on unburned land says nothing about fires.

    Args:
        patience: Number of epochs without improvement after which training stops; 0 never stops.

    Attributes:
        best_score: Best score so far, NaN before the first.
        best_loss: Lowest loss so far of epochs without a score, NaN before the first.
        best_epoch: Epoch of the best score, 0 before the first.
        waited: Number of epochs since the best one.

    Example:
        >>> stopping = EarlyStopping(patience=1)
        >>> stopping.update(1, 0.5, loss=0.3), stopping.update(2, 0.4, loss=0.2), stopping.should_stop
        (True, False, True)
    """

    def __init__(self, *, patience: NonNegativeInt = 10) -> None:
        self.patience = patience
        self.best_score = math.nan
        self.best_loss = math.nan
        self.best_epoch = 0
        self.waited = 0

    def update(self, epoch: int, score: float, *, loss: float) -> bool:
        """Records the score (higher is better) and the loss of an epoch, and returns True if it is the best so far."""
        if math.isnan(score):
            # Validation has no burned pixel, so no epoch has a score.
            is_best = loss < self.best_loss or (math.isnan(self.best_loss) and not math.isnan(loss))
            if is_best:
                self.best_loss, self.best_epoch = loss, epoch
            return is_best
        is_best = score > self.best_score or math.isnan(self.best_score)
        if is_best:
            self.best_score, self.best_epoch, self.waited = score, epoch, 0
        else:
            self.waited += 1
        return is_best

    @property
    def should_stop(self) -> bool:
        """True if the patience is exhausted."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain values, without the patience, which may change between runs."""
        names = ("best_score", "best_loss", "best_epoch", "waited")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from `state_dict`; that of version 0.1 has no loss."""
        self.best_score, self.best_epoch, self.waited = state["best_score"], state["best_epoch"], state["waited"]
        self.best_loss = state.get("best_loss", math.nan)
