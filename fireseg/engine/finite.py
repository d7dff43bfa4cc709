"""Whether every loss was a number, asked without waiting for the device in every step."""

from __future__ import annotations

import torch
from torch import Tensor

from fireseg.errors import FiresegError

LOOK_EVERY = 50


class FiniteWatch:
    """Remembers on the device the first step whose loss was not finite; the host looks now and then.

    Reading a value makes the host wait for the device, so it is read every fiftieth step and
    before a checkpoint is written: no checkpoint ever holds weights that a NaN went through.

    Args:
        epoch: Number of the epoch, for the message.
        device: Where the losses live.
    """

    def __init__(self, epoch: int, device: torch.device) -> None:
        self._epoch = epoch
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._names: dict[int, tuple[str, ...]] = {}

    def see(self, step: int, loss: Tensor, names: tuple[str, ...]) -> None:
        """Takes in the loss of a step (from 1) and the patches that it came from."""
        is_first = ~torch.isfinite(loss.detach()) & (self._first == 0)
        self._first = torch.where(is_first, step, self._first)
        self._names[step] = names
        if step % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Reads the flag.

        Raises:
            FiresegError: If a loss was not finite.
        """
        if step := int(self._first):
            names = self._names[step]
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise FiresegError(
                f"epoch {self._epoch}, step {step}: the loss is not a finite number; the patches were {shown}; "
                "lower optimizer.lr, keep engine.clip_norm on, or take engine.precision=fp32; "
                "last.pt is still that of the epoch before"
            )
        self._names.clear()
