"""What logits say about fire, by hand and against torch's own argmax and softmax."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireseg.model import network as decision

# Two patches of two pixels, three classes: the first patch burns in its second pixel, the second nowhere.
LOGITS = torch.tensor(
    [
        [[[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 3.0]]],
        [[[5.0, 1.0]], [[5.0, 0.0]], [[0.0, 0.0]]],
    ]
)


def test_segmentation_is_the_class_with_the_largest_logit_and_the_lower_of_two_equal_ones() -> None:
    assert decision.get_segmentation(LOGITS).tolist() == [[[0, 2]], [[0, 0]]]


def test_detection_is_true_where_any_pixel_burns() -> None:
    assert decision.get_fire_detection(LOGITS).tolist() == [True, False]


def test_fraction_is_the_share_of_burned_pixels() -> None:
    assert decision.get_fire_fraction(LOGITS).tolist() == [0.5, 0.0]


def test_confidence_is_the_largest_sum_of_the_fire_classes() -> None:
    first = (math.e + math.e**3) / (1 + math.e + math.e**3)
    second = (math.e**5 + 1) / (2 * math.e**5 + 1)
    assert decision.get_fire_confidence(LOGITS).tolist() == pytest.approx([first, second], abs=1e-6)


def test_confidence_can_be_high_where_no_single_fire_class_wins() -> None:
    logits = torch.tensor([0.1, 0.0, 0.0, 0.0, 0.0]).view(1, 5, 1, 1)
    assert not decision.get_fire_detection(logits)
    assert decision.get_fire_confidence(logits).item() == pytest.approx(4 / (math.exp(0.1) + 4))


@given(num_classes=st.integers(2, 6), seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 100.0]))
def test_decisions_agree_with_argmax_and_softmax(num_classes: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, num_classes, 4, 5, generator=generator).mul(scale).round(decimals=1)
    predicted = logits.argmax(1)
    assert torch.equal(decision.get_segmentation(logits), predicted)
    assert torch.equal(decision.get_fire_mask(logits), predicted > 0)
    assert torch.equal(decision.get_probabilities(logits), logits.softmax(1))
    assert torch.equal(decision.get_fire_fraction(logits), (predicted > 0).flatten(1).float().mean(1))
    confidence = decision.get_fire_confidence(logits)
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_half_precision_logits_give_float32_probabilities() -> None:
    probabilities = decision.get_probabilities(LOGITS.half())
    assert probabilities.dtype == torch.float32
    assert probabilities.sum(1) == pytest.approx(torch.ones(2, 1, 2), abs=1e-6)
