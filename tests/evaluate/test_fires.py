"""Which patches make up which fire."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fireseg.evaluate.fires import PatchPosition, group_by_fire


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    return caplog


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_windows_of_one_tile_are_one_fire_by_their_names(tmp_path: Path, told: pytest.LogCaptureFixture):
    names = ("EMSR1_AOI01_01_r0_c0", "EMSR1_AOI01_01_r0_c32", "EMSR1_AOI01_02_r0_c0")

    first, second = group_by_fire(names, tmp_path, size=32)

    assert (first.name, first.height, first.width, first.activation) == ("EMSR1_AOI01_01", 32, 64, "EMSR1")
    assert first.places == (PatchPosition(0, 0, 0), PatchPosition(1, 0, 32))
    assert second.places == (PatchPosition(2, 0, 0),)
    assert (first.ground, first.country, first.climate, first.date) == (None, None, None, None)
    assert told.text == ""


def test_the_table_tells_the_tile_where_names_do_not(tmp_path: Path):
    rows = [
        {"patch_id": "b", "source_image": "lake_S2L2A.tif", "row": 16, "col": 0},
        {"patch_id": "a", "source_image": "lake_S2L2A.tif", "row": 0, "col": 0},
    ]
    write_table(tmp_path, rows)

    (fire,) = group_by_fire(("a", "b"), tmp_path, size=16)

    assert (fire.name, fire.height, fire.width, fire.activation) == ("lake", 32, 16, None)
    assert fire.places == (PatchPosition(0, 0, 0), PatchPosition(1, 16, 0))


def test_a_patch_of_no_tile_is_a_fire_of_its_own_and_that_is_said(tmp_path: Path, told: pytest.LogCaptureFixture):
    fires = group_by_fire(("blaze", "ember"), tmp_path, size=8)

    assert [(fire.name, fire.height, fire.width) for fire in fires] == [("blaze", 8, 8), ("ember", 8, 8)]
    assert "each of 2 patches counts as a fire of its own" in told.text


def test_running_numbers_of_windows_are_not_taken_for_pixels(tmp_path: Path, told: pytest.LogCaptureFixture):
    names = tuple(f"T_r0_c{number}" for number in range(4))

    fires = group_by_fire(names, tmp_path, size=256)

    assert [fire.name for fire in fires] == list(names)
    assert "row and col are no pixels" in told.text


def test_a_last_window_close_to_the_one_before_is_no_running_number(tmp_path: Path):
    (fire,) = group_by_fire(("T_r0_c0", "T_r0_c256", "T_r0_c257"), tmp_path, size=256)

    assert fire.width == 513


def test_what_reaches_beyond_the_tile_is_no_part_of_the_fire(tmp_path: Path):
    write_table(tmp_path, [{"patch_id": "T_r0_c0", "tile_height": 20, "tile_width": 40}])

    (fire,) = group_by_fire(("T_r0_c0",), tmp_path, size=32)

    assert (fire.height, fire.width) == (20, 32)


def test_a_fire_begins_with_its_first_patch(tmp_path: Path):
    (fire,) = group_by_fire(("T_r64_c32", "T_r64_c64"), tmp_path, size=32)

    assert (fire.height, fire.width, fire.places) == (32, 64, (PatchPosition(0, 0, 0), PatchPosition(1, 0, 32)))


def test_what_the_table_knows_of_a_tile_stays_with_the_fire(tmp_path: Path):
    row = {"patch_id": "T_r0_c8", "source_image": "T_S2L2A.tif", "row": 0, "col": 8}
    row |= {"x_min": 80.0, "y_min": 920.0, "x_max": 160.0, "y_max": 1000.0, "crs": "EPSG:32633"}
    row |= {"date": "2019-08-28", "activation": "EMSR9", "country": "Spain", "climate": ""}
    write_table(tmp_path, [row])

    (fire,) = group_by_fire(("T_r0_c8",), tmp_path, size=8)

    assert (fire.activation, fire.country, fire.climate, fire.date) == ("EMSR9", "Spain", None, "2019-08-28")
    assert fire.ground is not None
    assert fire.ground.crs == "EPSG:32633"
    assert fire.ground.transform == (10.0, 0.0, 80.0, 0.0, -10.0, 1000.0)
