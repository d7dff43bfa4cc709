"""Tiles that must be in one split: by activation, overlap, distance and time, or name of a group."""

from __future__ import annotations

from math import cos, radians
from typing import Any

import pytest

from fireseg.prepare.footprints import Footprint
from fireseg.prepare.groups import find_near_tiles, group_tiles

KM = 1 / 111.195  # degrees of latitude


def place(name: str, east_km: float = 0.0, *, north: float = 0.0, **more: Any) -> Footprint:
    """A tile of 2 by 2 km without activation, east of the prime meridian."""
    step = KM / cos(radians(north))
    bounds = (east_km * step, north, (east_km + 2) * step, north + 2 * KM)
    return Footprint(name=name, **{"activation": name, "bounds": bounds, "date": "2023-08-01"} | more)


def list_groups(*tiles: Footprint, **options: Any) -> list[str]:
    """The names of the tiles of each group, joined."""
    return ["".join(tiles[index].name for index in group) for group in group_tiles(tiles, **options)]


def test_tiles_of_unknown_activation_within_ten_kilometres_are_one_group() -> None:
    assert list_groups(place("a"), place("b", 11.9), place("c", 24.2)) == ["ab", "c"]


def test_tiles_are_connected_through_others() -> None:
    assert list_groups(place("a"), place("b", 10), place("c", 20), place("d", 60)) == ["abc", "d"]


@pytest.mark.parametrize("north", [0.0, 45.0, 65.0, -70.0])
def test_the_distance_is_that_on_the_ground_at_every_latitude(north: float) -> None:
    tiles = [place("a", north=north), place("b", 7, north=north)]  # 5 km apart
    assert list_groups(*tiles, max_km=5.1) == ["ab"]
    assert list_groups(*tiles, max_km=4.9) == ["a", "b"]


def test_tiles_on_both_sides_of_the_antimeridian_are_near() -> None:
    west, east = (
        place(name, bounds=bounds) for name, bounds in (("a", (179.9, 0, 180.0, 1)), ("b", (-180, 0, -179, 1)))
    )
    assert list_groups(west, east, max_km=0) == ["ab"]


@pytest.mark.parametrize(("day", "expected"), [("2023-08-31", ["ab"]), ("2023-09-01", ["a", "b"]), (None, ["ab"])])
def test_more_than_thirty_days_apart_is_another_fire_and_an_unknown_date_is_near(
    day: str | None, expected: list[str]
) -> None:
    assert list_groups(place("a"), place("b", 3, date=day)) == expected


def test_known_activations_are_kept_apart_however_near() -> None:
    tiles = place("a", activation="EMSR1"), place("b", 3, activation="EMSR2"), place("c", 60, activation="EMSR1")
    assert list_groups(*tiles) == ["ac", "b"]


def test_a_tile_of_unknown_activation_joins_a_known_one_nearby() -> None:
    assert list_groups(place("a", activation="EMSR1"), place("b", 5), place("c", 40, activation="EMSR2")) == ["ab", "c"]


def test_group_names_take_the_place_of_distance_but_not_of_overlap() -> None:
    tiles = place("a"), place("b", 3), place("c", 90), place("d", 91)
    assert list_groups(*tiles, names=["x", "y", "x", "z"]) == ["acd", "b"]


def test_near_tiles_are_found_among_many_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        "fireseg.prepare.groups._are_within", lambda one, other, days: compared.append(one) or one == other
    )
    tiles = [place(f"t{number:03d}", 100 * (number // 2) + 5 * (number % 2)) for number in range(100)]
    assert list(find_near_tiles(tiles, 10, 30)) == [(number, number + 1) for number in range(0, 100, 2)]
    assert len(compared) == 50
