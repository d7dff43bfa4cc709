"""A split of its own that leaks nothing, by construction."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum, inf
from random import Random
from typing import Literal

from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.footprints import Footprint
from fireseg.prepare.leakage import LEAST_SHARE, find_leaks, number_groups

Measure = Literal["tiles", "burned"]

SPLITS = ("train", "val", "test")

_EQUALLY_GOOD = 0.005

_PLACINGS = 100_000


@dataclass(frozen=True, kw_only=True)
class ChosenSplit:
    """Which tile learns, which validates and which tests.

    Args:
        footprints: The tiles in the order in which they came, each with its split.
        fractions: What was wanted of each split.
        by: What the fractions are of: number of tiles, or burned pixels.
        num_groups: Groups of activations that may not be parted.
        largest: Activations of the group with most tiles.
        num_largest: Tiles of that group.
    """

    footprints: tuple[Footprint, ...]
    fractions: tuple[float, ...]
    by: Measure
    num_groups: int
    largest: tuple[str, ...]
    num_largest: int

    def as_table(self) -> str:
        """What was wanted and what came of it, to be read in a terminal."""
        wanted = "number of tiles" if self.by == "tiles" else "burned pixels"
        lines = [
            f"{len(self.footprints):,} tiles in {self.num_groups:,} groups that share no ground, split by {wanted}",
            f"{'split':5}  {'wanted':>6}  {'tiles':>14}  {'activations':>11}  burned pixels",
        ]
        all_burned = sum(one.burned or 0 for one in self.footprints)
        for split, fraction in zip(SPLITS, self.fractions, strict=False):
            tiles = [one for one in self.footprints if one.split == split]
            burned = sum(one.burned or 0 for one in tiles)
            share = f"{len(tiles):,} ({len(tiles) / len(self.footprints):.1%})"
            fire = f"{burned:,} ({burned / all_burned:.1%})" if all_burned else "unknown"
            activations = len({one.activation or one.name for one in tiles})
            lines.append(f"{split:5}  {fraction:>6.1%}  {share:>14}  {activations:>11,}  {fire}")
        lines.append(
            f"largest group: {self.num_largest:,} tiles of {', '.join(self.largest[:5])}{_more(len(self.largest) - 5)}"
        )
        return "\n".join(lines)


def assign_split(
    footprints: Sequence[Footprint],
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    *,
    by: Measure = "tiles",
    least_share: float = LEAST_SHARE,
) -> ChosenSplit:
    """Splits tiles so that an audit of the result is clean.

    Tiles of one activation stay together, and so do activations with tiles that share ground, an acquisition or
    near-identical pixels, however long the chain. The groups are placed one after the other, larger ones first,
    each at random among the splits with room for it in proportion to that room, so that large fires come to
    validation and test as well. Many such placings are tried; the one nearest to the fractions is taken, and among
    those that are equally near to half a percent the one that is nearest in the other measure (burned pixels, or
    tiles).

    Args:
        footprints: The tiles; the splits that they have count for nothing.
        fractions: Of train, val and perhaps test, adding up to 1.
        seed: Another number, another split. The order of the tiles makes no difference.
        by: What the fractions are of.
        least_share: Shared ground by that of the smaller tile, above which an overlap counts, 0 to 1.

    Raises:
        SettingError: If the fractions cannot be, or burned pixels are wanted and not known.
        FiresegError: If there are fewer groups than splits, or bounds that no ground can have.
    """
    fractions = _check_fractions(fractions)
    tiles = [replace(one, split="") for one in footprints]
    if by == "burned" and not any(one.burned for one in tiles):
        raise SettingError("by: burned, but no tile says how many pixels burned; split by tiles")
    groups = _groups_that_stay_together(tiles, least_share)
    wanted = [place for place, fraction in enumerate(fractions) if fraction > 0]
    if len(groups) < len(wanted):
        raise FiresegError(
            f"fractions: {len(wanted)} splits, but {len(groups)} group(s) of tiles that may not be parted: those of "
            "one activation, or of activations that share ground or pixels; take more activations, or fewer splits"
        )
    counts = [float(len(group)) for group in groups]
    burned = [float(sum(tiles[place].burned or 0 for place in group)) for group in groups]
    weights, others = (counts, burned) if by == "tiles" else (burned, counts)
    chosen = _place(weights, others, fractions, Random(seed))
    for group, split in zip(groups, chosen, strict=True):
        for place in group:
            tiles[place] = replace(tiles[place], split=SPLITS[split])
    most = max(groups, key=len)
    return ChosenSplit(
        footprints=tuple(tiles),
        fractions=fractions,
        by=by,
        num_groups=len(groups),
        largest=tuple(sorted({tiles[place].activation or tiles[place].name for place in most})),
        num_largest=len(most),
    )


def _check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    came = " ".join(f"{fraction:g}" for fraction in fractions)
    if len(fractions) not in (2, 3):
        raise SettingError(
            f"fractions: {came or 'none'}, but there is one for train, one for val and perhaps one for test"
        )
    if not all(0 <= fraction <= 1 for fraction in fractions) or abs(fsum(fractions) - 1) > 1e-6:
        raise SettingError(f"fractions: {came}, but each lies in 0 to 1 and together they are 1; try 0.7 0.15 0.15")
    if not all(fraction > 0 for fraction in fractions[:2]):
        raise SettingError(f"fractions: {came}, but train and val need tiles; only test may have none")
    return tuple(fractions)


def _groups_that_stay_together(tiles: Sequence[Footprint], least_share: float) -> list[list[int]]:
    """Positions by connected component, in an order that does not depend on that of the tiles."""
    activations = number_groups([one.activation for one in tiles])
    parent = list(range(len(tiles)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first_of: dict[int, int] = {}
    for place, activation in enumerate(activations.tolist()):
        parent[place] = first_of.setdefault(activation, place)
    for one, other in find_leaks(tiles, activations, least_share=least_share):
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for place in sorted(range(len(tiles)), key=lambda place: _tell_apart(tiles[place])):
        groups[root(place)].append(place)
    return list(groups.values())


def _tell_apart(tile: Footprint) -> tuple:
    return tile.name, tile.activation, tile.bounds, tile.date or ""


def _place(weights: Sequence[float], others: Sequence[float], fractions: Sequence[float], rng: Random) -> list[int]:
    """A split for each group: the best of many placings."""
    best: tuple[tuple[float, float], list[int]] | None = None
    for _ in range(min(max(_PLACINGS // len(weights), 4), 500)):
        chosen = _place_once(weights, fractions, rng)
        off = _distance(weights, chosen, fractions)
        score = (off // _EQUALLY_GOOD, _distance(others, chosen, fractions))
        if best is None or score < best[0]:
            best = score, chosen
    assert best is not None
    return best[1]


def _place_once(weights: Sequence[float], fractions: Sequence[float], rng: Random) -> list[int]:
    total = fsum(weights)
    room = [total * fraction if fraction > 0 else -inf for fraction in fractions]
    chosen = [0] * len(weights)
    ties = [rng.random() for _ in weights]
    for group in sorted(range(len(weights)), key=lambda group: (-weights[group], ties[group])):
        fitting = [free if 2 * free > weights[group] else 0.0 for free in room]
        point = rng.random() * fsum(fitting)
        if point > 0:
            split = next(place for place in range(len(room)) if point <= fsum(fitting[: place + 1]))
        else:
            split = max(range(len(room)), key=lambda place: room[place])
        chosen[group] = split
        room[split] -= weights[group]
    _fill_empty(chosen, weights, fractions)
    return chosen


def _fill_empty(chosen: list[int], weights: Sequence[float], fractions: Sequence[float]) -> None:
    """Gives a split that came away empty the lightest group of one that has several."""
    for split, fraction in enumerate(fractions):
        if fraction > 0 and split not in chosen:
            times = Counter(chosen)
            spare = [group for group, held in enumerate(chosen) if times[held] > 1]
            chosen[min(spare, key=lambda group: weights[group])] = split


def _distance(weights: Sequence[float], chosen: Sequence[int], fractions: Sequence[float]) -> float:
    """How far the shares of the splits lie from the fractions, added up."""
    total = fsum(weights)
    held = [0.0] * len(fractions)
    for weight, split in zip(weights, chosen, strict=True):
        held[split] += weight
    return fsum(abs(part / total - fraction) for part, fraction in zip(held, fractions, strict=True)) if total else 0.0


def _more(number: int) -> str:
    return f" and {number} more" if number > 0 else ""
