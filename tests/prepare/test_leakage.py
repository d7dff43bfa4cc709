"""Leakage: overlaps of footprints, with true areas all around the earth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.prepare.footprints import Footprint
from fireseg.prepare.leakage import find_overlaps


def area_by_integration(width: float, south: float, north: float) -> float:
    """Area of a box on the WGS 84 ellipsoid in square metres: the integral of both radii of curvature."""
    a, e2 = 6378137.0, 0.0066943799901413165
    edges = np.linspace(np.radians(south), np.radians(north), 2001)
    middle = (edges[1:] + edges[:-1]) / 2
    flat = 1 - e2 * np.sin(middle) ** 2
    return float(np.radians(width) * np.sum(a * a * (1 - e2) / flat**2 * np.cos(middle) * np.diff(edges)))


def tile(*bounds: float, outline: tuple[tuple[float, float], ...] | None = None) -> Footprint:
    west, south, east, north = bounds
    return Footprint(name="t", bounds=(west, south, east, north), outline=outline)


def areas(*tiles: Footprint) -> list[float]:
    return find_overlaps(tiles, np.arange(len(tiles)), 0.0).areas_m2.tolist()


def shares(*tiles: Footprint, min_overlap: float = 0.0) -> dict[tuple[int, int], float]:
    """Shared area over the area of the smaller tile, by pair."""
    found = find_overlaps(tiles, np.arange(len(tiles)), min_overlap)
    smaller = np.minimum(found.areas_m2[found.first], found.areas_m2[found.second])
    return dict(
        zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.shared_m2 / smaller, strict=True)
    )


def test_both_hemispheres_have_the_area_of_the_earth() -> None:
    west, east = areas(tile(-180, -90, 0, 90), tile(0, -90, 180, 90))
    assert west + east == pytest.approx(510_065_621.724e6, rel=1e-10)


@pytest.mark.parametrize("south", [-60.0, 0.0, 41.0, 70.0, 89.0])
def test_the_area_of_a_box_is_the_integral_over_the_ellipsoid(south: float) -> None:
    (area,) = areas(tile(10, south, 10.2, south + 0.15))
    assert area == pytest.approx(area_by_integration(0.2, south, south + 0.15), rel=1e-7)


def test_the_northern_half_of_a_box_is_smaller() -> None:
    found = find_overlaps([tile(0, 40, 1, 60), tile(0, 50, 1, 60)], np.arange(2), 0.0)
    whole, north = found.areas_m2
    assert found.shared_m2[0] == pytest.approx(north)
    assert north / whole == pytest.approx(area_by_integration(1, 50, 60) / area_by_integration(1, 40, 60), rel=1e-6)
    assert north / whole < 0.45


def test_boxes_that_only_touch_share_nothing() -> None:
    assert shares(tile(0, 0, 1, 1), tile(1, 0, 2, 1), tile(0, 1, 1, 2)) == {}


def test_overlaps_count_above_a_share_of_the_smaller_tile() -> None:
    large, small = tile(0, 0, 2, 1), tile(1.99, 0, 2.99, 1)
    assert shares(large, small)[0, 1] == pytest.approx(0.01)
    assert (0, 1) in shares(large, small, min_overlap=0.0099)
    assert shares(large, small, min_overlap=0.0101) == {}


def test_tiles_of_one_group_are_not_compared() -> None:
    boxes = [tile(0, 0, 1, 1)] * 3
    found = find_overlaps(boxes, np.array([5, 7, 5]), 0.0)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 1), (1, 2)]


def test_tiles_across_the_antimeridian_overlap_in_every_notation() -> None:
    crossing = tile(179.9, -17, -179.9, -16)
    for other in (tile(179.9, -17, 180.1, -16), tile(-180.1, -17, -179.9, -16)):
        assert shares(crossing, other) == {(0, 1): pytest.approx(1.0)}
    assert shares(crossing, tile(-180, -17, -179.95, -16)) == {(0, 1): pytest.approx(1.0)}
    assert shares(crossing, tile(179.8, -17, 180, -16)) == {(0, 1): pytest.approx(0.5)}
    neighbours = tile(179.0, -17, 179.9, -16), tile(-179.9, -17, -179, -16)
    assert shares(crossing, *neighbours, min_overlap=1e-9) == {}


def test_boxes_at_the_pole_are_compared_by_true_area() -> None:
    assert shares(tile(0, 89, 90, 90), tile(45, 89, 135, 90)) == {(0, 1): pytest.approx(0.5)}


@st.composite
def whole_degrees(draw: st.DrawFn) -> Footprint:
    west, south = draw(st.integers(-180, 179)), draw(st.integers(-90, 87))
    width, height = draw(st.sampled_from([1, 2, 7, 100, 179])), draw(st.integers(1, 3))
    east = west + width
    return tile(west, south, east - 360 if east > 180 and draw(st.booleans()) else east, south + height)


@given(st.lists(whole_degrees(), min_size=2, max_size=12))
def test_overlaps_equal_those_of_comparing_all_cells_of_all_pairs(tiles: list[Footprint]) -> None:
    def cells(one: Footprint) -> set[tuple[int, int]]:
        west, south, east, north = map(int, one.bounds)
        columns = range(west, east if east > west else east + 360)
        return {(column % 360, row) for column in columns for row in range(south, north)}

    def area(parts: set[tuple[int, int]]) -> float:
        return sum(band[row] for _, row in parts)

    rows = {row for one in tiles for _, row in cells(one)}
    band = {row: area_by_integration(1, row, row + 1) for row in rows}
    expected = {}
    for second, other in enumerate(tiles):
        for first in range(second):
            common = cells(tiles[first]) & cells(other)
            if common:
                expected[first, second] = area(common) / min(area(cells(tiles[first])), area(cells(other)))
    assert shares(*tiles, min_overlap=1e-9) == pytest.approx(expected, rel=1e-5)


def test_tilted_neighbours_overlap_by_their_boxes_but_not_by_their_outlines() -> None:
    # Two tiles of a UTM grid, tilted by about 2 degrees: the corners of their boxes overlap.
    left = tile(0.0, 0.0, 1.03, 1.03, outline=((0.03, 0.0), (1.03, 0.03), (1.0, 1.03), (0.0, 1.0)))
    right = tile(1.0, 0.03, 2.03, 1.06, outline=((1.0, 1.03), (2.0, 1.06), (2.03, 0.06), (1.03, 0.03)))
    boxes = [tile(*one.bounds) for one in (left, right)]
    assert shares(*boxes)[0, 1] == pytest.approx(0.0283, abs=1e-3)
    assert shares(left, right, min_overlap=1e-6) == {}


def test_a_tilted_tile_and_a_box_share_the_area_within_the_outline() -> None:
    diamond = ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5))
    found = find_overlaps([tile(0, 0, 1, 1, outline=diamond), tile(0.5, 0, 1, 1)], np.arange(2), 0.0)
    box = area_by_integration(1, 0, 1)
    assert found.areas_m2 == pytest.approx([box / 2, box / 2], rel=1e-4)
    assert found.shared_m2 == pytest.approx([box / 4], rel=1e-4)


def test_an_outline_across_the_antimeridian_is_one_polygon() -> None:
    corners = ((180.0, 0.0), (-179.5, 0.5), (-180.0, 1.0), (179.5, 0.5))
    crossing = tile(179.5, 0, -179.5, 1, outline=corners)
    found = find_overlaps([crossing, tile(-180, 0, -179, 1), crossing], np.arange(3), 0.0)
    box = area_by_integration(1, 0, 1)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 2), (1, 2)]
    assert found.shared_m2 == pytest.approx([box / 4, box / 2, box / 4], rel=1e-4)


def test_no_footprints_have_no_overlaps() -> None:
    assert shares() == {}
