"""Turns logits and probabilities into classes: argmax, log-odds of fire, and the thresholded decision."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fireseg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE_LIMITS = (0.01, 100.0)
"""Smallest and largest temperature that are accepted; fitted ones are 0.05 to 20. Far beyond, all probabilities are 0
or 1, or all 0.5, and decisions overflow."""


def argmax_classes(scores: Tensor) -> Tensor:
    """Returns the class with the largest logit or probability of every pixel; of equal ones the first.

    Compares one channel after the other: `argmax` over the class axis of contiguous scores is up to a hundred
    times slower on a CPU.

    Args:
        scores: `(B, K, H, W)`, any floating dtype, K at most 255.

    Returns:
        `(B, H, W)` uint8, 0 to K - 1.

    Example:
        >>> argmax_classes(torch.tensor([[[[0.1, 2.0]], [[0.3, -1.0]]]])).tolist()
        [[[1, 0]]]
    """
    import torch  # takes seconds, and options import this module for its limits

    scores = scores.detach()
    best = scores[:, 0]
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, scores.shape[1]):
        channel = scores[:, number]
        # A later class has the larger number, so the maximum of the numbers is the latest winner.
        classes = torch.maximum(classes, (channel > best).to(torch.uint8) * number)
        best = torch.maximum(best, channel)
    return classes


def severity_classes(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns the likeliest class above 0 of every pixel, burned or not; of equal ones the first.

    Args:
        probabilities: Probability of each class, `(K, H, W)`, K at least 2.

    Returns:
        `(H, W)` uint8, 1 to K - 1.
    """
    best = probabilities[1]
    severity = np.ones(best.shape, np.uint8)
    for number in range(2, len(probabilities)):
        # As in `argmax_classes`; NumPy, because a map is made without torch.
        np.maximum(severity, (probabilities[number] > best) * np.uint8(number), out=severity)
        best = np.maximum(best, probabilities[number])
    return severity


def class_probabilities(logits: Tensor) -> Tensor:
    """Returns the softmax over the classes, in float32 even under autocast.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B, K, H, W)` float32 in [0, 1], summing to 1 over K.
    """
    return logits.float().softmax(1)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the softmax over the classes of logits, `(B, K, H, W)`, of an engine other than torch."""
    powers = logits - logits.max(axis=1, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def fire_probability(logits: Tensor) -> Tensor:
    """Returns the probability that a pixel burned: the sum over the classes above 0.

    Summed rather than subtracted from 1, so that small probabilities keep their digits.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B, H, W)` float32 in [0, 1].
    """
    return class_probabilities(logits)[:, 1:].sum(1).clamp(max=1.0)


def fire_log_odds(logits: Tensor) -> Tensor:
    """Returns the log-odds of fire, log(p / (1 - p)) with p the sum of the softmax over the classes above 0.

    d = logsumexp(logits[1:]) - logits[0]. Unlike the probability it never saturates. With a temperature T,
    sigmoid(d / T) is, for two classes, temperature scaling of the softmax.

    Args:
        logits: `(B, K, H, W)`, any floating dtype, K at least 2.

    Returns:
        `(B, H, W)` float32, above 0 where fire is likelier than not; no NaN if the logits are finite.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Example:
        >>> fire_log_odds(torch.tensor([[[[1.0]], [[3.0]]]])).item()
        2.0
    """
    import torch

    exact = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
    unburned, *burned = exact.unbind(1)
    # Pair by pair: free for one burned class, where logsumexp costs a hundred times a subtraction.
    return (functools.reduce(torch.logaddexp, burned) - unburned).float()


def probability_log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the log-odds of fire, log(p / (1 - p)), of class probabilities that windows were blended to.

    Computed in NumPy: torch's float32 log differs from NumPy's in the last bit, and with it a decision.

    Args:
        probabilities: Probability of each class, `(K, H, W)`, summing to 1 over K, K at least 2.

    Returns:
        `(H, W)` float32 in a new array, above 0 where fire is likelier than not; infinite at 0 and 1.

    Example:
        >>> probability_log_odds(np.array([[[0.5, 0.0]], [[0.5, 1.0]]], np.float32)).tolist()
        [[0.0, inf]]
    """
    # The log of the ratio, not a difference of logs: its sign is then exactly that of p - (1 - p).
    fire = probabilities[1].copy() if len(probabilities) == 2 else probabilities[1:].sum(axis=0)
    with np.errstate(divide="ignore", over="ignore"):
        fire /= probabilities[0]
        return np.log(fire, out=fire)


def min_log_odds(threshold: float, temperature: float = 1.0) -> float:
    """Returns the lowest log-odds, as the model gives them, that count as burned.

    Decisions compare log-odds, because a probability in float32 can round up to the threshold from below.

    Args:
        threshold: Lowest calibrated fire probability that counts as burned, above 0 and below 1.
        temperature: Divisor of the log-odds in the calibrated probability, above 0.

    Returns:
        temperature * log(threshold / (1 - threshold)).
    """
    return temperature * math.log(threshold / (1 - threshold))


def find_threshold(log_odds: float, temperature: float) -> float:
    """Returns the threshold whose `min_log_odds` at a temperature are the given ones, as nearly as a float can.

    Args:
        log_odds: Lowest log-odds, as the model gives them, that count as burned.
        temperature: Divisor of the log-odds in the calibrated probability, above 0.

    Returns:
        sigmoid(log_odds / temperature), above 0 and below 1.

    Example:
        >>> find_threshold(0.0, 2.0), find_threshold(1.0, 0.001) < 1
        (0.5, True)
    """
    # Above 709 exp would overflow; sigmoid(-709) is the smallest threshold, near 1e-308.
    return min(1 / (1 + math.exp(min(-log_odds / temperature, 709.0))), math.nextafter(1.0, 0.0))


def apply_threshold(
    log_odds: NDArray[np.floating],
    severity: NDArray[np.uint8],
    *,
    threshold: float,
    temperature: float = 1.0,
    unknown: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Returns the class of every pixel: its severity class if the fire probability reaches the threshold, else 0.

    Works on NumPy arrays, because whole scenes and mosaics are assembled in them.

    Args:
        log_odds: Log-odds of fire, any shape.
        severity: Likeliest class above 0, same shape.
        threshold: Lowest calibrated fire probability that counts as burned, above 0 and below 1.
        temperature: Divisor of the log-odds in the calibrated probability, above 0.
        unknown: Pixels that become 255, same shape.

    Example:
        >>> apply_threshold(np.array([-0.5, 0.5]), np.array([3, 3], np.uint8), threshold=0.5).tolist()
        [0, 3]
    """
    classes = np.where(log_odds >= min_log_odds(threshold, temperature), severity, np.uint8(0))
    if unknown is not None:
        classes[unknown] = IGNORE_INDEX
    return classes
