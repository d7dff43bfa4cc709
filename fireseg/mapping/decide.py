"""Probabilities of the classes into a map: burned or not, how badly, how sure."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.task import IGNORE_INDEX


class Decided(NamedTuple):
    """What is said of every pixel.

    Attributes:
        classes: `(H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown.
        fire: `(H, W)` float32, calibrated probability that the pixel burned, 0 to 1; NaN where unknown.
    """

    classes: NDArray[np.uint8]
    fire: NDArray[np.float32]


def decide(
    probabilities: NDArray[np.float32], unknown: NDArray[np.bool_], *, threshold: float = 0.5, temperature: float = 1.0
) -> Decided:
    """Calibrates the fire probability, holds it against the threshold, and grades what burned.

    With p the sum of the classes above 0 and d = log(p / (1 - p)), the calibrated probability is
    sigmoid(d / temperature). A pixel burned where that reaches the threshold; its grade is the likeliest of
    the classes above 0. For two classes, temperature 1 and threshold 0.5 this is the argmax.

    Args:
        probabilities: Softmax, `(K, H, W)`, K at least 2.
        unknown: `(H, W)`, True where a band has no value.
        threshold: Above 0 and below 1.
        temperature: Above 0; above 1 makes less sure.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Example:
        >>> probabilities = np.array([[[0.7, 0.2]], [[0.3, 0.8]]], np.float32)
        >>> decide(probabilities, np.zeros((1, 2), bool), threshold=0.3).classes.tolist()
        [[0, 1]]
    """
    odds = _log_odds(probabilities)
    grade, best = np.ones(odds.shape, np.uint8), probabilities[1]
    for number, rival in enumerate(probabilities[2:], 2):
        grade[rival > best] = number
        best = np.maximum(best, rival)
    # Compared as odds: a probability in float32 rounds to the threshold from below.
    grade[odds < temperature * math.log(threshold / (1 - threshold))] = 0
    grade[unknown] = IGNORE_INDEX
    odds /= -temperature
    with np.errstate(over="ignore"):  # exp(inf) is inf, and 1 / inf is the 0 that is meant
        fire = np.exp(odds, out=odds)
    fire += 1
    np.reciprocal(fire, out=fire)
    fire[unknown] = np.nan
    return Decided(grade, fire)


def _log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    # The log of the ratio, not a difference of logs: its sign is then exactly that of p - (1 - p).
    fire = probabilities[1].copy() if len(probabilities) == 2 else probabilities[1:].sum(axis=0)
    with np.errstate(divide="ignore", over="ignore"):  # a probability of 0 or 1 is infinite odds
        fire /= probabilities[0]
        return np.log(fire, out=fire)
