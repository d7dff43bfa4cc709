"""Which patches make up which fire: the windows of one tile, and where that tile lies."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.geo.grid import Grid, PixelAreas, Transform

_SAME = 0.01
"""Pixels by which boxes may miss what a grid without rotation says."""


class PatchBox(NamedTuple):
    """A patch on the map.

    Attributes:
        row, col: Its first row and column, in pixels.
        x_min, y_min, x_max, y_max: Of its four corners, in the units of the reference system.
    """

    row: int
    col: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @classmethod
    def read(cls, row: int, col: int, about: Mapping[str, str]) -> Self | None:
        """The box in a row of metadata.csv; None where it has none."""
        try:
            x_min, y_min, x_max, y_max = (float(about[key]) for key in ("x_min", "y_min", "x_max", "y_max"))
        except (KeyError, TypeError, ValueError):
            return None
        is_one = math.isfinite(x_min + y_min + x_max + y_max) and x_min < x_max and y_min < y_max
        return cls(row, col, x_min, y_min, x_max, y_max) if is_one else None


def infer_grid(crs: str, boxes: Sequence[PatchBox], *, size: int, height: int, width: int) -> Grid | None:
    """The grid that the boxes of some patches lie on.

    A grid that is not rotated follows from one box. Of a rotated one the boxes are wider than the patches, but
    their places still move by the grid's own steps: three patches that are not in one line tell them all.

    Args:
        crs: The reference system; nothing is known without.
        boxes: Of the patches of one tile, rows and columns counted from where the grid begins.
        size: Side of a patch in pixels.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        None where the reference system or the boxes are unknown, or boxes contradict each other.
    """
    if not crs or not boxes:
        return None
    first = boxes[0]
    step_x, step_y = (first.x_max - first.x_min) / size, (first.y_max - first.y_min) / size
    upright = (
        *(step_x, 0.0, first.x_min - first.col * step_x),
        *(0.0, -step_y, first.y_max + first.row * step_y),
    )
    if _fits(upright, boxes, size):
        return Grid(height=height, width=width, crs=crs, transform=upright)
    rotated = _solve(boxes, size)
    if rotated is None or not _fits(rotated, boxes, size):
        return None
    return Grid(height=height, width=width, crs=crs, transform=rotated)


def _solve(boxes: Sequence[PatchBox], size: int) -> Transform | None:
    """The grid by whose steps the boxes move; None where they lie in one line."""
    places = np.array([(box.col, box.row, 1.0) for box in boxes])
    if np.linalg.matrix_rank(places) < 3:
        return None
    (a, d), (b, e), (left, low) = np.linalg.lstsq(places, np.array([(box.x_min, box.y_min) for box in boxes]))[0]
    # The smallest x and y of a patch belong to whichever of its corners lies furthest that way.
    c, f = left - size * (min(a, 0.0) + min(b, 0.0)), low - size * (min(d, 0.0) + min(e, 0.0))
    return (float(a), float(b), float(c), float(d), float(e), float(f))


def _fits(transform: Transform, boxes: Sequence[PatchBox], size: int) -> bool:
    a, b, c, d, e, f = transform
    for box in boxes:
        corners = [(box.row + down, box.col + right) for down in (0, size) for right in (0, size)]
        xs, ys = zip(*((a * col + b * row + c, d * col + e * row + f) for row, col in corners), strict=True)
        told = np.array([min(xs), min(ys), max(xs), max(ys)]) - box[2:]
        limits = _SAME * np.array([abs(a) + abs(b), abs(d) + abs(e)] * 2)
        if (np.abs(told) > limits).any():
            return False
    return True


log = logging.getLogger("fireseg")

METADATA = "metadata.csv"

_PATCH = re.compile(r"(?P<tile>.+)_r(?P<row>\d+)_c(?P<col>\d+)")

_ACTIVATION = re.compile(r"EMSR\d+")

_IMAGE_END = "_S2L2A"

Row = Mapping[str, str]


class PatchPosition(NamedTuple):
    """Where a patch lies in its fire.

    Attributes:
        number: Which patch of the split.
        row: First row, from the fire's own upper left corner.
        col: First column.
    """

    number: int
    row: int
    col: int


@dataclass(frozen=True, kw_only=True)
class Fire:
    """A tile of the split, as far as patches of it are there.

    Attributes:
        name: Name of the tile, or of the patch where no tile is told.
        places: Its patches, in the order of the split.
        height, width: Of the rectangle that the patches span, in pixels, cut where the tile ends.
        ground: Where the rectangle lies; None where nobody wrote it down.
        activation, country, climate, date: None where unknown.
    """

    name: str
    places: tuple[PatchPosition, ...]
    height: int
    width: int
    ground: Grid | None = None
    activation: str | None = None
    country: str | None = None
    climate: str | None = None
    date: str | None = None


class _Window(NamedTuple):
    number: int
    tile: str
    row: int
    col: int
    about: Row


def group_by_fire(names: Sequence[str], folder: Path, *, size: int) -> tuple[Fire, ...]:
    """Puts the patches of a split together by the tile that they were cut from.

    The tile, row and column of a patch stand in metadata.csv (`source_image`, `row`, `col`, in pixels), else in its
    name, `{tile}_r{row}_c{col}`. Where neither tells, the patch is a fire of its own, and that is said.

    Args:
        names: The patches, in the order of the split.
        folder: The split folder.
        size: Side of a patch in pixels.

    Returns:
        The fires in the order of their first patches.
    """
    table = read_table(folder / METADATA)
    tiles: dict[str, list[_Window]] = {}
    strays: list[str] = []
    for number, name in enumerate(names):
        window = _find_window(number, name, table.get(name, {}))
        if window is None:
            strays.append(name)
            window = _Window(number, name, 0, 0, table.get(name, {}))
        tiles.setdefault(window.tile, []).append(window)
    if strays:
        _say_strays(folder, strays, "no metadata.csv and no name as {tile}_r{row}_c{col} tell of which tile it is")
    fires: list[Fire] = []
    for tile, windows in tiles.items():
        if _are_pixels(windows, size):
            fires.append(_make_fire(tile, windows, size))
            continue
        _say_strays(folder, [names[window.number] for window in windows], "row and col are no pixels")
        for window in windows:
            alone = window._replace(row=0, col=0)
            fires.append(_make_fire(names[window.number], [alone], size))
    return tuple(sorted(fires, key=lambda fire: fire.places[0].number))


def read_table(path: Path) -> dict[str, Row]:
    """The rows of a metadata.csv by patch; none where there is no such file, or it names no patches."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["patch_id"]: row for row in csv.DictReader(file) if row.get("patch_id")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s: cannot be read (%s); fires are told by the names of patches", path, error)
        return {}


def _find_window(number: int, name: str, about: Row) -> _Window | None:
    told = _PATCH.fullmatch(name)
    source, row, col = (about.get(key) or "" for key in ("source_image", "row", "col"))
    if source and row.isdecimal() and col.isdecimal():
        tile = told["tile"] if told else Path(source).stem.removesuffix(_IMAGE_END)
        return _Window(number, tile, int(row), int(col), about)
    if told:
        return _Window(number, told["tile"], int(told["row"]), int(told["col"]), about)
    return None


def _are_pixels(windows: Sequence[_Window], size: int) -> bool:
    """Whether rows and columns can be pixels: as running numbers of windows, they would lie a pixel apart.

    Only the last step to the edge of a tile may be that small.
    """
    for starts in ({window.row for window in windows}, {window.col for window in windows}):
        steps = [after - before for before, after in pairwise(sorted(starts))][:-1]
        if steps and max(steps) < size / 16:
            return False
    return True


def _make_fire(tile: str, windows: Sequence[_Window], size: int) -> Fire:
    top, left = min(window.row for window in windows), min(window.col for window in windows)
    about = windows[0].about
    bottom, right = max(window.row for window in windows) + size, max(window.col for window in windows) + size
    # A window may reach beyond its tile: what is there is no ground.
    bottom, right = (
        min(bottom, _read_int(about, "tile_height", bottom)),
        min(right, _read_int(about, "tile_width", right)),
    )
    found = _ACTIVATION.match(tile)
    boxes = [PatchBox.read(window.row - top, window.col - left, window.about) for window in windows]
    return Fire(
        name=tile,
        places=tuple(PatchPosition(window.number, window.row - top, window.col - left) for window in windows),
        height=bottom - top,
        width=right - left,
        ground=infer_grid(
            about.get("crs") or "",
            [box for box in boxes if box is not None],
            size=size,
            height=bottom - top,
            width=right - left,
        ),
        activation=about.get("activation") or (found[0] if found else None),
        country=about.get("country") or None,
        climate=about.get("climate") or None,
        date=about.get("date") or None,
    )


def _read_int(about: Row, key: str, otherwise: int) -> int:
    text = about.get(key) or ""
    return int(text) if text.isdecimal() and int(text) > 0 else otherwise


def _say_strays(folder: Path, names: Sequence[str], why: str) -> None:
    log.warning("%s: %s (first %s): each of %d patches counts as a fire of its own", folder, why, names[0], len(names))


_STRIP_ROWS = 256

_M2_A_HECTARE = 1e4


def measure_areas(fire: Fire, maps: Mapping[str, NDArray[np.bool_]]) -> dict[str, float] | None:
    """Hectares that are True in some maps of a fire.

    Args:
        fire: Which one.
        maps: `(H, W)` each, by name.

    Returns:
        Hectares by name; None where nobody wrote down where the fire lies.
    """
    if fire.ground is None:
        return None
    try:
        areas = PixelAreas(fire.ground)
    except FiresegError as error:
        log.warning("%s: its hectares are unknown (%s)", fire.name, error)
        return None
    sums = dict.fromkeys(maps, 0.0)
    for top in range(0, fire.height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, fire.height))
        strip = areas.of_rows(rows.start, rows.stop - rows.start).astype(np.float64)
        for name, is_there in maps.items():
            sums[name] += float(np.where(is_there[rows], strip, 0.0).sum()) / _M2_A_HECTARE
    return sums
