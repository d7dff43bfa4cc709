"""Values into steps of 0.0001."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.bands import to_reflectance
from fireseg.errors import FiresegError
from fireseg.tiles.radiometry import find_unknown, get_scaling, to_stored


def convert(values: np.ndarray, *, offset: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> list[int]:
    """The steps of one band of one row."""
    cube = values[None, None]
    scaling = get_scaling(values.dtype, offset=offset, scales=[scale], shifts=[shift])
    return to_stored(cube, find_unknown(cube, [None]), scaling)[0, :, 0].tolist()


def test_float_is_reflectance_rounded_and_clipped() -> None:
    assert convert(np.array([0.12344, 0.12346, -0.2, 1.7, 1.0], np.float32)) == [1234, 1235, 0, 10000, 10000]


@given(st.integers(0, 10_000))
def test_steps_come_back_as_they_were(step: int) -> None:
    assert convert(to_reflectance(np.array([step], np.uint16))) == [step]


def test_integers_are_digital_numbers_less_their_offset() -> None:
    numbers = np.array([1, 1000, 1001, 3500, 12000], np.uint16)
    assert convert(numbers, offset=1000) == [0, 0, 1, 2500, 10000]
    assert convert(numbers) == [1, 1000, 1001, 3500, 10000]


def test_the_offset_is_for_digital_numbers_not_for_reflectance() -> None:
    assert convert(np.array([0.25], np.float32), offset=1000) == [2500]


def test_scale_and_offset_tags_are_taken_at_their_word() -> None:
    assert convert(np.array([1500, 3500], np.int16), offset=1000, scale=1e-4, shift=-0.1) == [500, 2500]
    assert convert(np.array([1500, 3500], np.int16), offset=1000, shift=-1000) == [500, 2500]


def test_large_integers_are_worked_out_exactly() -> None:
    assert convert(np.array([16_777_217 + 5000], np.int32), offset=16_777_217) == [5000]


@pytest.mark.parametrize("dtype", [np.complex64, np.bool_])
def test_types_that_are_no_numbers_of_a_sensor_are_refused(dtype: type) -> None:
    with pytest.raises(FiresegError, match="but reflectance is float or integer"):
        get_scaling(np.dtype(dtype), scales=[1.0], shifts=[0.0])


def test_nan_infinity_and_nodata_in_one_band_make_a_pixel_unknown() -> None:
    values = np.full((2, 1, 5), 0.5, np.float32)
    values[0, 0, 1], values[1, 0, 2], values[0, 0, 3] = np.nan, -np.inf, -9999.0
    unknown = find_unknown(values, [-9999.0, None])
    assert unknown.tolist() == [[False, True, True, True, False]]
    steps = to_stored(values, unknown, get_scaling(values.dtype, scales=[1.0] * 2, shifts=[0.0] * 2))
    assert steps[0].tolist() == [[5000, 5000], [0, 0], [0, 0], [0, 0], [5000, 5000]]


def test_a_nodata_tag_is_met_in_float32_though_it_was_written_in_more_digits() -> None:
    values = np.full((1, 1, 1), -3.4028235e38, np.float32)
    assert find_unknown(values, [-3.4028234663852886e38]).all()


def test_a_tag_beyond_float32_matches_nothing() -> None:
    assert not find_unknown(np.zeros((1, 1, 1), np.float32), [-1.7976931348623157e308]).any()


def test_the_digital_number_0_in_every_band_is_no_data_and_in_one_band_is_dark() -> None:
    values = np.array([[[0, 0]], [[0, 300]]], np.uint16)
    assert find_unknown(values, [None, None]).tolist() == [[True, False]]


def test_values_beyond_every_float_are_bright_not_an_overflow() -> None:
    assert convert(np.array([3e38, -3e38], np.float32)) == [10000, 0]
