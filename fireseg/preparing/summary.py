"""What a person wants to know at the end."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from fireseg.data.bands import BAND_NAMES
from fireseg.data.cutting.record import Record, TileRecord
from fireseg.data.cutting.release import sum_left_out
from fireseg.data.patches import SPLITS, Fault
from fireseg.preparing.plan import Wish

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
