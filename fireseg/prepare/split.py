"""Draws train, validation and test splits without leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import fsum, inf
from random import Random

from fireseg.data.patches import SPLITS
from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.footprints import Footprint
from fireseg.prepare.groups import group_tiles
from fireseg.prepare.split_options import GROUP_DAYS, GROUP_KM

_TOLERANCE = 0.005
"""Distances to the fractions are compared in steps of this size."""

_NUM_PLACEMENTS = 100_000
"""Groups placed in all trials together."""


def assign_split(
    footprints: Sequence[Footprint],
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    *,
    group_km: float = GROUP_KM,
    group_days: int = GROUP_DAYS,
    group_names: Sequence[str] | None = None,
) -> list[Footprint]:
    """Assigns tiles to splits without leaks.

    Tiles that may show the same fire stay together, see `group_tiles`. The groups are placed one by one, larger ones
    first, each in a random split that has room for it, with probability proportional to that room, so that large fires
    also get into validation and test. Many placements are tried. The one whose numbers of tiles are closest to the
    fractions is chosen, and among those within half a percent of each other the one closest in burned pixels. Every
    split has burned pixels, as far as they are known.

    Args:
        footprints: The tiles; their current splits are ignored.
        fractions: Shares of train, val and optionally test; sum 1.
        seed: Random seed. The result does not depend on the order of the tiles.
        group_km: Distance up to which a tile of unknown activation stays together with another.
        group_days: Number of days up to which it does.
        group_names: Group name of each tile; takes the place of distance and days.

    Returns:
        The tiles in input order, each with its split.

    Raises:
        SettingError: If the fractions are invalid.
        FiresegError: If there are fewer groups, or groups with burned pixels, than splits, or bounds are invalid.
    """
    fractions = _check_fractions(fractions)
    groups = group_tiles(footprints, max_km=group_km, max_days=group_days, names=group_names)
    _check_groups(footprints, groups, sum(fraction > 0 for fraction in fractions), "splits")
    parts = _place_tiles(footprints, groups, fractions, seed)
    return [replace(tile, split=SPLITS[part]) for tile, part in zip(footprints, parts, strict=True)]


def assign_parts(
    footprints: Sequence[Footprint],
    num_parts: int,
    seed: int = 0,
    *,
    group_km: float = GROUP_KM,
    group_days: int = GROUP_DAYS,
    group_names: Sequence[str] | None = None,
) -> list[int]:
    """Divides tiles into parts of about equal size without leaks, for cross-validation.

    See `assign_split`, whose rules apply to the parts as well.

    Args:
        footprints: The tiles.
        num_parts: Number of parts.
        seed: Random seed. The result does not depend on the order of the tiles.
        group_km: Distance up to which a tile of unknown activation stays together with another.
        group_days: Number of days up to which it does.
        group_names: Group name of each tile; takes the place of distance and days.

    Returns:
        The part of each tile, from 0, in input order.

    Raises:
        FiresegError: If there are fewer groups, or groups with burned pixels, than parts, or bounds are invalid.
    """
    groups = group_tiles(footprints, max_km=group_km, max_days=group_days, names=group_names)
    _check_groups(footprints, groups, num_parts, "folds")
    return _place_tiles(footprints, groups, [1 / num_parts] * num_parts, seed)


def get_fold_split(part: int, fold: int, num_folds: int) -> str:
    """Returns the split of a part in a fold: part n is test in fold n and val in the one before.

    Example:
        >>> [get_fold_split(part, 2, 4) for part in range(4)]
        ['train', 'train', 'test', 'val']
    """
    return {0: "test", 1: "val"}.get((part - fold) % num_folds, "train")


def _check_groups(tiles: Sequence[Footprint], groups: Sequence[Sequence[int]], num_splits: int, noun: str) -> None:
    """Checks that each split can have a group with burned pixels."""
    if len(groups) < num_splits:
        raise FiresegError(
            f"{num_splits} {noun}, but only {len(groups)} group(s) of tiles that may show different fires (of "
            "other activations, not overlapping, without common pixels, and not near if the activation is unknown); "
            f"add tiles of other fires, use fewer {noun}, or tell the groups apart with --groups, --group-km and "
            "--group-days"
        )
    num_burned = sum(any(_may_burn(tiles[index]) for index in group) for group in groups)
    if num_burned < num_splits:
        raise FiresegError(
            f"{num_splits} {noun}, but only {num_burned} of {len(groups)} groups of tiles have burned pixels, so that "
            f"not all {noun} can have them; check the values of the masks, add tiles of other fires, or use "
            f"fewer {noun}"
        )


def _place_tiles(
    tiles: Sequence[Footprint], groups: Sequence[Sequence[int]], fractions: Sequence[float], seed: int
) -> list[int]:
    """Returns the index of the split of each tile."""
    counts = [float(len(group)) for group in groups]
    burned = [float(sum(tiles[index].burned or 0 for index in group)) for group in groups]
    may_burn = [any(_may_burn(tiles[index]) for index in group) for group in groups]
    placement = _find_best_placement(counts, burned, may_burn, fractions, Random(seed))
    splits = [0] * len(tiles)
    for group, split in zip(groups, placement, strict=True):
        for index in group:
            splits[index] = split
    return splits


def _may_burn(tile: Footprint) -> bool:
    return tile.burned is None or tile.burned > 0


def _check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    text = " ".join(f"{fraction:g}" for fraction in fractions)
    if len(fractions) not in (2, 3):
        raise SettingError(f"--fractions: {text or 'none'}, but must be two or three, for train, val and test")
    if not all(0 <= fraction <= 1 for fraction in fractions) or abs(fsum(fractions) - 1) > 1e-6:
        raise SettingError(f"--fractions: {text}, but must be between 0 and 1 with sum 1; for example 0.7 0.15 0.15")
    if not all(fraction > 0 for fraction in fractions[:2]):
        raise SettingError(f"--fractions: {text}, but train and val must be above 0; only test may be 0")
    return tuple(fractions)


def _find_best_placement(
    weights: Sequence[float],
    others: Sequence[float],
    may_burn: Sequence[bool],
    fractions: Sequence[float],
    rng: Random,
) -> list[int]:
    """Returns the index of the split of each group: the best of many random placements."""
    best: tuple[tuple[float, float], list[int]] | None = None
    for _ in range(min(max(_NUM_PLACEMENTS // len(weights), 4), 500)):
        placement = _place_groups(weights, may_burn, fractions, rng)
        distance = _distance(weights, placement, fractions)
        score = (distance // _TOLERANCE, _distance(others, placement, fractions))
        if best is None or score < best[0]:
            best = score, placement
    assert best is not None
    return best[1]


def _place_groups(
    weights: Sequence[float], may_burn: Sequence[bool], fractions: Sequence[float], rng: Random
) -> list[int]:
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
    burned = [group for group, burns in enumerate(may_burn) if burns]
    for split, fraction in enumerate(fractions):
        held = Counter(placement[group] for group in burned)
        if fraction > 0 and not held[split]:  # gets the lightest burned group of a split with several
            spare = [group for group in burned if held[placement[group]] > 1]
            placement[min(spare, key=weights.__getitem__)] = split
    return placement


def _distance(weights: Sequence[float], placement: Sequence[int], fractions: Sequence[float]) -> float:
    """Returns the sum of absolute differences between the shares of the splits and the fractions."""
    total = fsum(weights)
    sums = [0.0] * len(fractions)
    for weight, split in zip(weights, placement, strict=True):
        sums[split] += weight
    return fsum(abs(part / total - fraction) for part, fraction in zip(sums, fractions, strict=True)) if total else 0.0
