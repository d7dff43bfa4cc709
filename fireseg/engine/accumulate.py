"""Gradient accumulation: one optimizer step on a batch that is too large for the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fireseg.batch import Batch


def group_batches(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yields the batches of each optimizer step; the last step may have fewer.

    Args:
        batches: Batches of an epoch.
        size: Number of batches per step.
    """
    group: list[Batch] = []
    for batch in batches:
        # A loader reuses the memory of a batch as soon as it has handed over the next one.
        group.append(batch if size == 1 else Batch(batch.image.clone(), batch.mask.clone(), batch.names))
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def forward_in_parts(
    model: nn.Module, forward: Callable[[Tensor], Tensor], images: Sequence[Tensor]
) -> tuple[Tensor, Callable[[], None]]:
    """Computes the logits of several batches without keeping their activations, and returns the way back.

    The loss is computed once, on the logits of all patches, so it is that of one large batch: the cross-entropy is
    normalised over all labelled pixels, the Dice sums run over all patches, and the gradient of the loss is that of
    the large batch, up to rounding. A mean of the losses of the parts would be neither. What differs from one large
    batch: batch normalisation uses the statistics of each part, updates its running statistics once for each part,
    and dropout draws other masks. The cost is a second forward pass, about a third of the time of a step.

    Args:
        model: Model in training mode, whose buffers change in each forward pass.
        forward: Computes the logits of a batch.
        images: Images of each part, `(B, C, H, W)`, on the device of the model.

    Returns:
        The logits `(ΣB, K, H, W)`, a leaf that receives the gradient of the loss, and a function that propagates this
        gradient to the parameters, to be called after `backward` of the loss.
    """
    buffers = [buffer.clone() for buffer in model.buffers()]
    random_states, logits = [], []
    with torch.no_grad():
        for image in images:
            random_states.append(_get_random_state(image.device))
            logits.append(forward(image))
    joined = torch.cat(logits).requires_grad_()

    def propagate() -> None:
        assert joined.grad is not None
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        for image, state, gradient in zip(images, random_states, joined.grad.split([*map(len, images)]), strict=True):
            _set_random_state(state, image.device)
            forward(image).backward(gradient)

    return joined, propagate


def _get_random_state(device: torch.device) -> tuple[Tensor, ...]:
    states = (torch.get_rng_state(),)
    return states if device.type == "cpu" else (*states, getattr(torch, device.type).get_rng_state())


def _set_random_state(states: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        getattr(torch, device.type).set_rng_state(states[1])
