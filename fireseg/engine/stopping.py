"""Which epoch is the best so far, and when it has been too long ago."""

from __future__ import annotations

import math
from typing import Any

from pydantic import NonNegativeInt


class EarlyStopping:
    """Remembers the best score and counts the epochs since.

    A score that is not a number (a validation split without a burned pixel) is never better and
    counts as an epoch without improvement.

    Args:
        patience: Epochs without improvement after which training stops; 0 never stops.

    Attributes:
        best_score: Best score so far, NaN before the first.
        best_epoch: Its epoch, 0 before the first.
        waited: Epochs since.

    Example:
        >>> stopping = EarlyStopping(patience=1)
        >>> [stopping.update(epoch, score) for epoch, score in enumerate([0.5, 0.4], start=1)], stopping.is_over
        ([True, False], True)
    """

    def __init__(self, *, patience: NonNegativeInt = 10) -> None:
        self.patience = patience
        self.best_score = math.nan
        self.best_epoch = 0
        self.waited = 0

    def update(self, epoch: int, score: float) -> bool:
        """Takes in one epoch's score (higher is better) and says whether it is the best so far."""
        is_best = not math.isnan(score) and (math.isnan(self.best_score) or score > self.best_score)
        if is_best:
            self.best_score, self.best_epoch, self.waited = score, epoch, 0
        else:
            self.waited += 1
        return is_best

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept to go on, in plain values. Patience is a setting and may change."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.best_score, self.best_epoch, self.waited = state["best_score"], state["best_epoch"], state["waited"]
