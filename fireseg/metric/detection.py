"""Whether a patch burns, by how large and how certain its burned areas are."""

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
        pixels: Its size.
        peak_odds: The highest log-odds of fire in it, above 0.
    """

    pixels: int
    peak_odds: float


class DetectionRule(NamedTuple):
    """A patch burns if one component has at least so many pixels and at least such a peak.

    Attributes:
        min_pixels: From 1.
        min_odds: Log-odds, from 0.
    """

    min_pixels: int
    min_odds: float


def find_components(odds: NDArray[np.floating], is_labelled: NDArray[np.bool_]) -> list[Component]:
    """The burned areas of a patch that can matter to a rule.

    Pixels with log-odds above 0 are connected with their eight neighbours. A component is left out if another is at
    least as large and as certain: it can pass no rule that the other fails.

    Args:
        odds: `(H, W)`, from `fire_odds`; whatever it is where nobody labelled.
        is_labelled: `(H, W)` bool.

    Returns:
        Biggest first, and so with rising peaks; empty where nothing burns.
    """
    from scipy import ndimage

    is_fire = np.greater(odds, 0.0, out=np.zeros(odds.shape, bool), where=is_labelled)
    numbers = np.empty(odds.shape, np.int32)
    num_components = int(np.asarray(ndimage.label(is_fire, np.ones((3, 3), bool), output=numbers)))
    number = numbers[is_fire] - 1
    sizes = np.bincount(number, minlength=num_components)
    peaks = np.zeros(num_components)
    np.maximum.at(peaks, number, odds[is_fire])
    order = np.lexsort((-peaks, -sizes))
    highest_before = np.maximum.accumulate(np.concatenate([[0.0], peaks[order]]))[:-1]
    kept = order[peaks[order] > highest_before]
    return [Component(int(sizes[each]), float(peaks[each])) for each in kept]


def select_rule(patches: Sequence[Sequence[Component]], burns: Sequence[bool]) -> DetectionRule:
    """The rule with the best F1 of detection, among the sizes and peaks that occur.

    Of equally good ones that with the smallest `min_pixels`, then the smallest `min_odds`; so it is the plain rule, any
    pixel, unless another is better.

    Args:
        patches: From `find_components`, of a validation split.
        burns: Whether each truly burns.

    Returns:
        `DetectionRule(1, 0.0)` where nothing burns.

    Raises:
        ValueError: If the two are not equally many.
    """
    is_burning = _to_truths(patches, burns)
    if not is_burning.any():
        return DetectionRule(1, 0.0)
    found = [(each.pixels, each.peak_odds, number) for number, patch in enumerate(patches) for each in patch]
    smallest = min((pixels for pixels, _, _ in found), default=1)
    bars = np.unique([0.0, *(peak for _, peak, _ in found)])
    # From the largest size down, each component lifts its patch over some more bars: one sweep sees every rule.
    num_detected = np.zeros((2, len(bars)), np.int64)
    num_passed = np.zeros(len(patches), np.int64)
    best_f1, rule = 0.0, DetectionRule(1, 0.0)
    for pixels, group in groupby(sorted(found, reverse=True), key=itemgetter(0)):
        for _, peak, number in group:
            reached = int(np.searchsorted(bars, peak, side="right"))
            num_detected[int(is_burning[number]), num_passed[number] : reached] += 1
            num_passed[number] = max(num_passed[number], reached)
        f1 = 2 * num_detected[1] / (num_detected.sum(axis=0) + is_burning.sum())
        if f1.max() >= best_f1:
            best_f1 = float(f1.max())
            rule = DetectionRule(pixels if pixels > smallest else 1, float(bars[f1.argmax()]))
    return rule


def count_detections(
    patches: Sequence[Sequence[Component]], burns: Sequence[bool], rule: DetectionRule
) -> NDArray[np.int64]:
    """Counts patches by truth and by what a rule says.

    Args:
        patches: From `find_components`.
        burns: Whether each truly burns.
        rule: As from `select_rule`; `DetectionRule(1, 0.0)` is any burned pixel.

    Returns:
        `(2, 2)` `[[tn, fp], [fn, tp]]`, as `detection_scores` reads it from a tensor.

    Raises:
        ValueError: If the two are not equally many.
    """
    is_burning = _to_truths(patches, burns)
    is_detected = np.array(
        [
            any(each.pixels >= rule.min_pixels and each.peak_odds >= rule.min_odds for each in patch)
            for patch in patches
        ],
        bool,
    )
    return np.bincount(2 * is_burning + is_detected, minlength=4).reshape(2, 2)


def _to_truths(patches: Sequence[Sequence[Component]], burns: Sequence[bool]) -> NDArray[np.bool_]:
    if len(patches) != len(burns):
        raise ValueError(f"{len(patches)} patches, {len(burns)} truths: want one truth a patch")
    return np.array(burns, bool)
