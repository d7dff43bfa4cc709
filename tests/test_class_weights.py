"""Inverse-frequency class weights: mean 1 over the occurring classes, ratio at most the cap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.task import inverse_frequency_weights


def test_weights_are_inversely_proportional_to_the_counts() -> None:
    assert inverse_frequency_weights([90, 30]) == (0.5, 1.5)


def test_the_cap_limits_the_weight_of_the_rarest_class() -> None:
    # Inverse frequency gives 1 : 10 : 1000, the cap 1 : 10 : 19, and the mean of these is 10.
    assert inverse_frequency_weights([1000, 100, 1], cap=19) == pytest.approx((0.1, 1.0, 1.9))


def test_an_absent_class_has_weight_1_and_does_not_affect_the_others() -> None:
    assert inverse_frequency_weights([90, 0, 30]) == (0.5, 1.0, 1.5)


def test_without_pixels_all_weights_are_1() -> None:
    assert inverse_frequency_weights([0, 0, 0]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("counts", "cap"), [([1, -1], 20.0), ([1, 1], 0.5), ([1, 1], float("nan"))])
def test_negative_counts_and_a_cap_below_1_are_an_error(counts: list[int], cap: float) -> None:
    with pytest.raises(ValueError, match="cap"):
        inverse_frequency_weights(counts, cap)


@given(counts=st.lists(st.integers(0, 10**13), min_size=2, max_size=8), cap=st.floats(1, 1000))
def test_the_mean_is_1_and_the_ratio_at_most_the_cap(counts: list[int], cap: float) -> None:
    weights = inverse_frequency_weights(counts, cap)
    occurring = [weight for weight, count in zip(weights, counts, strict=True) if count]
    assert all(weight == 1.0 for weight, count in zip(weights, counts, strict=True) if not count)
    if occurring:
        assert sum(occurring) / len(occurring) == pytest.approx(1)
        assert max(occurring) / min(occurring) <= cap * (1 + 1e-12)


@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=6))
def test_a_rarer_class_never_has_a_smaller_weight(counts: list[int]) -> None:
    weights = inverse_frequency_weights(counts)
    pairs = sorted(zip(counts, weights, strict=True))
    assert all(rare[1] >= common[1] for rare, common in pairwise(pairs))
