"""Offset, date and band names from metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS, SENTINEL2_BANDS
from fireseg.errors import FiresegError
from fireseg.tiles.metadata import (
    find_channels,
    find_date,
    find_offset,
    flatten_metadata,
    identify_bands,
    parse_band_name,
    read_metadata,
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
    ("description", "band"),
    [
        ("B02", "B02"),
        ("b2", "B02"),
        ("Band 2 - Blue", "B02"),
        ("B8A", "B8A"),
        ("band 8a", "B8A"),
        ("B8", "B08"),
        ("B12, central wavelength 2190 nm", "B12"),
        ("T28RDR_20190828_B11_20m", "B11"),
        ("band_09", "B09"),
        ("B13", None),
        ("B9A", None),
        ("NBR2", None),
        ("elevation", None),
        ("", None),
        (None, None),
    ],
)
def test_band_name_is_parsed_in_any_spelling(description: str | None, band: str | None) -> None:
    assert parse_band_name(description) == band


def test_channels_are_found_by_description_in_requested_order() -> None:
    assert find_channels(["B12", "slope", "B8A", "Band 4 (red)"], ["B04", "B12", "B8A"]) == [3, 0, 2]


def test_12_and_13_channels_without_descriptions_have_a_known_order() -> None:
    assert find_channels([None] * 12, BAND_NAMES) == [1, 2, 3, 7, 8, 10, 11]
    assert identify_bands([""] * 13) == SENTINEL2_BANDS


def test_descriptions_have_priority_over_the_known_order() -> None:
    assert identify_bands(list(reversed(CEMS_BANDS))) == tuple(reversed(CEMS_BANDS))


@pytest.mark.parametrize("count", [1, 3, 7, 11, 14])
def test_other_counts_without_descriptions_are_an_error(count: int) -> None:
    with pytest.raises(FiresegError, match=f"^{count} channels without band descriptions"):
        find_channels([None] * count, ["B02"])


def test_channel_counters_are_not_band_names() -> None:
    # Else the ninth of the twelve, B8A, would pass for B09.
    assert identify_bands([f"Band {number}" for number in range(1, 13)]) == CEMS_BANDS
    with pytest.raises(FiresegError, match="7 channels"):
        identify_bands([f"Band {number}" for number in range(1, 8)])


def test_zero_padded_numbers_are_band_names() -> None:
    assert identify_bands(["B01", "B02", "B03"]) == ("B01", "B02", "B03")


def test_missing_band_is_an_error_that_lists_the_available_ones() -> None:
    with pytest.raises(FiresegError, match=r"B8A B11 not found; available: B02 B03 B04 B08 B12; .*--bands"):
        find_channels(["B02", "B03", "B04", "B08", "B12"], BAND_NAMES)


def test_descriptions_without_any_band_are_an_error_even_for_12_channels() -> None:
    with pytest.raises(FiresegError, match=r"descriptions 'red', .* name no Sentinel-2 band"):
        identify_bands(["red"] * 12)


def test_repeated_band_is_an_error() -> None:
    with pytest.raises(FiresegError, match="B02 are described twice"):
        identify_bands(["B02", "b2", "B03"])
