"""Segmentation losses: cross-entropy or focal loss, Dice loss, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from fireseg.errors import SettingError, did_you_mean
from fireseg.task import IGNORE_INDEX, check_classes, inverse_frequency_weights

Absent = Literal["counted", "skipped"]

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Weights = Tensor | Sequence[float] | None


class PixelPredictions(NamedTuple):
    """Log-probabilities and labels of a batch, the common input of the losses.

    Attributes:
        log_p: Log-probabilities `(B, K, H, W)`, float32, or float64 from float64 logits.
        classes: True classes `(B, H, W)` int64, 0 for unlabelled pixels.
        is_labelled: Mask of labelled pixels `(B, H, W)` bool.
    """

    log_p: Tensor
    classes: Tensor
    is_labelled: Tensor


def compute_log_probabilities(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> PixelPredictions:
    """Computes log-probabilities, independent of the logits of unlabelled pixels.

    Logits of unlabelled pixels are replaced before the softmax: selecting later, or multiplying by 0, would
    propagate NaN, forward or backward. Sums over a batch overflow half precision, so the result is float32
    also under autocast (autocast does not cast down any operation used here).

    Args:
        logits: Logits `(B, K, H, W)`, any floating dtype.
        targets: Classes `(B, H, W)`, any integer dtype.
        ignore_index: Value of unlabelled pixels.

    Raises:
        FiresegError: If a labelled pixel has a class outside those of the logits (checked on the CPU only).
        ValueError: If the shapes do not match, or the targets are not integers.
    """
    if logits.ndim != 4 or targets.shape != logits.shape[:1] + logits.shape[2:] or targets.is_floating_point():
        shapes = f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
        raise ValueError(f"{shapes}: expected logits (B, K, H, W) and integer targets (B, H, W)")
    targets = targets.long()
    ignored = targets == ignore_index
    classes = targets.masked_fill(ignored, 0)
    check_classes("targets", classes, logits.shape[1])
    logits = logits.masked_fill(ignored.unsqueeze(1), 0.0)
    log_p = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)
    return PixelPredictions(log_p, classes, ~ignored)


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
    return _mean_cost(focal_sums(pixels, gamma=gamma, class_weights=class_weights))


def focal_sums(pixels: PixelPredictions, *, gamma: float = 0.0, class_weights: Tensor | None = None) -> Tensor:
    """Computes the sums of `focal_loss`, which can be added over the parts of a batch.

    Args:
        pixels: Result of `compute_log_probabilities`.
        gamma: Focusing parameter.
        class_weights: Weight of each class `(K,)`, or None for 1.

    Returns:
        `(2,)`: sum of the weighted costs, and sum of the weights, of the labelled pixels.
    """
    log_p, classes, is_labelled = pixels
    cost = -log_p.gather(1, classes.unsqueeze(1)).squeeze(1)
    if gamma > 0:
        # 1 - p without cancellation. For gamma < 1 the slope of the power is infinite at p = 1;
        # the smallest positive number keeps it finite.
        one_minus_p = (-torch.expm1(-cost)).clamp_min(torch.finfo(cost.dtype).tiny)
        cost = cost * one_minus_p**gamma
    weights = is_labelled.to(cost.dtype)
    if class_weights is not None:
        if len(class_weights) != log_p.shape[1]:
            raise ValueError(f"class_weights: {len(class_weights)}, but {log_p.shape[1]} classes in the logits")
        weights = weights * class_weights.to(cost.dtype)[classes]
    return torch.stack([(weights * cost).sum(), weights.sum()])


def _mean_cost(sums: Tensor) -> Tensor:
    cost, weight = sums
    return cost / weight.where(weight > 0, 1.0)


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
    return _dice_cost(dice_sums(pixels), absent=absent, smooth=smooth)


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


def _dice_cost(sums: Tensor, *, absent: Absent, smooth: float) -> Tensor:
    intersection, num_predicted, num_true = sums
    cost = 1 - (2 * intersection + smooth) / (num_predicted + num_true + smooth)
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
        _check(absent=absent, smooth=smooth)
        self.absent: Absent = absent
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of logits `(B, K, H, W)` and targets `(B, H, W)` of any integer dtype."""
        pixels = compute_log_probabilities(logits, targets, ignore_index=self.ignore_index)
        return dice_loss(pixels, absent=self.absent, smooth=self.smooth)


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
        _check(gamma=gamma)
        self.gamma = gamma
        self.register_buffer("class_weights", _check_weights(class_weights))
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of logits `(B, K, H, W)` and targets `(B, H, W)` of any integer dtype."""
        pixels = compute_log_probabilities(logits, targets, ignore_index=self.ignore_index)
        return focal_loss(pixels, gamma=self.gamma, class_weights=self.class_weights)


class CombinedLoss(nn.Module):
    """Weighted sum ce_weight x (focal) cross-entropy + dice_weight x Dice loss, from one softmax.

    Args:
        ce_weight: Weight of the cross-entropy, from 0.
        dice_weight: Weight of the Dice loss, from 0; not both 0.
        class_weights: One weight per class in the cross-entropy, from 0, not all 0; None for 1.
            Stored as a buffer.
        gamma: Focusing parameter of the cross-entropy, from 0.
        absent: Treatment of classes absent from the batch by the Dice loss: "counted" or "skipped".
        smooth: Smoothing constant of the Dice loss, above 0.
        ignore_index: Value of unlabelled pixels.

    Raises:
        SettingError: If an argument is out of range.

    Example:
        >>> total, parts = CombinedLoss()(torch.zeros(1, 2, 4, 4), torch.full((1, 4, 4), 255))
        >>> float(total), sorted(parts)
        (0.0, ['ce_loss', 'dice_loss'])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        ce_weight: NotNegative = 0.5,
        dice_weight: NotNegative = 0.5,
        *,
        class_weights: Weights = None,
        gamma: NotNegative = 0.0,
        absent: Absent = "counted",
        smooth: float = 1e-6,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        _check(absent, ce_weight=ce_weight, dice_weight=dice_weight, gamma=gamma, smooth=smooth)
        self.ce_weight = ce_weight
        self.dice_weight = dice_weight
        self.register_buffer("class_weights", _check_weights(class_weights))
        self.gamma = gamma
        self.absent: Absent = absent
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, and its unweighted, detached parts `ce_loss` and `dice_loss`.

        Args:
            logits: Logits `(B, K, H, W)`, any floating dtype.
            targets: Classes `(B, H, W)`, any integer dtype.
        """
        return self.combine(self.compute_sums(logits, targets))

    def compute_sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the sums over pixels that the loss is a function of.

        The sums of a batch are those of its parts, added; the loss is not the mean of the losses of the parts.

        Args:
            logits: Logits `(B, K, H, W)`, any floating dtype.
            targets: Classes `(B, H, W)`, any integer dtype.

        Returns:
            `(2 + 3K,)`: `focal_sums`, then `dice_sums`.
        """
        pixels = compute_log_probabilities(logits, targets, ignore_index=self.ignore_index)
        focal = focal_sums(pixels, gamma=self.gamma, class_weights=self.class_weights)
        return torch.cat([focal, dice_sums(pixels).flatten()])

    def combine(self, sums: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its parts, as `forward` does, from the sums of `compute_sums`."""
        ce = _mean_cost(sums[:2])
        dice = _dice_cost(sums[2:].unflatten(0, (3, -1)), absent=self.absent, smooth=self.smooth)
        # A part of weight 0 is left out of the sum: 0 x inf would be NaN.
        weighted = [weight * cost for weight, cost in ((self.ce_weight, ce), (self.dice_weight, dice)) if weight]
        return torch.stack(weighted).sum(), {"ce_loss": ce.detach(), "dice_loss": dice.detach()}


def create_loss(
    *,
    class_counts: Sequence[int],
    ce_weight: NotNegative = 0.5,
    dice_weight: NotNegative = 0.5,
    class_weights: bool = True,
    weight_cap: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0,
    gamma: NotNegative = 0.0,
    absent: Absent = "counted",
    ignore_index: Annotated[int, Field(ge=0, le=255)] = IGNORE_INDEX,
) -> CombinedLoss:
    """Creates the loss of a configuration.

    Args:
        class_counts: Labelled pixels of each class in the training split. A class that does not
            occur gets weight 1.
        class_weights: Weights rare classes higher in the cross-entropy, by
            `fireseg.task.inverse_frequency_weights`.
        weight_cap: Largest ratio of two class weights, from 1.
        ce_weight, dice_weight, gamma, absent, ignore_index: As in `CombinedLoss`.

    Raises:
        SettingError: If an argument is out of range.

    Example:
        >>> create_loss(class_counts=(90, 30)).class_weights
        tensor([0.5000, 1.5000])
    """
    return CombinedLoss(
        ce_weight,
        dice_weight,
        class_weights=inverse_frequency_weights(class_counts, weight_cap) if class_weights else None,
        gamma=gamma,
        absent=absent,
        ignore_index=ignore_index,
    )


def _check(absent: str = "counted", **numbers: float) -> None:
    """Raises an error with all arguments that are out of range."""
    known = get_args(Absent)
    faults = [
        f"loss.{name}: {number}, expected 0 or more" for name, number in numbers.items() if not 0 <= number < math.inf
    ]
    if numbers.get("smooth") == 0:
        faults.append("loss.smooth: 0, expected more than 0")
    if numbers.get("ce_weight") == numbers.get("dice_weight") == 0:
        faults.append("loss.ce_weight, loss.dice_weight: both 0, so there is nothing to learn; raise one")
    if absent not in known:
        faults.append(f"loss.absent: {absent!r}, expected one of {', '.join(known)}{did_you_mean(absent, known)}")
    if faults:
        raise SettingError(*faults)


def _check_weights(class_weights: Weights) -> Tensor | None:
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights, dtype=torch.float32).detach().clone()
    if weights.ndim != 1 or not weights.isfinite().all() or weights.min() < 0 or weights.max() == 0:
        raise SettingError(f"loss.class_weights: {weights.tolist()}, expected one number >= 0 per class, not all 0")
    return weights
