"""Decisions from logits and probabilities, checked by hand and against torch's argmax and softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireseg.decision import (
    apply_threshold,
    argmax_classes,
    class_probabilities,
    find_threshold,
    fire_log_odds,
    fire_probability,
    min_log_odds,
    severity_classes,
    softmax,
)

# Two patches of two pixels, three classes: the first patch burns in its second pixel, the second nowhere.
LOGITS = torch.tensor(
    [
        [[[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 3.0]]],
        [[[5.0, 1.0]], [[5.0, 0.0]], [[0.0, 0.0]]],
    ]
)


def draw_logits(seed: int, num_classes: int) -> torch.Tensor:
    return 3 * torch.randn(2, num_classes, 5, 4, generator=torch.Generator().manual_seed(seed))


def test_argmax_takes_the_largest_logit_and_the_lower_of_two_equal_classes() -> None:
    assert argmax_classes(LOGITS).tolist() == [[[0, 2]], [[0, 0]]]


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 7), has_ties=st.booleans())
def test_argmax_classes_equals_argmax_also_for_ties(seed: int, num_classes: int, has_ties: bool) -> None:
    logits = draw_logits(seed, num_classes)
    logits = logits.round() if has_ties else logits
    for each in (logits, logits.contiguous(memory_format=torch.channels_last), logits.bfloat16()):
        assert torch.equal(argmax_classes(each).long(), each.argmax(1))


def test_severity_is_the_likeliest_class_above_0_even_where_unburned_is_likelier() -> None:
    assert [severity_classes(each).tolist() for each in LOGITS.numpy()] == [[[1, 2]], [[1, 1]]]


def test_fire_probability_is_the_sum_of_the_fire_classes() -> None:
    first = (math.e + math.e**3) / (1 + math.e + math.e**3)
    assert fire_probability(LOGITS)[0, 0, 1].item() == pytest.approx(first, abs=1e-6)


def test_log_odds_of_three_classes_by_hand() -> None:
    # Softmax of (log 2, 0, 0) is (1/2, 1/4, 1/4): log-odds 0.
    assert fire_log_odds(torch.tensor([math.log(2), 0, 0]).view(1, 3, 1, 1)).item() == pytest.approx(0, abs=1e-6)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6))
def test_the_sigmoid_of_the_log_odds_is_the_softmax_sum_of_the_burned_classes(seed: int, num_classes: int) -> None:
    logits = draw_logits(seed, num_classes)
    torch.testing.assert_close(fire_log_odds(logits).sigmoid(), logits.softmax(1)[:, 1:].sum(1), atol=1e-6, rtol=1e-5)


@given(seed=st.integers(0, 10**6))
def test_log_odds_above_0_equal_the_decision_for_fire_of_two_classes(seed: int) -> None:
    logits = draw_logits(seed, 2)
    assert torch.equal(fire_log_odds(logits) > 0, argmax_classes(logits) > 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_logits_of_a_dtype_give_no_nan(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    logits = torch.tensor([[largest, -largest, -largest], [largest] * 3, [-largest, largest, -largest]], dtype=dtype)
    odds = fire_log_odds(logits.view(3, 3, 1, 1))
    assert odds.dtype == torch.float32
    assert not odds.isnan().any()


@given(num_classes=st.integers(2, 6), seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 100.0]))
def test_decisions_agree_with_argmax_and_softmax(num_classes: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, num_classes, 4, 5, generator=generator).mul(scale).round(decimals=1)
    assert torch.equal(argmax_classes(logits).long(), logits.argmax(1))
    for each in logits:
        np.testing.assert_array_equal(severity_classes(each.numpy()), each[1:].argmax(0).numpy() + 1)
    assert torch.equal(class_probabilities(logits), logits.softmax(1))
    fire = fire_probability(logits)
    assert ((fire >= 0) & (fire <= 1)).all()


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6))
def test_the_softmax_of_numpy_is_that_of_torch(seed: int, num_classes: int) -> None:
    logits = 30 * draw_logits(seed, num_classes)
    np.testing.assert_allclose(softmax(logits.numpy()), logits.softmax(1).numpy(), atol=1e-6)


def test_half_precision_logits_give_float32_probabilities() -> None:
    probabilities = class_probabilities(LOGITS.half())
    assert probabilities.dtype == torch.float32
    assert probabilities.sum(1) == pytest.approx(torch.ones(2, 1, 2), abs=1e-6)


def test_the_threshold_is_compared_with_the_calibrated_probability() -> None:
    # 2 log(0.8 / 0.2) = log 16.
    assert min_log_odds(0.8, 2.0) == pytest.approx(math.log(16))
    log_odds, severity = np.log(np.array([15.9, 16.1])), np.array([3, 3], np.uint8)
    assert apply_threshold(log_odds, severity, threshold=0.8, temperature=2.0).tolist() == [0, 3]


def test_unknown_pixels_become_255() -> None:
    log_odds, severity = np.array([5.0, -5.0, np.nan]), np.array([2, 2, 2], np.uint8)
    unknown = np.array([True, False, False])
    assert apply_threshold(log_odds, severity, threshold=0.5, unknown=unknown).tolist() == [255, 0, 0]


def test_numpy_and_torch_agree_at_one_half_for_two_classes() -> None:
    logits = torch.randn(1, 2, 40, 50, generator=torch.Generator().manual_seed(0))
    log_odds, severity = fire_log_odds(logits).numpy()[0], severity_classes(logits.numpy()[0])
    np.testing.assert_array_equal(apply_threshold(log_odds, severity, threshold=0.5), argmax_classes(logits)[0].numpy())


@given(threshold=st.floats(0.001, 0.999), temperature=st.floats(0.05, 20))
def test_a_threshold_is_found_by_its_log_odds(threshold: float, temperature: float) -> None:
    found = find_threshold(min_log_odds(threshold, temperature), temperature)
    assert found == pytest.approx(threshold)


@given(log_odds=st.floats(-1000, 1000), temperature=st.floats(5e-324, 20))
def test_a_found_threshold_is_above_0_and_below_1(log_odds: float, temperature: float) -> None:
    assert 0 < find_threshold(log_odds, temperature) < 1
