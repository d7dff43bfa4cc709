"""What values look like that are no reflectance."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fireseg.tiles.radiometry import get_scaling, list_flags

REFLECTANCE = np.random.default_rng(0).uniform(0.005, 0.45, (5, 20_000))


def look(sample: np.ndarray, offset: float = 0.0) -> list[str]:
    scaling = get_scaling(sample.dtype, offset=offset, scales=[1.0] * len(sample), shifts=[0.0] * len(sample))
    return list_flags(sample, scaling)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int16])
def test_reflectance_looks_like_reflectance(dtype: Any) -> None:
    is_number = np.dtype(dtype).kind != "f"
    assert look((REFLECTANCE * (10_000 if is_number else 1)).astype(dtype)) == []


def test_bright_cloud_above_1_is_reflectance_too() -> None:
    sample = REFLECTANCE.astype(np.float32)
    sample[:, :2000] = 1.3
    assert look(sample) == []


def test_a_bright_desert_is_not_taken_for_an_offset() -> None:
    levels = np.array([0.12, 0.18, 0.27, 0.36, 0.42])[:, None]
    assert look((levels + 0.3 * REFLECTANCE).astype(np.float32)) == []


@pytest.mark.parametrize(
    ("factor", "addend", "dtype", "words"),
    [
        (1, 0.1, np.float32, "offset of 1000 .* left on; subtract 0.1"),
        (10_000, 1000, np.uint16, "offset of 1000 .* left on; give --offset 1000"),
        (10_000, 0, np.float32, "look like digital numbers; divide by 10000"),
        (10_000, 1000, np.float32, "look like digital numbers; divide by 10000"),
        (100, 0, np.float32, "look like percent"),
        (500, 0, np.uint8, "look like 8 bits of a picture"),
        (500, 0, np.uint16, "look like 8 bits of a picture"),
        (140_000, 0, np.uint16, "look stretched over 16 bits"),
        (0.0001, 0, np.float32, "divided by 10000 once too often"),
        (5, -1, np.float32, "look normalised by mean and standard deviation"),
        (1, -0.1, np.float32, "taken away twice; add 0.1"),
    ],
)
def test_values_scaled_otherwise_are_told_by_what_they_look_like(
    factor: float, addend: float, dtype: Any, words: str
) -> None:
    (flag,) = look((REFLECTANCE * factor + addend).astype(dtype))
    assert flag.startswith(("values from", "the darkest pixels", "reflectance down to"))
    assert re.search(words, flag)


def test_whole_numbers_up_to_255_in_floats_are_a_picture() -> None:
    (flag,) = look(np.rint(REFLECTANCE * 500).clip(0, 255).astype(np.float32))
    assert "8 bits of a picture" in flag


def test_a_band_stretched_from_0_to_1_is_told() -> None:
    (flag,) = look(((REFLECTANCE - 0.01) / 0.42).clip(0, 1).astype(np.float32))
    assert "stretched for display" in flag


def test_an_offset_taken_from_numbers_that_had_none_is_told() -> None:
    (flag,) = look((REFLECTANCE * 10_000).astype(np.uint16), offset=1000)
    assert "taken away twice; give --offset 0" in flag


def test_a_nodata_value_without_its_tag_is_told_and_does_not_hide_the_rest() -> None:
    sample = (REFLECTANCE + 0.1).astype(np.float32)
    sample[:, :50] = -9999
    first, second = look(sample)
    assert first.startswith("values down to -9999: looks like a nodata value without its tag")
    assert "left on" in second


def test_pixels_that_are_0_in_every_band_are_told_and_do_not_pass_for_dark_ones() -> None:
    sample = (REFLECTANCE + 0.1).astype(np.float32)
    sample[:, :200] = 0
    first, second = look(sample)
    assert first.startswith("1 % of the pixels are 0 in every band")
    assert "left on" in second


def test_a_tile_without_any_value_is_told() -> None:
    assert look(np.empty((5, 0), np.float32)) == ["no pixel has a value in every band wanted"]
