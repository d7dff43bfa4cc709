"""How the answers of a model become decisions: chosen on val, and only there."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.decision import min_log_odds
from fireseg.evaluate.inference import LOG_ODDS
from fireseg.evaluate.mosaic import Mosaic, PatchSummary
from fireseg.metric import DetectionRule, count_log_odds, fit_temperature, select_rule, select_threshold

log = logging.getLogger("fireseg")


class OperatingPoint(NamedTuple):
    """When a pixel burns, and when a patch.

    Attributes:
        temperature: What log-odds are divided by.
        threshold: A pixel burns from this calibrated probability on.
        rule: A patch burns if a component passes.
        is_chosen: Whether val had fire to choose on.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    rule: DetectionRule = DetectionRule(1, 0.0)
    is_chosen: bool = False

    @property
    def least_odds(self) -> float:
        """Log-odds, as the model gives them, from which on a pixel burns."""
        return min_log_odds(self.threshold, self.temperature)

    @property
    def least_peak(self) -> float:
        """Calibrated probability that the peak of a component must reach."""
        return 1 / (1 + math.exp(-self.rule.min_odds / self.temperature))


def select_operating_point(fires: Iterable[Mosaic]) -> OperatingPoint:
    """Temperature, threshold and rule that are best on a validation split; each pixel counts once.

    Args:
        fires: All fires of the split.
    """
    counts, patches = None, list[PatchSummary]()
    for fire in fires:
        more = count_log_odds(fire.layers[LOG_ODDS], fire.truth)
        counts = more if counts is None else counts + more
        patches += [patch for patch in fire.facts if patch.is_labelled]
    if counts is None or not counts[1].any():
        log.warning("val: no burned pixel to choose a threshold on; a pixel burns from probability 0.5 on")
        return OperatingPoint()
    return settle(counts, patches)


def settle(counts: NDArray[np.int64], patches: Sequence[PatchSummary]) -> OperatingPoint:
    """The decision that counts of log-odds and patches ask for.

    Args:
        counts: From `metric.count_odds`, with burned pixels.
        patches: Those with a labelled pixel.
    """
    temperature = fit_temperature(counts)
    return OperatingPoint(
        temperature=temperature,
        threshold=select_threshold(counts, temperature=temperature),
        rule=select_rule([patch.components for patch in patches], [patch.burns for patch in patches]),
        is_chosen=True,
    )
