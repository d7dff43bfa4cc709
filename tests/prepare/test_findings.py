"""Who shares ground, pixels or an activation with whom."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.audit import audit
from fireseg.prepare.duplicates import Fingerprint, fingerprint_image
from fireseg.prepare.footprints import Footprint, read_footprints

SECOND = "2017/10/07_08:05:51"


def tile(
    name: str, split: str = "", *, west: float = 0.0, date: str | None = None, look: Fingerprint | None = None, **more
) -> Footprint:
    """A tile of one degree by one, of the activation that its name begins with."""
    given = {"activation": name.partition("_")[0], "bounds": (west, 40.0, west + 1, 41.0), "date": date} | more
    return Footprint(name=name, split=split, look=look, **given)


def look(seed: int, *, brighter: int = 0, mask: int = 0) -> Fingerprint:
    image = np.kron(np.random.default_rng(seed).integers(500, 3000, (16, 16, 1)), np.ones((3, 3, 1)))
    return fingerprint_image((image + brighter).astype(np.uint16), None, np.full((48, 48), mask, np.uint8))


def found(*tiles: Footprint) -> list[tuple[str, str, str]]:
    return [(one.kind, one.tiles[0].name, one.tiles[1].name) for one in audit(tiles).findings]


def test_an_overlap_between_splits_has_both_shares_and_dates() -> None:
    small = tile("B_1", "val", bounds=(0.9, 40.0, 1.1, 41.0), date="2017-10-19")
    report = audit([tile("A_1", "train", date=SECOND), small])
    (finding,) = report.findings
    assert finding.kind == "overlap"
    assert finding.shares == pytest.approx((0.1, 0.5))
    assert finding.share == pytest.approx(0.5)
    assert [one.moment for one in finding.tiles] == ["2017-10-07T08:05:51", "2017-10-19"]
    assert finding.note == "12 days apart"
    assert (report.is_clean, report.between, report.num_sharing) == (False, "splits", 2)


def test_one_percent_of_the_smaller_tile_is_still_clean() -> None:
    assert audit([tile("A_1", "train"), tile("B_1", "val", west=0.9901)]).is_clean
    assert not audit([tile("A_1", "train"), tile("B_1", "val", west=0.9899)]).is_clean
    assert audit([tile("A_1", "train"), tile("B_1", "val", west=0.6)], least_share=0.5).is_clean


def test_within_a_split_tiles_may_overlap() -> None:
    assert found(tile("A_1", "train"), tile("B_1", "train"), tile("C_1", "val", west=5)) == []


def test_the_same_box_and_second_are_one_acquisition_however_the_date_is_written() -> None:
    twin = tile("B_1", "val", west=1e-6, date="2017-10-07T08:05:51.5Z", height=569, width=795, burned=7)
    report = audit([tile("A_1", "train", date=SECOND, height=569, width=795, burned=1234), twin])
    assert [one.kind for one in report.findings] == ["same acquisition"]
    assert report.findings[0].note == "same box, same second, 569 x 795 px, 1,234 burned and 7 burned"


@pytest.mark.parametrize(
    ("first", "second", "kind", "note"),
    [
        ("2017-10-07", "2017-10-07", "same acquisition", "same box, same day"),
        ("2017-10-07", SECOND, "same acquisition", "same box, same day"),
        ("2017-10-07T08:05:52", SECOND, "overlap", "same day"),
        ("2017-10-08", SECOND, "overlap", "1 day apart"),
        (None, SECOND, "overlap", "date unknown"),
        (None, None, "overlap", "date unknown"),
        ("in summer", SECOND, "overlap", ""),
    ],
)
def test_the_same_box_is_one_acquisition_as_exactly_as_both_dates_are_known(
    first: str | None, second: str | None, kind: str, note: str
) -> None:
    (finding,) = audit([tile("A_1", "train", date=first), tile("B_1", "val", date=second)]).findings
    assert (finding.kind, finding.note) == (kind, note)


def test_the_same_pixels_are_one_acquisition_wherever_they_are_said_to_lie() -> None:
    (finding,) = audit([tile("A_1", "train", look=look(0)), tile("B_1", "test", west=50, look=look(0))]).findings
    assert (finding.kind, finding.note) == ("same acquisition", "same pixels, on other ground")
    assert finding.shares == (0.0, 0.0)


def test_a_brightened_copy_is_near_identical_and_says_whether_the_masks_are_alike() -> None:
    copies = [tile("B_1", "val", west=9, look=look(0, brighter=50, mask=mask)) for mask in (0, 1)]
    notes = [audit([tile("A_1", "train", look=look(0)), copy]).findings[0].note for copy in copies]
    assert notes == [
        "correlation 1.0000, masks alike, on other ground",
        "correlation 1.0000, masks differ, on other ground",
    ]
    assert found(tile("A_1", "train", look=look(0)), tile("B_1", "val", west=9, look=look(1))) == []


def test_an_activation_in_two_splits_is_one_finding_for_the_two() -> None:
    tiles = [
        tile("E_1", "train"),
        tile("E_2", "train", west=2),
        tile("E_3", "val", west=4),
        tile("E_4", "test", west=6),
    ]
    report = audit([*tiles, tile("F_1", "val", west=8)])
    assert [(one.kind, one.shares, one.note) for one in report.findings] == [
        ("activation", None, "E: 2 tiles in train, 1 tile in val"),
        ("activation", None, "E: 2 tiles in train, 1 tile in test"),
        ("activation", None, "E: 1 tile in val, 1 tile in test"),
    ]
    assert [one.name for one in report.findings[0].tiles] == ["E_1", "E_3"]
    assert report.num_sharing == 0


def test_tiles_of_unknown_activations_are_not_one_activation() -> None:
    assert found(tile("a", "train", activation=""), tile("b", "val", west=3, activation="")) == []
    assert found(tile("a", activation=""), tile("b", activation="")) == [("overlap", "a", "b")]


def test_without_splits_activations_are_compared() -> None:
    tiles = [tile("A_1"), tile("A_2"), tile("B_1", west=0.5), tile("C_1", west=3)]
    report = audit(tiles)
    assert report.between == "activations"
    assert found(*tiles) == [("overlap", "A_1", "B_1"), ("overlap", "A_2", "B_1")]
    assert report.num_sharing == 3
    assert report.as_table().startswith(
        "4 tiles of 3 activations: 3 share ground or pixels with a tile of another activation"
    )


def test_a_tile_that_is_twice_in_its_activation_is_noted_though_it_leaks_nothing() -> None:
    report = audit([tile("A_1", date=SECOND), tile("A_2", date=SECOND), tile("A_3", date="2017-10-09")])
    assert report.is_clean
    (note,) = report.notes
    assert note.startswith("1 tile more than once in the same activation (same box, same second), first A_1 and A_2")


def test_tiles_in_no_split_beside_others_are_left_out_and_counted() -> None:
    report = audit([tile("A_1", "train"), tile("B_1"), tile("C_1", "val", west=3)])
    assert report.is_clean
    assert report.num_tiles == 2
    assert report.notes == ("1 tile in no split: not looked at",)


def test_the_worst_comes_first_then_the_largest_share() -> None:
    tiles = [
        tile("A_1", "train", date=SECOND),
        tile("B_1", "val", west=0.5),
        tile("C_1", "test", west=0.2),
        tile("D_1", "val", date=SECOND),
        tile("E_1", "train", west=20),
        tile("E_2", "val", west=30),
    ]
    kinds = [(one.kind, round(one.share or 0, 2)) for one in audit(tiles).findings]
    assert kinds == [
        ("same acquisition", 1.0),
        ("overlap", 0.8),
        ("overlap", 0.8),
        ("overlap", 0.7),
        ("overlap", 0.5),
        ("activation", 0.0),
    ]


def test_the_table_reads_well_and_cuts_long_lists() -> None:
    many = [tile(f"B{n}_1", "val", west=0.5 + n / 100) for n in range(5)]
    text = audit([tile("A_1", "train", date=SECOND), *many, tile("A_2", "test", west=9)]).as_table(most=2)
    assert text.splitlines() == [
        "7 tiles of 6 activations: 6 share ground or pixels with a tile of another split",
        "",
        "5 overlaps of more than 1% of the smaller tile",
        "  50.0%  train A_1  2017-10-07 08:05:51  val B0_1  no date  date unknown",
        "  49.0%  train A_1  2017-10-07 08:05:51  val B1_1  no date  date unknown",
        "  ... and 3 more",
        "",
        "1 activation in two splits",
        "  train A_1  test A_2  A: 1 tile in train, 1 tile in test",
    ]


def test_a_clean_audit_says_so_in_one_line() -> None:
    report = audit([tile("A_1", "train"), tile("B_1", "val", west=3)])
    assert report.is_clean
    assert report.as_table() == "2 tiles of 2 activations: nothing shared between splits"
    assert audit([]).is_clean


def test_the_json_holds_everything_in_plain_values() -> None:
    tiles = [tile("A_1", "train", date=SECOND), tile("B_1", "val", west=0.5), tile("A_2", "val", west=7)]
    plain = audit(tiles).as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["is_clean"] is False
    assert plain["counts"] == {"same acquisition": 0, "near-identical": 0, "overlap": 1, "activation": 1}
    assert plain["findings"][0] == {
        "kind": "overlap",
        "tiles": [
            {"name": "A_1", "split": "train", "activation": "A", "date": "2017-10-07T08:05:51"},
            {"name": "B_1", "split": "val", "activation": "B", "date": None},
        ],
        "shares": [0.5, 0.5],
        "note": "date unknown",
    }
    assert plain["findings"][1]["shares"] is None


def test_bounds_that_cannot_be_are_refused() -> None:
    with pytest.raises(FiresegError, match="A_1: bounds"):
        audit([tile("A_1", bounds=(0.0, 95.0, 1.0, 96.0))])


def test_twenty_thousand_tiles_take_seconds() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform((-10, 36), (20, 66), (20_000, 2)).tolist()
    tiles = [
        Footprint(name=f"t{n}", activation=f"E{n // 3}", bounds=(west, south, west + 0.2, south + 0.15), date=SECOND)
        for n, (west, south) in enumerate(corners)
    ]
    start = time.process_time()
    report = audit(tiles)
    assert report.counts["overlap"] > 10_000
    assert time.process_time() - start < 20, "about 1.5 s on two shared cores"


@pytest.mark.real
def test_the_real_metadata_holds_one_acquisition_twice_and_122_tiles_on_ground_of_another_activation() -> None:
    root = os.environ.get("FIRESEG_REAL_DATA")
    if not root:
        pytest.skip("FIRESEG_REAL_DATA is not set")
    tiles = read_footprints(Path(root) / "cems" / "csv_files" / "satelliteData.csv")
    start = time.process_time()
    report = audit(tiles)
    assert time.process_time() - start < 1
    assert (report.num_tiles, report.num_activations) == (559, 170)
    (same,) = [one for one in report.findings if one.kind == "same acquisition"]
    assert [one.name for one in same.tiles] == ["EMSR226_AOI01_01", "EMSR247_AOI01_01"]
    assert same.note == "same box, same second, 569 x 795 px, 85,491 burned"
    assert same.shares == pytest.approx((1.0, 1.0))
    # By the rule of the audit, 1 % of the smaller tile; then by the stricter one, 5 % of a tile's own ground.
    assert (len(report.findings), report.num_sharing) == (174, 122)
    pairs = [zip(one.tiles, one.shares or (), strict=True) for one in report.findings]
    assert len({one.name for pair in pairs for one, share in pair if share > 0.05}) == 109
    assert "26 tiles more than once in the same activation" in report.notes[0]
