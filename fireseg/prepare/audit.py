"""Which tiles know each other's ground or pixels though they should not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from fireseg.prepare.duplicates import LEAST_CORRELATION
from fireseg.prepare.footprints import Footprint
from fireseg.prepare.leakage import KINDS, LEAST_SHARE, SAME_BOX, Kind, Leak, find_leaks, number_groups

_TITLES = {
    "same acquisition": ("pair of one acquisition", "pairs of one acquisition"),
    "near-identical": ("pair of near-identical pixels", "pairs of near-identical pixels"),
    "overlap": ("overlap", "overlaps"),
    "activation": ("activation in two splits", "activations in two splits"),
}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Args:
        findings: Worst kind first, most shared ground first.
        between: What nothing may be shared across.
        num_tiles: Tiles looked at.
        num_activations: Activations among them.
        num_sharing: Tiles that share ground or pixels with a tile across.
        least_share: Shared ground by that of the smaller, above which an overlap counted.
        notes: What the user should know though it is no finding.
    """

    findings: tuple[Leak, ...]
    between: Literal["splits", "activations"]
    num_tiles: int
    num_activations: int
    num_sharing: int
    least_share: float = LEAST_SHARE
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def counts(self) -> dict[Kind, int]:
        """Number of findings of each kind."""
        times = Counter(finding.kind for finding in self.findings)
        return {kind: times[kind] for kind in KINDS}

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain values, the same for the same tiles."""
        return {
            "is_clean": self.is_clean,
            "between": self.between,
            "num_tiles": self.num_tiles,
            "num_activations": self.num_activations,
            "num_sharing": self.num_sharing,
            "thresholds": {
                "overlap_of_smaller": self.least_share,
                "same_box": SAME_BOX,
                "near_identical_correlation": LEAST_CORRELATION,
            },
            "counts": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": list(self.notes),
        }

    def as_table(self, most: int = 20) -> str:
        """All of it to be read in a terminal.

        Args:
            most: Findings of a kind to show; how many more there are is said.
        """
        lines = [self._headline()]
        for kind in KINDS:
            if found := [finding for finding in self.findings if finding.kind == kind]:
                title = _TITLES[kind][len(found) > 1]
                if kind == "overlap":
                    title += f" of more than {self.least_share:.0%} of the smaller tile"
                lines += ["", f"{len(found)} {title}", *_rows(found[:most])]
                if len(found) > most:
                    lines.append(f"  ... and {len(found) - most} more")
        if self.notes:
            lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)

    def _headline(self) -> str:
        looked = f"{_count(self.num_tiles, 'tile')} of {_count(self.num_activations, 'activation')}"
        if self.is_clean:
            return f"{looked}: nothing shared between {self.between}"
        one = {"splits": "another split", "activations": "another activation"}[self.between]
        share = "shares" if self.num_sharing == 1 else "share"
        return f"{looked}: {self.num_sharing} {share} ground or pixels with a tile of {one}"


def audit(footprints: Sequence[Footprint], *, least_share: float = LEAST_SHARE) -> Audit:
    """Looks for tiles that share ground, pixels or an activation across splits, or without splits across activations.

    A pair is one finding, of the first kind that fits:

    - `same acquisition`: the same box (0.999 of both together) at the same second, or exactly the same pixels;
    - `near-identical`: thumbnails that correlate by 0.99 or more, see `fireseg.data.audit.looks`;
    - `overlap`: more than `least_share` of the smaller tile's ground, true area, whatever the dates;
    - `activation`: no pair, but one finding for an activation and two splits that both have tiles of it.

    Args:
        footprints: Tiles with a split each, or all without one.
        least_share: Shared ground by that of the smaller, above which an overlap counts, 0 to 1.

    Raises:
        FiresegError: If there are bounds that no ground can have.

    Example:
        >>> a = Footprint(name="a", split="train", activation="EMSR1", bounds=(8.0, 40.0, 8.2, 40.1))
        >>> b = Footprint(name="b", split="val", activation="EMSR2", bounds=(8.1, 40.0, 8.3, 40.1))
        >>> [(finding.kind, round(finding.share, 3)) for finding in audit([a, b]).findings]
        [('overlap', 0.5)]
    """
    has_splits = any(one.split for one in footprints)
    looked = [one for one in footprints if one.split] if has_splits else list(footprints)
    groups = number_groups([one.split for one in looked] if has_splits else [one.activation for one in looked])
    pairs = find_leaks(looked, groups, least_share=least_share)
    sharing = {place for pair in pairs for place in pair}
    findings = list(pairs.values()) + list(_activations_in_two_splits(looked))
    notes = [] if has_splits else _note_repeated(looked)
    if len(looked) < len(footprints):
        notes.append(f"{_count(len(footprints) - len(looked), 'tile')} in no split: not looked at")
    return Audit(
        findings=tuple(sorted(findings, key=_order)),
        between="splits" if has_splits else "activations",
        num_tiles=len(looked),
        num_activations=len({one.activation or one.name for one in looked}),
        num_sharing=len(sharing),
        least_share=least_share,
        notes=tuple(notes),
    )


def _activations_in_two_splits(footprints: Sequence[Footprint]) -> Iterator[Leak]:
    """One finding for an activation and two splits: the pairs of tiles would drown all else."""
    tiles: dict[str, dict[str, list[Footprint]]] = defaultdict(lambda: defaultdict(list))
    for one in footprints:
        if one.split and one.activation:
            tiles[one.activation][one.split].append(one)
    for activation, by_split in tiles.items():
        for first, second in combinations(by_split, 2):
            here, there = by_split[first], by_split[second]
            note = f"{activation}: {_count(len(here), 'tile')} in {first}, {_count(len(there), 'tile')} in {second}"
            yield Leak(kind="activation", tiles=(here[0], there[0]), shares=None, note=note)


def _note_repeated(footprints: Sequence[Footprint]) -> list[str]:
    """Tiles of one activation that are there more than once: no leak, but they weigh double."""
    times = Counter((one.activation, one.bounds, one.moment) for one in footprints if one.activation and one.moment)
    repeated = [place for place, count in times.items() if count > 1]
    if not repeated:
        return []
    first = [one.name for one in footprints if (one.activation, one.bounds, one.moment) == repeated[0]]
    return [
        f"{_count(sum(times[place] - 1 for place in repeated), 'tile')} more than once in the same activation "
        f"(same box, same second), first {' and '.join(first[:2])}: they weigh double wherever they are"
    ]


def _order(finding: Leak) -> tuple[int, float, str, str]:
    return (KINDS.index(finding.kind), -(finding.share or 0.0), finding.tiles[0].name, finding.tiles[1].name)


def _rows(findings: Sequence[Leak]) -> list[str]:
    """Findings in columns, as wide as the longest entry."""
    cells = []
    for finding in findings:
        tiles = [f"{tile.split} {tile.name}".strip() for tile in finding.tiles]
        dates = ["" if finding.kind == "activation" else _short(tile) for tile in finding.tiles]
        share = "" if finding.share is None else f"{finding.share:.1%}"
        cells.append((share, tiles[0], dates[0], tiles[1], dates[1], finding.note))
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = []
    for share, *others, note in cells:
        columns = [text.ljust(width) for text, width in zip(others, widths[1:], strict=True) if width]
        lines.append("  ".join(["", *([share.rjust(widths[0])] if widths[0] else []), *columns, note]).rstrip())
    return lines


def _short(tile: Footprint) -> str:
    return "no date" if tile.moment is None else tile.moment.replace("T", " ")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
