"""Places of tiles in the journals of prepared folders, and overlaps between tiles of different folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fireseg.files import check_regular_file

_MIN_OVERLAP = 0.01
"""Shared area over the area of the smaller tile, above which an overlap counts, as in prepare."""

Box = tuple[float, float, float, float]
"""West, south, east and north in degrees; east is above 180 if the box crosses the antimeridian."""


class Place(NamedTuple):
    """The place of a tile.

    Attributes:
        box: Its bounding box.
        activation: Code of its CEMS activation; the name of the tile if it has none.
    """

    box: Box
    activation: str


def read_places(journal: Path) -> dict[str, Place] | None:
    """Reads the place of each tile from the journal of prepare; None if there is none.

    Args:
        journal: Path of the journal.
    """
    check_regular_file(journal)
    try:
        records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()[1:]]
    except (OSError, ValueError):
        return None
    places = {}
    for record in records:
        if record.get("footprint"):
            west, south, east, north = record["footprint"]["bounds"]
            box = (west, south, east if east > west else east + 360.0, north)
            places[record["name"]] = Place(box, record.get("activation", record["name"]))
    return places


def find_overlaps(boxes: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """Yields the pairs of boxes that share more than 1 % of the area of the smaller one, the lower index first.

    Args:
        boxes: Bounding boxes of tiles.

    Example:
        >>> list(find_overlaps([(0, 0, 2, 2), (1, 1, 3, 3), (2, 2, 3, 3)]))
        [(0, 1), (1, 2)]
    """
    west, south, east, north = np.array(boxes, np.float64).reshape(-1, 4).T
    areas = (east - west) * (north - south)
    for number in range(len(boxes)):
        width = np.minimum(east, east[number]) - np.maximum(west, west[number])
        height = np.minimum(north, north[number]) - np.maximum(south, south[number])
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        others = np.flatnonzero(shared > _MIN_OVERLAP * np.minimum(areas, areas[number]))
        yield from ((number, other) for other in others.tolist() if other > number)
