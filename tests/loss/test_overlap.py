"""The Tversky loss, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fireseg.loss import CombinedLoss

# Burned with probability 0.8 where it burned, 0.4 where it did not: TP 0.8, FP 0.4, FN 0.2.
LOGITS = torch.tensor([[0.2, 0.6], [0.8, 0.4]], dtype=torch.float64).log().view(1, 2, 1, 2)
TRUTH = torch.tensor([[[1, 0]]])


def tversky(logits: Tensor = LOGITS, truth: Tensor = TRUTH, **settings: Any) -> float:
    return CombinedLoss(0.0, 0.0, tversky_weight=1.0, **settings)(logits, truth)[1]["tversky_loss"].item()


def test_false_alarms_and_misses_have_their_weights() -> None:
    assert tversky(tversky_alpha=0.3, tversky_beta=0.7) == pytest.approx(
        1 - 0.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2), abs=1e-6
    )
    assert tversky(tversky_alpha=0.7, tversky_beta=0.3) == pytest.approx(
        1 - 0.8 / (0.8 + 0.7 * 0.4 + 0.3 * 0.2), abs=1e-6
    )


def test_equal_weights_give_the_dice_loss_of_the_burned_class() -> None:
    assert tversky(tversky_alpha=0.5, tversky_beta=0.5) == pytest.approx(1 - 2 * 0.8 / (1.2 + 1), abs=1e-6)


def test_gamma_is_an_exponent_of_each_class() -> None:
    cost = 1 - 0.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2)
    assert tversky(tversky_gamma=0.75) == pytest.approx(cost**0.75, abs=1e-5)


def test_the_mean_is_over_the_burned_classes() -> None:
    p = torch.tensor([[0.5, 0.2], [0.3, 0.1], [0.2, 0.7]], dtype=torch.float64)
    value = tversky(p.log().view(1, 3, 1, 2), torch.tensor([[[1, 2]]]), tversky_alpha=1.0, tversky_beta=1.0)
    # Class 1: TP 0.3, FP 0.1, FN 0.7; class 2: TP 0.7, FP 0.2, FN 0.3.
    assert value == pytest.approx(1 - (0.3 / 1.1 + 0.7 / 1.2) / 2, abs=1e-6)


def test_unlabelled_pixels_do_not_count() -> None:
    logits = torch.cat([LOGITS, torch.zeros(1, 2, 1, 2, dtype=torch.float64)], 3)
    assert tversky(logits, torch.tensor([[[1, 0, 255, 255]]])) == tversky()


@pytest.mark.parametrize("gamma", [0.3, 0.75, 1.0, 2.0])
def test_gradients_of_a_perfect_prediction_are_finite(gamma: float) -> None:
    logits = torch.tensor([[-80.0, 80.0], [80.0, -80.0]]).view(1, 2, 1, 2).requires_grad_()
    value, _ = CombinedLoss(0.0, 0.0, tversky_weight=1.0, tversky_gamma=gamma)(logits, TRUTH)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=0.01)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
