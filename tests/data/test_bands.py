"""Band selection and reflectance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.bands import SENTINEL2_BANDS, WAVELENGTH_NM, check_bands, to_reflectance


@pytest.fixture
def train(make_packed) -> Path:
    return make_packed() / "train"


def test_wavelengths_are_in_the_order_of_the_bands() -> None:
    assert tuple(WAVELENGTH_NM) == SENTINEL2_BANDS
    assert sorted(WAVELENGTH_NM.values()) == list(WAVELENGTH_NM.values())


@given(st.integers(0, 65535))
def test_reflectance_is_the_float_nearest_to_a_ten_thousandth_of_the_stored_integer(number: int) -> None:
    reflectance = to_reflectance(np.array([number], np.uint16))
    assert reflectance[0] == np.float32(number / 10000)


def test_reflectance_is_a_new_contiguous_array(train: Path) -> None:
    stored = np.load(train / "images.npy", mmap_mode="r")[0].transpose(2, 0, 1)[:, ::-1]
    image = to_reflectance(stored)
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_bands_before_the_fire_follow_those_after_it() -> None:
    assert check_bands(["B08", "B12", "B12_PRE"]) == ("B08", "B12", "B12_PRE")
    with pytest.raises(ValueError, match="must follow all those of the scene after it"):
        check_bands(["B08_PRE", "B08"])
    with pytest.raises(ValueError, match=r"only bands before the fire \(B08_PRE\)"):
        check_bands(["B08_PRE"])
    with pytest.raises(ValueError, match=r"no band 'B8_PRE' \(did you mean"):
        check_bands(["B08", "B8_PRE"])
