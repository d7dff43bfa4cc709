"""From tiles to patches, step by step."""

from __future__ import annotations

import json
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fireseg.console import format_seconds
from fireseg.data.bands import BAND_NAMES
from fireseg.data.patches import SPLITS, Fault
from fireseg.errors import FiresegError
from fireseg.files import atomic_write
from fireseg.prepare.audit import Audit, audit
from fireseg.prepare.footprints import from_dict
from fireseg.prepare.journal import (
    AUDIT,
    UNFINISHED,
    Journal,
    StagingFolder,
    TileRecord,
    check_same_options,
    compare,
    naming_disk_faults,
    publish,
    sum_left_out,
)
from fireseg.prepare.plan import (
    Plan,
    PrepareOptions,
    apply_splits,
    assign_splits,
    check_leaks,
    make_journal_header,
    make_plan,
)
from fireseg.prepare.tile_task import TileTask, list_changed
from fireseg.prepare.workers import run_in_order, track_tiles

log = logging.getLogger("fireseg")


_MISSING = {
    "DEL": "without DEL: only their grading teaches",
    "GRA": "without GRA: left out by task=gra",
    "CM": "without CM: no cloud is known there",
    "json": "without json",
}

_NUM_SHOWN = 10


def format_summary(record: Journal, wish: PrepareOptions, *, was_finished: bool) -> Iterator[str]:
    """The lines to be shown.

    Args:
        record: With all tiles.
        wish: What was asked for.
        was_finished: Whether there was nothing to do.
    """
    if was_finished:
        yield f"{wish.patches}: finished before, of the same tiles with the same options; nothing to do"
    else:
        yield from _describe(record, wish)


def next_command(wish: PrepareOptions) -> str:
    """What to type to train on the patches, as a shell takes it."""
    recipe = wish.recipe
    words = ["python", "-m", "fireseg.train", f"data.root={wish.patches}"]
    if recipe.task is not None:
        words.append(f"task={recipe.task}")
    if recipe.bands != BAND_NAMES:
        words.append(f"data.bands=[{','.join(recipe.bands)}]")
    return shlex.join(words)


def list_faults(record: Journal, outside: Sequence[Fault]) -> list[str]:
    """What is wrong with tiles, one line each."""
    return [*(fault for tile in record.tiles for fault in tile.faults), *map(str, outside)]


def _describe(record: Journal, wish: PrepareOptions) -> Iterator[str]:
    recipe = wish.recipe
    yield (
        f"{wish.patches}: {sum(map(len, record.names().values())):,} patches of {recipe.size} x {recipe.size} pixels, "
        f"{len(recipe.bands)} bands ({' '.join(recipe.bands)}), layout {recipe.layout}"
    )
    yield from _table(record.tiles, recipe.masks[0])
    yield from _left_out(record.tiles, wish)
    missing = Counter(kind for tile in record.tiles for kind in tile.missing)
    for kind, meaning in _MISSING.items():
        if missing[kind]:
            yield f"{_count(missing[kind], 'tile')} {meaning}"
    yield from _disagreements(record.tiles, wish)
    flags = [flag for tile in record.tiles for flag in tile.flags]
    for flag in flags[:_NUM_SHOWN]:
        yield f"look at {flag}"
    if len(flags) > _NUM_SHOWN:
        yield f"... and at {len(flags) - _NUM_SHOWN} more: see tiles.jsonl"
    for split in SPLITS[:2]:
        if split not in record.names():
            yield f"no patch for {split}: training needs some"


def _table(tiles: Sequence[TileRecord], mask: str) -> Iterator[str]:
    """Tiles, patches and what was labelled, by split."""
    yield f"{'':5}  {'tiles':>6}  {'patches':>8}  {'labelled pixels':>16}  {'burned':>7}"
    for split in SPLITS:
        ours = [tile for tile in tiles if tile.split == split]
        if not ours:
            continue
        counts = [tile.pixels[mask][:-1] for tile in ours if tile.rows]  # pyright: ignore[reportArgumentType]
        labelled, burned = sum(map(sum, counts)), sum(sum(row[1:]) for row in counts)
        share = f"{100 * burned / labelled:.1f} %" if labelled else "-"
        patches = sum(len(tile.rows) for tile in ours)
        yield f"{split:5}  {len(ours):>6,}  {patches:>8,}  {labelled:>16,}  {share:>7}"


def _left_out(tiles: Sequence[TileRecord], wish: PrepareOptions) -> Iterator[str]:
    left_out = sum_left_out(tiles)
    if cloud := left_out.get("cloud"):
        yield (
            f"left out: {_count(cloud['windows'], 'window')} with more than {wish.recipe.max_cloud:.0%} cloud, "
            f"{cloud['labelled_pixels']:,} labelled pixels in them (--max-cloud)"
        )
    if unlabelled := left_out.get("unlabelled"):
        yield f"left out: {_count(unlabelled['windows'], 'window')} with nothing labelled"


def _disagreements(tiles: Sequence[TileRecord], wish: PrepareOptions) -> Iterator[str]:
    graded, delineated = (sum(tile.disagreements[side] for tile in tiles) for side in (0, 1))
    if graded or delineated:
        did = {"keep": "both kept (--disagreement ignore leaves them out)", "ignore": "ignored (--disagreement keep)"}
        yield (
            f"DEL and GRA disagree: {graded:,} pixels graded but not delineated, {delineated:,} delineated but not "
            f"graded; {did[wish.recipe.disagreement]}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


Report = Callable[[Path], None]
"""Draws what a finished folder of patches holds, into that folder."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended.

    Attributes:
        faults: What is wrong with tiles, one line each.
        was_finished: Whether there was nothing to do.
    """

    faults: tuple[str, ...]
    was_finished: bool


def prepare(wish: PrepareOptions, *, report: Report | None = None, report_name: str = "report.html") -> Outcome:
    """Cuts tiles into patches, or goes on where it was killed, or finds all done.

    Args:
        wish: What the user asks for.
        report: Called with the finished folder, once what it draws is not there.
        report_name: The file whose presence says that it was drawn.

    Raises:
        FiresegError: If something is wrong that the user can mend. What is done is kept.
    """
    plan = make_plan(wish)
    space = StagingFolder(wish.patches)
    with space.locked(), naming_disk_faults(wish.patches):
        was_finished = space.state == "finished"
        if space.state == "new":
            record, plan = _begin(space, plan, wish)
        else:
            record, plan = _go_on(space, plan, wish)
        if space.state == "unfinished":
            _cut_tiles(space, record, plan, wish)
            _complete(space, record, plan, wish)
        if space.state == "publish":
            space.release()
        space.tidy()
        if report is not None and not (wish.patches / report_name).exists():
            report(wish.patches)
    for line in format_summary(record, wish, was_finished=was_finished):
        log.info("%s", line)
    if (wish.patches / report_name).exists():
        log.info("look at it: %s", wish.patches / report_name)
    log.info("next: %s", next_command(wish))
    return Outcome(faults=tuple(list_faults(record, plan.outside)), was_finished=was_finished)


def _begin(space: StagingFolder, plan: Plan, wish: PrepareOptions) -> tuple[Journal, Plan]:
    """Settles who goes where; from here on it stays so."""
    plan, found = assign_splits(plan, wish)
    _show_leaks(found, wish)
    header = make_journal_header(wish, plan)
    return Journal.create(space.staging / Journal.NAME, header), apply_splits(plan, header, wish)


def _go_on(space: StagingFolder, plan: Plan, wish: PrepareOptions) -> tuple[Journal, Plan]:
    """Holds what was asked for before against what is asked for now."""
    record = Journal(space.record)
    compare(record.header, make_journal_header(wish, plan), wish.patches)
    plan = apply_splits(plan, record.header, wish)
    changed = [
        f"{path}, which has changed since"
        for files, tile in zip(plan.tiles, record.tiles, strict=False)
        for path in list_changed(tile, files, wish.tiles, wish.recipe)
    ]
    check_same_options(wish.patches, changed)
    if space.state == "unfinished":
        log.info("%s: going on after %d of %d tiles", wish.patches, len(record.tiles), len(plan.tiles))
    return record, plan


def _cut_tiles(space: StagingFolder, record: Journal, plan: Plan, wish: PrepareOptions) -> None:
    """The work. A tile counts from the moment its line is in the record."""
    store = wish.recipe.open_store(space.staging)
    names = record.names()
    store.truncate(names)
    counts = {split: len(patches) for split, patches in names.items()}

    def place(tile: TileRecord) -> int:
        first = counts.get(tile.split, 0)
        counts[tile.split] = first + len(tile.rows)
        return first

    cutter = TileTask(wish.tiles, plan.tiles, wish.recipe, store, known=plan.known)
    left = range(len(record.tiles), len(plan.tiles))
    with track_tiles(len(plan.tiles), done=len(record.tiles)) as pace:
        for _, tile in run_in_order(cutter, left, place, workers=wish.workers):
            record.append(tile)
            pace.advance(f"{sum(counts.values()):,} patches")
    log.debug("cut in %s", format_seconds(pace.seconds))


def _complete(space: StagingFolder, record: Journal, plan: Plan, wish: PrepareOptions) -> None:
    """Looks at the splits once more, now that the pixels are known, and writes what others read."""
    if not record.names():
        faults = list_faults(record, ())
        raise FiresegError(f"{wish.tiles}: no patch came of any tile", *faults)
    found = audit([from_dict(tile.footprint) for tile in record.tiles if tile.footprint])
    leaks = _show_leaks(found, wish, begun=wish.patches)
    with atomic_write(space.staging / AUDIT) as part:
        part.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    publish(record, wish.recipe, space.staging, leaks, [str(fault) for fault in plan.outside])


def _show_leaks(found: Audit, wish: PrepareOptions, begun: Path | None = None) -> Sequence[str]:
    if not found.is_clean and (begun is None or not wish.allow_leaks):
        log.warning("%s", found.as_table())
    try:
        return check_leaks(found, wish)
    except FiresegError as error:
        if begun is None:
            raise
        hint = f"the patches are cut and wait in {begun / UNFINISHED}: delete {begun} for another split"
        raise FiresegError(f"{error}; {hint}") from error
