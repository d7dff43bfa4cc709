"""Tasks: class names, colours, checks, and class weights by inverse frequency."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, TASKS, Task, get_class_names, inverse_frequency_weights


def test_class_names_are_those_of_cems_products():
    assert get_class_names(2) == ("background", "fire")
    assert get_class_names(5) == ("no_damage", "negligible", "moderate", "high", "destroyed")


def test_other_numbers_of_classes_are_rejected_with_the_cure():
    with pytest.raises(FiresegError, match=r"num_classes: 3.*task\.class_names"):
        get_class_names(3)


def test_each_class_needs_a_name():
    with pytest.raises(FiresegError, match=r"task\.class_names: 2 .*task\.num_classes=5"):
        Task(name="gra", num_classes=5, class_names=DELINEATION_CLASSES)


def test_the_ignored_value_must_not_be_a_class():
    with pytest.raises(FiresegError, match=r"task\.ignore_index: 4"):
        Task(name="gra", num_classes=5, class_names=GRADING_CLASSES, ignore_index=4)


def test_legends_say_burned_and_use_plain_words():
    assert TASKS["del"].labels == ("unburned", "burned")
    assert TASKS["gra"].labels == ("no damage", "negligible", "moderate", "high", "destroyed")


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 7])
def test_each_class_has_its_own_colour(num_classes: int):
    task = Task(name="other", num_classes=num_classes, class_names=tuple(f"c{n}" for n in range(num_classes)))

    assert len(set(task.colours)) == num_classes
    assert all(len(colour) == 7 for colour in task.colours)


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
