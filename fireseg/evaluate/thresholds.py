"""Operating point of a model: temperature, threshold and detection rule, chosen on val."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import NamedTuple

from fireseg.decision import find_threshold, min_log_odds
from fireseg.evaluate.inference import LOG_ODDS
from fireseg.evaluate.mosaic import Mosaic, PatchSummary
from fireseg.metric import (
    DetectionRule,
    ThresholdGain,
    count_log_odds,
    cross_validate_threshold,
    fit_temperature,
    select_rule,
    select_threshold,
)

log = logging.getLogger("fireseg")

DEFAULT_THRESHOLD = 0.5


class OperatingPoint(NamedTuple):
    """Temperature, threshold and detection rule of a model.

    Attributes:
        temperature: Divisor of the log-odds.
        threshold: Calibrated probability from which on a pixel counts as burned.
        rule: Detection rule; a patch burns if one of its components passes.
        is_chosen: True if val had burned pixels to choose on.
        best_threshold: Threshold with the best IoU on val; used only if its gain is certain. None if unknown.
        gain: Gain of the best threshold over 0.5 on val; None if it was not checked.
    """

    temperature: float = 1.0
    threshold: float = DEFAULT_THRESHOLD
    rule: DetectionRule = DetectionRule(1, 0.0)
    is_chosen: bool = False
    best_threshold: float | None = None
    gain: ThresholdGain | None = None

    @property
    def min_log_odds(self) -> float:
        """Log-odds of the model, before the temperature, from which on a pixel counts as burned."""
        return min_log_odds(self.threshold, self.temperature)

    @property
    def min_probability(self) -> float:
        """Calibrated probability that the peak of a component must reach."""
        return find_threshold(self.rule.min_log_odds, self.temperature)

    @property
    def threshold_reason(self) -> str:
        """Reason why this threshold is used, as a clause."""
        if not self.is_chosen:
            return "default, because there is no burned pixel of val to choose on"
        if self.gain is None or self.best_threshold is None:
            return "chosen on val by an earlier version, which did not compare it with 0.5"
        if math.isnan(self.gain.gain):
            fires = "1 fire" if self.gain.num == 1 else f"{self.gain.num} fires"
            best = f"the best threshold there, {self.best_threshold:.3g}"
            return f"default, because val has only {fires}, and 3 are needed to check {best}"
        numbers = f"{self.gain.gain:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}], n = {self.gain.num}"
        if self.threshold == self.best_threshold:
            return f"chosen on val, where it gains IoU over 0.5: {numbers}"
        best = f"the best threshold on val, {self.best_threshold:.3g}"
        return f"default, because {best}, has no certain gain in IoU: {numbers}"


def select_operating_point(mosaics: Iterable[Mosaic]) -> OperatingPoint:
    """Selects the best operating point on a validation split; each pixel counts once.

    The threshold is the best one if it is better than 0.5 by more than its uncertainty over fires, else 0.5.

    Args:
        mosaics: All fires of the split.
    """
    tiles, patches = [], list[PatchSummary]()
    for mosaic in mosaics:
        tiles.append(count_log_odds(mosaic.layers[LOG_ODDS], mosaic.truth))
        patches += [patch for patch in mosaic.patches if patch.is_labelled]
    counts = sum(tiles[1:], tiles[0]) if tiles else None
    if counts is None or not counts[1].any():
        log.warning("val: no burned pixel to choose a threshold on; using probability 0.5")
        return OperatingPoint()
    temperature = fit_temperature(counts)
    best, gain = select_threshold(counts, temperature=temperature), cross_validate_threshold(tiles)
    point = OperatingPoint(
        temperature=temperature,
        threshold=best if gain.is_certain else DEFAULT_THRESHOLD,
        rule=select_rule([patch.components for patch in patches], [patch.is_burned for patch in patches]),
        is_chosen=True,
        best_threshold=best,
        gain=gain,
    )
    log.info("threshold %.3g: %s", point.threshold, point.threshold_reason)
    return point
