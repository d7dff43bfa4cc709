"""Operating point of a model: temperature, threshold and detection rule, chosen on val."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from fireseg.decision import find_threshold, min_log_odds
from fireseg.evaluate.inference import LOG_ODDS
from fireseg.evaluate.mosaic import Mosaic, PatchSummary
from fireseg.metric import DetectionRule, count_log_odds, fit_temperature, select_rule, select_threshold

log = logging.getLogger("fireseg")


class OperatingPoint(NamedTuple):
    """Temperature, threshold and detection rule of a model.

    Attributes:
        temperature: Divisor of the log-odds.
        threshold: Calibrated probability from which on a pixel counts as burned.
        rule: Detection rule; a patch burns if one of its components passes.
        is_chosen: True if val had burned pixels to choose on.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    rule: DetectionRule = DetectionRule(1, 0.0)
    is_chosen: bool = False

    @property
    def min_log_odds(self) -> float:
        """Log-odds of the model, before the temperature, from which on a pixel counts as burned."""
        return min_log_odds(self.threshold, self.temperature)

    @property
    def min_probability(self) -> float:
        """Calibrated probability that the peak of a component must reach."""
        return find_threshold(self.rule.min_log_odds, self.temperature)


def select_operating_point(mosaics: Iterable[Mosaic]) -> OperatingPoint:
    """Selects the best operating point on a validation split; each pixel counts once.

    Args:
        mosaics: All fires of the split.
    """
    counts, patches = None, list[PatchSummary]()
    for mosaic in mosaics:
        more = count_log_odds(mosaic.layers[LOG_ODDS], mosaic.truth)
        counts = more if counts is None else counts + more
        patches += [patch for patch in mosaic.patches if patch.is_labelled]
    if counts is None or not counts[1].any():
        log.warning("val: no burned pixel to choose a threshold on; using probability 0.5")
        return OperatingPoint()
    temperature = fit_temperature(counts)
    return OperatingPoint(
        temperature=temperature,
        threshold=select_threshold(counts, temperature=temperature),
        rule=select_rule([patch.components for patch in patches], [patch.is_burned for patch in patches]),
        is_chosen=True,
    )
