"""Images in memory, either way round."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fireseg.errors import FiresegError
from fireseg.predict.quicklook import to_source

BANDS = ("B04", "B08", "B12")


def test_both_orders_of_axes_are_told_apart() -> None:
    image = np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)
    first, last = to_source(image, BANDS), to_source(image.transpose(1, 2, 0), BANDS)
    assert first.steps.shape == (5, 6, 3)
    np.testing.assert_array_equal(first.steps, last.steps)
    np.testing.assert_array_equal(to_source(torch.from_numpy(image), BANDS).steps, first.steps)


def test_reflectance_is_rounded_and_clipped_as_that_of_a_raster() -> None:
    image = np.array([0.0, 0.12344, 0.12346, 1.0, 1.7, -0.2], np.float64).reshape(1, 2, 3).transpose(0, 1, 2)
    assert to_source(image.reshape(3, 1, 2), BANDS).steps.ravel().tolist() == [0, 1235, 10000, 1234, 10000, 0]


def test_a_pixel_is_unknown_where_any_band_is_not_finite() -> None:
    image = np.full((3, 1, 4), 0.5, np.float32)
    image[0, 0, 1], image[2, 0, 2] = np.nan, np.inf
    source = to_source(image, BANDS)
    assert source.unknown.tolist() == [[False, True, True, False]]


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((3, 9, 3), "at both ends"),
        ((4, 9, 5), "first or the last axis must be the 3 bands"),
        ((9, 3, 9), "first or the last axis"),
        ((3, 9), "is wanted with 3 bands"),
        ((1, 3, 9, 9), "is wanted with 3 bands"),
        ((3, 0, 9), "no pixel"),
    ],
)
def test_channels_that_cannot_be_told_are_refused(shape: tuple[int, ...], what: str) -> None:
    with pytest.raises(FiresegError, match=what):
        to_source(np.zeros(shape, np.float32), BANDS)


def test_digital_numbers_are_refused() -> None:
    with pytest.raises(FiresegError, match="divide digital numbers by 10000"):
        to_source(np.zeros((3, 4, 4), np.uint16), BANDS)


def test_digital_numbers_as_floats_are_refused_too() -> None:
    with pytest.raises(
        FiresegError, match="values up to 3000, but reflectance is wanted, 0 to 1; divide digital numbers"
    ):
        to_source(np.full((40, 50, len(BANDS)), 3000.0, np.float32), BANDS)


@pytest.mark.parametrize("lay", [lambda image: image[:, ::-1], lambda image: image.astype(">f4")])
def test_an_array_may_lie_in_memory_in_any_way(lay) -> None:
    image = lay(np.random.default_rng(0).random((3, 5, 6)).astype(np.float32))
    plain = to_source(np.ascontiguousarray(image, np.float32), BANDS)
    np.testing.assert_array_equal(to_source(image, BANDS).steps, plain.steps)
