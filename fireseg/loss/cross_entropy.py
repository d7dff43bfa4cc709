"""Cross-entropy, with a focus on hard pixels, soft labels, or an order of the classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fireseg.loss.pixels import (
    NotNegative,
    PixelPredictions,
    Weights,
    check_arguments,
    check_weights,
    compute_log_probabilities,
    mean_cost,
)
from fireseg.task import IGNORE_INDEX


def focal_loss(pixels: PixelPredictions, *, gamma: float = 0.0, class_weights: Tensor | None = None) -> Tensor:
    """Computes focal cross-entropy: sum of w (1 - p)^gamma CE over sum of w, 0 if no pixel is labelled.

    Args:
        pixels: Result of `compute_log_probabilities`.
        gamma: Focusing parameter; 0 is plain cross-entropy, larger values reduce the weight of easy pixels.
        class_weights: Weight of each class `(K,)`, or None for 1.

    Returns:
        A scalar >= 0.

    References:
        Lin et al. (2017), Focal loss for dense object detection, ICCV.
    """
    return mean_cost(focal_sums(pixels, gamma=gamma, class_weights=class_weights))


def focal_sums(
    pixels: PixelPredictions,
    *,
    gamma: float = 0.0,
    class_weights: Tensor | None = None,
    targets: Tensor | None = None,
) -> Tensor:
    """Computes the sums of `focal_loss`, which can be added over the parts of a batch.

    Args:
        pixels: Result of `compute_log_probabilities`.
        gamma: Focusing parameter.
        class_weights: Weight of each class `(K,)`, or None for 1.
        targets: Target distribution of each class `(K, K)`, see `soften_targets`; None for all of it on the class.
            A pixel has the weight of its own class; weighing each class of its target, as
            `torch.nn.functional.cross_entropy` does, would make a rare neighbour the likeliest target.

    Returns:
        `(2,)`: sum of the weighted costs, and sum of the weights, of the labelled pixels.
    """
    log_p, classes, _ = pixels
    weights = _weigh_pixels(pixels, class_weights)
    if targets is None:
        cost = _focus(-log_p.gather(1, classes.unsqueeze(1)).squeeze(1), gamma)
    else:
        cost = (_focus(-log_p, gamma) * targets.to(log_p.dtype)[classes].movedim(-1, 1)).sum(1)
    return torch.stack([(weights * cost).sum(), weights.sum()])


def _focus(cost: Tensor, gamma: float) -> Tensor:
    if gamma == 0:
        return cost
    # 1 - p without cancellation. For gamma < 1 the slope of the power is infinite at p = 1;
    # the smallest positive number keeps it finite.
    one_minus_p = (-torch.expm1(-cost)).clamp_min(torch.finfo(cost.dtype).tiny)
    return cost * one_minus_p**gamma


def _weigh_pixels(pixels: PixelPredictions, class_weights: Tensor | None) -> Tensor:
    log_p, classes, is_labelled = pixels
    weights = is_labelled.to(log_p.dtype)
    if class_weights is None:
        return weights
    if len(class_weights) != log_p.shape[1]:
        raise ValueError(f"class_weights: {len(class_weights)}, but {log_p.shape[1]} classes in the logits")
    return weights * class_weights.to(log_p.dtype)[classes]


def soften_targets(
    num_classes: int, *, label_smoothing: float = 0.0, soft_labels: float = 0.0, device: torch.device | None = None
) -> Tensor | None:
    """Computes the target distribution of a pixel of each class.

    With `soft_labels` t it is softmax(-|k - y| / t) over the classes k, so that a neighbouring grade costs less than a
    distant one. Then the share `label_smoothing` of it is spread evenly over all classes.

    Args:
        num_classes: Number of classes K.
        label_smoothing: Share that is spread over all classes, from 0 to 1.
        soft_labels: Temperature t, in grades; 0 for all of the distribution on the class itself.
        device: Device of the result.

    Returns:
        `(K, K)` float32, a distribution in each row; None if neither changes anything.

    References:
        Diaz and Marathe (2019), Soft labels for ordinal regression, CVPR. Szegedy et al. (2016), Rethinking the
        Inception architecture for computer vision, CVPR.
    """
    if not (label_smoothing or soft_labels):
        return None
    targets = torch.eye(num_classes, device=device)
    if soft_labels:
        grades = torch.arange(num_classes, dtype=torch.float32, device=device)
        targets = (-(grades[:, None] - grades).abs() / soft_labels).softmax(1)
    return (1 - label_smoothing) * targets + label_smoothing / num_classes


def ordinal_sums(pixels: PixelPredictions, *, class_weights: Tensor | None = None) -> Tensor:
    """Computes the sums of the ordinal loss: binary cross-entropy of "above grade k", mean over the K - 1 grades k.

    The probability of being above a grade is the sum of the softmax over the classes above it, so that the model and
    its predictions stay those of a classification. Every grade between prediction and truth costs. With two classes
    it is cross-entropy.

    Args:
        pixels: Result of `compute_log_probabilities`.
        class_weights: Weight of each class `(K,)` for its pixels, or None for 1.

    Returns:
        `(2,)`: sum of the weighted costs, and sum of the weights, of the labelled pixels.

    References:
        Cao et al. (2020), Rank consistent ordinal regression, Pattern Recognition Letters 140; for the cumulative link
        of a softmax: McCullagh (1980), Regression models for ordinal data, JRSS B 42.
    """
    log_p, classes, _ = pixels
    costs = [
        -torch.where(classes > grade, log_p[:, grade + 1 :].logsumexp(1), log_p[:, : grade + 1].logsumexp(1))
        for grade in range(log_p.shape[1] - 1)
    ]
    weights = _weigh_pixels(pixels, class_weights)
    return torch.stack([(weights * torch.stack(costs).mean(0)).sum(), weights.sum()])


class FocalLoss(nn.Module):
    """Focal cross-entropy, see `focal_loss`; plain cross-entropy if gamma is 0.

    Args:
        gamma: Focusing parameter, from 0.
        class_weights: One weight per class, from 0, not all 0; None for 1. Stored as a buffer.
        ignore_index: Value of unlabelled pixels.

    Raises:
        SettingError: If an argument is out of range.
    """

    class_weights: Tensor | None

    def __init__(
        self, *, gamma: NotNegative = 2.0, class_weights: Weights = None, ignore_index: int = IGNORE_INDEX
    ) -> None:
        super().__init__()
        check_arguments(gamma=gamma)
        self.gamma = gamma
        self.register_buffer("class_weights", check_weights(class_weights))
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of logits `(B, K, H, W)` and targets `(B, H, W)` of any integer dtype."""
        pixels = compute_log_probabilities(logits, targets, ignore_index=self.ignore_index)
        return focal_loss(pixels, gamma=self.gamma, class_weights=self.class_weights)
