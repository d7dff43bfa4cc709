"""The weighted sum of losses that a run minimises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fireseg.errors import SettingError
from fireseg.loss.boundary import boundary_sums
from fireseg.loss.cross_entropy import focal_sums, ordinal_sums, soften_targets
from fireseg.loss.overlap import dice_cost, dice_sums, tversky_cost
from fireseg.loss.pixels import (
    Absent,
    NotNegative,
    Weights,
    check_arguments,
    check_weights,
    compute_log_probabilities,
    mean_cost,
)
from fireseg.task import IGNORE_INDEX, inverse_frequency_weights


class CombinedLoss(nn.Module):
    """Weighted sum of (focal) cross-entropy, Dice, Tversky, boundary and ordinal loss, from one softmax.

    Args:
        ce_weight: Weight of the cross-entropy, from 0.
        dice_weight: Weight of the Dice loss, from 0.
        tversky_weight: Weight of the Tversky loss, from 0, see `overlap.tversky_cost`.
        boundary_weight: Weight of the boundary loss, from 0, see `boundary.boundary_sums`. It is in pixels of distance,
            so that 0.01 is a start.
        ordinal_weight: Weight of the ordinal loss, from 0, see `cross_entropy.ordinal_sums`; not all weights 0.
        class_weights: One weight per class in the cross-entropy and the ordinal loss, from 0, not all 0; None for 1.
            Stored as a buffer.
        gamma: Focusing parameter of the cross-entropy, from 0.
        label_smoothing: Share of the target of the cross-entropy that is spread over all classes, from 0, below 1.
        soft_labels: Temperature of targets that are spread over neighbouring classes, from 0, see
            `cross_entropy.soften_targets`.
        absent: Treatment of classes absent from the batch by Dice and Tversky loss: "counted" or "skipped".
        smooth: Smoothing constant of Dice and Tversky loss, above 0.
        tversky_alpha: Weight of false positives in the Tversky loss, from 0.
        tversky_beta: Weight of false negatives in it, from 0; not both 0.
        tversky_gamma: Exponent of the Tversky loss, above 0.
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
        tversky_weight: NotNegative = 0.0,
        boundary_weight: NotNegative = 0.0,
        ordinal_weight: NotNegative = 0.0,
        class_weights: Weights = None,
        gamma: NotNegative = 0.0,
        label_smoothing: NotNegative = 0.0,
        soft_labels: NotNegative = 0.0,
        absent: Absent = "counted",
        smooth: float = 1e-6,
        tversky_alpha: NotNegative = 0.3,
        tversky_beta: NotNegative = 0.7,
        tversky_gamma: float = 1.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        check_arguments(
            absent,
            ce_weight=ce_weight,
            dice_weight=dice_weight,
            tversky_weight=tversky_weight,
            boundary_weight=boundary_weight,
            ordinal_weight=ordinal_weight,
            gamma=gamma,
            label_smoothing=label_smoothing,
            soft_labels=soft_labels,
            smooth=smooth,
            tversky_alpha=tversky_alpha,
            tversky_beta=tversky_beta,
            tversky_gamma=tversky_gamma,
        )
        self.ce_weight = ce_weight
        self.dice_weight = dice_weight
        self.tversky_weight = tversky_weight
        self.boundary_weight = boundary_weight
        self.ordinal_weight = ordinal_weight
        self.label_smoothing = label_smoothing
        self.soft_labels = soft_labels
        self.tversky_alpha = tversky_alpha
        self.tversky_beta = tversky_beta
        self.tversky_gamma = tversky_gamma
        self.register_buffer("class_weights", check_weights(class_weights))
        self.gamma = gamma
        self.absent: Absent = absent
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, and its unweighted, detached parts.

        These are `ce_loss` and `dice_loss`; if they have a weight `tversky_loss`, `boundary_loss` and `ordinal_loss`.

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
            `(2 + 3K,)`: `focal_sums`, then `dice_sums`; then, if they have a weight, the two of `ordinal_sums` and the
            two of `boundary_sums`.
        """
        pixels = compute_log_probabilities(logits, targets, ignore_index=self.ignore_index)
        softened = soften_targets(
            logits.shape[1],
            label_smoothing=self.label_smoothing,
            soft_labels=self.soft_labels,
            device=logits.device,
        )
        focal = focal_sums(pixels, gamma=self.gamma, class_weights=self.class_weights, targets=softened)
        sums = [focal, dice_sums(pixels).flatten()]
        if self.ordinal_weight:
            sums.append(ordinal_sums(pixels, class_weights=self.class_weights))
        if self.boundary_weight:
            sums.append(boundary_sums(pixels))
        return torch.cat(sums)

    def combine(self, sums: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its parts, as `forward` does, from the sums of `compute_sums`."""
        num_more = 2 * (self.ordinal_weight > 0) + 2 * (self.boundary_weight > 0)
        overlap = sums[2 : len(sums) - num_more].unflatten(0, (3, -1))
        more = sums[len(sums) - num_more :]
        parts = {
            "ce_loss": (self.ce_weight, mean_cost(sums[:2])),
            "dice_loss": (self.dice_weight, dice_cost(overlap, absent=self.absent, smooth=self.smooth)),
        }
        if self.tversky_weight:
            tversky = tversky_cost(
                overlap,
                alpha=self.tversky_alpha,
                beta=self.tversky_beta,
                gamma=self.tversky_gamma,
                absent=self.absent,
                smooth=self.smooth,
            )
            parts["tversky_loss"] = (self.tversky_weight, tversky)
        if self.ordinal_weight:
            parts["ordinal_loss"] = (self.ordinal_weight, mean_cost(more[:2]))
        if self.boundary_weight:
            parts["boundary_loss"] = (self.boundary_weight, mean_cost(more[-2:]))
        # A part of weight 0 is left out of the sum: 0 x inf would be NaN.
        total = torch.stack([weight * cost for weight, cost in parts.values() if weight]).sum()
        return total, {name: cost.detach() for name, (_, cost) in parts.items()}


def create_loss(
    *,
    class_counts: Sequence[int],
    ce_weight: NotNegative = 0.5,
    dice_weight: NotNegative = 0.5,
    tversky_weight: NotNegative = 0.0,
    boundary_weight: NotNegative = 0.0,
    ordinal_weight: NotNegative = 0.0,
    class_weights: bool = True,
    weight_cap: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0,
    gamma: NotNegative = 0.0,
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    soft_labels: NotNegative = 0.0,
    absent: Absent = "counted",
    tversky_alpha: NotNegative = 0.3,
    tversky_beta: NotNegative = 0.7,
    tversky_gamma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
    ignore_index: Annotated[int, Field(ge=0, le=255)] = IGNORE_INDEX,
) -> CombinedLoss:
    """Creates the loss of a configuration.

    Args:
        class_counts: Labelled pixels of each class in the training split. A class that does not
            occur gets weight 1.
        class_weights: Weights rare classes higher in the cross-entropy, by
            `fireseg.task.inverse_frequency_weights`.
        weight_cap: Largest ratio of two class weights, from 1.
        ce_weight, dice_weight, tversky_weight, boundary_weight, ordinal_weight: As in `CombinedLoss`.
        gamma, label_smoothing, soft_labels, absent, ignore_index: As in `CombinedLoss`.
        tversky_alpha, tversky_beta, tversky_gamma: As in `CombinedLoss`.

    Raises:
        SettingError: If an argument is out of range, or is for ordered classes and there are only two.

    Example:
        >>> create_loss(class_counts=(90, 30)).class_weights
        tensor([0.5000, 1.5000])
    """
    ordered = {"ordinal_weight": ordinal_weight, "soft_labels": soft_labels}
    if len(class_counts) == 2 and any(ordered.values()):
        raise SettingError(
            *(
                f"loss.{name}: {value:g}, but two classes have no grades in between; set it to 0, or use task=gra"
                for name, value in ordered.items()
                if value
            )
        )
    return CombinedLoss(
        ce_weight,
        dice_weight,
        tversky_weight=tversky_weight,
        boundary_weight=boundary_weight,
        ordinal_weight=ordinal_weight,
        class_weights=inverse_frequency_weights(class_counts, weight_cap) if class_weights else None,
        gamma=gamma,
        label_smoothing=label_smoothing,
        soft_labels=soft_labels,
        absent=absent,
        tversky_alpha=tversky_alpha,
        tversky_beta=tversky_beta,
        tversky_gamma=tversky_gamma,
        ignore_index=ignore_index,
    )
