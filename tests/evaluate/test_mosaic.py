"""Tests of stitching patches to tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.bands import to_reflectance
from fireseg.errors import FiresegError
from fireseg.evaluate.fires import Fire, PatchPosition, group_by_fire
from fireseg.evaluate.mosaic import build_mosaic, stitch_tiles
from fireseg.prepare.tiling import cut_window, mark_repeats, plan_tile_windows
from tests.evaluate.builders import make_pixels_of_patch


def make_fire(height: int, width: int, *places: tuple[int, int], name: str = "T", first: int = 0) -> Fire:
    numbered = tuple(PatchPosition(first + number, row, col) for number, (row, col) in enumerate(places))
    return Fire(name=name, positions=numbered, height=height, width=width)


@given(height=st.integers(5, 40), width=st.integers(5, 40), stride=st.integers(3, 8), is_once=st.booleans())
def test_a_tile_cut_and_stitched_is_unchanged(height: int, width: int, stride: int, is_once: bool):
    rng = np.random.default_rng(height * width)
    truth = rng.choice(np.array([0, 1, 255], np.uint8), (height, width))
    stored = rng.integers(0, 20_000, (height, width), np.uint16)
    windows = plan_tile_windows(height, width, size=8, stride=stride)
    repeats = mark_repeats(windows, size=8)
    patches = []
    for window, repeated in zip(windows, repeats, strict=True):
        mask = cut_window(truth, window, 8, 255)
        if is_once:
            mask[repeated] = 255
        patches.append(make_pixels_of_patch(mask, to_reflectance(cut_window(stored, window, 8, 0))))

    (tile,) = stitch_tiles(patches, [make_fire(height, width, *windows)], ["B12"])

    np.testing.assert_array_equal(tile.truth, truth)
    np.testing.assert_array_equal(tile.raster.image[..., 0], stored)
    np.testing.assert_array_equal(tile.raster.unknown, stored == 0)
    assert tile.is_covered.all()
    assert [part.shape for part in tile.patch_truths] == [
        (min(8, height - row), min(8, width - col)) for row, col in windows
    ]


def test_the_first_labelled_of_overlapping_patches_counts():
    patches = [make_pixels_of_patch([[0, 255]]), make_pixels_of_patch([[1, 0]]), make_pixels_of_patch([[0, 255]])]

    (tile,) = stitch_tiles(patches, [make_fire(1, 4, (0, 0), (0, 1), (0, 2))], ["B12"])

    assert tile.truth.tolist() == [[0, 1, 0, 255]]
    assert [truth.tolist() for truth in tile.patch_truths] == [[[0, 255]], [[1, 0]], [[0, 255]]]


def test_contradictory_overlapping_patches_are_rejected():
    patches = [make_pixels_of_patch([[0, 0]]), make_pixels_of_patch([[1, 1]])]

    with pytest.raises(FiresegError, match=r"T: .*overlap.*metadata\.csv in pixels"):
        list(stitch_tiles(patches, [make_fire(1, 3, (0, 0), (0, 1))], ["B12"]))


def test_gaps_between_patches_are_unlabelled_and_not_covered():
    patches = [make_pixels_of_patch([[1]]), make_pixels_of_patch([[0]])]
    (tile,) = stitch_tiles(patches, [make_fire(1, 3, (0, 0), (0, 2))], ["B12"])

    assert tile.truth.tolist() == [[1, 255, 0]]
    assert tile.is_covered.tolist() == [[True, False, True]]
    assert tile.raster.unknown.tolist() == [[False, True, False]]
    assert tile.raster.image[..., 0].tolist() == [[5000, 0, 5000]]


def test_a_fire_is_yielded_after_its_last_patch():
    drawn: list[str] = []

    def watch():
        for name in ("a", "a", "b"):
            drawn.append(name)
            yield make_pixels_of_patch([[0]])

    fires = [make_fire(1, 2, (0, 0), (0, 1), name="a"), make_fire(1, 1, (0, 0), name="b", first=2)]
    first = next(stitch_tiles(watch(), fires, ["B12"]))

    assert first.fire.name == "a"
    assert drawn == ["a", "a"]


def test_patches_of_two_tiles_may_alternate():
    fires = [
        Fire(name="a", positions=(PatchPosition(0, 0, 0), PatchPosition(2, 0, 1)), height=1, width=2),
        Fire(name="b", positions=(PatchPosition(1, 0, 0), PatchPosition(3, 0, 1)), height=1, width=2),
    ]
    patches = [
        make_pixels_of_patch([[0]]),
        make_pixels_of_patch([[1]]),
        make_pixels_of_patch([[0]]),
        make_pixels_of_patch([[1]]),
    ]

    assert [one.truth.tolist() for one in stitch_tiles(patches, fires, ["B12"])] == [[[0, 0]], [[1, 1]]]


def test_sorted_patch_names_keep_the_patches_of_a_tile_together(tmp_path: Path):
    tiles = ("EMSR1_AOI01_1", "EMSR1_AOI01_10", "EMSR1_AOI01_2", "EMSR10_AOI01_1")
    names = sorted(f"{tile}_r{row}_c{col}" for tile in tiles for row in (0, 256, 1024) for col in (0, 256, 1024))

    for fire in group_by_fire(names, tmp_path, size=256):
        numbers = [place.number for place in fire.positions]
        assert numbers == list(range(numbers[0], numbers[0] + 9))


def test_the_preview_has_every_nth_pixel():
    stored = (np.arange(700 * 500) % 60_000).reshape(700, 500).astype(np.uint16)
    windows = plan_tile_windows(700, 500, size=256, stride=200)
    patches = [
        make_pixels_of_patch(np.zeros((256, 256)), to_reflectance(stored[row : row + 256, col : col + 256]))
        for row, col in windows
    ]

    (tile,) = stitch_tiles(patches, [make_fire(700, 500, *windows)], ["B12"])
    mosaic = build_mosaic(tile, layers={}, patches=[])

    assert mosaic.preview_step == 3
    np.testing.assert_array_equal(mosaic.preview_image, to_reflectance(stored[None, ::3, ::3]))


def test_positions_far_apart_are_refused_before_memory_runs_out():
    patches = [make_pixels_of_patch([[0, 1]]), make_pixels_of_patch([[0, 1]])]
    fire = make_fire(2_000_000, 2_000_000, (0, 0), (1_999_999, 1_999_998))
    with pytest.raises(FiresegError, match=r"^T: .* GB are free; correct row and col of its patches in metadata\.csv"):
        list(stitch_tiles(patches, [fire], ["B12"]))
