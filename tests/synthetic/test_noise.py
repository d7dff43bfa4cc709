"""Gaussian random fields and filters: mean, spread, correlation, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.synthetic.noise import NoiseGenerator, blur, coarsen, ramp, refine


def test_a_field_has_mean_0_and_standard_deviation_1() -> None:
    noise = NoiseGenerator((0,), 64, 64)
    draws = np.stack([noise.field(6, 3.2) for _ in range(60)])
    assert abs(draws.mean()) < 0.05
    assert draws.std() == pytest.approx(1, abs=0.05)


def test_opposite_edges_of_a_field_are_uncorrelated() -> None:
    noise = NoiseGenerator((1,), 64, 64)
    draws = np.stack([noise.field(8, 3.2) for _ in range(200)])
    across = (draws[:, :, 0] * draws[:, :, -1]).mean()
    beside = (draws[:, :, 0] * draws[:, :, 1]).mean()
    assert abs(across) < 0.1
    assert beside > 0.8


def test_a_key_determines_the_fields() -> None:
    first, again, other = (NoiseGenerator(key, 16, 24).field(4) for key in ((3, 1), (3, 1), (3, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 4.0))
def test_blur_keeps_a_constant_plane(height: int, width: int, sigma_px: float) -> None:
    np.testing.assert_allclose(blur(np.full((height, width), 0.3), sigma_px), 0.3)


def test_blur_spreads_a_point_into_a_gaussian() -> None:
    point = np.zeros((41, 41))
    point[20, 20] = 1.0
    spread = blur(point, 3.0)
    assert spread.sum() == pytest.approx(1)
    # exp(-0.5 (3/3)^2) = 0.6065 one sigma away
    assert spread[20, 23] / spread[20, 20] == pytest.approx(0.60653, abs=1e-4)


def test_ramp_is_zero_half_and_one() -> None:
    np.testing.assert_allclose(ramp(np.array([[0.0, 1.0, 2.0, 3.0, 9.0]]), 1.0, 3.0), [[0, 0, 0.5, 1, 1]])


def test_coarsen_averages_blocks_and_repeats_the_edge() -> None:
    plane = np.array([[1.0, 3.0, 5.0], [1.0, 3.0, 7.0]])
    np.testing.assert_allclose(coarsen(plane, 2), [[2.0, 6.0]])


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([2, 6]))
def test_coarsen_and_refine_keep_a_constant_plane(height: int, width: int, factor: int) -> None:
    constant = np.full((height, width), 0.2)
    np.testing.assert_allclose(refine(coarsen(constant, factor), factor, height, width), constant)
