"""From tiles to patches, step by step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fireseg.console import format_seconds
from fireseg.data.audit.findings import Audit, audit
from fireseg.data.audit.locate import from_plain
from fireseg.data.cutting.crew import work_in_order
from fireseg.data.cutting.cutter import TileCutter
from fireseg.data.cutting.fingerprint import list_changed
from fireseg.data.cutting.record import Record, TileRecord
from fireseg.data.cutting.release import complete
from fireseg.data.cutting.workspace import AUDIT, UNFINISHED, Workspace, compare, naming_disk_faults, refuse_differences
from fireseg.disk import replacing
from fireseg.errors import FiresegError
from fireseg.preparing.pace import watch_tiles
from fireseg.preparing.plan import Plan, Wish, find_work, header_of, refuse_leaks, settle_splits, take_splits
from fireseg.preparing.summary import list_faults, next_command, summarise

log = logging.getLogger("fireseg")

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


def prepare(wish: Wish, *, report: Report | None = None, report_name: str = "report.html") -> Outcome:
    """Cuts tiles into patches, or goes on where it was killed, or finds all done.

    Args:
        wish: What the user asks for.
        report: Called with the finished folder, once what it draws is not there.
        report_name: The file whose presence says that it was drawn.

    Raises:
        FiresegError: If something is wrong that the user can mend. What is done is kept.
    """
    plan = find_work(wish)
    space = Workspace(wish.patches)
    with space.locked(), naming_disk_faults(wish.patches):
        was_finished = space.state == "finished"
        if space.state == "new":
            record, plan = _begin(space, plan, wish)
        else:
            record, plan = _go_on(space, plan, wish)
        if space.state == "unfinished":
            _cut_tiles(space, record, plan, wish)
            _complete(space, record, plan, wish)
        if space.state == "complete":
            space.release()
        space.tidy()
        if report is not None and not (wish.patches / report_name).exists():
            report(wish.patches)
    for line in summarise(record, wish, was_finished=was_finished):
        log.info("%s", line)
    if (wish.patches / report_name).exists():
        log.info("look at it: %s", wish.patches / report_name)
    log.info("next: %s", next_command(wish))
    return Outcome(faults=tuple(list_faults(record, plan.outside)), was_finished=was_finished)


def _begin(space: Workspace, plan: Plan, wish: Wish) -> tuple[Record, Plan]:
    """Settles who goes where; from here on it stays so."""
    plan, found = settle_splits(plan, wish)
    _show_leaks(found, wish)
    header = header_of(wish, plan)
    return Record.create(space.staging / Record.NAME, header), take_splits(plan, header, wish)


def _go_on(space: Workspace, plan: Plan, wish: Wish) -> tuple[Record, Plan]:
    """Holds what was asked for before against what is asked for now."""
    record = Record(space.record)
    compare(record.header, header_of(wish, plan), wish.patches)
    plan = take_splits(plan, record.header, wish)
    changed = [
        f"{path}, which has changed since"
        for files, tile in zip(plan.tiles, record.tiles, strict=False)
        for path in list_changed(tile, files, wish.tiles, wish.recipe)
    ]
    refuse_differences(wish.patches, changed)
    if space.state == "unfinished":
        log.info("%s: going on after %d of %d tiles", wish.patches, len(record.tiles), len(plan.tiles))
    return record, plan


def _cut_tiles(space: Workspace, record: Record, plan: Plan, wish: Wish) -> None:
    """The work. A tile counts from the moment its line is in the record."""
    store = wish.recipe.open_store(space.staging)
    names = record.names()
    store.cut_back(names)
    counts = {split: len(patches) for split, patches in names.items()}

    def place(tile: TileRecord) -> int:
        first = counts.get(tile.split, 0)
        counts[tile.split] = first + len(tile.rows)
        return first

    cutter = TileCutter(wish.tiles, plan.tiles, wish.recipe, store, known=plan.known)
    left = range(len(record.tiles), len(plan.tiles))
    with watch_tiles(len(plan.tiles), done=len(record.tiles)) as pace:
        for _, tile in work_in_order(cutter, left, place, workers=wish.workers):
            record.append(tile)
            pace.advance(f"{sum(counts.values()):,} patches")
    log.debug("cut in %s", format_seconds(pace.seconds))


def _complete(space: Workspace, record: Record, plan: Plan, wish: Wish) -> None:
    """Looks at the splits once more, now that the pixels are known, and writes what others read."""
    if not record.names():
        faults = list_faults(record, ())
        raise FiresegError(f"{wish.tiles}: no patch came of any tile", *faults)
    found = audit([from_plain(tile.footprint) for tile in record.tiles if tile.footprint])
    leaks = _show_leaks(found, wish, begun=wish.patches)
    with replacing(space.staging / AUDIT) as part:
        part.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    complete(record, wish.recipe, space.staging, leaks, [str(fault) for fault in plan.outside])


def _show_leaks(found: Audit, wish: Wish, begun: Path | None = None) -> Sequence[str]:
    if not found.is_clean and (begun is None or not wish.allow_leaks):
        log.warning("%s", found.as_table())
    try:
        return refuse_leaks(found, wish)
    except FiresegError as error:
        if begun is None:
            raise
        hint = f"the patches are cut and wait in {begun / UNFINISHED}: delete {begun} for another split"
        raise FiresegError(f"{error}; {hint}") from error
