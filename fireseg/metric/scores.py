"""Scores that are read off confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def segmentation_scores(counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """Pixel scores of a confusion matrix; NaN where there is nothing to read, and means skip NaN.

    `fire_*` pools all classes above 0 into one, burned or not, and then counts: severity off by one
    is no missed fire. IoU = tp / (tp + fp + fn), Dice = 2tp / (2tp + fp + fn).

    Args:
        counts: `(K, K)`, rows the truth, columns the output.
        class_names: K names for the keys.

    Returns:
        `fire_{iou,dice,precision,recall}`, `mean_{iou,dice}`, then `{iou,dice,precision,recall}_<class>`,
        each 0 to 1 or NaN. For K > 2 also `severity_iou` and the two of `grade_scores`.
    """
    matrix = _to_numpy(counts)
    fire = _class_scores(_pool(matrix))
    each = _class_scores(matrix)
    scores = {f"fire_{measure}": float(values[1]) for measure, values in fire.items()}
    scores |= {f"mean_{measure}": _mean(each[measure]) for measure in ("iou", "dice")}
    if len(matrix) > 2:
        scores |= grade_scores(counts)
    for measure, values in each.items():
        scores |= {f"{measure}_{name}": float(value) for name, value in zip(class_names, values, strict=True)}
    return scores


def grade_scores(counts: Tensor) -> dict[str, float]:
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
