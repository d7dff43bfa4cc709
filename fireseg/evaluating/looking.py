"""The best and the worst fires, kept small enough to be looked at."""

from __future__ import annotations

import math

import numpy as np

from fireseg.evaluating.measuring import Classes
from fireseg.evaluating.result import Look
from fireseg.evaluating.stitching import Stitched
from fireseg.task import IGNORE_INDEX

NUM_LOOKS = 6
"""Fires at either end."""


class Gallery:
    """Keeps the fires at both ends, and lets go of those in between as soon as it is clear that they are.

    Args:
        num_looks: Fires at either end.
    """

    def __init__(self, num_looks: int = NUM_LOOKS) -> None:
        self._num_looks = num_looks
        self._kept: list[tuple[float, str, Look]] = []

    @property
    def looks(self) -> dict[str, Look]:
        """What was kept, the best fire first."""
        return {name: look for _, name, look in reversed(self._kept)}

    def add(self, fire: Stitched, classes: Classes, iou: float) -> None:
        """Shows a fire to the gallery.

        Args:
            fire: In one piece.
            classes: What the model draws, `(H, W)`.
            iou: By this it is ranked. NaN, nothing there and nothing found, shows nothing.
        """
        if math.isnan(iou):
            return
        self._kept.append((iou, fire.fire.name, make_look(fire, classes)))
        self._kept.sort(key=lambda kept: kept[:2])
        if len(self._kept) > 2 * self._num_looks:
            del self._kept[self._num_looks]


def make_look(fire: Stitched, classes: Classes) -> Look:
    """Every n-th pixel of a fire, so that it is at most 320 pixels wide and high."""
    thin = slice(None, None, fire.step)
    predicted = np.where(fire.is_covered, classes, np.uint8(IGNORE_INDEX))
    return Look(
        composite_image=fire.thin_image,
        truth=fire.truth[thin, thin].copy(),
        predicted=predicted[thin, thin].copy(),
    )
