"""Detection rules on connected burned areas."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireseg.metric import Component, DetectionRule, count_detections, detection_scores, find_components, select_rule

DEFAULT = DetectionRule(1, 0.0)
COMPONENTS = st.builds(Component, st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0, 4.0]))
PATCHES = st.lists(st.tuples(st.lists(COMPONENTS, max_size=3), st.booleans()), max_size=8)


def find_all(odds: list[list[float]]) -> list[Component]:
    return find_components(np.array(odds, np.float32), np.ones(np.shape(odds), bool))


def compute_f1(patches: list[list[Component]], burns: list[bool], rule: DetectionRule) -> float:
    (_, fp), (fn, tp) = count_detections(patches, burns, rule).tolist()
    return 2 * tp / (2 * tp + fp + fn)


def test_a_component_has_its_area_and_peak():
    assert find_all([[1, 3, -1], [-1, -1, -1], [-2, -2, -2]]) == [(2, 3.0)]


def test_diagonal_neighbours_are_connected():
    assert find_all([[1, -1, -1], [-1, 2, -1], [-1, -1, 3]]) == [(3, 3.0)]


def test_log_odds_of_0_are_unburned():
    assert find_all([[0, -1], [0, 0]]) == []


def test_components_with_smaller_area_and_peak_are_left_out():
    row = [1, 1, 1, -1, 2, 2, -1, 1.5, -1, 5]  # sizes and peaks (3, 1), (2, 2), (1, 1.5), (1, 5)
    assert find_all([row]) == [(3, 1.0), (2, 2.0), (1, 5.0)]


def test_one_of_several_equal_components_is_returned():
    assert find_all([[1, -1, 1, -1, 1]]) == [(1, 1.0)]


def test_unlabelled_pixels_are_in_no_component_and_connect_none():
    odds = np.array([[2.0, np.nan, 1.0, 9.0]])
    assert find_components(odds, np.array([[True, False, True, False]])) == [(1, 2.0)]


@given(seed=st.integers(0, 10**6), rule=st.builds(DetectionRule, st.integers(1, 12), st.floats(0, 4)))
def test_components_left_out_do_not_affect_any_rule(seed: int, rule: DetectionRule):
    from scipy import ndimage

    odds = np.random.default_rng(seed).normal(-0.4, 1.5, (9, 9))
    labels, num = ndimage.label(odds > 0, np.ones((3, 3)))  # type: ignore[misc]
    every = [Component(int((labels == each).sum()), float(odds[labels == each].max())) for each in range(1, num + 1)]
    relevant = find_components(odds, np.ones(odds.shape, bool))
    assert set(relevant) <= set(every)
    assert relevant == sorted(relevant, reverse=True)
    assert np.array_equal(count_detections([relevant], [True], rule), count_detections([every], [True], rule))


def test_a_rule_needs_area_and_peak_in_the_same_component():
    patch = [Component(9, 1.0), Component(2, 5.0)]
    rules = [DetectionRule(9, 1.0), DetectionRule(2, 5.0), DetectionRule(3, 2.0), DetectionRule(10, 0.0)]
    assert [int(count_detections([patch], [True], rule)[1, 1]) for rule in rules] == [1, 1, 0, 0]


def test_counts_have_the_layout_of_detection_scores():
    small, large = [Component(1, 1.0)], [Component(5, 1.0)]
    counts = count_detections([small, large, large, [], small], [False, False, True, True, True], DetectionRule(2, 0.0))
    assert counts.tolist() == [[1, 1], [2, 1]]
    assert counts.dtype == np.int64
    assert detection_scores(torch.from_numpy(counts))["detection_recall"] == pytest.approx(1 / 3)


def test_small_false_alarms_are_removed_by_area():
    patches = [[Component(2, 9.0)], [Component(30, 3.0)], [Component(20, 2.0)]]
    assert select_rule(patches, [False, True, True]) == (20, 0.0)


def test_weak_false_alarms_are_removed_by_peak():
    patches = [[Component(50, 0.5)], [Component(30, 3.0)], [Component(1, 2.0)]]
    assert select_rule(patches, [False, True, True]) == (1, 2.0)


def test_without_false_alarms_the_default_rule_is_selected():
    assert select_rule([[Component(7, 3.0)], [], [Component(9, 2.0)]], [True, False, True]) == DEFAULT


@pytest.mark.parametrize(
    ("patches", "burns"),
    [([], []), ([[Component(3, 1.0)], []], [False, False]), ([[], []], [True, False])],
    ids=["no patches", "no fire", "nothing predicted"],
)
def test_without_fire_or_predictions_the_default_rule_is_selected(patches: list[list[Component]], burns: list[bool]):
    assert select_rule(patches, burns) == DEFAULT


@given(given_patches=PATCHES)
def test_the_selected_rule_is_the_first_of_the_best(given_patches: list[tuple[list[Component], bool]]):
    patches, burns = [each for each, _ in given_patches], [burns for _, burns in given_patches]
    sizes = sorted({1, *(each.pixels for patch in patches for each in patch)})
    thresholds = sorted({0.0, *(each.peak_log_odds for patch in patches for each in patch)})
    rules = [DetectionRule(pixels, threshold) for pixels in sizes for threshold in thresholds]
    best = max(rules, key=lambda rule: compute_f1(patches, burns, rule)) if any(burns) else DEFAULT
    assert select_rule(patches, burns) == best


def test_a_thousand_patches_take_less_than_two_seconds():
    rng = np.random.default_rng(0)
    patches = [
        [Component(int(size), float(peak)) for size, peak in zip(rng.integers(1, 9999, 3), rng.random(3), strict=True)]
        for _ in range(1000)
    ]
    start = time.process_time()
    select_rule(patches, (rng.random(1000) < 0.5).tolist())
    assert time.process_time() - start < 2.0


def test_different_numbers_of_patches_and_truths_are_an_error():
    with pytest.raises(ValueError, match="1 patches, 2 truths"):
        select_rule([[]], [True, False])
    with pytest.raises(ValueError, match="1 patches, 2 truths"):
        count_detections([[]], [True, False], DEFAULT)
