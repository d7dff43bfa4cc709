"""Soft targets and the ordinal loss, by hand and against torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fireseg.loss import CombinedLoss
from fireseg.loss.cross_entropy import soften_targets


def compute_part(name: str, p: list[float], target: int, **settings: Any) -> float:
    """The part of the loss of one pixel with these probabilities."""
    logits = torch.tensor(p, dtype=torch.float64).log().view(1, -1, 1, 1)
    return CombinedLoss(**settings)(logits, torch.tensor([[[target]]]))[1][name].item()


def test_without_softening_there_are_no_targets() -> None:
    assert soften_targets(5) is None


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    targets = soften_targets(4, label_smoothing=0.2)
    assert targets is not None
    assert targets[1].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])


def test_soft_labels_fall_by_e_for_every_temperature_of_distance() -> None:
    targets = soften_targets(3, soft_labels=0.5)
    assert targets is not None
    near, far = math.exp(-2), math.exp(-4)
    assert targets[0].tolist() == pytest.approx([part / (1 + near + far) for part in (1, near, far)])
    assert targets[1].tolist() == pytest.approx([part / (1 + 2 * near) for part in (near, 1, near)])


def test_label_smoothing_agrees_with_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 4, (2, 5, 6), generator=generator)
    targets[0, :2] = 255
    _, parts = CombinedLoss(label_smoothing=0.1)(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=255, label_smoothing=0.1)
    assert parts["ce_loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_pixel_with_a_soft_target_has_the_weight_of_its_own_class() -> None:
    logits = torch.tensor([[0.2, 0.8], [0.6, 0.4]], dtype=torch.float64).log().T.reshape(1, 2, 1, 2)
    loss = CombinedLoss(class_weights=[1.0, 3.0], label_smoothing=0.2)
    _, parts = loss(logits, torch.tensor([[[1, 0]]]))
    first = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2))
    second = -(0.9 * math.log(0.6) + 0.1 * math.log(0.4))
    assert parts["ce_loss"].item() == pytest.approx((3 * first + second) / 4, rel=1e-6)


def test_the_best_prediction_for_a_frequent_grade_is_that_grade_also_with_class_weights() -> None:
    loss = CombinedLoss(class_weights=[0.08, 1.6, 1.4], soft_labels=1.0)
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    loss.compute_sums(logits, torch.tensor([[[0]]]))[0].backward()
    assert logits.grad is not None
    assert logits.grad.flatten().argmin() == 0


def test_soft_labels_make_a_neighbouring_grade_cheaper_than_a_distant_one() -> None:
    near, far = ([0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1])
    costs = [compute_part("ce_loss", p, 3, soft_labels=1.0) for p in (near, far)]
    assert costs[0] < costs[1]
    hard = [compute_part("ce_loss", p, 3) for p in (near, far)]
    assert hard[0] == pytest.approx(hard[1])


def test_the_ordinal_loss_is_the_cross_entropy_of_being_above_each_grade() -> None:
    # Grade 1 of 0 to 2: above 0 with probability 0.5 + 0.3, not above 1 with 0.2 + 0.5.
    value = compute_part("ordinal_loss", [0.2, 0.5, 0.3], 1, ordinal_weight=1.0)
    assert value == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 2)


def test_the_ordinal_loss_grows_with_the_distance_of_the_grades() -> None:
    p = [0.85, 0.05, 0.05, 0.05]
    costs = [compute_part("ordinal_loss", p, grade, ordinal_weight=1.0) for grade in range(4)]
    assert costs == sorted(costs)
    cross_entropy = [compute_part("ce_loss", p, grade) for grade in range(4)]
    assert cross_entropy[1] == pytest.approx(cross_entropy[3])


def test_class_weights_are_those_of_the_pixels_of_the_ordinal_loss() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], dtype=torch.float64).log().T.reshape(1, 3, 1, 2)
    loss = CombinedLoss(ordinal_weight=1.0, class_weights=[1.0, 3.0, 1.0])
    _, parts = loss(logits, torch.tensor([[[1, 0]]]))
    first, second = -(math.log(0.8) + math.log(0.7)) / 2, -(math.log(0.6) + math.log(0.9)) / 2
    assert parts["ordinal_loss"].item() == pytest.approx((3 * first + second) / 4)


def test_gradients_of_confident_grades_are_finite() -> None:
    logits = torch.tensor([200.0, -200.0, 0.0, 50.0]).view(1, 4, 1, 1).requires_grad_()
    loss = CombinedLoss(0.5, 0.0, ordinal_weight=1.0, soft_labels=0.01, label_smoothing=0.1, gamma=0.5)
    loss(logits, torch.tensor([[[3]]]))[0].backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
