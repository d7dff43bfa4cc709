"""Fires of a split: patches grouped by tile, their positions, grids and areas."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fireseg.data.format import METADATA
from fireseg.data.positions import LocatedPatch, Row, are_pixel_offsets, locate_patches
from fireseg.errors import FiresegError
from fireseg.geo.grid import M2_PER_HA, Grid, PixelAreas, Transform

log = logging.getLogger("fireseg")

_ACTIVATION = re.compile(r"EMSR\d+")

_STRIP_ROWS = 256

_TOLERANCE_PX = 0.01
"""Largest difference in pixels between the boxes of patches and the grid inferred from them."""


class PatchBox(NamedTuple):
    """Bounding box of a patch.

    Attributes:
        row, col: First row and column of the patch, in pixels.
        x_min, y_min, x_max, y_max: Bounds of its four corners, in units of the CRS.
    """

    row: int
    col: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @classmethod
    def from_metadata(cls, row: int, col: int, metadata: Row) -> Self | None:
        """Reads the box from a row of metadata.csv; None if it has none."""
        try:
            x_min, y_min, x_max, y_max = (float(metadata[key]) for key in ("x_min", "y_min", "x_max", "y_max"))
        except (KeyError, TypeError, ValueError):
            return None
        is_valid = math.isfinite(x_min + y_min + x_max + y_max) and x_min < x_max and y_min < y_max
        return cls(row, col, x_min, y_min, x_max, y_max) if is_valid else None


class PatchPosition(NamedTuple):
    """Position of a patch in its fire.

    Attributes:
        number: Index of the patch in the split.
        row: First row, relative to the upper left corner of the fire.
        col: First column.
    """

    number: int
    row: int
    col: int


@dataclass(frozen=True, kw_only=True)
class Fire:
    """A tile of the split; the rectangle spanned by its patches if the size of the tile is unknown.

    Attributes:
        name: Name of the tile, or of the patch if its tile is unknown.
        positions: Positions of its patches, in the order of the split.
        height, width: Size in pixels.
        grid: Grid of the pixels; None if unknown.
        activation, country, climate, date: Metadata of the tile; None if unknown.
        source_image: File name of the image of the tile; None if unknown.
    """

    name: str
    positions: tuple[PatchPosition, ...]
    height: int
    width: int
    grid: Grid | None = None
    activation: str | None = None
    country: str | None = None
    climate: str | None = None
    date: str | None = None
    source_image: str | None = None


def group_by_fire(names: Sequence[str], folder: Path, *more_folders: Path, size: int) -> tuple[Fire, ...]:
    """Groups the patches of a split by the tile that they were cut from.

    Tile, row and column of a patch are read from metadata.csv (`source_image`, `row`, `col`, in pixels), else from its
    name, `{tile}_r{row}_c{col}`. Without either, the patch counts as a fire by itself, with a warning.

    Args:
        names: Names of the patches, in the order of the split.
        folder: Folder of the split.
        *more_folders: Folders of the split in further data sets.
        size: Side of a patch in pixels.

    Returns:
        Fires in the order of their first patches.
    """
    tiles: dict[str, list[LocatedPatch]] = {}
    ungrouped: list[str] = []
    for number, located in enumerate(locate_patches(names, folder, *more_folders)):
        if located is None:
            ungrouped.append(names[number])
        patch = located or LocatedPatch(number, names[number], 0, 0, {})
        tiles.setdefault(patch.tile, []).append(patch)
    if ungrouped:
        reason = f"tile unknown, because it is neither in {METADATA} nor in a name such as {{tile}}_r{{row}}_c{{col}}"
        _warn_ungrouped(folder, ungrouped, reason)
    fires: list[Fire] = []
    for tile, patches in tiles.items():
        if are_pixel_offsets(patches, size):
            fires.append(_make_fire(tile, patches, size))
            continue
        _warn_ungrouped(folder, [names[patch.number] for patch in patches], "row and col are not in pixels")
        fires += [_make_fire(names[patch.number], [patch._replace(row=0, col=0)], size) for patch in patches]
    return tuple(sorted(fires, key=lambda fire: fire.positions[0].number))


def _make_fire(tile: str, patches: Sequence[LocatedPatch], size: int) -> Fire:
    metadata = patches[0].metadata
    # Patches at the edge of a tile are padded beyond it, and windows may have been left out at its edges.
    top, bottom = _find_ends([patch.row for patch in patches], size, metadata.get("tile_height"))
    left, right = _find_ends([patch.col for patch in patches], size, metadata.get("tile_width"))
    activation = _ACTIVATION.match(tile)
    height, width = bottom - top, right - left
    boxes = [PatchBox.from_metadata(patch.row - top, patch.col - left, patch.metadata) for patch in patches]
    transform = infer_transform([box for box in boxes if box is not None], size=size)
    crs = metadata.get("crs")
    return Fire(
        name=tile,
        positions=tuple(PatchPosition(patch.number, patch.row - top, patch.col - left) for patch in patches),
        height=height,
        width=width,
        grid=Grid(height=height, width=width, crs=crs, transform=transform) if crs and transform else None,
        activation=metadata.get("activation") or (activation[0] if activation else None),
        country=metadata.get("country") or None,
        climate=metadata.get("climate") or None,
        date=metadata.get("date") or None,
        source_image=metadata.get("source_image") or None,
    )


def _find_ends(starts: Sequence[int], size: int, side: str | None) -> tuple[int, int]:
    """Returns first and last pixel, exclusive, of a tile along an axis; of its patches if its side is unknown."""
    if side and side.isdecimal() and int(side) > max(starts):
        return 0, int(side)
    return min(starts), max(starts) + size


def _warn_ungrouped(folder: Path, names: Sequence[str], reason: str) -> None:
    log.warning("%s: %s (first %s); each of %d patches counts as one fire", folder, reason, names[0], len(names))


def infer_transform(boxes: Sequence[PatchBox], *, size: int) -> Transform | None:
    """Infers the transform of a tile from the bounding boxes of its patches.

    One box suffices for a grid without rotation. In a rotated grid, the boxes are larger than the patches, but their
    offsets follow the steps of the grid: three patches that are not in one line determine it.

    Args:
        boxes: Boxes of the patches of a tile, rows and columns relative to the grid's origin.
        size: Side of a patch in pixels.

    Returns:
        The transform; None if there are no boxes or they contradict each other.
    """
    if not boxes:
        return None
    first = boxes[0]
    step_x, step_y = (first.x_max - first.x_min) / size, (first.y_max - first.y_min) / size
    unrotated = (
        *(step_x, 0.0, first.x_min - first.col * step_x),
        *(0.0, -step_y, first.y_max + first.row * step_y),
    )
    if _fits(unrotated, boxes, size):
        return unrotated
    rotated = _fit_rotated(boxes, size)
    return rotated if rotated is not None and _fits(rotated, boxes, size) else None


def _fit_rotated(boxes: Sequence[PatchBox], size: int) -> Transform | None:
    """Fits a rotated grid to the boxes by least squares; None if they are in one line."""
    offsets = np.array([(box.col, box.row, 1.0) for box in boxes])
    if np.linalg.matrix_rank(offsets) < 3:
        return None
    (a, d), (b, e), (left, low) = np.linalg.lstsq(offsets, np.array([(box.x_min, box.y_min) for box in boxes]))[0]
    # The smallest x and y of a patch are those of the corner that lies furthest in that direction.
    c, f = left - size * (min(a, 0.0) + min(b, 0.0)), low - size * (min(d, 0.0) + min(e, 0.0))
    return (float(a), float(b), float(c), float(d), float(e), float(f))


def _fits(transform: Transform, boxes: Sequence[PatchBox], size: int) -> bool:
    a, b, c, d, e, f = transform
    for box in boxes:
        corners = [(box.row + down, box.col + right) for down in (0, size) for right in (0, size)]
        xs, ys = zip(*((a * col + b * row + c, d * col + e * row + f) for row, col in corners), strict=True)
        errors = np.array([min(xs), min(ys), max(xs), max(ys)]) - box[2:]
        limits = _TOLERANCE_PX * np.array([abs(a) + abs(b), abs(d) + abs(e)] * 2)
        if (np.abs(errors) > limits).any():
            return False
    return True


def measure_areas(fire: Fire, maps: Mapping[str, NDArray[np.bool_]]) -> dict[str, float] | None:
    """Measures the area of the True pixels of maps of a fire.

    Args:
        fire: Fire with its georeference.
        maps: Maps by name, `(H, W)` each.

    Returns:
        Areas in hectares by name; None without a usable georeference.
    """
    if fire.grid is None:
        return None
    try:
        areas = PixelAreas(fire.grid)
    except FiresegError as error:
        log.warning("%s: area in hectares unknown (%s)", fire.name, error)
        return None
    sums = dict.fromkeys(maps, 0.0)
    for top in range(0, fire.height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, fire.height))
        strip = areas.of_rows(rows.start, rows.stop - rows.start).astype(np.float64)
        for name, is_counted in maps.items():
            sums[name] += float(np.where(is_counted[rows], strip, 0.0).sum()) / M2_PER_HA
    return sums
