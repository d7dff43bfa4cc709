"""What one pass over a patch finds."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.data.statistics import PatchStatistics, measure_patch

IMAGE = np.array([[[0.1, 1.0], [0.2, 2.0]], [[0.4, 4.0], [0.8, 8.0]]], np.float32)
MASK = np.array([[0, 1], [3, 255]], np.uint8)


def test_sums_leave_out_pixels_that_nobody_labelled() -> None:
    facts = measure_patch("a", IMAGE, MASK, 255)
    assert facts.pixels == {0: 1, 1: 1, 3: 1, 255: 1}
    assert facts.band_sums == pytest.approx((0.7, 7.0))
    assert facts.band_squares == pytest.approx((0.21, 21.0))


def test_every_grade_above_0_is_burned_and_255_is_none() -> None:
    facts = measure_patch("a", IMAGE, MASK, 255)
    assert (facts.num_burned(255), facts.num_labelled(255)) == (2, 3)
    assert facts.burned_share(255) == pytest.approx(2 / 3)


def test_a_patch_with_nothing_labelled_has_no_fire() -> None:
    assert measure_patch("a", IMAGE, np.full((2, 2), 255, np.uint8), 255).burned_share(255) == 0.0


def test_nan_and_infinity_are_counted_and_kept_out_of_the_extent() -> None:
    image = IMAGE.copy()
    image[0, 0] = np.nan, -np.inf
    facts = measure_patch("a", image, MASK, 255)
    assert facts.num_not_finite == 2
    assert (facts.low, facts.high) == (pytest.approx(0.2), 8.0)


def test_an_image_of_nothing_but_nan_has_facts_too() -> None:
    assert measure_patch("a", np.full((2, 2, 1), np.nan, np.float32), MASK, 255).num_not_finite == 4


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (IMAGE.astype(np.float64), MASK),
        (IMAGE, MASK.astype(np.int64)),
        (np.zeros((3, 2, 2), np.float32), MASK),
        (IMAGE[..., 0], MASK),
        (IMAGE, MASK[:1]),
        (np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.uint8)),
        (np.array("text"), MASK),
    ],
)
def test_what_does_not_fit_together_is_described_but_not_counted(image: np.ndarray, mask: np.ndarray) -> None:
    facts = measure_patch("a", image, mask, 255)

    assert not facts.is_sound
    assert facts.image_shape == image.shape


def test_the_digest_is_that_of_the_values_not_of_how_they_lie() -> None:
    digest = measure_patch("a", IMAGE, MASK, 255).digest
    assert measure_patch("b", np.asfortranarray(IMAGE), MASK, 255).digest == digest
    assert measure_patch("a", IMAGE, np.where(MASK == 3, 2, MASK).astype(np.uint8), 255).digest != digest
    assert measure_patch("a", IMAGE + np.float32(0.1), MASK, 255).digest != digest


def test_facts_come_back_from_plain_values_as_they_were() -> None:
    facts = measure_patch("a", IMAGE, MASK, 255)
    assert PatchStatistics.from_json(facts.to_json()) == facts
