"""How the learning rate changes from epoch to epoch."""

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
        optimizer: Whose learning rate.
        factor: What it is multiplied by.
        patience: Epochs without improvement that are let pass.
        min_lr: Where it stops.
    """
    return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience, min_lr=min_lr)


def cosine(
    optimizer: Optimizer,
    *,
    epochs: int,
    warmup_epochs: NonNegativeInt = 0,
    min_lr: NonNegativeFloat = 0.0,
) -> LRScheduler:
    """Rises evenly over the warm-up, then falls along half a cosine to the last epoch.

    Args:
        optimizer: Whose learning rate.
        epochs: Epochs in all.
        warmup_epochs: Epochs of rising; the first trains at 1 / (warm-up + 1) of the full rate.
        min_lr: Where the last epoch would end.

    References:
        Loshchilov and Hutter, SGDR, ICLR 2017.
    """
    full = [float(group["lr"]) for group in optimizer.param_groups]

    def share(epoch: int, lr: float) -> float:
        if epoch < warmup_epochs:
            return (epoch + 1) / (warmup_epochs + 1)
        done = min((epoch - warmup_epochs) / max(epochs - warmup_epochs, 1), 1.0)
        low = min(min_lr / lr, 1.0)
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, [lambda epoch, lr=lr: share(epoch, lr) for lr in full])


def step(scheduler: LRScheduler | None, score: float) -> None:
    """Ends an epoch. A score that is not a number tells a plateau nothing and is kept from it."""
    if isinstance(scheduler, ReduceLROnPlateau):
        if not math.isnan(score):
            scheduler.step(score)
    elif scheduler is not None:
        scheduler.step()
