"""Bands of channels, from descriptions, source files, `--channels` and values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS, SENTINEL2_BANDS
from fireseg.errors import FiresegError
from fireseg.synthetic.scene import make_scene
from fireseg.tiles.channels import (
    describe_wrong_order,
    find_channels,
    identify_channels,
    name_channels,
    parse_band_name,
)


def name_bands(texts: Sequence[str | None]) -> tuple[str | None, ...]:
    return name_channels(texts).bands


def select(texts: Sequence[str | None], bands: Sequence[str]) -> list[int]:
    return find_channels(name_channels(texts), bands)


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
        ("SRB8A", "B8A"),
        ("SR_B12", "B12"),
        ("nir08", "B8A"),
        ("NIR", "B08"),
        ("Narrow NIR", "B8A"),
        ("SWIR 1", "B11"),
        ("swir22", "B12"),
        ("Blue (490 nm)", "B02"),
        ("rededge3", "B07"),
        ("rededge", None),
        ("red hot", None),
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
    assert select(["B12", "slope", "B8A", "Band 4 (red)"], ["B04", "B12", "B8A"]) == [3, 0, 2]


def test_12_and_13_channels_without_descriptions_have_a_known_order() -> None:
    assert select([None] * 12, BAND_NAMES) == [1, 2, 3, 7, 8, 10, 11]
    assert name_bands([""] * 13) == SENTINEL2_BANDS


def test_descriptions_have_priority_over_the_known_order() -> None:
    assert name_bands(list(reversed(CEMS_BANDS))) == tuple(reversed(CEMS_BANDS))


@pytest.mark.parametrize("count", [1, 3, 7, 11, 14])
def test_other_counts_without_descriptions_are_an_error(count: int) -> None:
    with pytest.raises(FiresegError, match=f"^{count} channels? without band descriptions"):
        select([None] * count, ["B02"])


def test_channel_counters_are_not_band_names() -> None:
    # Else the ninth of the twelve, B8A, would pass for B09.
    assert name_bands([f"Band {number}" for number in range(1, 13)]) == CEMS_BANDS
    with pytest.raises(FiresegError, match="7 channels"):
        name_bands([f"Band {number}" for number in range(1, 8)])


def test_zero_padded_numbers_are_band_names() -> None:
    assert name_bands(["B01", "B02", "B03"]) == ("B01", "B02", "B03")


def test_missing_band_is_an_error_that_lists_the_available_ones() -> None:
    with pytest.raises(FiresegError, match=r"B8A B11 not found; available: B02 B03 B04 B08 B12; .*--bands"):
        select(["B02", "B03", "B04", "B08", "B12"], BAND_NAMES)


def test_descriptions_without_any_band_are_an_error_even_for_12_channels() -> None:
    with pytest.raises(FiresegError, match=r"descriptions 'slope', .* name no Sentinel-2 band; .*--channels"):
        name_bands(["slope"] * 12)


def test_repeated_band_is_an_error() -> None:
    with pytest.raises(FiresegError, match="B02 are described twice"):
        name_bands(["B02", "b2", "B03"])


def test_masks_are_no_bands_and_other_channels_are_listed() -> None:
    names = name_channels(["SCL", "B02", "dataMask", "slope", None])
    assert names.bands == (None, "B02", None, None, None)
    assert names.masks == (1, 3)
    assert names.ignored == ("slope", "channel 5")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Reflectance `(12, N)` of a synthetic scene in the order of the product."""
    return np.moveaxis(make_scene(1, 2, height=128, width=128).reflectance, -1, 0).reshape(12, -1)


OTHER_ORDERS = {
    "file names": "B01 B02 B03 B04 B05 B06 B07 B08 B09 B11 B12 B8A",
    "resolution": "B02 B03 B04 B08 B05 B06 B07 B8A B11 B12 B01 B09",
    "red first": "B04 B03 B02 B08 B05 B06 B07 B8A B11 B12 B01 B09",
    "60 m last": "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12 B01 B09",
}


def test_values_in_product_order_agree_with_it(pixels: np.ndarray) -> None:
    assert describe_wrong_order(pixels) == ""
    assert describe_wrong_order((pixels * 10000 + 1000).astype(np.uint16)) == ""


@pytest.mark.parametrize("order", OTHER_ORDERS.values(), ids=OTHER_ORDERS)
def test_values_in_another_order_contradict(order: str, pixels: np.ndarray) -> None:
    stored = pixels[[CEMS_BANDS.index(band) for band in order.split()]]
    assert describe_wrong_order(stored) != ""


def test_the_cirrus_band_of_level_1c_must_be_the_darkest(pixels: np.ndarray) -> None:
    cirrus = np.full_like(pixels[:1], 0.002)
    assert describe_wrong_order(np.concatenate([pixels[:10], cirrus, pixels[10:]])) == ""
    assert "darkest" in describe_wrong_order(np.concatenate([pixels[:9], cirrus, pixels[9:]]))


def write_channels(path: Path, count: int, descriptions: Sequence[str] = ()) -> Path:
    profile = {"driver": "GTiff", "width": 4, "height": 3, "count": count, "dtype": "uint16", "crs": "EPSG:32629"}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)) as raster:
        raster.write(np.ones((count, 3, 4), np.uint16))
        for number, text in enumerate(descriptions, 1):
            raster.set_band_description(number, text)
    return path


def test_a_vrt_names_its_bands_by_the_files_of_its_sources(tmp_path: Path) -> None:
    order = sorted(BAND_NAMES)  # as the shell lists them
    for band in order:
        write_channels(tmp_path / f"T10TFK_20230828_{band}.tif", 1)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">'
        f"T10TFK_20230828_{band}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, band in enumerate(order, 1)
    )
    (tmp_path / "stack.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="3"><SRS>EPSG:32629</SRS>'
        f"<GeoTransform>500000, 10, 0, 4000000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    with rasterio.open(tmp_path / "stack.vrt") as raster:
        assert identify_channels(raster).bands == tuple(order)


def test_a_vrt_of_one_stack_keeps_the_descriptions(tmp_path: Path) -> None:
    write_channels(tmp_path / "B02_stack.tif", 2, ["B08", "B12"])
    copy_raster(tmp_path / "B02_stack.tif", tmp_path / "stack.vrt", driver="VRT")
    with rasterio.open(tmp_path / "stack.vrt") as raster:
        assert identify_channels(raster).bands == ("B08", "B12")


def test_channels_name_a_raster_without_descriptions(tmp_path: Path) -> None:
    with rasterio.open(write_channels(tmp_path / "a.tif", 4)) as raster:
        names = identify_channels(raster, ["nir08", "B12", "SCL", "-"])
        assert (names.bands, names.masks) == (("B8A", "B12", None, None), (3,))
        assert not names.is_assumed


@pytest.mark.parametrize(
    ("channels", "fault"),
    [
        (["B08"], "names 1 channel, but the raster has 2"),
        (["B08", "B8B"], "no band 'B8B'.*B8A"),
        (["B08", "B11"], "B11 for channel 2, which is described as 'B12'"),
        (["-", "-"], "names no band"),
        (["B12", "B12"], "described twice"),
    ],
)
def test_channels_that_do_not_fit_are_an_error(tmp_path: Path, channels: list[str], fault: str) -> None:
    path = write_channels(tmp_path / "a.tif", 2, [] if channels[0] == "-" else ["", "B12"])
    with rasterio.open(path) as raster, pytest.raises(FiresegError, match=fault):
        identify_channels(raster, channels)


@pytest.mark.parametrize(
    ("description", "band"),
    [
        ("Band 1: B02", "B02"),
        ("Band 9 (B8A)", "B8A"),
        ("B08, B08_10m", "B08"),
        ("NBR (B8-B12)/(B8+B12)", None),
        ("B08_stdDev", None),
        ("B2 cloud mask", None),
        ("B08 minus B12", None),
    ],
)
def test_descriptions_of_several_bands_or_other_quantities_name_no_wrong_band(
    description: str, band: str | None
) -> None:
    assert parse_band_name(description) == band
