"""From tiles to patches, step by step."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fireseg.console import format_seconds
from fireseg.data.bands import BAND_NAMES
from fireseg.data.patches import SPLITS, Fault
from fireseg.errors import FiresegError
from fireseg.files import replacing
from fireseg.prepare.audit import Audit, audit
from fireseg.prepare.duplicates import TileLooker
from fireseg.prepare.footprints import Footprint, from_plain, read_metadata
from fireseg.prepare.journal import (
    AUDIT,
    UNFINISHED,
    Record,
    TileRecord,
    Workspace,
    compare,
    complete,
    naming_disk_faults,
    refuse_differences,
    sum_left_out,
)
from fireseg.prepare.plan import Plan, Wish, find_work, header_of, refuse_leaks, settle_splits, take_splits
from fireseg.prepare.tile_task import TileCutter, list_changed
from fireseg.prepare.workers import work_in_order
from fireseg.tiles.reader import search_tiles

log = logging.getLogger("fireseg")

_LINE_EVERY_S = 30.0


class Pace:
    """Counts tiles: a bar with the time left on a terminal, elsewhere a line now and then.

    Args:
        total: Tiles in all.
        done: Tiles done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._begin = self._said = time.monotonic()
        self._total, self._before, self._done = total, done, done
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc="tiles", unit="tile", leave=False, disable=not is_terminal)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def advance(self, what: str) -> None:
        """One tile more.

        Args:
            what: To be shown beside the bar.
        """
        self._done += 1
        self._bar.set_postfix_str(what, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._said >= _LINE_EVERY_S and self._done < self._total:
            self._said = now
            left = self.seconds / (self._done - self._before) * (self._total - self._done)
            log.info("%d of %d tiles, %s; %s left", self._done, self._total, what, format_seconds(left))

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()


@contextmanager
def watch_tiles(total: int, *, done: int) -> Iterator[Pace]:
    """Shows the pace of what happens within."""
    pace = Pace(total, done)
    try:
        yield pace
    finally:
        pace.close()


def audit_path(path: Path, *, json_path: Path, workers: int) -> tuple[Audit, list[str]]:
    """Looks who shares ground, pixels or an activation with whom, and shows and writes it.

    Args:
        path: A folder of tiles, or the data set's own table of them.
        json_path: Where what was found goes, besides being shown.
        workers: Processes that read tiles.

    Returns:
        What was found, and what is wrong with tiles, one line each.

    Raises:
        FiresegError: If there is no such folder or table, or nothing to look at.
    """
    faults: list[str] = []
    footprints = _look_at_tiles(path, faults, workers) if path.is_dir() else read_metadata(path)
    found = audit(footprints)
    with naming_disk_faults(json_path):
        json_path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(json_path) as part:
            part.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    log.info("%s", found.as_table())
    log.info("all of it: %s", json_path)
    return found, faults


def _look_at_tiles(path: Path, faults: list[str], workers: int) -> list[Footprint]:
    tiles, outside = search_tiles(path)
    faults += map(str, outside)
    footprints = []
    with watch_tiles(len(tiles), done=0) as pace:
        for number, (footprint, found) in work_in_order(
            TileLooker(tiles), range(len(tiles)), lambda _: 0, workers=workers
        ):
            faults += found
            if footprint is not None:
                footprints.append(footprint)
            pace.advance(tiles[number].name)
    if not footprints:
        raise FiresegError(f"{path}: no tile that can be read", *faults)
    return footprints


_MISSING = {
    "DEL": "without DEL: only their grading teaches",
    "GRA": "without GRA: left out by task=gra",
    "CM": "without CM: no cloud is known there",
    "json": "without json",
}

_NUM_SHOWN = 10


def summarise(record: Record, wish: Wish, *, was_finished: bool) -> Iterator[str]:
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


def next_command(wish: Wish) -> str:
    """What to type to train on the patches, as a shell takes it."""
    recipe = wish.recipe
    words = ["python", "-m", "fireseg.train", f"data.root={wish.patches}"]
    if recipe.task is not None:
        words.append(f"task={recipe.task}")
    if recipe.bands != BAND_NAMES:
        words.append(f"data.bands=[{','.join(recipe.bands)}]")
    return shlex.join(words)


def list_faults(record: Record, outside: Sequence[Fault]) -> list[str]:
    """What is wrong with tiles, one line each."""
    return [*(fault for tile in record.tiles for fault in tile.faults), *map(str, outside)]


def _describe(record: Record, wish: Wish) -> Iterator[str]:
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


def _left_out(tiles: Sequence[TileRecord], wish: Wish) -> Iterator[str]:
    left_out = sum_left_out(tiles)
    if cloud := left_out.get("cloud"):
        yield (
            f"left out: {_count(cloud['windows'], 'window')} with more than {wish.recipe.max_cloud:.0%} cloud, "
            f"{cloud['labelled_pixels']:,} labelled pixels in them (--max-cloud)"
        )
    if unlabelled := left_out.get("unlabelled"):
        yield f"left out: {_count(unlabelled['windows'], 'window')} with nothing labelled"


def _disagreements(tiles: Sequence[TileRecord], wish: Wish) -> Iterator[str]:
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
