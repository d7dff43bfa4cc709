"""Tests of grouping patches by fire and of inferring grids."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.evaluate.fires import PatchBox, PatchPosition, group_by_fire, infer_transform
from fireseg.geo.grid import Transform


def write_metadata(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_patches_are_grouped_by_the_tile_in_their_names(tmp_path: Path, log_text: pytest.LogCaptureFixture):
    names = ("EMSR1_AOI01_01_r0_c0", "EMSR1_AOI01_01_r0_c32", "EMSR1_AOI01_02_r0_c0")

    first, second = group_by_fire(names, tmp_path, size=32)

    assert (first.name, first.height, first.width, first.activation) == ("EMSR1_AOI01_01", 32, 64, "EMSR1")
    assert first.positions == (PatchPosition(0, 0, 0), PatchPosition(1, 0, 32))
    assert second.positions == (PatchPosition(2, 0, 0),)
    assert (first.grid, first.country, first.climate, first.date) == (None, None, None, None)
    assert log_text.text == ""


def test_metadata_names_the_tile_if_patch_names_do_not(tmp_path: Path):
    rows = [
        {"patch_id": "b", "source_image": "lake_S2L2A.tif", "row": 16, "col": 0},
        {"patch_id": "a", "source_image": "lake_S2L2A.tif", "row": 0, "col": 0},
    ]
    write_metadata(tmp_path, rows)

    (fire,) = group_by_fire(("a", "b"), tmp_path, size=16)

    assert (fire.name, fire.height, fire.width, fire.activation) == ("lake", 32, 16, None)
    assert fire.positions == (PatchPosition(0, 0, 0), PatchPosition(1, 16, 0))


def test_patches_of_unknown_tiles_count_as_fires_with_a_warning(tmp_path: Path, log_text: pytest.LogCaptureFixture):
    fires = group_by_fire(("blaze", "ember"), tmp_path, size=8)

    assert [(fire.name, fire.height, fire.width) for fire in fires] == [("blaze", 8, 8), ("ember", 8, 8)]
    assert "each of 2 patches counts as one fire" in log_text.text


def test_consecutive_numbers_are_not_taken_for_pixel_offsets(tmp_path: Path, log_text: pytest.LogCaptureFixture):
    names = tuple(f"T_r0_c{number}" for number in range(4))

    fires = group_by_fire(names, tmp_path, size=256)

    assert [fire.name for fire in fires] == list(names)
    assert "row and col are not in pixels" in log_text.text


def test_a_last_patch_close_to_the_previous_one_is_accepted(tmp_path: Path):
    (fire,) = group_by_fire(("T_r0_c0", "T_r0_c256", "T_r0_c257"), tmp_path, size=256)

    assert fire.width == 513


def test_a_fire_is_its_whole_tile_without_the_padding_beyond_it(tmp_path: Path):
    write_metadata(tmp_path, [{"patch_id": "T_r0_c0", "tile_height": 20, "tile_width": 40}])

    (fire,) = group_by_fire(("T_r0_c0",), tmp_path, size=32)

    assert (fire.height, fire.width) == (20, 40)


def test_positions_are_relative_to_the_first_patch(tmp_path: Path):
    (fire,) = group_by_fire(("T_r64_c32", "T_r64_c64"), tmp_path, size=32)

    assert (fire.height, fire.width, fire.positions) == (32, 64, (PatchPosition(0, 0, 0), PatchPosition(1, 0, 32)))


def test_positions_count_from_the_corner_of_a_tile_of_known_size(tmp_path: Path):
    write_metadata(tmp_path, [{"patch_id": "T_r64_c32", "tile_height": 100, "tile_width": 90}])

    (fire,) = group_by_fire(("T_r64_c32",), tmp_path, size=32)

    assert (fire.height, fire.width, fire.positions) == (100, 90, (PatchPosition(0, 64, 32),))


def test_the_size_of_a_tile_that_ends_before_its_patches_is_ignored(tmp_path: Path):
    write_metadata(tmp_path, [{"patch_id": "T_r64_c32", "tile_height": 64, "tile_width": 90}])

    (fire,) = group_by_fire(("T_r64_c32",), tmp_path, size=32)

    assert (fire.height, fire.width, fire.positions) == (32, 90, (PatchPosition(0, 0, 32),))


def test_fires_have_the_metadata_of_their_tile(tmp_path: Path):
    row = {"patch_id": "T_r0_c8", "source_image": "T_S2L2A.tif", "row": 0, "col": 8}
    row |= {"x_min": 80.0, "y_min": 920.0, "x_max": 160.0, "y_max": 1000.0, "crs": "EPSG:32633"}
    row |= {"date": "2019-08-28", "activation": "EMSR9", "country": "Spain", "climate": ""}
    write_metadata(tmp_path, [row])

    (fire,) = group_by_fire(("T_r0_c8",), tmp_path, size=8)

    assert (fire.activation, fire.country, fire.climate, fire.date) == ("EMSR9", "Spain", None, "2019-08-28")
    assert fire.grid is not None
    assert fire.grid.crs == "EPSG:32633"
    assert fire.grid.transform == (10.0, 0.0, 80.0, 0.0, -10.0, 1000.0)


OFFSETS = ((0, 0), (0, 32), (32, 0), (57, 32))


def make_boxes(transform: Transform, offsets: tuple[tuple[int, int], ...] = OFFSETS, size: int = 32) -> list[PatchBox]:
    a, b, c, d, e, f = transform
    boxes = []
    for row, col in offsets:
        corners = [(col + right, row + down) for right in (0, size) for down in (0, size)]
        x, y = zip(*((a * i + b * j + c, d * i + e * j + f) for i, j in corners), strict=True)
        boxes.append(PatchBox(row, col, min(x), min(y), max(x), max(y)))
    return boxes


def test_one_box_determines_a_transform_without_rotation():
    box = PatchBox(2, 3, x_min=530.0, y_min=840.0, x_max=570.0, y_max=880.0)

    assert infer_transform([box], size=4) == (10.0, 0.0, 500.0, 0.0, -10.0, 900.0)


@given(
    turn=st.floats(-3.1, 3.1), pixel=st.sampled_from([1e-4, 10.0]), x=st.floats(-170, 170), is_mirrored=st.booleans()
)
def test_boxes_not_in_one_line_determine_a_rotated_transform(turn: float, pixel: float, x: float, is_mirrored: bool):
    cos, sin, sign = np.cos(turn) * pixel, np.sin(turn) * pixel, 1 if is_mirrored else -1
    transform = (float(cos), float(sin), x, float(sin), float(sign * cos), 40.0)

    inferred = infer_transform(make_boxes(transform), size=32)

    assert inferred is not None
    a, b, _, d, e, _ = inferred
    assert abs(a * e - b * d) == pytest.approx(abs(cos * sign * cos - sin * sin), rel=1e-3, abs=1e-3 * pixel**2)


def test_contradictory_boxes_give_no_transform():
    boxes = make_boxes((10.0, 0.0, 500.0, 0.0, -10.0, 900.0))
    moved = boxes[3]._replace(x_min=boxes[3].x_min + 40, x_max=boxes[3].x_max + 40)

    assert infer_transform([*boxes[:3], moved], size=32) is None


def test_boxes_of_a_rotated_grid_in_one_line_give_no_transform():
    boxes = make_boxes((8.0, 6.0, 0.0, 6.0, -8.0, 0.0), ((0, 0), (0, 32)))

    assert infer_transform(boxes, size=32) is None


def test_without_a_crs_or_boxes_there_is_no_grid(tmp_path: Path):
    bounds = {"x_min": 80.0, "y_min": 920.0, "x_max": 160.0, "y_max": 1000.0}
    for row in ({**bounds, "crs": ""}, {"crs": "EPSG:32633"}):
        write_metadata(tmp_path, [{"patch_id": "T_r0_c8", **row}])
        assert group_by_fire(("T_r0_c8",), tmp_path, size=8)[0].grid is None


@pytest.mark.parametrize("text", ["", "nan", "east"])
def test_invalid_boxes_are_ignored(text: str):
    assert PatchBox.from_metadata(0, 0, {"x_min": text, "y_min": "0", "x_max": "1", "y_max": "1"}) is None
    assert PatchBox.from_metadata(0, 0, {}) is None
