"""Training state: model, optimizer, scheduler, gradient scaler, and averages of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fireseg.errors import FiresegError

FOREIGN_STATE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""Exceptions that torch raises for the state of another model, optimizer or scheduler."""


class TrainingState:
    """Everything that changes during training and is needed to resume it.

    Args:
        model: Model, already on its device.
        optimizer: Optimizer of the model's parameters.
        scheduler: Scheduler of the optimizer, or None for a constant learning rate.
        is_scaled: True to scale gradients against underflow, as float16 requires.
        ema_decay: Decay per step of the exponential moving average (EMA) of the weights, or None for no
            average. With an average, it is what is validated and saved.

    Attributes:
        epoch: Number of completed epochs.
        ema_model: EMA of the model, or None.
        swa_model: Mean of the weights after each epoch since `swa_start`, or None before.
        swa_start: First epoch of this mean; 0 before.
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
        self.swa_model: AveragedModel | None = None
        self.swa_start = 0
        self.ema_model: AveragedModel | None = None
        if ema_decay is not None:
            # The running statistics of batch norm are averaged like the weights.
            self.ema_model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)

    @property
    def eval_model(self) -> nn.Module:
        """Model to validate and save: the EMA if there is one."""
        return self.model if self.ema_model is None else self.ema_model.module

    def average_weights(self) -> None:
        """Adds the weights after epoch `epoch` to their mean; the first call begins it.

        References:
            Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.
        """
        if self.swa_model is None:
            self.swa_model, self.swa_start = AveragedModel(self.model), self.epoch
        self.swa_model.update_parameters(self.model)

    def step(self, loss: Tensor, *, clip_norm: float | None, propagate: Callable[[], None] = lambda: None) -> None:
        """Takes one optimizer step on a loss.

        Args:
            loss: The loss.
            clip_norm: Largest norm of the gradient, or None.
            propagate: Called after `backward`, to propagate the gradient to the parameters if the loss is that of
                detached logits.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        propagate()
        self.apply_gradients(clip_norm=clip_norm)

    def apply_gradients(self, *, clip_norm: float | None) -> None:
        """Takes one optimizer step on the scaled gradients of the parameters."""
        if clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema_model is not None:
            self.ema_model.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values from which training resumes bit-identically.

        The state of random generators is not included, because every epoch seeds them.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            # Called so since the first files; the EMA of the weights.
            "mean": None if self.ema_model is None else self.ema_model.state_dict(),
            "epoch": self.epoch,
            **({"swa": {"start": self.swa_start, "model": self.swa_model.state_dict()}} if self.swa_model else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state from `state_dict`.

        Raises:
            FiresegError: If it is that of another model, optimizer or scheduler.
        """
        try:
            self._restore(state)
        except FOREIGN_STATE_ERRORS as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise FiresegError(f"the state of another model, optimizer or scheduler ({reason})") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        epoch = state["epoch"]
        if not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch {epoch}")
        self.model.load_state_dict(state["model"])
        self._restore_optimizer(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.ema_model is not None:
            self.ema_model.load_state_dict(state["mean"])
        self.swa_model, self.swa_start = None, 0
        if swa := state.get("swa"):
            self.swa_model, self.swa_start = AveragedModel(self.model), swa["start"]
            self.swa_model.load_state_dict(swa["model"])
        self.epoch = epoch

    def _restore_optimizer(self, state: Mapping[str, Any]) -> None:
        expected = [set(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(dict(state))
        # torch checks neither the options nor the shapes, and fails at the first step.
        for names, group in zip(expected, self.optimizer.param_groups, strict=True):
            if missing := sorted(names - group.keys()):
                raise ValueError(f"an optimizer without {', '.join(missing)}")
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.numel() != 1 and value.shape != parameter.shape:
                    raise ValueError(f"{name} of shape {tuple(value.shape)} for {tuple(parameter.shape)}")
        for values in self.optimizer.state.values():  # fused optimizers crash on tensors whose elements share memory
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and 0 in value.stride():
                    values[name] = value.contiguous()
