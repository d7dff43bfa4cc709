"""A few patches that show what a data set is like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.cutting.record import TileRecord
from fireseg.data.sources import open_source
from fireseg.data.store import MaskName

NUM_EXAMPLES = 16


class Example(NamedTuple):
    """A patch to be shown.

    Attributes:
        name: Its name.
        split: Its split.
        activation: The event that it belongs to.
        facts: Its row of metadata.csv.
        image: Reflectance, `(C, H, W)` float32.
        masks: Classes by task, `(H, W)` uint8 each.
    """

    name: str
    split: str
    activation: str
    facts: Mapping[str, Any]
    image: NDArray[np.float32]
    masks: Mapping[MaskName, NDArray[np.uint8]]


def pick_examples(
    tiles: Sequence[TileRecord], splits: Sequence[str], count: int = NUM_EXAMPLES
) -> dict[str, list[Mapping[str, Any]]]:
    """Chooses patches that differ: from little burned to much, of as many events as there are, the same each time.

    Half of them come from the training split, the rest from the others; about a quarter has no fire.

    Args:
        tiles: What came of each tile.
        splits: Those that have patches.
        count: How many to choose.

    Returns:
        Rows of metadata.csv by split.
    """
    rows = {split: [row for tile in tiles if tile.split == split for row in tile.rows] for split in splits}
    return {split: _spread(rows[split], number) for split, number in _share_out(rows, count).items()}


def read_examples(
    root: Path, picked: Mapping[str, Sequence[Mapping[str, Any]]], masks: Sequence[MaskName]
) -> list[Example]:
    """Reads the patches chosen.

    Args:
        root: Folder of the splits.
        picked: Rows of metadata.csv by split.
        masks: Which masks to read.
    """
    found = []
    for split, rows in picked.items():
        names = [row["patch_id"] for row in rows]
        sources = {mask: open_source(root / split, mask).take(names) for mask in masks}
        for number, row in enumerate(rows):
            read = {mask: source.read(number) for mask, source in sources.items()}
            image = read[masks[0]][0].transpose(2, 0, 1)
            labels: dict[MaskName, NDArray[np.uint8]] = {mask: read[mask][1] for mask in masks}
            found.append(Example(row["patch_id"], split, row["activation"], row, image, labels))
    return found


def _share_out(rows: Mapping[str, Sequence[Any]], count: int) -> dict[str, int]:
    """Half of the examples to the first split, what is left to the others in turn; none gets more than it has."""
    splits = list(rows)
    shares = dict.fromkeys(splits, 0)
    turns = [splits[0]] * (len(splits) - 1) + splits[1:] if len(splits) > 1 else splits
    left = min(count, sum(map(len, rows.values())))
    while left:
        for split in turns:
            if left and shares[split] < len(rows[split]):
                shares[split] += 1
                left -= 1
    return shares


def _spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Rows from the least burned to the most burned; within a step, of the event shown least so far."""
    order = sorted(rows, key=lambda row: (row["burn_fraction"], row["patch_id"]))
    bare = [row for row in order if row["burn_fraction"] == 0]
    burned = order[len(bare) :]
    num_burned = min(len(burned), max(count - count // 4, count - len(bare)))
    shown: Counter[str] = Counter()
    picked = []
    for group, number in ((bare, count - num_burned), (burned, num_burned)):
        edges = np.linspace(0, len(group), number + 1).astype(int).tolist()
        for first, last in pairwise(edges):
            step = group[first:last]
            middle = len(step) // 2
            best = min(range(len(step)), key=lambda place: (shown[step[place]["activation"]], abs(place - middle)))
            shown[step[best]["activation"]] += 1
            picked.append(step[best])
    return picked
