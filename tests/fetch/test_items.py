"""Bands, offsets and reference systems of STAC items."""

from __future__ import annotations

from datetime import date
from typing import Any

import pystac
import pytest

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.fetch.items import parse_item


def make_item(assets: dict[str, dict[str, Any]] | None = None, *, name: str = "item", **properties: Any) -> pystac.Item:
    """Makes an item with an asset for each band, and the given ones."""
    content = {key: {} for key in (*BAND_NAMES, "SCL")} if assets is None else assets
    return pystac.Item.from_dict(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "geometry": None,
            "properties": {"datetime": "2025-08-24T18:55:00Z"} | properties,
            "links": [],
            "assets": {key: {"href": f"https://example.org/{key}.tif"} | fields for key, fields in content.items()},
        }
    )


BASELINE: dict[str, Any] = {"s2:processing_baseline": "05.11"}


def test_the_finest_resolution_of_a_band_is_used() -> None:
    keys = [f"{band}_{pixel}m" for band in (*BAND_NAMES, "SCL") for pixel in (60, 20)] + ["B02_10m", "TCI_10m"]
    item = parse_item(make_item({key: {} for key in keys}, **BASELINE))
    assert {band: asset.key for band, asset in item.assets.items()} == {
        **{band: f"{band}_20m" for band in (*BAND_NAMES, "SCL")},
        "B02": "B02_10m",
    }


def test_bands_are_found_by_their_names_where_the_keys_say_nothing() -> None:
    names = ("blue", "green", "red", "nir", "nir08", "swir16", "swir22")
    assets = {f"asset{number}": {"eo:bands": [{"common_name": name}]} for number, name in enumerate(names)}
    item = parse_item(make_item(assets | {"scl": {}}, **BASELINE))
    assert [item.assets[band].key for band in BAND_NAMES] == [f"asset{number}" for number in range(7)]


def test_pictures_of_several_bands_are_not_used() -> None:
    three = [{"common_name": name} for name in ("red", "green", "blue")]
    assets = {key: {} for key in (*BAND_NAMES, "SCL")} | {"blue": {"eo:bands": three}, "red": {"roles": ["overview"]}}
    assert parse_item(make_item(assets, **BASELINE)).assets["B02"].key == "B02"


def test_all_missing_bands_are_named() -> None:
    with pytest.raises(FiresegError, match=r"^item: no asset for B8A B11 B12 SCL among .*--catalog"):
        parse_item(make_item({key: {} for key in ("B02", "B03", "B04", "B08")}, **BASELINE))


@pytest.mark.parametrize(
    ("fields", "properties", "expected"),
    [
        ({}, {"s2:processing_baseline": "05.11"}, (1, 1000)),
        ({}, {"s2:processing_baseline": "03.01"}, (1, 0)),
        ({"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}, {}, (1, 1000)),
        ({"raster:bands": [{"scale": 0.0001, "offset": 0}]}, {}, (1, 0)),
        ({"raster:scale": 0.0001, "raster:offset": -0.1}, {}, (1, 1000)),
        ({"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1}]}, {}, (1, 1000)),
        ({"raster:bands": [{"scale": 0.0002, "offset": -0.1}]}, {}, (2, 500)),
        ({"raster:bands": [{"offset": -0.1}]}, {"earthsearch:boa_offset_applied": True}, (1, 0)),
        ({"raster:bands": [{"offset": -0.1}]}, {"earthsearch:boa_offset_applied": False}, (1, 1000)),
        ({"raster:offset": -0.1, "raster:scale": 0.0001}, {"s2:processing_baseline": "02.14"}, (1, 0)),
        ({"raster:bands": [{"nodata": 0}]}, {"s2:processing_baseline": "04.00"}, (1, 1000)),
    ],
)
def test_gain_and_offset_of_digital_numbers(
    fields: dict[str, Any], properties: dict[str, Any], expected: tuple[float, float]
) -> None:
    item = parse_item(make_item({key: dict(fields) for key in BAND_NAMES} | {"SCL": {}}, **properties))
    assert (item.assets["B12"].gain, item.assets["B12"].offset) == expected


def test_the_offset_is_read_from_the_name_of_the_product() -> None:
    name = "S2B_MSIL2A_20250824T184919_N0511_R113_T10TFP_20250824T223000"
    item = parse_item(make_item(name=name))
    assert (item.assets["B02"].offset, item.baseline) == (1000, "05.11")


def test_an_unknown_offset_is_an_error() -> None:
    with pytest.raises(FiresegError, match=r"^item: neither the processing baseline nor the offset"):
        parse_item(make_item())


@pytest.mark.parametrize("properties", [{"proj:epsg": 32610}, {"proj:code": "EPSG:32610"}])
def test_the_reference_system_is_read_in_both_spellings(properties: dict[str, Any]) -> None:
    merged: dict[str, Any] = BASELINE | properties
    assert parse_item(make_item(**merged)).epsg == 32610


def test_the_solar_day_differs_from_that_of_universal_time() -> None:
    item = parse_item(make_item(**BASELINE, datetime="2025-08-24T23:59:00Z"))
    assert (item.get_solar_day(155.0), item.get_solar_day(-120.0)) == (date(2025, 8, 25), date(2025, 8, 24))
