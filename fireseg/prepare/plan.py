"""Plan of a run: tiles, their splits and their order, before any pixel is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fireseg.console import format_count
from fireseg.data.patches import ALL, SPLITS, Fault
from fireseg.errors import FiresegError, SettingError, convert_unexpected_errors, join_names
from fireseg.prepare.audit import Audit, audit
from fireseg.prepare.footprints import Footprint, TileMetadata, make_footprint, read_tile_metadata
from fireseg.prepare.groups import find_near_tiles
from fireseg.prepare.journal import TileRecord
from fireseg.prepare.leakage import Leak
from fireseg.prepare.options import PrepareOptions
from fireseg.prepare.split import assign_parts, assign_split
from fireseg.prepare.tile_table import read_tile_column
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.options import LabelOptions
from fireseg.tiles.reader import count_burned, find_tiles, read_grid_and_date

log = logging.getLogger("fireseg")

_MAX_NAMES = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of a run.

    Attributes:
        root: Folder of the tiles.
        tiles: Tiles in processing order, each with its split.
        metadata: The data set's own metadata by tile name; None without a table.
        other_faults: Faults of files that belong to no tile in `tiles`.
        parts: Part of each tile by name, if the patches are to have folds.
    """

    root: Path
    tiles: tuple[TileFiles, ...]
    metadata: Mapping[str, TileMetadata] | None
    other_faults: tuple[Fault, ...]
    parts: Mapping[str, int] | None = None


def make_plan(root: Path, options: PrepareOptions) -> Plan:
    """Finds the tiles below a folder.

    Raises:
        FiresegError: If there are none, none is unlabelled, or one lacks the scene before the fire that is wanted.
    """
    search = find_tiles(root, options.tiling.labels)
    tiles = _select_unlabelled(root, search.tiles) if options.tiling.labels.unlabelled else search.tiles
    tiles = _select_pairs(root, tiles, options.tiling.labels)
    metadata = None if options.metadata is None else read_tile_metadata(options.metadata)
    # Tiles outside of split folders are a fault of the folder, unless the folders do not give the splits.
    is_given = not options.is_drawn and options.split_csv is None and not options.tiling.labels.unlabelled
    faults = (fault for fault in search.faults if is_given or fault.path != root)
    return Plan(root=root, tiles=tiles, metadata=metadata, other_faults=tuple(faults))


def _select_unlabelled(root: Path, tiles: tuple[TileFiles, ...]) -> tuple[TileFiles, ...]:
    """Returns the tiles without masks, all for training, whatever folder they lie in; notes the others."""
    chosen = tuple(replace(files, split=SPLITS[0]) for files in tiles if not (files.delineation or files.grading))
    if not chosen:
        count = format_count(len(tiles), "tile")
        raise FiresegError(f"{root}: {count}, all with masks, but --unlabelled prepares those without; omit it")
    if num_labelled := len(tiles) - len(chosen):
        count = f"{num_labelled} of {format_count(len(tiles), 'tile')}"
        log.warning("%s: %s left out, which have masks; prepare them without --unlabelled", root, count)
    return chosen


def _select_pairs(root: Path, tiles: tuple[TileFiles, ...], labels: LabelOptions) -> tuple[TileFiles, ...]:
    """Returns the tiles that have a scene before the fire, if pairs are wanted."""
    missing = [] if labels.pre is None else [files for files in tiles if files.pre is None]
    if not missing:
        return tiles
    count = f"{len(missing)} of {format_count(len(tiles), 'tile')}"
    pairs = tuple(files for files in tiles if files.pre is not None)
    if labels.missing_pre == "refuse" or not pairs:
        cure = "add it" + (", or leave these tiles out with --missing-pre skip" if pairs else "")
        raise FiresegError(
            f"{root}: no scene before the fire that --pre {labels.pre} matches for {count}, listed below; {cure}",
            *(f"{files.image}: no scene before the fire" for files in missing),
        )
    names = join_names([files.name for files in missing], _MAX_NAMES)
    log.warning("%s: %s left out, without a scene before the fire: %s", root, count, names)
    return pairs


def assign_splits(plan: Plan, options: PrepareOptions) -> tuple[Plan, Audit]:
    """Assigns a split to each tile and audits the footprints.

    Raises:
        FiresegError: If there are no split folders, or no split can be drawn.
    """
    footprints = [_read_footprint(files, plan.metadata) for files in plan.tiles]
    if options.folds is not None:
        return _assign_folds(plan, footprints, options)
    if options.is_drawn:
        footprints = _draw_splits(plan, footprints, options)
        # Tiles without a readable footprint are reported when they are cut; their split does not matter.
        splits = ["train" if footprint is None else footprint.split for footprint in footprints]
    else:
        splits = _get_splits(plan, options)
        footprints = [one and replace(one, split=split) for one, split in zip(footprints, splits, strict=True)]
    tiles = tuple(replace(files, split=split) for files, split in zip(plan.tiles, splits, strict=True))
    return replace(plan, tiles=tiles), audit_splits([one for one in footprints if one and one.split], options)


def audit_splits(footprints: Sequence[Footprint], options: PrepareOptions) -> Audit:
    """Audits splits; of given ones, near tiles of unknown activations are noted: they may show one fire."""
    result = audit(footprints)
    if options.is_drawn:
        return result
    pairs = [
        f"{footprints[one].split} {footprints[one].name} and {footprints[other].split} {footprints[other].name}"
        for one, other in find_near_tiles(footprints, options.group_km, options.group_days)
        if footprints[one].split != footprints[other].split
    ]
    if not pairs:
        return result
    count = format_count(len(pairs), "pair")
    note = (
        f"{count} of tiles of unknown activations in different splits within {options.group_km:g} km and "
        f"{options.group_days} days, for example {pairs[0]}: if they show one fire, scores will be too high"
    )
    return replace(result, notes=(*result.notes, note))


def note_unknown_activations(tiles: Sequence[TileFiles | TileRecord], options: PrepareOptions) -> list[str]:
    """Describes how many tiles are of an unknown activation, and what follows from it; nothing if there are none."""
    num_unknown = sum(tile.activation == tile.name for tile in tiles)
    if not num_unknown or options.tiling.labels.unlabelled:  # there is one split, and training compares it with others
        return []
    count = f"{options.tiles}: {num_unknown} of {format_count(len(tiles), 'tile name')} tell no activation (EMSR…)"
    if not options.is_drawn:
        return [f"{count}; one fire in two splits is found only where its tiles overlap"]
    if options.groups is not None:
        return [f"{count}; such tiles stay together by --groups and overlap only"]
    return [
        f"{count}; such tiles stay together if within {options.group_km:g} km and {options.group_days} days of each "
        "other (--group-km, --group-days); --groups tells which tiles belong together"
    ]


def _get_splits(plan: Plan, options: PrepareOptions) -> list[str]:
    if options.split_csv is not None:
        names = [files.name for files in plan.tiles]
        given = read_tile_column(options.split_csv, "split", names, option="--split-csv", allowed=SPLITS)
        return [given[name] for name in names]
    splits = [files.split for files in plan.tiles]
    if not any(splits):
        raise SettingError(
            f"{plan.root}: no train, val and test folders in it; sort the tiles into such folders, give the splits "
            "with --split-csv, or draw them with --split-by activation"
        )
    return splits


def _draw_splits(plan: Plan, footprints: Sequence[Footprint | None], options: PrepareOptions) -> list[Footprint | None]:
    """Draws the splits of the tiles that have a footprint."""
    numbers, tiles, group_options = _select_readable(plan, footprints, options)
    drawn = list(footprints)
    if tiles:
        assigned = assign_split(tiles, options.fractions, options.seed, **group_options)
        for number, footprint in zip(numbers, assigned, strict=True):
            drawn[number] = footprint
    return drawn


def _assign_folds(plan: Plan, footprints: Sequence[Footprint | None], options: PrepareOptions) -> tuple[Plan, Audit]:
    """Draws the part of each tile and audits the parts: a leak between two of them is one in some fold."""
    assert options.folds is not None
    numbers, tiles, group_options = _select_readable(plan, footprints, options)
    drawn = assign_parts(tiles, options.folds, options.seed, **group_options) if tiles else []
    part_of = dict(zip(numbers, drawn, strict=True))
    # Tiles without a readable footprint are reported when they are cut; their part does not matter.
    order = sorted(range(len(plan.tiles)), key=lambda number: str(plan.tiles[number].image), reverse=True)
    parts = {plan.tiles[number].name: part_of.get(number, 0) for number in order}  # of equal names the first counts
    plan = replace(plan, tiles=tuple(replace(files, split=ALL) for files in plan.tiles), parts=parts)
    return plan, audit_parts(tiles, parts)


def audit_parts(footprints: Sequence[Footprint], parts: Mapping[str, int]) -> Audit:
    """Audits the footprints between the parts of a cross-validation."""
    return audit([replace(one, split=f"fold {parts[one.name]}") for one in footprints])


def _select_readable(
    plan: Plan, footprints: Sequence[Footprint | None], options: PrepareOptions
) -> tuple[list[int], list[Footprint], dict[str, Any]]:
    """Returns numbers and footprints with burned pixels of the tiles that have one, and what groups them."""
    numbers = [number for number, footprint in enumerate(footprints) if footprint is not None]
    labels = options.tiling.labels
    tiles = [
        _add_burned(footprint, files, labels)
        for footprint, files in zip(footprints, plan.tiles, strict=True)
        if footprint
    ]
    names = _get_group_names(plan, options)
    group_names = names and [names[number] for number in numbers]
    return numbers, tiles, {"group_km": options.group_km, "group_days": options.group_days, "group_names": group_names}


def _get_group_names(plan: Plan, options: PrepareOptions) -> list[str] | None:
    if options.groups is None:
        return None
    if options.groups_csv is None:
        return [str(files.image.parent.relative_to(plan.root)) for files in plan.tiles]
    names = [files.name for files in plan.tiles]
    groups = read_tile_column(options.groups_csv, "group", names, option="--groups")
    return [groups[name] for name in names]


def _add_burned(footprint: Footprint, files: TileFiles, labels: LabelOptions) -> Footprint:
    try:
        with convert_unexpected_errors(files.image):
            return replace(footprint, burned=count_burned(files, labels))
    except FiresegError:  # reported when the tile is cut; it gives no patches
        return replace(footprint, burned=0)


def check_leaks(result: Audit, root: Path, options: PrepareOptions) -> list[str]:
    """Describes the leaks between splits, one line each, if they are allowed.

    Raises:
        FiresegError: If there are leaks and they are not allowed.
    """
    if result.is_clean or options.allow_leaks:
        return [describe_leak(finding) for finding in result.findings]
    cures = ["--allow-leaks continues and records them in the manifest"]
    if not options.is_drawn:
        cures.insert(0, "--split-by activation draws splits without leaks")
    count = format_count(len(result.findings), "leak")
    raise FiresegError(f"{root}: {count} between the splits, which would inflate the scores; {'; '.join(cures)}")


def describe_leak(leak: Leak) -> str:
    """Formats a leak as one line of the manifest.

    Example:
        overlap: train EMSR1_AOI01_01 and val EMSR2_AOI01_01 (53.1 %, 12 days apart)
    """
    first, second = (f"{tile.split} {tile.name}" for tile in leak.tiles)
    share = "" if leak.share is None else f"{100 * leak.share:.1f} %"
    details = ", ".join(part for part in (share, leak.note) if part)
    return f"{leak.kind}: {first} and {second}" + (f" ({details})" if details else "")


def make_journal_header(plan: Plan, options: PrepareOptions) -> dict[str, Any]:
    """Returns the first line of the journal: the options, the split of each tile, and the part if there are folds."""
    splits = {files.image.relative_to(plan.root).as_posix(): files.split for files in plan.tiles}
    folds = {} if plan.parts is None else {"folds": dict(sorted(plan.parts.items()))}
    return {"options": options.as_dict(), "tiles": splits, **folds}


def apply_splits(plan: Plan, header: Mapping[str, Any]) -> Plan:
    """Returns the plan with the splits of a journal header: sorted, without tiles that have no split, names unique."""
    splits = header["tiles"]
    tiles = [replace(files, split=splits[files.image.relative_to(plan.root).as_posix()]) for files in plan.tiles]
    tiles = [files for files in tiles if files.split]
    tiles.sort(key=lambda files: ((*SPLITS, ALL).index(files.split), files.name, str(files.image)))
    known_faults = {fault.path for fault in plan.other_faults}
    faults, unique = list(plan.other_faults), dict[tuple[str, str], TileFiles]()
    for files in tiles:
        first = unique.setdefault((files.split, files.name), files)
        if first is not files and files.image not in known_faults:
            faults.append(Fault(files.image, f"has the same tile name as {first.image}; remove one of them"))
    return replace(plan, tiles=tuple(unique.values()), other_faults=tuple(faults))


def _read_footprint(files: TileFiles, metadata: Mapping[str, TileMetadata] | None) -> Footprint | None:
    try:
        with convert_unexpected_errors(files.image):
            return make_footprint(files, *read_grid_and_date(files), metadata)
    except FiresegError:
        return None
