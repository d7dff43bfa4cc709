"""Log-probabilities and labels of a batch, the common input of the losses, and the checks of their arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, get_args

import torch
from pydantic import Field
from torch import Tensor

from fireseg.errors import SettingError, did_you_mean
from fireseg.task import IGNORE_INDEX, check_classes

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


def mean_cost(sums: Tensor) -> Tensor:
    """Returns the first sum, of costs, divided by the second, of weights; 0 if no pixel is labelled."""
    cost, weight = sums
    return cost / weight.where(weight > 0, 1.0)


def check_arguments(absent: str = "counted", **numbers: float) -> None:
    """Raises an error with all arguments that are out of range."""
    known = get_args(Absent)
    faults = [
        f"loss.{name}: {number}, expected 0 or more" for name, number in numbers.items() if not 0 <= number < math.inf
    ]
    faults += [
        f"loss.{name}: 0, expected more than 0" for name in ("smooth", "tversky_gamma") if numbers.get(name) == 0
    ]
    if numbers.get("label_smoothing", 0) >= 1:
        faults.append(f"loss.label_smoothing: {numbers['label_smoothing']}, expected less than 1")
    if numbers.get("tversky_alpha") == numbers.get("tversky_beta") == 0:
        faults.append("loss.tversky_alpha, loss.tversky_beta: both 0, so that no pixel costs anything; raise one")
    weights = [name for name in numbers if name.endswith("_weight")]
    if weights and not any(numbers[name] for name in weights):
        faults.append(f"loss.{', loss.'.join(weights)}: all 0, so there is nothing to learn; raise one")
    if absent not in known:
        faults.append(f"loss.absent: {absent!r}, expected one of {', '.join(known)}{did_you_mean(absent, known)}")
    if faults:
        raise SettingError(*faults)


def check_weights(class_weights: Weights) -> Tensor | None:
    """Returns class weights as a new float32 tensor, or None.

    Raises:
        SettingError: If they are not one number >= 0 per class, not all 0.
    """
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights, dtype=torch.float32).detach().clone()
    if weights.ndim != 1 or not weights.isfinite().all() or weights.min() < 0 or weights.max() == 0:
        raise SettingError(f"loss.class_weights: {weights.tolist()}, expected one number >= 0 per class, not all 0")
    return weights
