"""What a finished folder of patches holds, read from the folder alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.cutting.record import RECORD, Record, TileRecord
from fireseg.data.cutting.workspace import AUDIT, read_json
from fireseg.data.manifest import read_manifest
from fireseg.data.packed import map_array
from fireseg.data.patches import MASK_END, SPLITS, read_array
from fireseg.data.store import MANIFEST, MASKS, MaskName, masks_file
from fireseg.errors import FiresegError
from fireseg.metric import inverse_frequency_weights
from fireseg.render.balance import Balance, ClassCounts
from fireseg.render.panels import Box
from fireseg.task import Task, get_class_names

NUM_CLASSES: dict[MaskName, int] = {"del": 2, "gra": 5}

_DEGREE_M = 111_320.0
_M2_PER_HA = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A finished folder.

    Attributes:
        root: The folder.
        manifest: What it says of itself.
        tiles: What came of each tile.
        audit: What splits know of each other.
        balance: What it is made of; only masks in which anything is labelled.
    """

    root: Path
    manifest: Mapping[str, Any]
    tiles: tuple[TileRecord, ...]
    audit: Mapping[str, Any]
    balance: Balance

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have patches."""
        return tuple(split for split in SPLITS if split in self.manifest["patches"])

    @property
    def masks(self) -> tuple[MaskName, ...]:
        """The masks of a patch that hold anything, the first one telling what is labelled."""
        return tuple(name for name in MASKS for counts in self.balance.classes if counts.task.name == name)


def read_contents(root: Path) -> Contents:
    """Reads what prepare left in a folder, and all its masks once.

    Raises:
        FiresegError: If the folder was not prepared here, or not to the end.
    """
    if read_manifest(root) is None or not (root / RECORD).exists():
        wanted = f"{MANIFEST} and {RECORD} are wanted"
        raise FiresegError(f"{root}: no finished folder of python -m fireseg.prepare; {wanted}; run it again")
    manifest = read_json(root / MANIFEST)
    tiles = tuple(Record(root / RECORD).tiles)
    splits = [split for split in SPLITS if split in manifest["patches"]]
    masks = MASKS if manifest["task"] is None else (manifest["task"],)
    classes = [count_classes(root, tiles, splits, mask) for mask in masks]
    labelled = [counts for counts in classes if any(map(sum, counts.pixels.values()))]
    balance = Balance(
        classes=labelled or classes[:1],
        burned={split: [row["burn_fraction"] for row in _iter_rows(tiles, split)] for split in splits},
        cloud={split: list_cloud(tiles, split) for split in splits},
        fires_ha={split: list(sum_fires(tiles, split).values()) for split in splits},
        boxes={split: list_boxes(tiles, split) for split in splits},
    )
    return Contents(root=root, manifest=manifest, tiles=tiles, audit=read_json(root / AUDIT), balance=balance)


def get_task(mask: MaskName) -> Task:
    """What the values of a mask mean."""
    number = NUM_CLASSES[mask]
    return Task(name=mask, num_classes=number, class_names=get_class_names(number))


def count_classes(root: Path, tiles: Sequence[TileRecord], splits: Sequence[str], mask: MaskName) -> ClassCounts:
    """Pixels and patches of each class of a mask, by split."""
    number = NUM_CLASSES[mask]
    pixels = {
        split: [
            sum(tile.pixels[mask][value] for tile in tiles if tile.split == split and tile.rows)
            for value in range(number)
        ]
        for split in splits
    }
    patches, totals = {}, {}
    for split in splits:
        present = np.array([_find_classes(one, number) for one in _iter_masks(root / split, tiles, split, mask)])
        patches[split] = present.sum(axis=0).tolist()
        totals[split] = int(present.any(axis=1).sum())
    train = pixels.get("train", ())
    weights = inverse_frequency_weights(train) if any(train) else ()
    return ClassCounts(task=get_task(mask), pixels=pixels, patches=patches, totals=totals, weights=weights)


def list_cloud(tiles: Sequence[TileRecord], split: str) -> list[float]:
    """Share of cloud of each patch of a split, NaN where its tile has no cloud mask."""
    return [
        math.nan if "CM" in tile.missing else row["cloud_cover"]
        for tile in tiles
        if tile.split == split
        for row in tile.rows
    ]


def sum_fires(tiles: Sequence[TileRecord], split: str) -> dict[str, float]:
    """Burned hectares of each activation in a split, as delineated, also under cloud. Shared ground counts twice."""
    found: dict[str, float] = {}
    for tile in tiles:
        if tile.split == split and tile.rows and tile.footprint and "DEL" not in tile.missing:
            area = (tile.footprint["burned"] or 0) * pixel_area_m2(tile.footprint) / _M2_PER_HA
            found[tile.activation] = found.get(tile.activation, 0.0) + area
    return found


def pixel_area_m2(footprint: Mapping[str, Any]) -> float:
    """True area of a pixel in the middle of a tile.

    Example:
        >>> round(pixel_area_m2({"bounds": [0, -0.01, 0.02, 0.01], "height": 200, "width": 200, "outline": None}))
        124
    """
    west, south, east, north = footprint["bounds"]
    corners = footprint["outline"]
    if not corners:
        east = east + 360 if east < west else east
        corners = [(west, south), (east, south), (east, north), (west, north)]
    x, y = np.array(corners, np.float64).T
    degrees2 = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return (
        degrees2
        * _DEGREE_M**2
        * math.cos(math.radians((south + north) / 2))
        / (footprint["height"] * footprint["width"])
    )


def list_boxes(tiles: Sequence[TileRecord], split: str) -> list[Box]:
    """Bounds of the tiles of a split in degrees."""
    places = [tile.footprint["bounds"] for tile in tiles if tile.split == split and tile.footprint]
    return [(west, south, east, north) for west, south, east, north in places]


def _iter_rows(tiles: Sequence[TileRecord], split: str) -> Iterator[dict[str, Any]]:
    return (row for tile in tiles if tile.split == split for row in tile.rows)


def _iter_masks(folder: Path, tiles: Sequence[TileRecord], split: str, mask: MaskName) -> Iterator[NDArray[np.uint8]]:
    packed = folder / masks_file(mask)
    if packed.exists():
        yield from map_array(packed)
        return
    for row in _iter_rows(tiles, split):
        yield read_array(folder / f"{row['patch_id']}{MASK_END}")


def _find_classes(mask: NDArray[np.uint8], number: int) -> NDArray[np.bool_]:
    return np.bincount(mask.ravel(), minlength=256)[:number] > 0
