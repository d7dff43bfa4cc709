"""Positions of patches in the tiles that they were cut from, and pixels counted once where patches overlap."""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fireseg.data.format import METADATA
from fireseg.data.joined import JoinedReader
from fireseg.data.patches import SplitReader
from fireseg.data.statistics import PatchStatistics, count_values
from fireseg.files import check_regular_file

log = logging.getLogger("fireseg")

_PATCH_NAME = re.compile(r"(?P<tile>.+)_r(?P<row>\d+)_c(?P<col>\d+)")

_IMAGE_SUFFIX = "_S2L2A"

_MAX_TILE_PX = 30_000**2
"""Pixels of a tile beyond which positions are wrong; a product has 10,980 x 10,980."""

Row = Mapping[str, str]


class LocatedPatch(NamedTuple):
    """A patch and its place in a tile.

    Attributes:
        number: Index of the patch in its split.
        tile: Name of the tile.
        row: First row of the patch in the tile.
        col: First column.
        metadata: Its row of metadata.csv; empty without one.
    """

    number: int
    tile: str
    row: int
    col: int
    metadata: Row


def locate_patches(names: Sequence[str], folder: Path, *more_folders: Path) -> list[LocatedPatch | None]:
    """Locates patches by metadata.csv (`source_image`, `row`, `col`, in pixels), else by `{tile}_r{row}_c{col}`.

    Args:
        names: Names of the patches, in the order of the split.
        folder: Folder of the split.
        *more_folders: Folders of the split in further data sets.

    Returns:
        One entry per name; None if neither tells its place.
    """
    metadata = read_metadata(folder / METADATA)
    for other in more_folders:
        metadata |= read_metadata(other / METADATA)
    return [_locate_patch(number, name, metadata.get(name, {})) for number, name in enumerate(names)]


def read_metadata(path: Path) -> dict[str, Row]:
    """Reads the rows of metadata.csv by patch; empty if there is no such file or it names no patches."""
    check_regular_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["patch_id"]: row for row in csv.DictReader(file) if row.get("patch_id")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s: cannot be read (%s); patches are grouped by their names", path, error)
        return {}


def _locate_patch(number: int, name: str, metadata: Row) -> LocatedPatch | None:
    match = _PATCH_NAME.fullmatch(name)
    source, row, col = (metadata.get(key) or "" for key in ("source_image", "row", "col"))
    if source and row.isdecimal() and col.isdecimal():
        tile = match["tile"] if match else Path(source).stem.removesuffix(_IMAGE_SUFFIX)
        return LocatedPatch(number, tile, int(row), int(col), metadata)
    if match:
        return LocatedPatch(number, match["tile"], int(match["row"]), int(match["col"]), metadata)
    return None


def are_pixel_offsets(patches: Sequence[LocatedPatch], size: int) -> bool:
    """Returns False if rows or columns look like consecutive numbers of patches, which are 1 apart.

    Only the last step, to the edge of the tile, may be that small.

    Args:
        patches: Patches of a tile.
        size: Side of a patch in pixels.
    """
    for starts in ({patch.row for patch in patches}, {patch.col for patch in patches}):
        steps = [after - before for before, after in pairwise(sorted(starts))][:-1]
        if steps and max(steps) < size / 16:
            return False
    return True


def count_classes_once(reader: SplitReader, patches: Sequence[PatchStatistics], num_classes: int) -> tuple[int, ...]:
    """Counts the pixels of each class; where patches of a tile overlap, each pixel of the tile counts once.

    Fires lie in the middle of tiles, where most windows overlap: counted by patch, they would look more frequent than
    they are. Only the masks of patches that overlap an earlier one are read, 0.3 ms each. Patches whose place is
    unknown count whole.

    Args:
        reader: Reader of the split.
        patches: Statistics of the patches to count, all of one size.
        num_classes: Number of classes.
    """
    names = [patch.name for patch in patches]
    folders = reader.folders if isinstance(reader, JoinedReader) else (reader.folder,)
    selected = reader.select(names)
    tiles: dict[str, list[LocatedPatch]] = {}
    totals: Counter[int] = Counter()
    for patch, located in zip(patches, locate_patches(names, *folders), strict=True):
        if located is None:
            totals.update(patch.pixels)
        else:
            tiles.setdefault(located.tile, []).append(located)
    for located in tiles.values():
        totals.update(_count_tile(selected, patches, located))
    return tuple(totals[value] for value in range(num_classes))


def _count_tile(
    reader: SplitReader, patches: Sequence[PatchStatistics], located: Sequence[LocatedPatch]
) -> Counter[int]:
    rows, cols = patches[located[0].number].mask_shape
    top, left = min(patch.row for patch in located), min(patch.col for patch in located)
    height, width = max(patch.row for patch in located) - top + rows, max(patch.col for patch in located) - left + cols
    totals: Counter[int] = Counter()
    if not are_pixel_offsets(located, rows) or height * width > _MAX_TILE_PX:
        for patch in located:
            totals.update(patches[patch.number].pixels)
        return totals
    is_counted = np.zeros((height, width), bool)
    # Row by row, as they were cut: in val and test, only the first patch with a pixel has its label.
    for patch in sorted(located, key=lambda patch: (patch.row, patch.col)):
        row, col = patch.row - top, patch.col - left
        region = is_counted[row : row + rows, col : col + cols]
        totals.update(patches[patch.number].pixels)
        if region.any():
            totals.subtract(count_values(reader.read_mask(patch.number)[region]))
        region[:] = True
    return totals
