"""Which channel is which band."""

from __future__ import annotations

import pytest

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS, SENTINEL2_BANDS
from fireseg.errors import FiresegError
from fireseg.tiles.metadata import name_band, name_channels, pick_channels


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
def test_a_description_names_a_band_however_it_is_written(description: str | None, band: str | None) -> None:
    assert name_band(description) == band


def test_bands_are_picked_by_description_in_the_order_wanted() -> None:
    assert pick_channels(["B12", "slope", "B8A", "Band 4 (red)"], ["B04", "B12", "B8A"]) == [3, 0, 2]


def test_twelve_and_thirteen_channels_without_descriptions_have_a_known_order() -> None:
    assert pick_channels([None] * 12, BAND_NAMES) == [1, 2, 3, 7, 8, 10, 11]
    assert name_channels([""] * 13) == SENTINEL2_BANDS


def test_descriptions_go_before_the_known_order() -> None:
    assert name_channels(list(reversed(CEMS_BANDS))) == tuple(reversed(CEMS_BANDS))


@pytest.mark.parametrize("count", [1, 3, 7, 11, 14])
def test_other_counts_without_descriptions_are_refused(count: int) -> None:
    with pytest.raises(FiresegError, match=f"^{count} channels that no description names"):
        pick_channels([None] * count, ["B02"])


def test_a_running_number_is_no_name() -> None:
    # Else the ninth of the twelve, B8A, would pass for B09.
    assert name_channels([f"Band {number}" for number in range(1, 13)]) == CEMS_BANDS
    with pytest.raises(FiresegError, match="7 channels"):
        name_channels([f"Band {number}" for number in range(1, 8)])


def test_names_with_their_zero_are_names() -> None:
    assert name_channels(["B01", "B02", "B03"]) == ("B01", "B02", "B03")


def test_a_missing_band_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(FiresegError, match="no B8A B11, only B02 B03 B04 B08 B12; choose among these with --bands"):
        pick_channels(["B02", "B03", "B04", "B08", "B12"], BAND_NAMES)


def test_descriptions_that_name_no_band_are_refused_even_if_there_are_twelve() -> None:
    with pytest.raises(FiresegError, match="descriptions 'red', 'red', 'red', 'red' name no band"):
        name_channels(["red"] * 12)


def test_a_band_that_comes_twice_is_refused() -> None:
    with pytest.raises(FiresegError, match="B02 described twice"):
        name_channels(["B02", "b2", "B03"])
