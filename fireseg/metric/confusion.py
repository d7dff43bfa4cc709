"""Confusion matrices of pixels and patches, and the scores computed from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fireseg.decision import argmax_classes
from fireseg.task import IGNORE_INDEX, check_classes


def image_counts(output: Tensor, targets: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Computes the confusion matrix of every image without synchronising with the device.

    Sum over the images for pixel scores (`segmentation_scores`), or reduce each image to burned or not for patch
    scores (`detection_counts`). Matrices of several batches and devices can be added.

    Args:
        output: Logits `(B, K, H, W)`, or classes `(B, H, W)` of any integer dtype.
        targets: True classes `(B, H, W)`, any integer dtype.
        num_classes: K, at least 2.
        ignore_index: Target value of unlabelled pixels, which are not counted.

    Returns:
        `(B, K, K)` int64, rows the truth, columns the output.

    Raises:
        FiresegError: If, on the CPU, a labelled pixel has a class outside 0 to K - 1. On accelerators the check
            would force a synchronisation, and such a pixel is counted wrongly.
        ValueError: If the shapes do not match or the targets are not integers.
    """
    is_logits = output.ndim == targets.ndim + 1
    shape = (*targets.shape[:1], num_classes, *targets.shape[1:]) if is_logits else targets.shape
    if output.shape != shape or targets.is_floating_point():
        given = f"output {tuple(output.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
        raise ValueError(f"{given}: must be (B, {num_classes}, H, W) or (B, H, W), and (B, H, W) of integers")
    truth = targets.to(torch.int32)
    ignored = truth == ignore_index
    classes = argmax_classes(output) if is_logits else output.to(torch.int32).masked_fill(ignored, 0)
    check_classes("targets", truth.masked_fill(ignored, 0), num_classes)
    check_classes("output", classes, num_classes)
    # Unlabelled pixels get an extra last bin: boolean indexing would need a synchronisation for the size.
    pair = (truth * num_classes + classes).masked_fill(ignored, num_classes**2).flatten(1)
    count = _count_by_bincount if pair.device.type == "cpu" else _count_by_comparison
    return count(pair, num_classes**2).unflatten(1, (num_classes, num_classes))


def detection_counts(images: Tensor) -> Tensor:
    """Computes the confusion matrix of burned patches: patches with a labelled pixel above class 0.

    Args:
        images: `(B, K, K)` counts from `image_counts`. Images without labelled pixels are left out.

    Returns:
        `(2, 2)` int64: `[[tn, fp], [fn, tp]]`.
    """
    is_labelled = images.sum((1, 2)) > 0
    is_burned = images[:, 1:, :].sum((1, 2)) > 0
    is_detected = images[:, :, 1:].sum((1, 2)) > 0
    cells = [
        is_labelled & (is_burned == truth) & (is_detected == output)
        for truth in (False, True)
        for output in (False, True)
    ]
    return torch.stack(cells).sum(1).unflatten(0, (2, 2))


def _count_by_bincount(pair: Tensor, num_bins: int) -> Tensor:
    return torch.stack([torch.bincount(row, minlength=num_bins + 1)[:num_bins] for row in pair])


def _count_by_comparison(pair: Tensor, num_bins: int) -> Tensor:
    # On an accelerator, bincount needs the largest value and therefore a synchronisation.
    return torch.stack([(pair == number).sum(1) for number in range(num_bins)], dim=1)


def fire_scores(counts: Tensor) -> dict[str, float]:
    """Computes the pixel scores of burned against unburned; undefined scores are NaN.

    All classes above 0 are pooled into one before counting, so that a wrong severity grade is not a missed fire.
    IoU = tp / (tp + fp + fn), Dice = 2tp / (2tp + fp + fn). IoU and Dice are also NaN if nothing burned in truth:
    otherwise one false pixel would score 0, and a perfect output nothing.

    Args:
        counts: `(K, K)`, rows the truth, columns the output.

    Returns:
        `fire_{iou,dice,precision,recall}`, each 0 to 1 or NaN.
    """
    matrix = _pool_burned(_to_numpy(counts))
    scores = {f"fire_{measure}": float(values[1]) for measure, values in _class_scores(matrix).items()}
    return scores if matrix[1].any() else scores | {"fire_iou": math.nan, "fire_dice": math.nan}


def segmentation_scores(counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """Computes pixel scores of a confusion matrix; undefined scores are NaN, and means skip NaN.

    Args:
        counts: `(K, K)`, rows the truth, columns the output.
        class_names: K class names for the keys.

    Returns:
        The four of `fire_scores`, `mean_{iou,dice}`, then `{iou,dice,precision,recall}_<class>`,
        each 0 to 1 or NaN. For K > 2 also `severity_iou` and the two of `severity_scores`.
    """
    matrix = _to_numpy(counts)
    by_class = _class_scores(matrix)
    scores = fire_scores(counts)
    scores |= {f"mean_{measure}": _mean(by_class[measure]) for measure in ("iou", "dice")}
    if len(matrix) > 2:
        scores |= severity_scores(counts)
    for measure, values in by_class.items():
        scores |= {f"{measure}_{name}": float(value) for name, value in zip(class_names, values, strict=True)}
    return scores


def severity_scores(counts: Tensor) -> dict[str, float]:
    """Computes the scores of severity grades.

    Args:
        counts: `(K, K)`, rows the truth, columns the output, K > 2.

    Returns:
        `severity_iou`: tp / (tp + fp + fn), each summed over the classes above 0, 0 to 1.
        `grade_mae`: mean absolute error in grades over the truly burned pixels, 0 to K - 1; the error of a
        missed pixel is its grade.
        `grade_kappa`: Cohen's kappa with quadratic weights over the same pixels, -1 to 1; NaN if truth and
        output are one and the same grade, so that chance agreement is complete.

    References:
        J. Cohen (1968), Weighted kappa, Psychological Bulletin 70(4), 213-220.
    """
    matrix = _to_numpy(counts)
    tp, fp, fn = (values[1:].sum() for values in _count_outcomes(matrix))
    burned = matrix.copy()
    burned[0] = 0
    grades = np.arange(len(matrix))
    distance = np.abs(grades[:, None] - grades)
    total = burned.sum()
    by_chance = _ratio(np.outer(burned.sum(1), burned.sum(0)), total)
    disagreement = _ratio((distance**2 * burned).sum(), (distance**2 * by_chance).sum())
    return {
        "severity_iou": float(_ratio(tp, tp + fp + fn)),
        "grade_mae": float(_ratio((distance * burned).sum(), total)),
        "grade_kappa": float(1 - disagreement),
    }


def detection_scores(counts: Tensor) -> dict[str, float]:
    """Computes patch scores of a `(2, 2)` matrix `[[tn, fp], [fn, tp]]`; undefined scores are NaN.

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
        "detection_f1": float(scores["dice"][1]),  # F1 equals Dice
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def _to_numpy(counts: Tensor) -> np.ndarray:
    return counts.cpu().numpy().astype(np.float64)


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """Computes part / whole, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, math.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _pool_burned(matrix: np.ndarray) -> np.ndarray:
    """Merges all classes above 0 into one, `(2, 2)`."""
    return np.array([[matrix[0, 0], matrix[0, 1:].sum()], [matrix[1:, 0].sum(), matrix[1:, 1:].sum()]])


def _count_outcomes(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts tp, fp and fn of each class."""
    tp = np.diag(matrix)
    return tp, matrix.sum(0) - tp, matrix.sum(1) - tp


def _class_scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
    tp, fp, fn = _count_outcomes(matrix)
    return {
        "iou": _ratio(tp, tp + fp + fn),
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
    }
