"""A part of the training patches, for scores as a function of the amount of labels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from fireseg.data.patches import get_tile_name
from fireseg.data.statistics import PatchStatistics


def select_fraction(
    patches: Sequence[PatchStatistics], fraction: float, *, seed: int, ignore_index: int
) -> tuple[PatchStatistics, ...]:
    """Selects a random part of patches, stratified by tile and by whether they have burned pixels.

    All patches are put into an order that depends on the seed alone, and the part is its beginning. A smaller part is
    therefore contained in every larger one. The order begins with one patch of each tile, with burned pixels if the
    tile has any, so that every fire is in the part as far as its size allows; the rest are taken evenly from all tiles.

    Args:
        patches: Patches of the training split. Those whose names tell no tile count as of one tile.
        fraction: Size of the part as a share of the patches, above 0 and up to 1; at least one patch is selected.
        seed: Random seed.
        ignore_index: Mask value of unlabelled pixels.

    Returns:
        The selected patches in input order.
    """
    strata: dict[tuple[str, bool], list[PatchStatistics]] = defaultdict(list)
    for patch in patches:
        strata[get_tile_name(patch.name) or "", patch.num_burned(ignore_index) > 0].append(patch)
    ranks: dict[str, tuple[bool, float]] = {}
    for (tile, is_burned), members in strata.items():
        members.sort(key=lambda patch: _draw(seed, patch.name))
        offset = _draw(seed, f"{tile} {is_burned}")
        is_first = is_burned or (tile, True) not in strata
        for number, patch in enumerate(members):
            ranks[patch.name] = not (is_first and number == 0), (number + offset) / len(members)
    num_selected = max(1, round(fraction * len(patches)))
    selected = set(sorted(ranks, key=lambda name: (ranks[name], name))[:num_selected])
    return tuple(patch for patch in patches if patch.name in selected)


def select_tiles(patches: Sequence[PatchStatistics], max_tiles: int, *, seed: int) -> tuple[PatchStatistics, ...]:
    """Selects the patches of some tiles, for scores as a function of the number of fires.

    All tiles are put into an order that depends on the seed alone, so that fewer are contained in more.

    Args:
        patches: Patches of the training split. Those whose names tell no tile count as of one tile.
        max_tiles: Largest number of tiles.
        seed: Random seed.

    Returns:
        The selected patches in input order.
    """
    tiles = sorted({get_tile_name(patch.name) or "" for patch in patches}, key=lambda tile: _draw(seed, tile))
    selected = set(tiles[:max_tiles])
    return tuple(patch for patch in patches if (get_tile_name(patch.name) or "") in selected)


def _draw(seed: int, text: str) -> float:
    """Returns a number in [0, 1) that depends on the seed and the text alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8], "big") / 2**64
