"""Losses of the overlap of prediction and truth: Dice and Tversky."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fireseg.loss.pixels import Absent, PixelPredictions, check_arguments, compute_log_probabilities
from fireseg.task import IGNORE_INDEX


def dice_loss(pixels: PixelPredictions, *, absent: Absent = "counted", smooth: float = 1e-6) -> Tensor:
    """Computes soft Dice loss: 1 - mean over classes of (2 Σpo + s) / (Σp + Σo + s), over all labelled pixels.

    The sums run over the whole batch, so that patches without fire do not weigh as much as patches with
    fire. An absent class costs nearly 1 as soon as it gets any probability: "counted" treats this as a
    false alarm, "skipped" leaves the class out of the mean.

    Args:
        pixels: Result of `compute_log_probabilities`.
        absent: Treatment of classes without a labelled pixel in the batch.
        smooth: Smoothing constant s, above 0.

    Returns:
        A scalar, 0 to 1; 0 if no pixel is labelled.

    References:
        Milletari et al. (2016), V-Net, 3DV.
    """
    return dice_cost(dice_sums(pixels), absent=absent, smooth=smooth)


def dice_sums(pixels: PixelPredictions) -> Tensor:
    """Computes the sums of `dice_loss`, which can be added over the parts of a batch.

    Args:
        pixels: Result of `compute_log_probabilities`.

    Returns:
        `(3, K)`: Σpo, Σp and Σo of each class over the labelled pixels.
    """
    log_p, classes, is_labelled = pixels
    # Multiplying is several times faster than selecting, and safe: unlabelled pixels have finite logits
    # from `compute_log_probabilities`, and a NaN in a labelled pixel must propagate.
    weight = is_labelled.unsqueeze(1).to(log_p.dtype)
    truth = torch.zeros_like(log_p).scatter(1, classes.unsqueeze(1), weight)
    p = log_p.exp() * weight
    return torch.stack([(p * truth).sum((0, 2, 3)), p.sum((0, 2, 3)), truth.sum((0, 2, 3))])


def dice_cost(sums: Tensor, *, absent: Absent, smooth: float) -> Tensor:
    """Computes `dice_loss` from the sums of `dice_sums`."""
    intersection, num_predicted, num_true = sums
    cost = 1 - (2 * intersection + smooth) / (num_predicted + num_true + smooth)
    return _mean_over_classes(cost, num_true, absent)


def tversky_cost(sums: Tensor, *, alpha: float, beta: float, gamma: float, absent: Absent, smooth: float) -> Tensor:
    """Computes Tversky loss: mean over the burned classes of (1 - (TP + s) / (TP + alpha FP + beta FN + s))^gamma.

    The unburned class is left out: its false positives are the false negatives of the others.

    Args:
        sums: Sums of `dice_sums`, `(3, K)`.
        alpha: Weight of false positives; a larger one gives fewer false alarms.
        beta: Weight of false negatives; a larger one finds more. Dice loss has 0.5 for both.
        gamma: Exponent; below 1 the loss falls more steeply the better the overlap is.
        absent: Treatment of classes without a labelled pixel in the batch.
        smooth: Smoothing constant s, above 0.

    Returns:
        A scalar, 0 to 1; 0 if no pixel is labelled.

    References:
        Salehi et al. (2017), Tversky loss function for image segmentation, MLMI. Abraham and Khan (2019), A novel focal
        Tversky loss function, ISBI: its gamma is the inverse of this one.
    """
    overlap, num_predicted, num_true = sums[:, 1:]
    errors = alpha * (num_predicted - overlap) + beta * (num_true - overlap)
    cost = 1 - (overlap + smooth) / (overlap + errors + smooth)
    if gamma != 1:
        # For gamma < 1 the slope of the power is infinite at 0, and rounding may give a negative base.
        cost = cost.clamp_min(torch.finfo(cost.dtype).eps) ** gamma
        cost = cost.where(num_predicted + num_true > 0, 0.0)
    return _mean_over_classes(cost, num_true, absent)


def _mean_over_classes(cost: Tensor, num_true: Tensor, absent: Absent) -> Tensor:
    if absent == "counted":
        return cost.mean()
    is_present = num_true > 0
    return cost.where(is_present, 0.0).sum() / is_present.sum().clamp_min(1)


class DiceLoss(nn.Module):
    """Soft Dice loss over the batch, see `dice_loss`.

    Args:
        absent: Treatment of classes absent from the batch: "counted" or "skipped".
        smooth: Smoothing constant, above 0.
        ignore_index: Value of unlabelled pixels.

    Raises:
        SettingError: If an argument is out of range.
    """

    def __init__(self, *, absent: Absent = "counted", smooth: float = 1e-6, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        check_arguments(absent=absent, smooth=smooth)
        self.absent: Absent = absent
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of logits `(B, K, H, W)` and targets `(B, H, W)` of any integer dtype."""
        pixels = compute_log_probabilities(logits, targets, ignore_index=self.ignore_index)
        return dice_loss(pixels, absent=self.absent, smooth=self.smooth)
