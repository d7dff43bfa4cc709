"""How often each class was taken for which, pixel by pixel and patch by patch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fireseg.decision import argmax_classes
from fireseg.task import IGNORE_INDEX, check_classes


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
    classes = argmax_classes(output) if is_logits else output.to(torch.int32).masked_fill(ignored, 0)
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


def _count_by_bincount(pair: Tensor, num_bins: int) -> Tensor:
    return torch.stack([torch.bincount(row, minlength=num_bins + 1)[:num_bins] for row in pair])


def _count_by_comparison(pair: Tensor, num_bins: int) -> Tensor:
    # On an accelerator bincount asks for the largest value, and the host waits for the answer.
    return torch.stack([(pair == number).sum(1) for number in range(num_bins)], dim=1)


def segmentation_scores(counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """Pixel scores of a confusion matrix; NaN where there is nothing to read, and means skip NaN.

    `fire_*` pools all classes above 0 into one, burned or not, and then counts: severity off by one
    is no missed fire. IoU = tp / (tp + fp + fn), Dice = 2tp / (2tp + fp + fn).

    Args:
        counts: `(K, K)`, rows the truth, columns the output.
        class_names: K names for the keys.

    Returns:
        `fire_{iou,dice,precision,recall}`, `mean_{iou,dice}`, then `{iou,dice,precision,recall}_<class>`,
        each 0 to 1 or NaN. For K > 2 also `severity_iou` and the two of `severity_scores`.
    """
    matrix = _to_numpy(counts)
    fire = _class_scores(_pool(matrix))
    each = _class_scores(matrix)
    scores = {f"fire_{measure}": float(values[1]) for measure, values in fire.items()}
    scores |= {f"mean_{measure}": _mean(each[measure]) for measure in ("iou", "dice")}
    if len(matrix) > 2:
        scores |= severity_scores(counts)
    for measure, values in each.items():
        scores |= {f"{measure}_{name}": float(value) for name, value in zip(class_names, values, strict=True)}
    return scores


def severity_scores(counts: Tensor) -> dict[str, float]:
    """How well the severity is told.

    Args:
        counts: `(K, K)`, rows the truth, columns the output, K > 2.

    Returns:
        `severity_iou`: tp / (tp + fp + fn), each summed over the classes above 0, 0 to 1.
        `grade_mae`: mean absolute error in grades over the pixels that truly burned, 0 to K - 1; a
        missed pixel is as far off as its grade is high.
        `grade_kappa`: Cohen's kappa with quadratic weights over the same pixels, -1 to 1; NaN where
        truth and output agree on one single grade, because then chance agrees as well.

    References:
        J. Cohen (1968), Weighted kappa, Psychological Bulletin 70(4), 213-220.
    """
    matrix = _to_numpy(counts)
    hits, false_alarms, misses = (values[1:].sum() for values in _hits_and_errors(matrix))
    burned = matrix.copy()
    burned[0] = 0
    grades = np.arange(len(matrix))
    distance = np.abs(grades[:, None] - grades)
    total = burned.sum()
    by_chance = _ratio(np.outer(burned.sum(1), burned.sum(0)), total)
    disagreement = _ratio((distance**2 * burned).sum(), (distance**2 * by_chance).sum())
    return {
        "severity_iou": float(_ratio(hits, hits + false_alarms + misses)),
        "grade_mae": float(_ratio((distance * burned).sum(), total)),
        "grade_kappa": float(1 - disagreement),
    }


def detection_scores(counts: Tensor) -> dict[str, float]:
    """Patch scores of a `(2, 2)` matrix `[[tn, fp], [fn, tp]]`; NaN where there is nothing to read.

    Returns:
        `detection_{accuracy,precision,recall,f1}`, 0 to 1 or NaN, and the counts `tp fp fn tn`.

    Example:
        >>> import torch
        >>> detection_scores(torch.tensor([[5, 1], [1, 3]]))["detection_f1"]
        0.75
    """
    matrix = _to_numpy(counts)
    (tn, fp), (fn, tp) = matrix.tolist()
    scores = _class_scores(matrix)
    return {
        "detection_accuracy": float(_ratio(tp + tn, tp + tn + fp + fn)),
        "detection_precision": float(scores["precision"][1]),
        "detection_recall": float(scores["recall"][1]),
        "detection_f1": float(scores["dice"][1]),  # F1 and Dice are one formula
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def _to_numpy(counts: Tensor) -> np.ndarray:
    return counts.cpu().numpy().astype(np.float64)


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """part / whole, and NaN where the whole is nothing."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, math.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    read = values[~np.isnan(values)]
    return float(read.mean()) if read.size else math.nan


def _pool(matrix: np.ndarray) -> np.ndarray:
    """Burned or not: all classes above 0 become one."""
    unburned, missed, alarmed = matrix[0, 0], matrix[1:, 0].sum(), matrix[0, 1:].sum()
    return np.array([[unburned, alarmed], [missed, matrix[1:, 1:].sum()]])


def _hits_and_errors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tp, fp and fn of each class."""
    hits = np.diag(matrix)
    return hits, matrix.sum(0) - hits, matrix.sum(1) - hits


def _class_scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
    hits, false_alarms, misses = _hits_and_errors(matrix)
    return {
        "iou": _ratio(hits, hits + false_alarms + misses),
        "dice": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
    }
