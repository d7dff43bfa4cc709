"""Losses of the batches of an epoch: their means, and the check that they are finite."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fireseg.engine.distributed import SINGLE_PROCESS, Processes
from fireseg.errors import FiresegError

CHECK_EVERY = 50
"""Number of steps between two checks of the loss: reading a value makes the host wait for the device."""


class FiniteLossCheck:
    """Records on the device the first step whose loss was not finite, and raises an error later.

    The record is read every `CHECK_EVERY` steps and at the end of the epoch, before a checkpoint is written,
    so that no checkpoint holds weights from a NaN loss.

    Args:
        epoch: Epoch number, for the message.
        device: Device of the losses.
        processes: Processes that have the same losses, of different patches.
    """

    def __init__(self, epoch: int, device: torch.device, processes: Processes = SINGLE_PROCESS) -> None:
        self._epoch = epoch
        self._processes = processes
        self._first_step = torch.zeros((), dtype=torch.int64, device=device)
        self._patch_names: dict[int, tuple[str, ...]] = {}

    def update(self, step: int, loss: Tensor, names: tuple[str, ...]) -> None:
        """Records the loss of a step (from 1) and the names of its patches."""
        is_first = ~torch.isfinite(loss.detach()) & (self._first_step == 0)
        self._first_step = torch.where(is_first, step, self._first_step)
        self._patch_names[step] = names
        if step % CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Reads the record.

        Raises:
            FiresegError: If a loss was not finite.
        """
        if step := int(self._first_step):
            names = tuple(itertools.chain(*self._processes.gather(self._patch_names[step])))
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise FiresegError(
                f"epoch {self._epoch}, step {step}: the loss is not a finite number; patches: {shown}; "
                "lower optimizer.lr, set engine.clip_norm, or use engine.precision=fp32; "
                "last.pt holds the previous epoch"
            )
        self._patch_names.clear()


class LossMeans:
    """Means of the losses over images; the losses stay on the device until they are computed."""

    def __init__(self) -> None:
        self._loss_names: list[str] = ["loss"]
        self._num_images: list[int] = []
        self._losses: list[Tensor] = []

    @property
    def num_images(self) -> int:
        """Number of images so far."""
        return sum(self._num_images)

    def add(self, num_images: int, total: Tensor, parts: dict[str, Tensor]) -> None:
        """Adds the mean losses of a batch: the whole, and its parts by name."""
        self._loss_names = ["loss", *parts]
        self._num_images.append(num_images)
        self._losses.append(torch.stack([total.detach(), *(part.detach() for part in parts.values())]).float())

    def interleave(self, processes: Processes) -> LossMeans:
        """Returns the means over the batches of all processes, which were dealt to them in turn. Collective."""
        if processes.size == 1:
            return self
        own = self._loss_names, self._num_images, [losses.cpu() for losses in self._losses]
        means, shares = LossMeans(), processes.gather(own)
        means._loss_names = shares[0][0]  # the first process has a batch
        for turn in itertools.zip_longest(*(zip(*share[1:], strict=True) for share in shares)):
            for num_images, losses in filter(None, turn):
                means._num_images.append(num_images)
                means._losses.append(losses)
        return means

    def compute(self) -> dict[str, float]:
        """Returns the mean of `loss` and of its parts; NaN without a batch."""
        if not self._losses:
            return {"loss": float("nan")}
        # Added one by one: the order decides the last bit.
        sums = torch.zeros_like(self._losses[0])
        for num_images, losses in zip(self._num_images, self._losses, strict=True):
            sums = sums + losses * num_images
        return dict(zip(self._loss_names, (sums / self.num_images).tolist(), strict=True))
