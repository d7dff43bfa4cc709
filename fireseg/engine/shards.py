"""Training steps on batches that are divided into shards, the same to the bit for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fireseg.batch import Batch, Sharding
from fireseg.engine.distributed import Processes
from fireseg.engine.state import TrainingState

Predict = Callable[[Callable[[Tensor], Tensor], Batch], tuple[Tensor, Tensor]]
"""Function of a model and a batch that returns logits (B, K, H, W) and classes (B, H, W) on the device."""


class Loss(Protocol):
    """A loss that is a function of sums over pixels."""

    def __call__(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its named parts."""
        ...

    def compute_sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the sums over the pixels of a shard."""
        ...

    def combine(self, sums: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its named parts from the sums over all shards, added."""
        ...


class StepResult(NamedTuple):
    """Loss and outputs of a step.

    Attributes:
        loss: Loss of the whole batch, before the step.
        parts: Named parts of the loss.
        outputs: Logits (B, K, H, W) and classes (B, H, W) of the patches of this process.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    outputs: list[tuple[Tensor, Tensor]]


class _Forward(NamedTuple):
    logits: Tensor
    mask: Tensor
    sums: Tensor
    buffers: dict[str, Tensor]


class ShardedStep:
    """Takes optimizer steps on batches whose shards are computed one by one, by one or several processes.

    The loss is that of the whole batch: the sums of all shards are added between the forward and the backward passes,
    and each backward pass starts from the gradient with respect to them. Everything else is of the shard: batch norm
    uses its statistics, and starts from the same running statistics, which then change by the mean of the changes of
    the shards; the random numbers of its dropout are seeded by its number.

    Gradients and changes of buffers are one flat tensor, added over the shards by `Processes.sum_shards`.

    Args:
        model: Model to train.
        loss: Loss that is a function of sums.
        sharding: Shards of this process.
        processes: Processes that train together.
        is_exact: Adds in a fixed order.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, sharding: Sharding, processes: Processes, *, is_exact: bool
    ) -> None:
        self._model = model
        self._loss = loss
        self._sharding = sharding
        self._processes = processes
        self._is_exact = is_exact
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._trained: list[nn.Parameter] = []
        self._no_sums = self._no_changes = torch.empty(0)

    def take(
        self,
        state: TrainingState,
        batch: Batch,
        *,
        predict: Predict,
        derive_seed: Callable[[int], int],
        clip_norm: float | None,
    ) -> StepResult:
        """Takes one optimizer step. Collective.

        Args:
            state: State of the model, modified.
            batch: Patches of this process; those of its first step must have a patch in each shard.
            predict: Forward pass.
            derive_seed: Returns the seed of a shard, given its number.
            clip_norm: Largest norm of the gradient, or None for no clipping.
        """
        forwards = [
            None if shard is None else self._compute_forward(shard, predict, derive_seed(number))
            for number, shard in zip(self._sharding.own, self._split(batch), strict=True)
        ]
        if not self._no_sums.numel():
            assert forwards[0] is not None
            self._no_sums = torch.zeros_like(forwards[0].sums, requires_grad=False)
        local = ((self._no_sums if forward is None else forward.sums.detach()).clone() for forward in forwards)
        sums = self._processes.sum_shards(local, is_exact=self._is_exact).requires_grad_()
        loss, parts = self._loss.combine(sums)
        (gradient,) = torch.autograd.grad(state.scaler.scale(loss), sums)
        changes = self._processes.sum_shards(self._compute_changes(forwards, gradient), is_exact=self._is_exact)
        self._apply(changes, sum(size > 0 for size in batch.shard_sizes))
        state.apply_gradients(clip_norm=clip_norm)
        outputs = [(forward.logits.detach(), forward.mask) for forward in forwards if forward is not None]
        return StepResult(loss.detach(), parts, outputs)

    def _split(self, batch: Batch) -> Iterator[Batch | None]:
        first = 0
        for number in self._sharding.own:
            part = slice(first, first + batch.shard_sizes[number])
            is_empty = part.start == part.stop
            yield None if is_empty else Batch(batch.image[part], batch.mask[part], batch.names[part])
            first = part.stop

    def _compute_forward(self, shard: Batch, predict: Predict, seed: int) -> _Forward:
        torch.manual_seed(seed)
        # Copies: the next shard starts from the same buffers, and the backward pass refuses buffers changed in place.
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        logits, mask = predict(lambda image: functional_call(self._model, buffers, (image,)), shard)
        return _Forward(logits, mask, self._loss.compute_sums(logits, mask), buffers)

    def _compute_changes(self, forwards: list[_Forward | None], gradient: Tensor) -> Iterator[Tensor]:
        """Yields the gradient and the changes of the buffers of each shard, flat."""
        before = dict(self._model.named_buffers())
        for forward in forwards:
            if forward is None:
                yield self._no_changes.clone()
                continue
            gradients = torch.autograd.grad(forward.sums, self._parameters, gradient, allow_unused=True)
            if not self._trained:  # some encoders have parameters that take no part, and have no gradient
                used = zip(self._parameters, gradients, strict=True)
                self._trained = [parameter for parameter, values in used if values is not None]
            flat = [values.reshape(-1) for values in gradients if values is not None]
            changes = [(after - before[name]).reshape(-1).to(flat[0]) for name, after in forward.buffers.items()]
            total = torch.cat([*flat, *changes])
            if self._no_changes.shape != total.shape:
                self._no_changes = torch.zeros_like(total)
            yield total

    @torch.no_grad()
    def _apply(self, changes: Tensor, num_shards: int) -> None:
        buffers = list(self._model.buffers())
        pieces = iter(changes.split([tensor.numel() for tensor in (*self._trained, *buffers)]))
        for parameter in self._trained:
            # In the memory order of the parameter, which fused optimizers require.
            parameter.grad = torch.empty_like(parameter).copy_(next(pieces).view_as(parameter))
        for buffer in buffers:
            buffer.add_((next(pieces) / num_shards).view_as(buffer).to(buffer.dtype))
