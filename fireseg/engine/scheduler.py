"""Learning-rate schedulers, stepped once per epoch."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau


def plateau(
    optimizer: Optimizer,
    *,
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    patience: NonNegativeInt = 5,
    min_lr: NonNegativeFloat = 0.0,
) -> LRScheduler:
    """Lowers the learning rate when the validation fire IoU has stopped rising.

    Args:
        optimizer: Optimizer to schedule.
        factor: Factor by which the learning rate is multiplied.
        patience: Number of epochs without improvement before the learning rate is lowered.
        min_lr: Lower bound of the learning rate.
    """
    return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience, min_lr=min_lr)


def cosine(
    optimizer: Optimizer,
    *,
    epochs: int,
    warmup_epochs: NonNegativeInt = 0,
    min_lr: NonNegativeFloat = 0.0,
) -> LRScheduler:
    """Raises the learning rate linearly during warm-up, then lowers it along half a cosine to the last epoch.

    Args:
        optimizer: Optimizer to schedule.
        epochs: Total number of epochs.
        warmup_epochs: Number of warm-up epochs; the first trains at 1 / (warm-up + 1) of the full rate.
        min_lr: Learning rate at the end of the last epoch.

    References:
        Loshchilov and Hutter, SGDR, ICLR 2017.
    """
    base_lrs = [float(group["lr"]) for group in optimizer.param_groups]

    def factor(epoch: int, lr: float) -> float:
        if epoch < warmup_epochs:
            return (epoch + 1) / (warmup_epochs + 1)
        progress = min((epoch - warmup_epochs) / max(epochs - warmup_epochs, 1), 1.0)
        minimum = min(min_lr / lr, 1.0)
        return minimum + (1 - minimum) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, [lambda epoch, lr=lr: factor(epoch, lr) for lr in base_lrs])


def step(scheduler: LRScheduler | None, score: float) -> None:
    """Steps a scheduler at the end of an epoch. A NaN score is not passed to `plateau`."""
    if isinstance(scheduler, ReduceLROnPlateau):
        if not math.isnan(score):
            scheduler.step(score)
    elif scheduler is not None:
        scheduler.step()
