"""Drawn splits: free of leaks, close to the fractions, and reproducible."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.audit import audit
from fireseg.prepare.duplicates import fingerprint_image
from fireseg.prepare.footprints import Footprint, read_footprints
from fireseg.prepare.split import SPLITS, assign_parts, assign_split
from tests.prepare.builders import get_real_data

IMAGES = [np.kron(np.random.default_rng(n).integers(0, 3000, (16, 16, 1)), np.ones((2, 2, 1))) for n in range(4)]
FINGERPRINTS = [fingerprint_image((image * gain).astype(np.uint16)) for image in IMAGES for gain in (1.0, 0.8)]


@st.composite
def tiles(draw: st.DrawFn) -> list[Footprint]:
    """Tiles that share activations, area, dates and pixels at random, and at least three that share nothing."""
    alone = [
        Footprint(name=f"alone{n}", activation=f"ALONE{n}", bounds=(100 + 2 * n, 0, 101 + 2 * n, 1), burned=n + 1)
        for n in range(3)
    ]
    count = draw(st.integers(0, 25))
    mixed = []
    for number in range(count):
        west, south = draw(st.integers(0, 40)) / 2 - 10, draw(st.integers(0, 8)) / 2 - 2
        mixed.append(
            Footprint(
                name=f"t{number}",
                activation=draw(st.sampled_from(["", *(f"E{code}" for code in range(12))])),
                bounds=(west, south, west + 1, south + 0.6),
                split=draw(st.sampled_from(["", "train", "test"])),
                date=draw(st.sampled_from([None, "2020-01-01", "2020-01-01T10:00:00"])),
                burned=draw(st.integers(0, 1000)),
                fingerprint=draw(st.sampled_from([None, None, None, *FINGERPRINTS])),
            )
        )
    return draw(st.permutations(alone + mixed))


def simple(*sizes: int, burned: int = 1) -> list[Footprint]:
    """One activation per size with that number of tiles; none overlap."""
    corners = [(code, n, 60 * (code // 80) + 2 * n, code % 80) for code, size in enumerate(sizes) for n in range(size)]
    return [
        Footprint(
            name=f"E{code}_{n}", activation=f"E{code}", bounds=(west, south, west + 1, south + 0.5), burned=burned
        )
        for code, n, west, south in corners
    ]


def count(footprints: list[Footprint]) -> list[int]:
    return [sum(one.split == split for one in footprints) for split in SPLITS]


@given(tiles(), st.integers(0, 3))
def test_an_audit_of_the_splits_is_clean(footprints: list[Footprint], seed: int) -> None:
    chosen = assign_split(footprints, (0.6, 0.2, 0.2), seed)
    report = audit(chosen)
    assert report.is_clean, report.format_text()
    assert [one.name for one in chosen] == [one.name for one in footprints]
    assert all(count(chosen))
    assert sum(count(chosen)) == len(footprints)


@given(tiles(), st.randoms(use_true_random=False))
def test_the_order_of_the_tiles_makes_no_difference(footprints: list[Footprint], random) -> None:
    shuffled = random.sample(footprints, len(footprints))
    by_name = [{one.name: one.split for one in assign_split(each)} for each in (footprints, shuffled)]
    assert by_name[0] == by_name[1]


def test_the_same_seed_gives_the_same_split_and_another_one_another() -> None:
    footprints = simple(*[2] * 30)
    splits = [tuple(one.split for one in assign_split(footprints, seed=seed)) for seed in (0, 0, 1, 2)]
    assert splits[0] == splits[1]
    assert len(set(splits)) == 3


@given(st.lists(st.integers(1, 12), min_size=3, max_size=6), st.integers(0, 2))
def test_no_other_placement_is_closer_to_the_fractions_by_half_a_percent(sizes: list[int], seed: int) -> None:
    fractions = (0.7, 0.15, 0.15)

    def distance(held: list[int]) -> float:
        return sum(abs(part / sum(sizes) - fraction) for part, fraction in zip(held, fractions, strict=True))

    best = min(
        distance([sum(size for size, place in zip(sizes, places, strict=True) if place == split) for split in range(3)])
        for places in product(range(3), repeat=len(sizes))
        if len(set(places)) == 3
    )
    assert distance(count(assign_split(simple(*sizes), fractions, seed))) <= best + 0.0051


def test_activations_connected_by_a_chain_of_overlaps_stay_together() -> None:
    chain = [
        Footprint(name=f"c{n}", activation=f"C{n}", bounds=(n * 0.9, 50, n * 0.9 + 1, 51), burned=1) for n in range(6)
    ]
    chosen = assign_split([*chain, *simple(3, 3)], (0.5, 0.25, 0.25))
    assert {one.split for one in chosen[:6]} == {"train"}
    assert count(chosen) == [6, 3, 3]


def test_of_equally_close_splits_the_one_with_fire_in_every_split_is_chosen() -> None:
    footprints = [
        Footprint(name=f"t{n:02d}", activation=f"E{n}", bounds=(n * 2, 0, n * 2 + 1, 1), burned=100 if n < 10 else 0)
        for n in range(40)
    ]
    for seed in range(5):
        chosen = assign_split(footprints, (0.6, 0.2, 0.2), seed)
        assert count(chosen) == [24, 8, 8]
        assert [sum(one.burned or 0 for one in chosen if one.split == split) for split in SPLITS] == [600, 200, 200]


def test_large_fires_also_get_into_validation_and_test() -> None:
    footprints = simple(10, 10, *[1] * 100)
    splits = {assign_split(footprints, seed=seed)[0].split for seed in range(30)}
    assert splits == {"train", "val", "test"}


@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_burned_pixels_if_only_few_tiles_have(seed: int) -> None:
    footprints = [replace(one, burned=100 * (n < 3)) for n, one in enumerate(simple(*[1] * 40))]
    chosen = assign_split(footprints, seed=seed)
    assert {one.split for one in chosen[:3]} == {"train", "val", "test"}
    assert count(chosen) == [28, 6, 6]


def test_fewer_groups_with_burned_pixels_than_splits_raise_with_the_cure() -> None:
    footprints = [replace(one, burned=100 * (n < 2)) for n, one in enumerate(simple(*[1] * 10))]
    with pytest.raises(FiresegError, match=r"3 splits, but only 2 of 10 groups.*check the values of the masks"):
        assign_split(footprints)
    assert sorted(one.split for one in assign_split(footprints, (0.5, 0.5))[:2]) == ["train", "val"]


def test_a_fire_of_tiles_without_activation_is_in_one_split() -> None:
    # Nine fires of four adjacent tiles each, one degree apart.
    footprints = [
        Footprint(
            name=f"tile{n}", activation=f"tile{n}", bounds=(n // 4 + n % 4 * 0.1, 0, n // 4 + n % 4 * 0.1 + 0.1, 0.1)
        )
        for n in range(36)
    ]
    chosen = assign_split(footprints)
    assert [len({one.split for one in chosen[first : first + 4]}) for first in range(0, 36, 4)] == [1] * 9
    assert sorted(count(chosen)) == [4, 8, 24]


@given(tiles(), st.integers(0, 3))
def test_parts_leak_nothing_and_all_have_burned_tiles(footprints: list[Footprint], seed: int) -> None:
    parts = assign_parts(footprints, 3, seed)
    assert audit([replace(one, split=str(part)) for one, part in zip(footprints, parts, strict=True)]).is_clean
    assert {part for one, part in zip(footprints, parts, strict=True) if one.burned} == {0, 1, 2}


def test_parts_have_equal_size() -> None:
    parts = assign_parts(simple(3, 3, 2, 2, *[1] * 15), 5)
    assert sorted(parts.count(part) for part in range(5)) == [5] * 5


def test_two_fractions_leave_test_empty() -> None:
    for fractions in ((0.8, 0.2), (0.8, 0.2, 0.0)):
        assert count(assign_split(simple(*[1] * 10), fractions)) == [8, 2, 0]
    assert count(assign_split(simple(50, 1), (0.5, 0.5, 0.0))) in ([50, 1, 0], [1, 50, 0])


@pytest.mark.parametrize(
    "fractions",
    [(), (1.0,), (0.7, 0.2), (0.7, 0.4, -0.1), (0.7, 0.15, 0.1, 0.05), (1.0, 0.0), (0.8, float("nan"), 0.2)],
)
def test_invalid_fractions_raise(fractions: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match="fractions"):
        assign_split(simple(1, 1, 1), fractions)


def test_fewer_groups_than_splits_raise() -> None:
    with pytest.raises(FiresegError, match=r"3 splits.*2 group"):
        assign_split(simple(4, 4))


@pytest.mark.real
def test_the_real_tiles_are_split_without_leaks_within_half_a_percent_of_the_fractions() -> None:
    footprints = read_footprints(get_real_data() / "cems" / "csv_files" / "satelliteData.csv")
    chosen = assign_split(footprints, (0.7, 0.15, 0.15), 0)
    assert audit(chosen).is_clean
    assert [part / 559 for part in count(chosen)] == pytest.approx([0.7, 0.15, 0.15], abs=0.005)
