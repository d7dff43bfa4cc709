"""Footprints from the data set's metadata, and their checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.footprints import Footprint, check_footprints, normalize_date, read_footprints, read_tile_metadata

HEAD = "EMSR,folderPath,post_fire_acquisition,left_Long,bottom_Lat,right_Long,top_Lat,height,width,pixelBurned,country"


def write(tmp_path: Path, *rows: str, head: str = HEAD) -> Path:
    path = tmp_path / "satelliteData.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def faults(path: Path) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        read_footprints(path)
    return caught.value.faults


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2017/10/07_08:05:51", "2017-10-07T08:05:51"),
        ("2017-10-07T08:05:51Z", "2017-10-07T08:05:51"),
        ("2017-10-07T08:05:51.024Z", "2017-10-07T08:05:51"),
        ("2017-10-07T10:05:51+02:00", "2017-10-07T08:05:51"),
        (" 2017-10-07 08:05:51 ", "2017-10-07T08:05:51"),
        ("2017-10-07", "2017-10-07"),
        ("20171007", "2017-10-07"),
        ("20171007T080551", "2017-10-07T08:05:51"),
        ("late summer", "late summer"),
    ],
)
def test_dates_in_any_form_can_be_compared(text: str, timestamp: str) -> None:
    assert normalize_date(text) == timestamp


def test_a_row_of_the_metadata_is_a_footprint(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "EMSR226,dataOptimal/EMSR226/AOI01/EMSR226_AOI01_01,2017/10/07_08:05:51,43.4,41.7,43.5,41.8,569,795,85491,Georgia",
    )
    assert read_footprints(path) == [
        Footprint(
            name="EMSR226_AOI01_01",
            activation="EMSR226",
            bounds=(43.4, 41.7, 43.5, 41.8),
            date="2017/10/07_08:05:51",
            height=569,
            width=795,
            burned=85491,
        )
    ]


def test_boxes_and_folders_are_sufficient(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a/EMSR10_AOI01_01,1,2,3,4",
        "a/hill,1,2,3,4",
        head="\ufefffolderPath,left_Long,bottom_Lat,right_Long,top_Lat",
    )
    first, second = read_footprints(path)
    assert (first.activation, first.date, first.burned) == ("EMSR10", None, None)
    assert second.activation == "hill"


def test_a_name_that_occurs_twice_is_prefixed_with_its_folder(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        r"EMSR1,dataOptimal\EMSR1\AOI01\EMSR1_AOI01_01,,1,2,3,4,,,,",
        "EMSR1,dataColomba/EMSR1/AOI01/EMSR1_AOI01_01,,1,2,3,4,,,,",
        "EMSR1,dataColomba/EMSR1/AOI01/EMSR1_AOI01_02,,1,2,3,4,,,,",
    )
    names = [one.name for one in read_footprints(path)]
    assert names == ["dataOptimal/EMSR1_AOI01_01", "dataColomba/EMSR1_AOI01_01", "EMSR1_AOI01_02"]


def test_all_invalid_rows_are_named(tmp_path: Path) -> None:
    lines = faults(
        write(
            tmp_path,
            "EMSR1,x/a,,east,2,3,4,,,,",
            "EMSR1,x/b,,1,2,3,4,1.5e3,many,,",
            "EMSR1,x/c,,1,4,3,2,,,,",
            "EMSR1,x/fine,,1,2,3,4,,,,",
            "EMSR1,,,1,2,3,4,,,,",
            "EMSR1,x/short",
        )
    )
    expected = [
        ("line 2: left_Long 'east'", "number of degrees"),
        ("line 3: width 'many'", "count"),
        ("line 4: c: bounds 1 4 3 2", "south < north"),
        ("line 6: folderPath is empty", "name the tile"),
        ("line 7: left_Long ''", "number of degrees"),
    ]
    for line, (location, cure) in zip(lines, expected, strict=True):
        assert f"satelliteData.csv: {location}" in line
        assert cure in line


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, "a,1,2,3,4", head="folderPath,left_Lon,bottom_Lat,right_Long,top_Lat"))
    assert "no column left_Long (did you mean 'left_Lon'?)" in fault
    assert "satelliteData.csv" in fault


@pytest.mark.parametrize(
    "content", [b"", b"folderPath,left_Long,bottom_Lat,right_Long,top_Lat\n", b"\x89PNG\xff\xfe\x00"]
)
def test_a_file_that_is_no_metadata_is_one_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    (fault,) = faults(path)
    assert str(path) in fault
    assert "satelliteData.csv" in fault


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    assert "no such file" in faults(tmp_path / "none.csv")[0]
    assert "a folder, but a file is needed" in faults(tmp_path)[0]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((0.0, float("nan"), 1.0, 1.0), "must be finite"),
        ((500000.0, 4649776.0, 520000.0, 4669776.0), "convert metres to degrees"),
        ((0.0, 1.0, 1.0, 1.0), "without area"),
        ((1.0, 0.0, 1.0, 1.0), "without area"),
        ((-180.0, 80.0, 180.0, 90.0), "around a pole"),
        ((-179.9, 10.0, 179.9, 11.0), "west and east swapped"),
    ],
)
def test_invalid_bounds_raise(bounds: tuple[float, float, float, float], words: str) -> None:
    with pytest.raises(FiresegError, match=words) as caught:
        check_footprints([Footprint(name="fine", bounds=(0, 0, 1, 1)), Footprint(name="odd", bounds=bounds)])
    assert caught.value.faults[0].startswith("odd: bounds")
    assert len(caught.value.faults) == 1


def test_tiles_at_a_pole_and_across_the_antimeridian_are_valid() -> None:
    check_footprints(
        [
            Footprint(name="pole", bounds=(10, 89, 60, 90)),
            Footprint(name="fiji", bounds=(179.9, -17, -179.9, -16)),
            Footprint(name="fiji in 0 to 360", bounds=(179.9, -17, 180.1, -16)),
        ]
    )


def test_many_faults_are_shortened() -> None:
    with pytest.raises(FiresegError) as caught:
        check_footprints([Footprint(name=f"t{n}", bounds=(0, 0, 0, 0)) for n in range(33)])
    assert len(caught.value.faults) == 21
    assert caught.value.faults[-1] == "and 13 more"


def test_an_outline_of_two_corners_raises() -> None:
    with pytest.raises(FiresegError, match="outline of 2 corners"):
        check_footprints([Footprint(name="line", bounds=(0, 0, 1, 1), outline=((0, 0), (1, 1)))])


def test_metadata_of_a_tile_that_occurs_twice_are_kept_where_both_rows_agree(tmp_path: Path) -> None:
    head = "folderPath,post_fire_acquisition,country,koppen_subgroup"
    path = write(tmp_path, "a/t1,2020/01/02_03:04:05,Greece,Csa", "b/t1,2020/01/02_03:04:05,Italy,Csa", head=head)
    assert read_tile_metadata(path) == {"t1": ("", "Csa", "2020-01-02T03:04:05")}


def test_metadata_without_a_column_raise(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"no column koppen_subgroup.*satelliteData\.csv"):
        read_tile_metadata(write(tmp_path))
