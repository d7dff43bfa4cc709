"""How much a pixel of each class should weigh, given how common its class is."""

from __future__ import annotations

from collections.abc import Sequence


def inverse_frequency_weights(counts: Sequence[int], cap: float = 20.0) -> tuple[float, ...]:
    """Class weights that lift rare classes: inverse frequency, capped, of mean 1.

    w = min(n_max / n, cap), divided by its mean over the classes that occur. Capping before the
    division keeps both promises: mean 1, and largest over smallest at most `cap`.

    Args:
        counts: Labelled pixels of each class.
        cap: Largest ratio of two weights, at least 1.

    Returns:
        One weight a class. A class that does not occur gets 1.

    Raises:
        ValueError: If a count is negative, or `cap` is below 1.

    Example:
        >>> inverse_frequency_weights([90, 30, 0])
        (0.5, 1.5, 1.0)
    """
    if min(counts) < 0 or not cap >= 1:
        raise ValueError(f"counts {tuple(counts)}, cap {cap}: want counts from 0 and a cap from 1")
    most = max(counts)
    ratios = [min(most / count, cap) if count else 0.0 for count in counts]
    mean = sum(ratios) / max(sum(count > 0 for count in counts), 1)
    return tuple(ratio / mean if ratio else 1.0 for ratio in ratios)
