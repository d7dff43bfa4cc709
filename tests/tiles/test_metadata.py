"""Offset and date from metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError
from fireseg.tiles.metadata import (
    find_date,
    find_offset,
    flatten_metadata,
    read_metadata,
    read_product_xml,
)

REQUEST: dict[str, Any] = {
    "payload": {
        "evalscript": "//VERSION=3",
        "input": {
            "data": [
                {
                    "dataFilter": {"timeRange": {"from": "2019-08-17T00:00:00Z", "to": "2019-10-06T00:00:00Z"}},
                    "type": "sentinel-2-l2a",
                }
            ]
        },
    },
    "timestamp": "2023-02-21T10:16:35.396520",
}
PRODUCT = "S2A_MSIL2A_20220828T115221_N0400_R123_T28RDR_20220828T150000"


@pytest.mark.parametrize(
    ("record", "offset"),
    [
        ({}, None),
        ({"PROCESSING_BASELINE": "04.00"}, 1000),
        ({"PROCESSING_BASELINE": "03.01"}, 0),
        ({"s2:processing_baseline": "05.09"}, 1000),
        ({"properties": {"processing:baseline": 2.14, "s2:processing_baseline": "N0214"}}, 0),
        ({"processing_baseline": "0510"}, 1000),
        ({"BOA_ADD_OFFSET": "-1000"}, 1000),
        ({"BOA_ADD_OFFSET_VALUES_LIST": [-1000, -1000]}, 1000),
        ({"BOA_ADD_OFFSET": 0, "PROCESSING_BASELINE": "04.00"}, 0),
        ({"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.00"}, 0),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.00"}, 1000),
        ({"PRODUCT_URI": PRODUCT + ".SAFE"}, 1000),
        (REQUEST, 0),
        ({"harmonizeValues": False, "evalscript": "", "PROCESSING_BASELINE": "04.00"}, 1000),
        ({"harmonizeValues": False, "evalscript": ""}, None),
    ],
)
def test_offset_is_found_in_metadata(record: dict[str, Any], offset: float | None) -> None:
    assert find_offset(flatten_metadata(record)) == offset


def test_offset_that_is_no_number_is_an_error() -> None:
    with pytest.raises(FiresegError, match="boaaddoffset 'none'"):
        find_offset(flatten_metadata({"BOA_ADD_OFFSET": "none"}))


def test_different_offsets_are_an_error() -> None:
    with pytest.raises(FiresegError, match="BOA_ADD_OFFSET of 900, 1000"):
        find_offset(flatten_metadata({"BOA_ADD_OFFSET": -1000}, {"BOA_ADD_OFFSET": -900}))


@pytest.mark.parametrize(
    ("record", "date"),
    [
        ({}, None),
        (REQUEST, "2019-08-17T00:00:00Z/2019-10-06T00:00:00Z"),
        (REQUEST | {"acquisition_date": ["2019/08/28_11:52:21"]}, "2019-08-28T11:52:21Z"),
        ({"properties": {"datetime": "2019-08-28T11:52:21.024Z"}}, "2019-08-28T11:52:21Z"),
        ({"DATATAKE_1_DATATAKE_SENSING_START": "2019-08-28T11:52:21.024Z"}, "2019-08-28T11:52:21Z"),
        ({"acquisition_date": "2019-08-28"}, "2019-08-28"),
        ({"acquisition_date": "yesterday"}, None),
        ({"PRODUCT_URI": PRODUCT}, "2022-08-28T11:52:21Z"),
        ({"timeRange": {"from": "2019-08-28", "to": "2019-08-28"}}, "2019-08-28"),
        ({"timeRange": {"from": "2019-08-28"}}, None),
    ],
)
def test_date_is_that_of_the_acquisition_or_the_search_interval(record: dict[str, Any], date: str | None) -> None:
    assert find_date(flatten_metadata(record)) == date


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "empty"), (b'{"a": ', "not valid json"), (b"\xff", "not valid json"), (b"[1]", "list")],
)
def test_invalid_json_is_an_error_with_its_path(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "a_S2L2A.json"
    path.write_bytes(content)
    with pytest.raises(FiresegError, match=rf"a_S2L2A\.json: .*{what}"):
        read_metadata(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"BOA_ADD_OFFSET": NaN}', "boaaddoffset 'nan'"),
        ('{"BOA_ADD_OFFSET": -Infinity}', "boaaddoffset '-inf'"),
        ('{"BOA_ADD_OFFSET": 1e999}', "boaaddoffset 'inf'"),
        ('{"BOA_ADD_OFFSET": "nan"}', "boaaddoffset 'nan'"),
        (f'{{"BOA_ADD_OFFSET": {10**400}}}', "boaaddoffset '10000"),
        ('{"BOA_ADD_OFFSET_VALUES_LIST": [-1000, -60000]}', "boaaddoffsetvalueslist -60000"),
        ('{"properties": {"s2:processing_baseline": 1e400}}', "processingbaseline 'INF'"),
        ('{"properties": {"s2:processing_baseline": -4}}', "processingbaseline '-4'"),
        ('{"properties": {"s2:processing_baseline": "04.00e9"}}', "processingbaseline '04.00E9'"),
        ('{"raster:bands": [{"raster:scale": 1e-4, "raster:offset": -6}]}', "offset -6.*-1 to 1"),
        ('{"raster:bands": [{"raster:scale": 1e-4, "raster:offset": NaN}]}', "offset nan.*-1 to 1"),
    ],
)
def test_impossible_numbers_are_faults_that_name_file_value_and_cure(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a_S2L2A.json"
    path.write_text(text)
    with pytest.raises(FiresegError, match=rf"^\S*a_S2L2A\.json: {words}.*; correct it$"):
        read_metadata(path)


def test_numbers_without_a_meaning_for_the_values_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"cloud_cover": NaN, "processing:baseline": null, "water:scale": 1e999}')
    assert set(read_metadata(path)) == {"cloud_cover", "processing:baseline", "water:scale"}


@pytest.mark.parametrize("number", ["nan", "-1e999", "-60000"])
def test_impossible_offsets_of_product_metadata_are_faults(tmp_path: Path, number: str) -> None:
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(f"<a><BOA_ADD_OFFSET>{number}</BOA_ADD_OFFSET></a>")
    with pytest.raises(FiresegError, match=r"MTD_MSIL2A\.xml: boaaddoffset .*correct it"):
        read_product_xml(path)


@pytest.mark.parametrize("number", ["nan", "1e400", "none", "1"])
def test_digital_numbers_of_another_quantity_are_a_fault_of_the_product(tmp_path: Path, number: str) -> None:
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(f"<a><BOA_QUANTIFICATION_VALUE>{number}</BOA_QUANTIFICATION_VALUE></a>")
    with pytest.raises(FiresegError, match=rf"MTD_MSIL2A\.xml: BOA_QUANTIFICATION_VALUE {number}, but 10000"):
        read_product_xml(path)
