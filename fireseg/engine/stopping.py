"""Early stopping, and the best epoch so far."""

from __future__ import annotations

import math
from typing import Any

from pydantic import NonNegativeInt


class EarlyStopping:
    """Tracks the best score and the number of epochs since.

    A score that is not a number (a validation split without a burned pixel) is never better and
    counts as an epoch without improvement.

    Args:
        patience: Number of epochs without improvement after which training stops; 0 never stops.

    Attributes:
        best_score: Best score so far, NaN before the first.
        best_epoch: Epoch of the best score, 0 before the first.
        waited: Number of epochs since the best one.

    Example:
        >>> stopping = EarlyStopping(patience=1)
        >>> [stopping.update(epoch, score) for epoch, score in enumerate([0.5, 0.4], start=1)], stopping.should_stop
        ([True, False], True)
    """

    def __init__(self, *, patience: NonNegativeInt = 10) -> None:
        self.patience = patience
        self.best_score = math.nan
        self.best_epoch = 0
        self.waited = 0

    def update(self, epoch: int, score: float) -> bool:
        """Records the score of an epoch (higher is better) and returns True if it is the best so far."""
        is_best = not math.isnan(score) and (math.isnan(self.best_score) or score > self.best_score)
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
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from `state_dict`."""
        self.best_score, self.best_epoch, self.waited = state["best_score"], state["best_epoch"], state["waited"]
