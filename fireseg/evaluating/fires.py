"""Which patches make up which fire: the windows of one tile, and where that tile lies."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fireseg.evaluating.ground import Box, Ground, find_ground

log = logging.getLogger("fireseg")

METADATA = "metadata.csv"

_PATCH = re.compile(r"(?P<tile>.+)_r(?P<row>\d+)_c(?P<col>\d+)")
_ACTIVATION = re.compile(r"EMSR\d+")
_IMAGE_END = "_S2L2A"

Row = Mapping[str, str]


class Place(NamedTuple):
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
    places: tuple[Place, ...]
    height: int
    width: int
    ground: Ground | None = None
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


def lay_fires(names: Sequence[str], folder: Path, *, size: int) -> tuple[Fire, ...]:
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
    boxes = [Box.read(window.row - top, window.col - left, window.about) for window in windows]
    return Fire(
        name=tile,
        places=tuple(Place(window.number, window.row - top, window.col - left) for window in windows),
        height=bottom - top,
        width=right - left,
        ground=find_ground(about.get("crs") or "", [box for box in boxes if box is not None], size=size),
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
