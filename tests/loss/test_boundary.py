"""The boundary loss and its distances, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fireseg.loss import CombinedLoss
from fireseg.loss.boundary import compute_distances


def measure(*rows: str) -> list[list[float]]:
    """Distances in an image drawn with # for burned, . for unburned and ? for unlabelled."""
    image = np.array([list(row) for row in rows])[None]
    return compute_distances(image == "#", image != "?")[0].tolist()


def test_distances_are_counted_from_the_boundary_on_both_sides() -> None:
    assert measure("..##") == [[1.5, 0.5, 0.5, 1.5]]


def test_distances_are_euclidean() -> None:
    assert measure("#..", "...", "...")[2][2] == pytest.approx(8**0.5 - 0.5)


def test_a_border_with_unlabelled_pixels_is_no_boundary() -> None:
    # The burned pixel on the left is 3 px from the nearest pixel known as unburned.
    assert measure("#??.") == [[2.5, 0.0, 0.0, 2.5]]


@pytest.mark.parametrize("row", ["....", "####", "##??", "????"])
def test_an_image_without_both_kinds_has_no_boundary(row: str) -> None:
    assert measure(row) == [[0.0, 0.0, 0.0, 0.0]]


def test_each_image_has_its_own_boundary() -> None:
    images = np.array([[[1, 0, 0]], [[0, 0, 0]], [[0, 1, 1]]], bool)
    distances = compute_distances(images, np.ones_like(images))
    assert distances.tolist() == [[[0.5, 0.5, 1.5]], [[0, 0, 0]], [[0.5, 0.5, 1.5]]]


def test_the_loss_is_the_mean_error_weighted_by_the_distance() -> None:
    fire = torch.tensor([0.1, 0.4, 0.8, 0.5], dtype=torch.float64)
    logits = torch.stack([1 - fire, fire]).log().view(1, 2, 1, 4)
    _, parts = CombinedLoss(boundary_weight=1.0)(logits, torch.tensor([[[0, 0, 1, 255]]]))
    # Distances 1.5, 0.5 and 0.5, errors 0.1, 0.4 and 0.2, three labelled pixels.
    assert parts["boundary_loss"].item() == pytest.approx((0.15 + 0.2 + 0.1) / 3)


def test_all_classes_above_0_are_burned() -> None:
    p = torch.tensor([[0.9, 0.2, 0.3], [0.05, 0.5, 0.3], [0.05, 0.3, 0.4]], dtype=torch.float64)
    _, parts = CombinedLoss(boundary_weight=1.0)(p.log().view(1, 3, 1, 3), torch.tensor([[[0, 1, 2]]]))
    # Distances 0.5, 0.5 and 1.5, errors 0.1, 0.2 and 0.3.
    assert parts["boundary_loss"].item() == pytest.approx((0.05 + 0.1 + 0.45) / 3)


def test_a_perfect_prediction_costs_nothing() -> None:
    targets = torch.tensor([[[0, 0, 1, 255]]])
    logits = 1000 * torch.nn.functional.one_hot(targets.clamp(max=1), 2).movedim(-1, 1).float()
    value, _ = CombinedLoss(0.0, 0.0, boundary_weight=1.0)(logits, targets)
    assert value.item() == 0.0
