"""Audit: finds leakage between splits, or between activations where there are no splits."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from fireseg.console import format_count, format_table
from fireseg.errors import FiresegError, convert_unexpected_errors
from fireseg.files import atomic_write, convert_disk_errors
from fireseg.prepare.duplicates import MAX_DISTANCE, fingerprint_image
from fireseg.prepare.footprints import Footprint, make_footprint, read_footprints
from fireseg.prepare.leakage import KINDS, MIN_OVERLAP, SAME_BOX, Kind, Leak, find_leaks, number_groups
from fireseg.prepare.workers import run_in_order, track_tiles
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.options import DEFAULT_LABELS, DEFAULT_OPTIONS, LabelOptions, RasterOptions
from fireseg.tiles.reader import find_tiles, read_grid_and_date, read_tile

log = logging.getLogger("fireseg")

_TITLES = {
    "same acquisition": ("pair of the same acquisition", "pairs of the same acquisition"),
    "near-identical": ("pair of near-identical images", "pairs of near-identical images"),
    "overlap": ("overlap", "overlaps"),
    "activation": ("activation in two splits", "activations in two splits"),
}

_FINGERPRINT_BANDS = ("B04", "B08", "B12")
"""Bands that every burned-area data set has, and enough to recognise an image."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit.

    Attributes:
        findings: Leaks, the most severe kind first, then by shared area.
        between: Groups that must not share area or pixels.
        num_tiles: Number of tiles audited.
        num_activations: Number of their activations.
        num_sharing: Number of tiles that share area or pixels with a tile of another group.
        notes: Remarks that are not leaks.
    """

    findings: tuple[Leak, ...]
    between: Literal["splits", "activations"]
    num_tiles: int
    num_activations: int
    num_sharing: int
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """True if no leak was found."""
        return not self.findings

    @property
    def counts(self) -> dict[Kind, int]:
        """Number of leaks of each kind."""
        numbers = Counter(finding.kind for finding in self.findings)
        return {kind: numbers[kind] for kind in KINDS}

    def as_dict(self) -> dict[str, Any]:
        """Returns the audit as plain values, the same for the same tiles."""
        return {
            "is_clean": self.is_clean,
            "between": self.between,
            "num_tiles": self.num_tiles,
            "num_activations": self.num_activations,
            "num_sharing": self.num_sharing,
            "thresholds": {
                "overlap_of_smaller": MIN_OVERLAP,
                "same_box": SAME_BOX,
                "near_identical_distance": MAX_DISTANCE,
            },
            "counts": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": list(self.notes),
        }

    def write(self, path: Path) -> None:
        """Writes the audit as JSON."""
        with atomic_write(path) as part:
            part.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    def format_text(self, max_rows: int = 20) -> str:
        """Formats the audit for the terminal.

        Args:
            max_rows: Maximum number of leaks of each kind to list.
        """
        lines = [self._format_headline()]
        for kind in KINDS:
            if leaks := [finding for finding in self.findings if finding.kind == kind]:
                title = _TITLES[kind][len(leaks) > 1]
                if kind == "overlap":
                    title += f" of more than {100 * MIN_OVERLAP:.0f} % of the smaller tile"
                lines += ["", f"{len(leaks)} {title}", *_format_rows(leaks[:max_rows])]
                if len(leaks) > max_rows:
                    lines.append(f"  ... and {len(leaks) - max_rows} more")
        if self.notes:
            lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)

    def _format_headline(self) -> str:
        audited = f"{format_count(self.num_tiles, 'tile')} of {format_count(self.num_activations, 'activation')}"
        if self.is_clean:
            return f"{audited}: no leaks between {self.between}"
        other = {"splits": "another split", "activations": "another activation"}[self.between]
        verb = "overlaps or duplicates" if self.num_sharing == 1 else "overlap or duplicate"
        return f"{audited}: {self.num_sharing} {verb} a tile of {other}"


def audit(footprints: Sequence[Footprint]) -> Audit:
    """Finds tiles of different splits (of different activations if no tile has a split) that leak into each other.

    A pair is one finding, of the first kind that applies:

    - `same acquisition`: the same bounding box (0.999 of the union) at the same second, or exactly the same pixels;
    - `near-identical`: difference hashes with at most a quarter of the bits different, see `find_near_duplicates`;
    - `overlap`: more than 1 % of the smaller tile's area, whatever the dates;
    - `activation`: one finding for an activation and two splits that both contain tiles of it.

    Args:
        footprints: Tiles with a split each, or all without one.

    Raises:
        FiresegError: If bounds are invalid.

    Example:
        >>> a = Footprint(name="a", split="train", activation="EMSR1", bounds=(8.0, 40.0, 8.2, 40.1))
        >>> b = Footprint(name="b", split="val", activation="EMSR2", bounds=(8.1, 40.0, 8.3, 40.1))
        >>> [(finding.kind, round(finding.share, 3)) for finding in audit([a, b]).findings]
        [('overlap', 0.5)]
    """
    has_splits = any(one.split for one in footprints)
    audited = [one for one in footprints if one.split] if has_splits else list(footprints)
    groups = number_groups([one.split for one in audited] if has_splits else [one.activation for one in audited])
    leaks = find_leaks(audited, groups)
    findings = [*leaks.values(), *_find_divided_activations(audited)]
    notes = [] if has_splits else _describe_repeats(audited)
    if len(audited) < len(footprints):
        notes.append(f"{format_count(len(footprints) - len(audited), 'tile')} in no split: not audited")
    return Audit(
        findings=tuple(sorted(findings, key=_severity)),
        between="splits" if has_splits else "activations",
        num_tiles=len(audited),
        num_activations=len({one.activation or one.name for one in audited}),
        num_sharing=len({index for pair in leaks for index in pair}),
        notes=tuple(notes),
    )


def audit_tiles(
    path: Path,
    *,
    json_path: Path,
    workers: int,
    options: RasterOptions = DEFAULT_OPTIONS,
    labels: LabelOptions = DEFAULT_LABELS,
) -> tuple[Audit, list[str]]:
    """Audits a folder of tiles or the data set's own table of them, prints the result and writes it as JSON.

    Args:
        path: Folder of tiles, or satelliteData.csv.
        json_path: Output file.
        workers: Number of processes that read tiles.
        options: Options used where the metadata are silent.
        labels: Options for reading the masks.

    Returns:
        The audit, and the faults of tiles, one line each.

    Raises:
        FiresegError: If there is no such folder or table, or no readable tile in it.
    """
    footprints, faults = _read_tiles(path, workers, options, labels) if path.is_dir() else (read_footprints(path), [])
    result = audit(footprints)
    with convert_disk_errors(json_path):
        json_path.parent.mkdir(parents=True, exist_ok=True)
        result.write(json_path)
    log.info("%s", result.format_text())
    log.info("full audit: %s", json_path)
    return result, faults


class FingerprintJob:
    """Reads the footprint and the fingerprint of tiles; a `fireseg.prepare.workers.TileJob`.

    Args:
        tiles: Files of each tile.
        options: Options used where the metadata are silent.
        labels: Options for reading the masks.
    """

    def __init__(
        self,
        tiles: Sequence[TileFiles],
        options: RasterOptions = DEFAULT_OPTIONS,
        labels: LabelOptions = DEFAULT_LABELS,
    ) -> None:
        self.tiles, self.options, self.labels = tiles, options, labels

    def process(self, number: int) -> tuple[Footprint | None, tuple[str, ...]]:
        """Returns the footprint of a tile, without a fingerprint if its pixels cannot be read, and its faults."""
        files = self.tiles[number]
        try:
            with convert_unexpected_errors(files.image):
                tile = read_tile(files, _FINGERPRINT_BANDS, self.options, self.labels)
                fingerprint = fingerprint_image(tile.image, tile.unknown, tile.delineation)
                burned = int((tile.delineation == 1).sum())
                footprint = make_footprint(files, tile.grid, tile.date)
                return replace(footprint, fingerprint=fingerprint, burned=burned), ()
        except FiresegError as error:
            try:
                with convert_unexpected_errors(files.image):
                    return make_footprint(files, *read_grid_and_date(files)), error.faults
            except FiresegError:
                return None, error.faults

    def write(self, number: int, first: int) -> None:
        """Does nothing: the results are small and returned by `process`."""


def _read_tiles(
    path: Path, workers: int, options: RasterOptions, labels: LabelOptions
) -> tuple[list[Footprint], list[str]]:
    tiles, other_faults = find_tiles(path, labels)
    faults = [str(fault) for fault in other_faults]
    footprints = []
    results = run_in_order(FingerprintJob(tiles, options, labels), range(len(tiles)), lambda _: 0, workers=workers)
    with track_tiles(len(tiles), done=0) as progress:
        for number, (footprint, tile_faults) in results:
            faults += tile_faults
            if footprint is not None:
                footprints.append(footprint)
            progress.advance(tiles[number].name)
    if not footprints:
        raise FiresegError(f"{path}: no readable tile; fix the files listed", *faults)
    return footprints, faults


def _find_divided_activations(footprints: Sequence[Footprint]) -> Iterator[Leak]:
    """Yields one leak for an activation and two splits: all pairs of its tiles would hide the other leaks."""
    tiles: dict[str, dict[str, list[Footprint]]] = defaultdict(lambda: defaultdict(list))
    for one in footprints:
        if one.split and one.activation:
            tiles[one.activation][one.split].append(one)
    for activation, by_split in tiles.items():
        for first, second in combinations(by_split, 2):
            counts = [f"{format_count(len(by_split[split]), 'tile')} in {split}" for split in (first, second)]
            note = f"{activation}: {', '.join(counts)}"
            yield Leak(kind="activation", tiles=(by_split[first][0], by_split[second][0]), shares=None, note=note)


def _describe_repeats(footprints: Sequence[Footprint]) -> list[str]:
    """Describes tiles that occur more than once in an activation: no leak, but they count twice."""
    keys = [(one.activation, one.bounds, one.timestamp) for one in footprints]
    counts = Counter(key for key in keys if key[0] and key[2])
    repeated = [key for key, count in counts.items() if count > 1]
    if not repeated:
        return []
    first = [one.name for one, key in zip(footprints, keys, strict=True) if key == repeated[0]]
    return [
        f"{format_count(sum(counts[key] - 1 for key in repeated), 'tile')} more than once in the same activation "
        f"(same box, same second), for example {' and '.join(first[:2])}: they count twice in any split"
    ]


def _severity(finding: Leak) -> tuple[int, float, str, str]:
    return (KINDS.index(finding.kind), -(finding.share or 0.0), finding.tiles[0].name, finding.tiles[1].name)


def _format_rows(leaks: Sequence[Leak]) -> list[str]:
    """Formats leaks in columns; the note comes last."""
    rows = []
    for leak in leaks:
        cells = [] if leak.share is None else [f"{100 * leak.share:.1f} %"]
        for tile in leak.tiles:
            cells.append(f"{tile.split} {tile.name}".strip())
            if leak.kind != "activation":
                cells.append("no date" if tile.timestamp is None else tile.timestamp.replace("T", " "))
        rows.append([*cells, leak.note])
    align = "<<<" if leaks[0].kind == "activation" else "><<<<<"
    return [f"  {line}" for line in format_table(rows, align=align)]
