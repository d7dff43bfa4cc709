"""Tiles of a map: colours, thresholds and unknown pixels, by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fireseg.geo import MapWriter
from fireseg.geo.display import write_picture
from fireseg.geo.grid import Grid
from fireseg.serve.store import SCENE_PICTURE
from fireseg.serve.tiles import draw_tile

RED, ORANGE, GREY, UNGRADED = (255, 0, 0), (255, 128, 0), (110, 110, 110), (74, 20, 134)

ZOOM, COL, ROW = 14, 8192, 8191
"""The tile north-east of the point where longitude and latitude are 0."""

PIXEL_M = 2 * math.pi * 6_378_137 / 2**ZOOM / 256
"""Size of its pixels, and of those of the map, in web mercator."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A map in its own corner of the tile: 256 x 2 pixels at the top, so that each pixel is one of the tile."""
    return tmp_path


def write_map(folder: Path, colours: tuple[str, ...]) -> dict[str, Any]:
    # In web mercator the tile spans x and y from 0 to 256 pixels; the map lies in its first four columns and top row.
    grid = Grid(height=1, width=4, crs="EPSG:3857", transform=(PIXEL_M, 0, 0, 0, -PIXEL_M, 256 * PIXEL_M))
    fire = np.array([[0.2, 0.4, 0.9, np.nan]], np.float32)
    classes = np.array([[0, 0, len(colours) - 1, 255]], np.uint8)
    names = [str(number) for number in range(len(colours))]
    with MapWriter(folder, grid, class_names=names, labels=names, colours=colours) as writer:
        writer.write(0, classes, fire)
        writer.close()
    tones = np.full((1, 4, 3), 90, np.uint8)
    write_picture(folder / SCENE_PICTURE, grid, [(0, tones, np.isnan(fire))])
    files = {"classes": "classes.tif", "fire": "fire.tif"}
    return {"files": files, "classes": [{"colour": colour} for colour in colours]}


def draw(folder: Path, result: dict[str, Any], **options: Any) -> NDArray[np.uint8]:
    position = options.pop("position", (ZOOM, COL, ROW))
    content = draw_tile(folder, result, **{"layer": "map", "position": position, **options})
    image = Image.open(io.BytesIO(content))
    assert (image.size, image.mode, image.format) == ((256, 256), "RGBA", "PNG")
    return np.asarray(image)


def test_a_tile_shows_burned_and_unknown_pixels_of_the_map(folder: Path) -> None:
    tile = draw(folder, write_map(folder, ("#d9d9d9", "#ff0000")))
    assert tile[0, :5].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [*RED, 255], [*GREY, 150], [0, 0, 0, 0]]
    assert not tile[1:].any()


@pytest.mark.parametrize(
    ("threshold", "burned"), [(0.95, []), (0.898, [2]), (0.402, [2]), (0.398, [1, 2]), (0.1, [0, 1, 2])]
)
def test_another_threshold_redraws_the_map_from_its_probabilities(
    folder: Path, threshold: float, burned: list[int]
) -> None:
    tile = draw(folder, write_map(folder, ("#d9d9d9", "#ff0000")), threshold=threshold)
    expected = [[*RED, 255] if col in burned else [0, 0, 0, 0] for col in range(3)]
    assert tile[0, :5].tolist() == [*expected, [*GREY, 150], [0, 0, 0, 0]]


def test_pixels_that_burned_only_at_a_lower_threshold_have_no_grade(folder: Path) -> None:
    result = write_map(folder, ("#d9d9d9", "#ff0000", "#ff8000"))
    assert draw(folder, result)[0, 2].tolist() == [*ORANGE, 255]
    assert draw(folder, result, threshold=0.3)[0, :3].tolist() == [[0, 0, 0, 0], [*UNGRADED, 255], [*ORANGE, 255]]


def test_the_scene_is_drawn_where_it_is_known(folder: Path) -> None:
    tile = draw(folder, write_map(folder, ("#d9d9d9", "#ff0000")), layer="scene")
    assert tile[0, :5].tolist() == [[90, 90, 90, 255]] * 3 + [[0, 0, 0, 0]] * 2


def test_a_tile_beside_the_map_is_transparent(folder: Path) -> None:
    result = write_map(folder, ("#d9d9d9", "#ff0000"))
    for layer in ("map", "scene"):
        assert not draw(folder, result, layer=layer, position=(ZOOM, 100, 100)).any()
    assert not draw(folder, result, threshold=0.3, position=(ZOOM, 100, 100)).any()
