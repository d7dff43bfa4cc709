"""Pairs of tiles that know each other's ground or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fireseg.data.audit.footprints import Footprint
from fireseg.data.audit.looks import find_alike, find_copies, have_like_masks
from fireseg.data.audit.overlaps import Overlaps, find_overlaps

Kind = Literal["same acquisition", "near-identical", "overlap", "activation"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LEAST_SHARE = 0.01
"""Shared ground by that of the smaller tile, above which an overlap counts."""

SAME_BOX = 0.999
"""Shared ground by that of both together, from which on two boxes are the same one."""

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Two tiles that should know nothing of each other, and do. The worst of what joins them is its kind.

    Args:
        kind: What they have in common.
        tiles: Both, in the order in which they came. Of an activation in two splits, the first tile in each.
        shares: Shared ground by that of the one and of the other, 0 to 1; none for an activation.
        note: What else there is to say.
    """

    kind: Kind
    tiles: tuple[Footprint, Footprint]
    shares: tuple[float, float] | None
    note: str = ""

    @property
    def share(self) -> float | None:
        """Shared ground by that of the smaller tile, 0 to 1."""
        return None if self.shares is None else max(self.shares)

    def as_dict(self) -> dict[str, Any]:
        """The finding in plain values."""
        tiles = [
            {"name": tile.name, "split": tile.split, "activation": tile.activation, "date": tile.moment}
            for tile in self.tiles
        ]
        shares = None if self.shares is None else [round(share, 6) for share in self.shares]
        return {"kind": self.kind, "tiles": tiles, "shares": shares, "note": self.note}


def number_groups(names: Sequence[str]) -> NDArray[np.intp]:
    """One number a name; a nameless one is a group of its own.

    Example:
        >>> number_groups(["EMSR1", "", "EMSR1", ""]).tolist()
        [0, -2, 0, -4]
    """
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(name, len(numbers)) if name else -place - 1 for place, name in enumerate(names)]
    return np.array(groups, np.intp)


def find_pairs(
    footprints: Sequence[Footprint], groups: NDArray[np.intp], *, least_share: float = LEAST_SHARE
) -> dict[Pair, Finding]:
    """Pairs of tiles of two groups that share ground or pixels, by position, lower first.

    Args:
        footprints: The tiles.
        groups: What must not be shared across, one number a tile.
        least_share: Shared ground by that of the smaller, above which an overlap counts, 0 to 1.

    Raises:
        FiresegError: If there are bounds that no ground can have.
    """
    overlaps = find_overlaps(footprints, groups, least_share)
    looks = [one.look for one in footprints]
    shares, same_box = _shares_of(overlaps)
    copies = set(find_copies(looks, groups))
    alike = {(one, other): likeness for one, other, likeness in find_alike(looks, groups)}
    moments = [one.moment for one in footprints]
    found = {}
    for pair in sorted(shares.keys() | copies | alike.keys()):
        first, second = moments[pair[0]], moments[pair[1]]
        tiles = footprints[pair[0]], footprints[pair[1]]
        kind, note = "overlap", _between(first, second)
        if pair in copies:
            kind, note = "same acquisition", f"same pixels{_sizes(*tiles)}"
        elif pair in same_box and _is_one_moment(first, second):
            kind, note = "same acquisition", f"same box, {note}{_sizes(*tiles)}"
        elif pair in alike:
            kind, note = "near-identical", f"correlation {alike[pair]:.4f}{_masks(*tiles)}"
        if pair not in shares:
            note += ", on other ground"
        found[pair] = Finding(kind=kind, tiles=tiles, shares=shares.get(pair, (0.0, 0.0)), note=note)
    return found


def _shares_of(overlaps: Overlaps) -> tuple[dict[Pair, tuple[float, float]], set[Pair]]:
    """Shared ground by that of either tile; and the pairs whose boxes are the same."""
    one, other = overlaps.areas_m2[overlaps.first], overlaps.areas_m2[overlaps.second]
    pairs: list[Pair] = list(zip(overlaps.first.tolist(), overlaps.second.tolist(), strict=True))
    # Corners that agree to the last bit may still leave a share a hair above 1.
    shares = np.minimum(overlaps.shared_m2[:, None] / np.stack([one, other], axis=1), 1.0).tolist()
    same = overlaps.shared_m2 >= SAME_BOX * (one + other - overlaps.shared_m2)
    return (
        {pair: (first, second) for pair, (first, second) in zip(pairs, shares, strict=True)},
        {pairs[place] for place in np.flatnonzero(same)},
    )


def _is_one_moment(first: str | None, second: str | None) -> bool:
    """Whether two dates are of one acquisition, as exactly as both are known."""
    if first is None or second is None or not (_is_read(first) and _is_read(second)):
        return False
    return first == second or min((first, second), key=len) == max((first, second), key=len)[:10]


def _is_read(moment: str) -> bool:
    """Whether it is a day or a second, and not an interval or whatever else somebody wrote."""
    try:
        datetime.fromisoformat(moment)
    except ValueError:
        return False
    return True


def _between(first: str | None, second: str | None) -> str:
    """The time between two dates in words."""
    if first is None or second is None:
        return "date unknown"
    if first == second:
        if not _is_read(first):
            return f"both dated {first}"
        return "same second" if "T" in first else "same day"
    try:
        days = abs((date.fromisoformat(first[:10]) - date.fromisoformat(second[:10])).days)
    except ValueError:
        return ""
    return "same day" if days == 0 else f"{days} day{'s' * (days > 1)} apart"


def _sizes(one: Footprint, other: Footprint) -> str:
    sizes = [f"{tile.height} x {tile.width} px" if tile.height and tile.width else "" for tile in (one, other)]
    burned = ["" if tile.burned is None else f"{tile.burned:,} burned" for tile in (one, other)]
    parts = [
        first if first == second else f"{first} and {second}" for first, second in (sizes, burned) if first and second
    ]
    return "".join(f", {part}" for part in parts)


def _masks(one: Footprint, other: Footprint) -> str:
    return {None: "", True: ", masks alike", False: ", masks differ"}[have_like_masks(one.look, other.look)]
