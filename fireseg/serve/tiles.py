"""Draws map tiles (PNG, 256 x 256 pixels, web mercator) of a finished map and of the picture of its scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fireseg.serve.store import SCENE_PICTURE

Layer = Literal["map", "scene"]

MAX_ZOOM = 20

_STEPS = 250
"""Steps of the stored fire probability; 255 is unknown."""

_UNKNOWN = (110, 110, 110, 150)

_UNGRADED = (74, 20, 134, 255)
"""Colour of pixels that burned only at a lower threshold, if the map has several burned classes: their grade is not
stored."""

SIZE = 256


def draw_tile(
    folder: Path,
    result: Mapping[str, Any],
    *,
    layer: Layer,
    position: tuple[int, int, int],
    threshold: float | None = None,
) -> bytes:
    """Draws a tile.

    Args:
        folder: Folder of the map.
        result: Result of the scene: `files` and `classes` are used.
        layer: The map, or the scene below it.
        position: Zoom, column and row of the tile.
        threshold: Lowest fire probability that counts as burned; that of the map if None. The stored probabilities
            have steps of 0.004.

    Returns:
        A PNG with transparency; fully transparent outside of the map.
    """
    files, colours = result["files"], [entry["colour"] for entry in result["classes"]]
    if layer == "scene":
        data, known = _read(folder / SCENE_PICTURE, position)
        return _encode(np.concatenate([data, np.where(known, 255, 0).astype(np.uint8)[None]]))
    classes, inside = _read(folder / files["classes"], position, is_masked=False)
    classes = classes[0]
    if threshold is None:
        return _encode(_paint(classes, colours, inside=inside))
    fire, known = _read(folder / files["fire"], position)
    is_burned = known & (fire[0] >= np.ceil(threshold * _STEPS - 1e-9))
    graded = np.where(classes == 255, 0, classes)
    ungraded = len(colours)  # an index behind the classes
    drawn = np.where(is_burned, np.where(graded > 0, graded, 1 if len(colours) == 2 else ungraded), 0)
    drawn = np.where(inside & ~known, 255, drawn).astype(np.uint8)
    return _encode(_paint(drawn, colours, inside=inside))


def _read(
    path: Path, position: tuple[int, int, int], *, is_masked: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Reads a tile, `(bands, 256, 256)`, and which of its pixels are known, or only inside of the raster."""
    from rio_tiler.errors import TileOutsideBounds
    from rio_tiler.io import Reader

    zoom, col, row = position
    # With another nodata value than that of the file, unknown pixels count as inside, as unburned ones do.
    options: dict[str, Any] = {} if is_masked else {"nodata": 254}
    with Reader(str(path)) as reader:  # pyright: ignore[reportCallIssue] - its attrs are not understood
        try:
            image = reader.tile(col, row, zoom, tilesize=SIZE, resampling_method="nearest", **options)
        except TileOutsideBounds:
            return np.zeros((3, SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), bool)
    masked = np.ma.getmaskarray(image.array)
    return image.array.data.astype(np.uint8), ~np.asarray(masked.any(axis=0))


def _paint(classes: NDArray[np.uint8], colours: Sequence[str], *, inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    table = np.zeros((256, 4), np.uint8)
    for number, colour in enumerate(colours[1:], 1):
        table[number] = (*(int(colour[start : start + 2], 16) for start in (1, 3, 5)), 255)
    table[len(colours)] = _UNGRADED
    table[255] = _UNKNOWN
    rgba = table[classes]
    rgba[~inside] = 0
    return rgba.transpose(2, 0, 1)


def _encode(rgba: NDArray[np.uint8]) -> bytes:
    from rio_tiler.utils import render

    return render(np.ascontiguousarray(rgba), img_format="PNG")
