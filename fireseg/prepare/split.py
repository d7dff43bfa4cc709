"""Draws train, validation and test splits without leaks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import fsum, inf
from random import Random

from fireseg.data.patches import SPLITS
from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.footprints import Footprint
from fireseg.prepare.leakage import find_leaks, number_groups

_TOLERANCE = 0.005
"""Distances to the fractions are compared in steps of this size."""

_NUM_PLACEMENTS = 100_000
"""Groups placed in all trials together."""


def assign_split(
    footprints: Sequence[Footprint], fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> list[Footprint]:
    """Assigns tiles to splits without leaks.

    Tiles of an activation stay together, and so do activations connected by tiles that overlap, are the same
    acquisition or near-identical, directly or through others. The groups are placed one by one, larger ones first,
    each in a random split that has room for it, with probability proportional to that room, so that large fires
    also get into validation and test. Many placements are tried. The one whose numbers of tiles are closest to the
    fractions is chosen, and among those within half a percent of each other the one closest in burned pixels.

    Args:
        footprints: The tiles; their current splits are ignored.
        fractions: Shares of train, val and optionally test; sum 1.
        seed: Random seed. The result does not depend on the order of the tiles.

    Returns:
        The tiles in input order, each with its split.

    Raises:
        SettingError: If the fractions are invalid.
        FiresegError: If there are fewer groups than splits, or bounds are invalid.
    """
    fractions = _check_fractions(fractions)
    tiles = [replace(one, split="") for one in footprints]
    groups = _find_groups(tiles)
    num_splits = sum(fraction > 0 for fraction in fractions)
    if len(groups) < num_splits:
        raise FiresegError(
            f"--fractions: {num_splits} splits, but only {len(groups)} group(s) of activations that do not overlap or "
            "share pixels; add activations, or use fewer splits"
        )
    counts = [float(len(group)) for group in groups]
    burned = [float(sum(tiles[index].burned or 0 for index in group)) for group in groups]
    placement = _find_best_placement(counts, burned, fractions, Random(seed))
    for group, split in zip(groups, placement, strict=True):
        for index in group:
            tiles[index] = replace(tiles[index], split=SPLITS[split])
    return tiles


def _check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    text = " ".join(f"{fraction:g}" for fraction in fractions)
    if len(fractions) not in (2, 3):
        raise SettingError(f"--fractions: {text or 'none'}, but must be two or three, for train, val and test")
    if not all(0 <= fraction <= 1 for fraction in fractions) or abs(fsum(fractions) - 1) > 1e-6:
        raise SettingError(f"--fractions: {text}, but must be between 0 and 1 with sum 1; for example 0.7 0.15 0.15")
    if not all(fraction > 0 for fraction in fractions[:2]):
        raise SettingError(f"--fractions: {text}, but train and val must be above 0; only test may be 0")
    return tuple(fractions)


def _find_groups(tiles: Sequence[Footprint]) -> list[list[int]]:
    """Returns the indices of connected tiles, in an order that does not depend on that of the tiles."""
    activations = number_groups([one.activation for one in tiles])
    parent = list(range(len(tiles)))

    def find_root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_of: dict[int, int] = {}
    for index, activation in enumerate(activations.tolist()):
        parent[index] = first_of.setdefault(activation, index)
    for one, other in find_leaks(tiles, activations):
        parent[find_root(one)] = find_root(other)
    keys = [(tile.name, tile.activation, tile.bounds, tile.date or "") for tile in tiles]
    groups: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(tiles)), key=keys.__getitem__):
        groups[find_root(index)].append(index)
    return list(groups.values())


def _find_best_placement(
    weights: Sequence[float], others: Sequence[float], fractions: Sequence[float], rng: Random
) -> list[int]:
    """Returns the index of the split of each group: the best of many random placements."""
    best: tuple[tuple[float, float], list[int]] | None = None
    for _ in range(min(max(_NUM_PLACEMENTS // len(weights), 4), 500)):
        placement = _place_groups(weights, fractions, rng)
        distance = _distance(weights, placement, fractions)
        score = (distance // _TOLERANCE, _distance(others, placement, fractions))
        if best is None or score < best[0]:
            best = score, placement
    assert best is not None
    return best[1]


def _place_groups(weights: Sequence[float], fractions: Sequence[float], rng: Random) -> list[int]:
    total = fsum(weights)
    room = [total * fraction if fraction > 0 else -inf for fraction in fractions]
    placement = [0] * len(weights)
    ties = [rng.random() for _ in weights]
    for group in sorted(range(len(weights)), key=lambda group: (-weights[group], ties[group])):
        fitting = [free if 2 * free > weights[group] else 0.0 for free in room]
        point = rng.random() * fsum(fitting)
        if point > 0:
            split = next(index for index in range(len(room)) if point <= fsum(fitting[: index + 1]))
        else:
            split = max(range(len(room)), key=room.__getitem__)
        placement[group] = split
        room[split] -= weights[group]
    for split, fraction in enumerate(fractions):
        if fraction > 0 and split not in placement:  # gets the lightest group of a split with several
            counts = Counter(placement)
            spare = [group for group, held in enumerate(placement) if counts[held] > 1]
            placement[min(spare, key=weights.__getitem__)] = split
    return placement


def _distance(weights: Sequence[float], placement: Sequence[int], fractions: Sequence[float]) -> float:
    """Returns the sum of absolute differences between the shares of the splits and the fractions."""
    total = fsum(weights)
    sums = [0.0] * len(fractions)
    for weight, split in zip(weights, placement, strict=True):
        sums[split] += weight
    return fsum(abs(part / total - fraction) for part, fraction in zip(sums, fractions, strict=True)) if total else 0.0
