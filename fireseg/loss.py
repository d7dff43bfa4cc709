"""What training minimises: cross-entropy or focal, Dice, and their weighted sum."""

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


class Pixels(NamedTuple):
    """What every loss starts from, computed once.

    Attributes:
        log_p: Log-probabilities `(B, K, H, W)`, float32, or float64 from float64 logits.
        classes: True classes `(B, H, W)` int64, 0 where nobody labelled.
        is_labelled: `(B, H, W)` bool.
    """

    log_p: Tensor
    classes: Tensor
    is_labelled: Tensor


def read_pixels(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Pixels:
    """Log-probabilities in which unlabelled pixels have no say.

    Their logits are replaced before the softmax: selecting later, or multiplying by 0, would let a
    NaN through, forward or backward. Sums over a batch overflow half precision, so from here on it
    is float32 whatever the autocast (no operation here is one that autocast casts down).

    Args:
        logits: `(B, K, H, W)`, any floating dtype.
        targets: `(B, H, W)`, any integer dtype.
        ignore_index: Value of unlabelled pixels.

    Raises:
        FiresegError: If on the CPU a labelled pixel has a class that the logits do not have.
        ValueError: If the shapes do not belong together, or the targets are no integers.
    """
    if logits.ndim != 4 or targets.shape != logits.shape[:1] + logits.shape[2:] or targets.is_floating_point():
        given = f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
        raise ValueError(f"{given}: want logits (B, K, H, W) and targets (B, H, W) of integers")
    targets = targets.long()
    ignored = targets == ignore_index
    classes = targets.masked_fill(ignored, 0)
    check_classes("targets", classes, logits.shape[1])
    logits = logits.masked_fill(ignored.unsqueeze(1), 0.0)
    log_p = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)
    return Pixels(log_p, classes, ~ignored)


def focal_cost(pixels: Pixels, *, gamma: float = 0.0, class_weights: Tensor | None = None) -> Tensor:
    """Focal cross-entropy: sum of w (1 - p)^gamma CE over sum of w, 0 where nothing is labelled.

    Args:
        pixels: From `read_pixels`.
        gamma: 0 is plain cross-entropy; the larger, the less do easy pixels count.
        class_weights: `(K,)`, or None for 1 each.

    Returns:
        A scalar from 0.

    References:
        Lin et al. (2017), Focal loss for dense object detection, ICCV.
    """
    log_p, classes, is_labelled = pixels
    cost = -log_p.gather(1, classes.unsqueeze(1)).squeeze(1)
    if gamma > 0:
        # 1 - p without cancellation. Below gamma = 1 the slope of the power is infinite at 0, where
        # a sure pixel sits: the least positive number keeps it finite.
        doubt = (-torch.expm1(-cost)).clamp_min(torch.finfo(cost.dtype).tiny)
        cost = cost * doubt**gamma
    weights = is_labelled.to(cost.dtype)
    if class_weights is not None:
        if len(class_weights) != log_p.shape[1]:
            raise ValueError(f"class_weights: {len(class_weights)}, but {log_p.shape[1]} classes in the logits")
        weights = weights * class_weights.to(cost.dtype)[classes]
    total = weights.sum()
    return (weights * cost).sum() / total.where(total > 0, 1.0)


def dice_cost(pixels: Pixels, *, absent: Absent = "counted", smooth: float = 1e-6) -> Tensor:
    """Soft Dice: 1 - mean over classes of (2 Σpo + s) / (Σp + Σo + s), over all labelled pixels.

    The sums run over the whole batch, so that a patch without fire does not weigh as a patch of
    fire. A class that is absent costs nearly 1 as soon as it gets any probability: "counted" takes
    that as the false alarm that it is, "skipped" leaves the class out of the mean.

    Args:
        pixels: From `read_pixels`.
        absent: What becomes of classes without a labelled pixel in the batch.
        smooth: s, above 0.

    Returns:
        A scalar, 0 to 1; 0 where nothing is labelled.

    References:
        Milletari et al. (2016), V-Net, 3DV.
    """
    log_p, classes, is_labelled = pixels
    # Multiplying is safe here, and several times faster than selecting: unlabelled pixels were
    # given finite logits by `read_pixels`, and a NaN under a label is meant to come through.
    weight = is_labelled.unsqueeze(1).to(log_p.dtype)
    truth = torch.zeros_like(log_p).scatter(1, classes.unsqueeze(1), weight)
    p = log_p.exp() * weight
    num_true = truth.sum((0, 2, 3))
    cost = 1 - (2 * (p * truth).sum((0, 2, 3)) + smooth) / (p.sum((0, 2, 3)) + num_true + smooth)
    if absent == "counted":
        return cost.mean()
    is_present = num_true > 0
    return cost.where(is_present, 0.0).sum() / is_present.sum().clamp_min(1)


class DiceLoss(nn.Module):
    """Soft Dice over the batch, see `dice_cost`.

    Args:
        absent: What becomes of classes absent from the batch: "counted" or "skipped".
        smooth: s of the formula, above 0.
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
        """The loss, a scalar, of logits `(B, K, H, W)` and targets `(B, H, W)` of any integer dtype."""
        pixels = read_pixels(logits, targets, ignore_index=self.ignore_index)
        return dice_cost(pixels, absent=self.absent, smooth=self.smooth)


class FocalLoss(nn.Module):
    """Focal cross-entropy, see `focal_cost`; with gamma 0 the plain one.

    Args:
        gamma: How much easy pixels are discounted, from 0.
        class_weights: One weight a class, from 0, not all 0; None for 1 each. Kept as a buffer.
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
        """The loss, a scalar, of logits `(B, K, H, W)` and targets `(B, H, W)` of any integer dtype."""
        pixels = read_pixels(logits, targets, ignore_index=self.ignore_index)
        return focal_cost(pixels, gamma=self.gamma, class_weights=self.class_weights)


class CombinedLoss(nn.Module):
    """ce_weight x (focal) cross-entropy + dice_weight x Dice, from one softmax.

    Args:
        ce_weight: Weight of the cross-entropy, from 0.
        dice_weight: Weight of Dice, from 0; not both 0.
        class_weights: One weight a class in the cross-entropy, from 0, not all 0; None for 1 each.
            Kept as a buffer.
        gamma: Above 0 the cross-entropy is focal.
        absent: What Dice does about classes absent from the batch: "counted" or "skipped".
        smooth: s of Dice, above 0.
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
        """The loss, a scalar, and its parts before weighting, `ce_loss` and `dice_loss`, detached.

        Args:
            logits: `(B, K, H, W)`, any floating dtype.
            targets: `(B, H, W)`, any integer dtype.
        """
        pixels = read_pixels(logits, targets, ignore_index=self.ignore_index)
        ce = focal_cost(pixels, gamma=self.gamma, class_weights=self.class_weights)
        dice = dice_cost(pixels, absent=self.absent, smooth=self.smooth)
        # A part of weight 0 stays out of the sum: 0 x inf would be NaN.
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
    """The loss that a configuration asks for.

    Args:
        class_counts: Labelled pixels of each class in the training split. A class that does not
            occur there gets weight 1.
        class_weights: Whether rare classes weigh more in the cross-entropy, by
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
    """Refuses what is out of range, all faults at once."""
    known = get_args(Absent)
    faults = [f"loss.{name}: {number}, want from 0" for name, number in numbers.items() if not 0 <= number < math.inf]
    if numbers.get("smooth") == 0:
        faults.append("loss.smooth: 0, want above 0")
    if numbers.get("ce_weight") == numbers.get("dice_weight") == 0:
        faults.append("loss.ce_weight, loss.dice_weight: both 0, which leaves nothing to learn; raise one")
    if absent not in known:
        faults.append(f"loss.absent: {absent!r}, want one of {', '.join(known)}{did_you_mean(absent, known)}")
    if faults:
        raise SettingError(*faults)


def _check_weights(class_weights: Weights) -> Tensor | None:
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights, dtype=torch.float32).detach().clone()
    if weights.ndim != 1 or not weights.isfinite().all() or weights.min() < 0 or weights.max() == 0:
        raise SettingError(f"class_weights: {weights.tolist()}, want one number from 0 a class, not all 0")
    return weights
