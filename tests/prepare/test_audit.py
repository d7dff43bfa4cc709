"""Audit of footprints for leakage."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.audit import audit
from fireseg.prepare.duplicates import Fingerprint, fingerprint_image
from fireseg.prepare.footprints import Footprint, read_footprints
from tests.prepare.builders import get_real_data

SECOND = "2017/10/07_08:05:51"


def tile(
    name: str,
    split: str = "",
    *,
    west: float = 0.0,
    date: str | None = None,
    fingerprint: Fingerprint | None = None,
    **more,
) -> Footprint:
    """A tile of one by one degree, of the activation at the start of its name."""
    values = {"activation": name.partition("_")[0], "bounds": (west, 40.0, west + 1, 41.0), "date": date} | more
    return Footprint(name=name, split=split, fingerprint=fingerprint, **values)


def fingerprint(seed: int, *, brighter: int = 0, mask: int = 0) -> Fingerprint:
    image = np.kron(np.random.default_rng(seed).integers(500, 3000, (16, 16, 1)), np.ones((3, 3, 1)))
    return fingerprint_image((image + brighter).astype(np.uint16), None, np.full((48, 48), mask, np.uint8))


def list_pairs(*tiles: Footprint) -> list[tuple[str, str, str]]:
    return [(one.kind, one.tiles[0].name, one.tiles[1].name) for one in audit(tiles).findings]


def test_an_overlap_between_splits_has_both_shares_and_dates() -> None:
    small = tile("B_1", "val", bounds=(0.9, 40.0, 1.1, 41.0), date="2017-10-19")
    report = audit([tile("A_1", "train", date=SECOND), small])
    (finding,) = report.findings
    assert finding.kind == "overlap"
    assert finding.shares == pytest.approx((0.1, 0.5))
    assert finding.share == pytest.approx(0.5)
    assert [one.timestamp for one in finding.tiles] == ["2017-10-07T08:05:51", "2017-10-19"]
    assert finding.note == "12 days apart"
    assert (report.is_clean, report.between, report.num_sharing) == (False, "splits", 2)


def test_one_percent_of_the_smaller_tile_is_still_clean() -> None:
    assert audit([tile("A_1", "train"), tile("B_1", "val", west=0.9901)]).is_clean
    assert not audit([tile("A_1", "train"), tile("B_1", "val", west=0.9899)]).is_clean


def test_within_a_split_tiles_may_overlap() -> None:
    assert list_pairs(tile("A_1", "train"), tile("B_1", "train"), tile("C_1", "val", west=5)) == []


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


def test_the_same_pixels_are_one_acquisition_at_any_location() -> None:
    (finding,) = audit(
        [tile("A_1", "train", fingerprint=fingerprint(0)), tile("B_1", "test", west=50, fingerprint=fingerprint(0))]
    ).findings
    assert (finding.kind, finding.note) == ("same acquisition", "same pixels, at different locations")
    assert finding.shares == (0.0, 0.0)


def test_a_brightened_copy_is_near_identical_and_its_masks_are_compared() -> None:
    copies = [tile("B_1", "val", west=9, fingerprint=fingerprint(0, brighter=50, mask=mask)) for mask in (0, 1)]
    notes = [audit([tile("A_1", "train", fingerprint=fingerprint(0)), copy]).findings[0].note for copy in copies]
    assert notes == [
        "0.0 % of the hash bits differ, similar masks, at different locations",
        "0.0 % of the hash bits differ, different masks, at different locations",
    ]
    assert (
        list_pairs(
            tile("A_1", "train", fingerprint=fingerprint(0)), tile("B_1", "val", west=9, fingerprint=fingerprint(1))
        )
        == []
    )


def test_an_activation_in_two_splits_is_one_finding_per_pair_of_splits() -> None:
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
    assert list_pairs(tile("a", "train", activation=""), tile("b", "val", west=3, activation="")) == []
    assert list_pairs(tile("a", activation=""), tile("b", activation="")) == [("overlap", "a", "b")]


def test_without_splits_activations_are_compared() -> None:
    tiles = [tile("A_1"), tile("A_2"), tile("B_1", west=0.5), tile("C_1", west=3)]
    report = audit(tiles)
    assert report.between == "activations"
    assert list_pairs(*tiles) == [("overlap", "A_1", "B_1"), ("overlap", "A_2", "B_1")]
    assert report.num_sharing == 3
    assert report.format_text().startswith(
        "4 tiles of 3 activations: 3 overlap or duplicate a tile of another activation"
    )


def test_a_repeated_tile_within_an_activation_is_noted_but_no_leak() -> None:
    report = audit([tile("A_1", date=SECOND), tile("A_2", date=SECOND), tile("A_3", date="2017-10-09")])
    assert report.is_clean
    (note,) = report.notes
    assert note.startswith(
        "1 tile more than once in the same activation (same box, same second), for example A_1 and A_2"
    )


def test_tiles_in_no_split_are_not_audited_and_counted() -> None:
    report = audit([tile("A_1", "train"), tile("B_1"), tile("C_1", "val", west=3)])
    assert report.is_clean
    assert report.num_tiles == 2
    assert report.notes == ("1 tile in no split: not audited",)


def test_the_most_severe_comes_first_then_the_largest_share() -> None:
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


def test_the_text_lists_leaks_in_columns_and_cuts_long_lists() -> None:
    many = [tile(f"B{n}_1", "val", west=0.5 + n / 100) for n in range(5)]
    text = audit([tile("A_1", "train", date=SECOND), *many, tile("A_2", "test", west=9)]).format_text(max_rows=2)
    assert text.splitlines() == [
        "7 tiles of 6 activations: 6 overlap or duplicate a tile of another split",
        "",
        "5 overlaps of more than 1 % of the smaller tile",
        "  50.0 %  train A_1  2017-10-07 08:05:51  val B0_1  no date  date unknown",
        "  49.0 %  train A_1  2017-10-07 08:05:51  val B1_1  no date  date unknown",
        "  ... and 3 more",
        "",
        "1 activation in two splits",
        "  train A_1  test A_2  A: 1 tile in train, 1 tile in test",
    ]


def test_a_clean_audit_is_one_line() -> None:
    report = audit([tile("A_1", "train"), tile("B_1", "val", west=3)])
    assert report.is_clean
    assert report.format_text() == "2 tiles of 2 activations: no leaks between splits"
    assert audit([]).is_clean


def test_the_json_contains_everything_as_plain_values() -> None:
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


def test_invalid_bounds_raise() -> None:
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
    assert time.process_time() - start < 20, "about 2 s on two shared cores"


@pytest.mark.real
def test_the_real_metadata_contain_one_acquisition_twice_and_122_tiles_that_overlap_another_activation() -> None:
    tiles = read_footprints(get_real_data() / "cems" / "csv_files" / "satelliteData.csv")
    start = time.process_time()
    report = audit(tiles)
    assert time.process_time() - start < 1
    assert (report.num_tiles, report.num_activations) == (559, 170)
    (same,) = [one for one in report.findings if one.kind == "same acquisition"]
    assert [one.name for one in same.tiles] == ["EMSR226_AOI01_01", "EMSR247_AOI01_01"]
    assert same.note == "same box, same second, 569 x 795 px, 85,491 burned"
    assert same.shares == pytest.approx((1.0, 1.0))
    # By the rule of the audit, 1 % of the smaller tile; then by a stricter one, 5 % of a tile's own area.
    assert (len(report.findings), report.num_sharing) == (174, 122)
    pairs = [zip(one.tiles, one.shares or (), strict=True) for one in report.findings]
    assert len({one.name for pair in pairs for one, share in pair if share > 0.05}) == 109
    assert "26 tiles more than once in the same activation" in report.notes[0]
