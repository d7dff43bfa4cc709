"""How often each class was taken for which, pixel by pixel and patch by patch."""

from __future__ import annotations

import torch
from torch import Tensor

from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX


def decide(logits: Tensor) -> Tensor:
    """The class of every pixel: the first of the highest logits, as argmax has it.

    The channels are compared one after the other, because argmax over the class axis of contiguous
    logits is up to a hundred times slower on a CPU.

    Args:
        logits: `(B, K, H, W)`, any floating dtype, K at most 255.

    Returns:
        `(B, H, W)` uint8, 0 to K - 1.

    Example:
        >>> decide(torch.tensor([[[[0.1, 2.0]], [[0.3, -1.0]]]])).tolist()
        [[[1, 0]]]
    """
    best = logits.detach()[:, 0]
    decision = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, logits.shape[1]):
        channel = logits.detach()[:, number]
        # A later class has the larger number, so the maximum of the numbers is the latest winner.
        decision = torch.maximum(decision, (channel > best).to(torch.uint8) * number)
        best = torch.maximum(best, channel)
    return decision


def image_counts(output: Tensor, targets: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Confusion matrix of every image, without waiting for the device.

    Sum over the images for pixel scores (`confusion_counts`), or ask each whether it burns
    (`detection_counts`). Matrices add up over batches and devices.

    Args:
        output: Logits `(B, K, H, W)`, or classes `(B, H, W)` of any integer dtype.
        targets: True classes `(B, H, W)`, any integer dtype.
        num_classes: K, at least 2.
        ignore_index: True value of unlabelled pixels: counted nowhere, whatever the output there.

    Returns:
        `(B, K, K)` int64, rows the truth, columns the output.

    Raises:
        FiresegError: If on the CPU a labelled pixel has a class outside 0 to K - 1. Elsewhere the
            question would hold up the host, and such a pixel is not counted right.
        ValueError: If the shapes do not belong together, or the targets are no integers.
    """
    is_logits = output.ndim == targets.ndim + 1
    shape = (*targets.shape[:1], num_classes, *targets.shape[1:]) if is_logits else targets.shape
    if output.shape != shape or targets.is_floating_point():
        given = f"output {tuple(output.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
        raise ValueError(f"{given}: want (B, {num_classes}, H, W) or (B, H, W), and (B, H, W) of integers")
    truth = targets.to(torch.int32)
    ignored = truth == ignore_index
    classes = decide(output) if is_logits else output.to(torch.int32).masked_fill(ignored, 0)
    check_classes("targets", truth.masked_fill(ignored, 0), num_classes)
    check_classes("output", classes, num_classes)
    # Unlabelled pixels get a bin of their own behind the others: leaving them out by boolean
    # indexing would make a size that the host has to wait for.
    pair = (truth * num_classes + classes).masked_fill(ignored, num_classes**2).flatten(1)
    count = _count_by_bincount if pair.device.type == "cpu" else _count_by_comparison
    return count(pair, num_classes**2).unflatten(1, (num_classes, num_classes))


def confusion_counts(output: Tensor, targets: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Confusion matrix of a batch: `image_counts` summed over its images, `(K, K)` int64.

    Example:
        >>> confusion_counts(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]), 2).tolist()
        [[1, 1], [0, 0]]
    """
    return image_counts(output, targets, num_classes, ignore_index=ignore_index).sum(0)


def detection_counts(images: Tensor) -> Tensor:
    """Confusion matrix of patches that burn: any labelled pixel above class 0.

    Args:
        images: `(B, K, K)` counts as `image_counts` gives them. An image with nothing labelled is
            left out.

    Returns:
        `(2, 2)` int64: `[[tn, fp], [fn, tp]]`.
    """
    is_labelled = images.sum((1, 2)) > 0
    burns = images[:, 1:, :].sum((1, 2)) > 0
    called = images[:, :, 1:].sum((1, 2)) > 0
    cells = [is_labelled & (burns == truth) & (called == answer) for truth in (False, True) for answer in (False, True)]
    return torch.stack(cells).sum(1).unflatten(0, (2, 2))


def check_classes(place: str, classes: Tensor, num_classes: int) -> None:
    """Refuses classes that do not exist, where asking does not hold up the host: on the CPU.

    Args:
        place: What the fault is found in, for the message.
        classes: Any shape, any integer dtype, without the ignored value.
        num_classes: K.

    Raises:
        FiresegError: If a value on the CPU is outside 0 to K - 1.
    """
    if classes.device.type != "cpu" or not classes.numel():
        return
    low, high = (int(value) for value in classes.aminmax())
    if low < 0 or high >= num_classes:
        value = low if low < 0 else high
        raise FiresegError(
            f"{place}: value {value}, but the classes are 0 to {num_classes - 1}; was it made for another task?"
        )


def _count_by_bincount(pair: Tensor, num_bins: int) -> Tensor:
    return torch.stack([torch.bincount(row, minlength=num_bins + 1)[:num_bins] for row in pair])


def _count_by_comparison(pair: Tensor, num_bins: int) -> Tensor:
    # On an accelerator bincount asks for the largest value, and the host waits for the answer.
    return torch.stack([(pair == number).sum(1) for number in range(num_bins)], dim=1)
