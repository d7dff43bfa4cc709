"""What is being trained, with all that it takes to go on another day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class TrainingState:
    """A model, its optimizer and scheduler, the gradient scaler, the running mean of the weights, the epoch.

    Args:
        model: Already where it is to be trained.
        optimizer: Over the model's parameters.
        scheduler: Of that optimizer, or None for a constant learning rate.
        is_scaled: Whether gradients are scaled against underflow, as float16 needs it.
        ema_decay: Decay of the running mean of the weights per step, or None for none. Where there
            is a mean, it is what is validated and kept.

    Attributes:
        epoch: Epochs done.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        scheduler: LRScheduler | None = None,
        is_scaled: bool = False,
        ema_decay: float | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.epoch = 0
        self.scaler = torch.amp.GradScaler(next(model.parameters()).device.type, enabled=is_scaled)
        self.mean: AveragedModel | None = None
        if ema_decay is not None:
            # Batch norm's statistics are averaged with the weights that they belong to.
            self.mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)

    @property
    def eval_model(self) -> nn.Module:
        """The model that is validated and kept: the running mean where there is one."""
        return self.model if self.mean is None else self.mean.module

    def step(self, loss: Tensor, *, clip_norm: float | None) -> None:
        """One step down the gradient of a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.mean is not None:
            self.mean.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, enough for `load_state_dict` to go on to the bit.

        There is no state of random generators in it: every epoch seeds its own.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "mean": None if self.mean is None else self.mean.state_dict(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.mean is not None:
            self.mean.load_state_dict(state["mean"])
        self.epoch = state["epoch"]
