"""Parts of the training patches: seeded, nested, and of every fire."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.statistics import PatchStatistics
from fireseg.data.subset import select_fraction, select_tiles


def make_patch(name: str, burned: int = 0) -> PatchStatistics:
    shape = (4, 4)
    return PatchStatistics(
        name=name, image_shape=(*shape, 7), image_dtype="float32", mask_shape=shape, mask_dtype="uint8",
        pixels={0: 16 - burned, 1: burned}, digest="0",
    )  # fmt: skip


def make_tile(name: str, count: int, num_burned: int = 0) -> list[PatchStatistics]:
    return [make_patch(f"{name}_r{number}_c0", int(number < num_burned)) for number in range(count)]


def select(patches: list[PatchStatistics], fraction: float, seed: int = 0) -> list[str]:
    return [patch.name for patch in select_fraction(patches, fraction, seed=seed, ignore_index=255)]


PATCHES = [*make_tile("small", 2, 1), *make_tile("large", 60, 30), *make_tile("unburned", 18)]


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=2), st.integers(0, 5))
def test_a_larger_part_contains_a_smaller_one(fractions: list[float], seed: int) -> None:
    small, large = (select(PATCHES, fraction, seed) for fraction in sorted(fractions))
    assert set(small) <= set(large)
    assert len(large) == max(1, round(max(fractions) * 80))
    assert [name for name in (patch.name for patch in PATCHES) if name in large] == large


def test_the_same_seed_gives_the_same_part_and_another_one_another() -> None:
    assert select(PATCHES, 0.2) == select(PATCHES, 0.2)
    assert select(PATCHES[::-1], 0.2)[::-1] == select(PATCHES, 0.2)
    assert len({tuple(select(PATCHES, 0.2, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("seed", range(5))
def test_every_fire_keeps_a_patch_and_one_with_burned_pixels(seed: int) -> None:
    names = select(PATCHES, 0.04, seed)  # 3 of 80
    assert Counter(name.partition("_")[0] for name in names) == {"small": 1, "large": 1, "unburned": 1}
    assert "small_r0_c0" in names
    assert int(next(name for name in names if name.startswith("large")).split("_")[1][1:]) < 30


@pytest.mark.parametrize("seed", range(5))
def test_fires_and_burned_patches_keep_their_shares(seed: int) -> None:
    counts = Counter(
        (tile, int(row[1:]) < 30) for tile, row, _ in (name.split("_") for name in select(PATCHES, 0.5, seed))
    )
    assert counts["large", True] == pytest.approx(15, abs=1)
    assert counts["large", False] == pytest.approx(15, abs=1)
    assert counts["unburned", True] == pytest.approx(9, abs=1)


def test_one_patch_is_always_selected_and_all_of_them_for_a_fraction_of_one() -> None:
    assert len(select(PATCHES, 1e-9)) == 1
    assert select(PATCHES, 1.0) == [patch.name for patch in PATCHES]


def test_patches_without_a_tile_in_their_names_count_as_one_tile() -> None:
    assert len(select([make_patch(f"patch{number}") for number in range(20)], 0.1)) == 2


@pytest.mark.parametrize("seed", range(4))
def test_whole_tiles_are_selected_and_fewer_are_contained_in_more(seed: int) -> None:
    def tiles(max_tiles: int) -> Counter[str]:
        return Counter(patch.name.partition("_")[0] for patch in select_tiles(PATCHES, max_tiles, seed=seed))

    whole = Counter(patch.name.partition("_")[0] for patch in PATCHES)
    one, two = tiles(1), tiles(2)
    assert (len(one), len(two), tiles(3), tiles(9)) == (1, 2, whole, whole)
    assert one.items() <= two.items() <= whole.items()


def test_the_seed_chooses_the_tiles() -> None:
    chosen = {select_tiles(PATCHES, 1, seed=seed)[0].name for seed in range(20)}
    assert len(chosen) == 3
