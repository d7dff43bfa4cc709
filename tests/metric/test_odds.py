"""Log-odds of fire: what they are, and which bin they fall into."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireseg.decision import argmax_classes, fire_log_odds
from fireseg.errors import FiresegError
from fireseg.metric import LOG_ODDS_EDGES, NUM_LOG_ODDS_BINS, count_log_odds

MIDDLE = NUM_LOG_ODDS_BINS // 2


def draw_logits(seed: int, num_classes: int) -> torch.Tensor:
    return 3 * torch.randn(2, num_classes, 5, 4, generator=torch.Generator().manual_seed(seed))


def count_one(odds: float) -> int:
    """The bin of a single burned pixel."""
    return int(count_log_odds(np.array([odds]), np.array([1], np.uint8))[1].argmax())


def test_odds_of_three_classes_by_hand():
    # Softmax of (log 2, 0, 0) is (1/2, 1/4, 1/4): even odds.
    assert fire_log_odds(torch.tensor([math.log(2), 0, 0]).view(1, 3, 1, 1)).item() == pytest.approx(0, abs=1e-6)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6))
def test_the_sigmoid_of_the_odds_is_the_sum_of_the_softmax_above_0(seed: int, num_classes: int):
    logits = draw_logits(seed, num_classes)
    torch.testing.assert_close(fire_log_odds(logits).sigmoid(), logits.softmax(1)[:, 1:].sum(1), atol=1e-6, rtol=1e-5)


@given(seed=st.integers(0, 10**6))
def test_odds_above_0_are_the_decision_for_fire_of_two_classes(seed: int):
    logits = draw_logits(seed, 2)
    assert torch.equal(fire_log_odds(logits) > 0, argmax_classes(logits) > 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_finite_logits_of_a_dtype_give_no_nan(dtype: torch.dtype):
    most = torch.finfo(dtype).max
    logits = torch.tensor([[most, -most, -most], [most, most, most], [-most, most, -most]], dtype=dtype)
    odds = fire_log_odds(logits.view(3, 3, 1, 1))
    assert odds.dtype == torch.float32
    assert not odds.isnan().any()


def test_a_bin_holds_its_lower_edge_and_even_odds_are_an_edge():
    assert LOG_ODDS_EDGES[MIDDLE] == 0.0
    assert [count_one(odds) for odds in (-1e-30, 0.0, 0.0099, 0.0101)] == [MIDDLE - 1, MIDDLE, MIDDLE, MIDDLE + 1]


def test_the_outermost_bins_take_what_is_beyond():
    assert [count_one(odds) for odds in (-math.inf, -16.0, -15.995, 15.995, 16.0, math.inf)] == [
        *(0, 0, 0),
        *(NUM_LOG_ODDS_BINS - 1,) * 3,
    ]


@given(seed=st.integers(0, 10**6))
def test_bins_are_those_of_a_histogram_over_the_edges(seed: int):
    rng = np.random.default_rng(seed)
    odds, truth = rng.normal(0, 6, 300), rng.choice(np.array([0, 1, 4, 255], np.uint8), 300)
    inside = np.clip(odds, -15.995, 15.995)
    counts = count_log_odds(odds, truth)
    assert counts[0].tolist() == np.histogram(inside[truth == 0], LOG_ODDS_EDGES)[0].tolist()
    assert counts[1].tolist() == np.histogram(inside[(truth > 0) & (truth < 255)], LOG_ODDS_EDGES)[0].tolist()


def test_counts_of_images_add_up_and_unlabelled_pixels_are_in_none():
    odds = np.array([[1.0, -2.0], [np.nan, 0.5]], np.float32)
    truth = np.array([[1, 0], [255, 0]], np.uint8)
    counts = count_log_odds(odds, truth)
    assert counts.sum(axis=1).tolist() == [2, 1]
    assert np.array_equal(counts, count_log_odds(odds[:1], truth[:1]) + count_log_odds(odds[1:], truth[1:]))


def test_labelled_pixels_without_odds_are_a_fault():
    with pytest.raises(FiresegError, match=r"odds: 1 of 2 labelled pixels are NaN.*take a checkpoint"):
        count_log_odds(np.array([np.nan, 1.0]), np.array([0, 1], np.uint8))


def test_a_truth_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="want the same shape"):
        count_log_odds(np.zeros((2, 2)), np.zeros(4, np.uint8))
