"""What a prepared data set says of itself, counted from the record of its tiles."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.data.cutting.recipe import Recipe
from fireseg.data.cutting.record import Record, TileRecord
from fireseg.data.reflectance import SCALE
from fireseg.data.store import FORMAT, MANIFEST, METADATA
from fireseg.disk import replacing


def complete(record: Record, recipe: Recipe, folder: Path, leaks: Sequence[str], outside: Sequence[str] = ()) -> None:
    """Closes the arrays and writes the tables and, last of all, the manifest.

    Args:
        record: With all tiles.
        recipe: How they became patches.
        folder: Where the split folders are.
        leaks: What splits know of each other, accepted by the user.
        outside: Faults of files that belong to no tile.
    """
    names = record.names()
    recipe.open_store(folder).close({split: len(patches) for split, patches in names.items()})
    for split in names:
        write_table(folder / split / METADATA, [tile for tile in record.tiles if tile.split == split])
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps(describe(record, recipe, leaks, outside), indent=1) + "\n", encoding="utf-8")


def describe(record: Record, recipe: Recipe, leaks: Sequence[str], outside: Sequence[str] = ()) -> dict[str, Any]:
    """The manifest."""
    training = [tile for tile in record.tiles if tile.split == "train" and tile.rows]
    return {
        "format": FORMAT,
        "layout": recipe.layout,
        "task": recipe.task,
        "bands": list(recipe.bands),
        "scale": SCALE,
        "size": recipe.size,
        "stride": recipe.strides(),
        "patches": {split: len(patches) for split, patches in record.names().items()},
        "statistics": sum_statistics(training, recipe),
        "class_counts": {name: _add([tile.pixels[name][:-1] for tile in training]) for name in recipe.masks},
        "left_out": sum_left_out(record.tiles),
        "faults": [*(fault for tile in record.tiles for fault in tile.faults), *outside],
        "leaks": list(leaks),
        "options": record.header["options"],
        "sources": {
            source.path: {"bytes": source.bytes, ("sha256" if number else "pixels_sha256"): source.sha256}
            for tile in record.tiles
            for number, source in enumerate(tile.sources)  # the image first
        },
    }


def sum_statistics(tiles: Sequence[TileRecord], recipe: Recipe) -> dict[str, list[float] | None]:
    r"""Mean and standard deviation of the reflectance of each band over all labelled pixels.

    Whole numbers up to the last step, :math:`\sigma = \sqrt{n \sum q^2 - (\sum q)^2} / n`, so that neither the
    order of the tiles nor the number of workers shows in any digit.

    Args:
        tiles: Those that have patches.
        recipe: How they became patches.

    Returns:
        `mean` and `std`, None where no pixel is labelled.
    """
    count = sum(sum(tile.pixels[recipe.masks[0]][:-1]) for tile in tiles)
    if not count:
        return {"mean": None, "std": None}
    sums = _add([tile.band_sums for tile in tiles])
    squares = _add([tile.band_squares for tile in tiles])
    spreads = [count * square - total**2 for total, square in zip(sums, squares, strict=True)]
    return {
        "mean": [total / (count * SCALE) for total in sums],
        "std": [math.sqrt(spread) / (count * SCALE) for spread in spreads],
    }


def sum_left_out(tiles: Sequence[TileRecord]) -> dict[str, dict[str, int]]:
    """Windows left out and labelled pixels in them, by reason."""
    found: dict[str, dict[str, int]] = {}
    for tile in tiles:
        for reason, (windows, pixels) in tile.left_out.items():
            counts = found.setdefault(reason, {"windows": 0, "labelled_pixels": 0})
            counts["windows"] += windows
            counts["labelled_pixels"] += pixels
    return dict(sorted(found.items()))


def write_table(path: Path, tiles: Sequence[TileRecord]) -> None:
    """Writes metadata.csv: row n is patch n of the split."""
    rows: list[Mapping[str, Any]] = [row for tile in tiles for row in tile.rows]
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _add(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
