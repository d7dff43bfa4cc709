"""Detection of burned patches by the size and peak probability of their connected burned areas."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Component(NamedTuple):
    """A connected burned area.

    Attributes:
        pixels: Area in pixels.
        peak_log_odds: Largest log-odds of fire in the area, above 0.
    """

    pixels: int
    peak_log_odds: float


class DetectionRule(NamedTuple):
    """Detects fire in a patch if one component reaches both a minimum area and a minimum peak.

    Attributes:
        min_pixels: Minimum area of the component in pixels, from 1.
        min_log_odds: Minimum peak log-odds of the component, from 0.
    """

    min_pixels: int
    min_log_odds: float


def find_components(log_odds: NDArray[np.floating], is_labelled: NDArray[np.bool_]) -> list[Component]:
    """Finds the connected burned areas of a patch that can affect a detection rule.

    Pixels with log-odds above 0 are connected with their eight neighbours. A component is left out if another one
    has at least its area and its peak, because it passes no rule that the other one fails.

    Args:
        log_odds: Log-odds from `fireseg.decision.fire_log_odds`, `(H, W)`; values of unlabelled pixels are ignored.
        is_labelled: Mask of labelled pixels, `(H, W)` bool.

    Returns:
        Components by descending area, and therefore by ascending peak; empty if no pixel is burned.
    """
    from scipy import ndimage

    is_fire = np.greater(log_odds, 0.0, out=np.zeros(log_odds.shape, bool), where=is_labelled)
    numbers = np.empty(log_odds.shape, np.int32)
    num_components = int(np.asarray(ndimage.label(is_fire, np.ones((3, 3), bool), output=numbers)))
    number = numbers[is_fire] - 1
    sizes = np.bincount(number, minlength=num_components)
    peaks = np.zeros(num_components)
    np.maximum.at(peaks, number, log_odds[is_fire])
    order = np.lexsort((-peaks, -sizes))
    highest_before = np.maximum.accumulate(np.concatenate([[0.0], peaks[order]]))[:-1]
    relevant = order[peaks[order] > highest_before]
    return [Component(int(sizes[index]), float(peaks[index])) for index in relevant]


def select_rule(patches: Sequence[Sequence[Component]], burns: Sequence[bool]) -> DetectionRule:
    """Selects the detection rule with the best F1 among the areas and peaks that occur.

    Ties are broken by the smallest `min_pixels`, then the smallest `min_log_odds`, so that the default rule, any
    burned pixel, is returned unless another one is better.

    Args:
        patches: Components of each patch of a validation split, from `find_components`.
        burns: True for each patch that truly burned.

    Returns:
        The selected rule; `DetectionRule(1, 0.0)` if no patch burned.

    Raises:
        ValueError: If the numbers of patches and truths differ.
    """
    is_burned = _to_truths(patches, burns)
    if not is_burned.any():
        return DetectionRule(1, 0.0)
    components = [(each.pixels, each.peak_log_odds, number) for number, patch in enumerate(patches) for each in patch]
    smallest = min((pixels for pixels, _, _ in components), default=1)
    thresholds = np.unique([0.0, *(peak for _, peak, _ in components)])
    # In order of descending area, each component lets its patch pass further thresholds, so that one sweep
    # evaluates every rule.
    num_detected = np.zeros((2, len(thresholds)), np.int64)
    num_passed = np.zeros(len(patches), np.int64)
    best_f1, rule = 0.0, DetectionRule(1, 0.0)
    for pixels, group in groupby(sorted(components, reverse=True), key=itemgetter(0)):
        for _, peak, number in group:
            reached = int(np.searchsorted(thresholds, peak, side="right"))
            num_detected[int(is_burned[number]), num_passed[number] : reached] += 1
            num_passed[number] = max(num_passed[number], reached)
        f1 = 2 * num_detected[1] / (num_detected.sum(axis=0) + is_burned.sum())
        if f1.max() >= best_f1:
            best_f1 = float(f1.max())
            rule = DetectionRule(pixels if pixels > smallest else 1, float(thresholds[f1.argmax()]))
    return rule


def count_detections(
    patches: Sequence[Sequence[Component]], burns: Sequence[bool], rule: DetectionRule
) -> NDArray[np.int64]:
    """Counts patches by truth and by the outcome of a detection rule.

    Args:
        patches: Components of each patch, from `find_components`.
        burns: True for each patch that truly burned.
        rule: Detection rule, as from `select_rule`; `DetectionRule(1, 0.0)` is any burned pixel.

    Returns:
        `(2, 2)` `[[tn, fp], [fn, tp]]`, the input of `detection_scores` as a tensor.

    Raises:
        ValueError: If the numbers of patches and truths differ.
    """
    is_burned = _to_truths(patches, burns)
    is_detected = np.array(
        [
            any(each.pixels >= rule.min_pixels and each.peak_log_odds >= rule.min_log_odds for each in patch)
            for patch in patches
        ],
        bool,
    )
    return np.bincount(2 * is_burned + is_detected, minlength=4).reshape(2, 2)


def _to_truths(patches: Sequence[Sequence[Component]], burns: Sequence[bool]) -> NDArray[np.bool_]:
    if len(patches) != len(burns):
        raise ValueError(f"{len(patches)} patches, {len(burns)} truths: each patch needs one truth")
    return np.array(burns, bool)
