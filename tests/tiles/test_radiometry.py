"""Conversion to reflectance, and flags for values that are no reflectance."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.bands import to_reflectance
from fireseg.errors import FiresegError
from fireseg.tiles.radiometry import check_values, find_nodata, get_scaling, quantize_reflectance


def convert(values: np.ndarray, *, offset: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> list[int]:
    """Quantizes one row of one band."""
    cube = values[None, None]
    scaling = get_scaling(values.dtype, offset=offset, scales=[scale], shifts=[shift])
    return quantize_reflectance(cube, find_nodata(cube, [()]), scaling)[0, :, 0].tolist()


def test_floats_are_reflectance_rounded_and_clipped() -> None:
    assert convert(np.array([0.12344, 0.12346, -0.2, 1.7, 1.0], np.float32)) == [1234, 1235, 0, 10000, 10000]


@given(st.integers(0, 10_000))
def test_quantized_reflectance_round_trips(step: int) -> None:
    assert convert(to_reflectance(np.array([step], np.uint16))) == [step]


def test_offset_is_subtracted_from_digital_numbers() -> None:
    numbers = np.array([1, 1000, 1001, 3500, 12000], np.uint16)
    assert convert(numbers, offset=1000) == [0, 0, 1, 2500, 10000]
    assert convert(numbers) == [1, 1000, 1001, 3500, 10000]


def test_offset_does_not_apply_to_floats() -> None:
    assert convert(np.array([0.25], np.float32), offset=1000) == [2500]


def test_scale_and_offset_tags_have_priority() -> None:
    assert convert(np.array([1500, 3500], np.int16), offset=1000, scale=1e-4, shift=-0.1) == [500, 2500]
    assert convert(np.array([1500, 3500], np.int16), offset=1000, shift=-1000) == [500, 2500]


def test_large_integers_are_converted_exactly() -> None:
    assert convert(np.array([16_777_217 + 5000], np.int32), offset=16_777_217) == [5000]


@pytest.mark.parametrize("dtype", [np.complex64, np.bool_])
def test_other_data_types_are_an_error(dtype: type) -> None:
    with pytest.raises(FiresegError, match="reflectance must be float or integer"):
        get_scaling(np.dtype(dtype), scales=[1.0], shifts=[0.0])


def test_nan_infinity_and_nodata_in_one_band_make_a_pixel_unknown() -> None:
    values = np.full((2, 1, 5), 0.5, np.float32)
    values[0, 0, 1], values[1, 0, 2], values[0, 0, 3] = np.nan, -np.inf, -9999.0
    unknown = find_nodata(values, [(-9999.0,), ()])
    assert unknown.tolist() == [[False, True, True, True, False]]
    steps = quantize_reflectance(values, unknown, get_scaling(values.dtype, scales=[1.0] * 2, shifts=[0.0] * 2))
    assert steps[0].tolist() == [[5000, 5000], [0, 0], [0, 0], [0, 0], [5000, 5000]]


def test_nodata_tag_of_float32_matches_despite_more_digits() -> None:
    values = np.full((1, 1, 1), -3.4028235e38, np.float32)
    assert find_nodata(values, [(-3.4028234663852886e38,)]).all()


def test_nodata_tag_beyond_float32_matches_nothing() -> None:
    assert not find_nodata(np.ones((1, 1, 1), np.float32), [(-1.7976931348623157e308,)]).any()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_0_in_all_bands_is_no_measurement(dtype: Any) -> None:
    values = np.array([[[0, 0]], [[0, 300]]], dtype)
    assert find_nodata(values, [(), ()]).tolist() == [[True, False]]


def test_0_in_any_band_is_no_measurement_if_the_values_have_an_offset() -> None:
    values = np.array([[[0, 0, 1]], [[0, 300, 300]]], np.uint16)
    assert find_nodata(values, [(), ()], has_offset=True).tolist() == [[True, True, False]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
def test_scale_of_the_user_gives_the_same_reflectance_for_every_data_type(dtype: Any) -> None:
    numbers = np.array([1000, 1001, 3500, 12000]).astype(dtype)
    scaling = get_scaling(numbers.dtype, offset=1000, scales=[1.0], shifts=[0.0], scale=1e-4)
    assert quantize_reflectance(numbers[None, None], np.zeros((1, 4), bool), scaling)[0, :, 0].tolist() == [
        0,
        1,
        2500,
        10000,
    ]


def test_percent_is_scaled() -> None:
    scaling = get_scaling(np.dtype("float32"), scales=[1.0], shifts=[0.0], scale=0.01)
    values = np.array([[[12.34, 100]]], np.float32)
    assert quantize_reflectance(values, np.zeros((1, 2), bool), scaling)[0, :, 0].tolist() == [1234, 10000]


def test_scale_tag_has_priority_over_the_scale_of_the_user() -> None:
    scaling = get_scaling(np.dtype("uint16"), scales=[1e-4], shifts=[-0.1], scale=0.5)
    assert [value.tolist() for value in scaling] == [[1.0], [-1000.0]]


def test_largest_floats_are_clipped_without_overflow() -> None:
    assert convert(np.array([3e38, -3e38], np.float32)) == [10000, 0]


REFLECTANCE = np.random.default_rng(0).uniform(0.005, 0.45, (5, 20_000))


def check(sample: np.ndarray, offset: float = 0.0, **options: Any) -> tuple[list[str], list[str]]:
    """Returns faults and flags."""
    scaling = get_scaling(sample.dtype, offset=offset, scales=[1.0] * len(sample), shifts=[0.0] * len(sample))
    return check_values(sample, scaling, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int16])
def test_reflectance_is_not_flagged(dtype: Any) -> None:
    is_number = np.dtype(dtype).kind != "f"
    assert check((REFLECTANCE * (10_000 if is_number else 1)).astype(dtype)) == ([], [])


def test_bright_cloud_above_1_is_not_flagged() -> None:
    sample = REFLECTANCE.astype(np.float32)
    sample[:, :2000] = 1.3
    assert check(sample) == ([], [])


def test_bright_desert_is_not_flagged_as_offset() -> None:
    levels = np.array([0.12, 0.18, 0.27, 0.36, 0.42])[:, None]
    assert check((levels + 0.3 * REFLECTANCE).astype(np.float32)) == ([], [])


@pytest.mark.parametrize(
    ("factor", "addend", "dtype", "words"),
    [
        (1, 0.1, np.float32, "offset of 1000 .* left on; use --scale 1 --offset 0.1"),
        (10_000, 1000, np.uint16, "offset of 1000 .* left on; use --offset 1000"),
        (10_000, 0, np.float32, "look like digital numbers.*--scale 0.0001.*--offset 1000"),
        (10_000, 1000, np.float32, "look like digital numbers.*--scale 0.0001.*--offset 1000"),
        (100, 0, np.float32, "look like percent.*--scale 0.01"),
        (500, 0, np.uint8, "look like an 8-bit picture"),
        (500, 0, np.uint16, "look like an 8-bit picture"),
        (140_000, 0, np.uint16, "look stretched to 16 bits"),
        (1, -0.1, np.float32, "subtracted twice; add 0.1"),
        (5, -1, np.float32, "look normalised by mean and standard deviation"),
    ],
)
def test_values_that_cannot_be_reflectance_are_a_fault(factor: float, addend: float, dtype: Any, words: str) -> None:
    (message,), flags = check((REFLECTANCE * factor + addend).astype(dtype))
    assert [flag for flag in flags if "nodata" not in flag] == []
    assert message.startswith(("values from", "the darkest pixels", "reflectance down to"))
    assert re.search(words, message)


def test_almost_black_values_are_flagged() -> None:
    faults, (message,) = check((REFLECTANCE * 0.0001).astype(np.float32))
    assert faults == []
    assert "divided by 10000 twice" in message


def test_an_offset_that_the_user_gave_is_only_flagged() -> None:
    faults, (message,) = check((REFLECTANCE * 10_000 + 1000).astype(np.uint16), offset_source="option")
    assert faults == []
    assert "left on" in message


def test_whole_floats_up_to_255_are_a_picture() -> None:
    (message,), _ = check(np.rint(REFLECTANCE * 500).clip(0, 255).astype(np.float32))
    assert "8-bit picture" in message


def test_contrast_stretch_is_flagged() -> None:
    _, (message,) = check(((REFLECTANCE - 0.01) / 0.42).clip(0, 1).astype(np.float32))
    assert "stretched for display" in message


def test_an_offset_subtracted_without_need_is_a_fault_unless_the_user_gave_it() -> None:
    numbers = (REFLECTANCE * 10_000).astype(np.uint16)
    (message,), _ = check(numbers, offset=1000)
    assert "subtracted twice; use --offset 0" in message
    assert check(numbers, offset=1000, offset_source="option") == ([], [message])


def test_untagged_nodata_is_a_fault_beside_others() -> None:
    sample = (REFLECTANCE + 0.1).astype(np.float32)
    sample[:, :50] = -9999
    (first, second), _ = check(sample)
    assert first.startswith("values of -9999: look like a nodata value without its tag; use --nodata -9999")
    assert "left on" in second


def test_0_in_one_band_does_not_hide_an_offset_left_on() -> None:
    sample = (REFLECTANCE * 10_000 + 1000).astype(np.uint16)
    sample[0, :200] = 0  # 1 % at the edge of the swath
    (message,), _ = check(sample)
    assert "left on; use --offset 1000" in message


def test_a_wrong_scale_is_a_fault() -> None:
    values = (REFLECTANCE * 10_000).astype(np.float32)
    scaling = get_scaling(values.dtype, scales=[1.0] * 5, shifts=[0.0] * 5, scale=0.01)
    (message,), _ = check_values(values, scaling)
    assert "correct --scale" in message


def test_sample_without_values_is_flagged() -> None:
    assert check(np.empty((5, 0), np.float32))[1] == ["no pixel has a value in every requested band"]


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(np.nan, 0.0), (np.inf, 0.0), (0.0, 0.0), (-1e-4, 0.0), (2.0, 0.0), (1e-4, np.nan), (1e-4, -6.0)],
)
def test_scale_and_offset_tags_that_are_no_conversion_to_reflectance_are_a_fault(scale: float, shift: float) -> None:
    with pytest.raises(FiresegError, match=r"^scale and offset tags .*gdal_edit\.py"):
        get_scaling(np.dtype("uint16"), scales=[1e-4, scale], shifts=[0.0, shift])
    with pytest.raises(FiresegError, match="tags 1 and -60000"):
        get_scaling(np.dtype("uint16"), scales=[1.0], shifts=[-60000.0])


@pytest.mark.parametrize("number", [900, 17_000])
def test_values_that_are_all_0_or_saturated_after_scaling_are_a_fault(number: int) -> None:
    sample = np.full((5, 2000), number, np.uint16)
    sample[:, :19] = 3000  # 0.95 % of the pixels are measurements
    (fault,), _ = check(sample, offset=1000, offset_source="option")
    assert fault.startswith("values from ")
    assert "scaled to 0 or 1 in every band in 99.1% of the pixels, which is no measurement; correct" in fault
    sample[:, :20] = 3000
    assert check(sample, offset=1000, offset_source="option")[0] == []


def test_a_tile_of_which_one_band_is_measured_is_no_fault() -> None:
    water = np.full((5, 2000), 980, np.uint16)  # slightly negative in the infrared, as over deep water
    water[0] = 1300
    assert check(water, offset=1000, offset_source="option")[0] == []
