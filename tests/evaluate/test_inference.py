"""Tests of predicting patches."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.inference import MissingBands, compute_nbr, count_nbr, find_missing_bands, predict_patches
from fireseg.evaluate.mosaic import assemble_mosaics
from tests.evaluate.builders import make_batch, make_trained

BANDS = ("B03", "B08", "B12")


def test_layers_follow_from_the_logits():
    (prediction,) = predict_patches(make_trained(3), [make_batch(1.0, 0.5, 0.75)])

    fire = np.log(np.exp(0.5) + np.exp(0.75)) - 1.0
    assert prediction.layers["log_odds"][0, 0] == pytest.approx(fire)
    assert (prediction.layers["argmax"][0, 0], prediction.layers["severity"][0, 0]) == (0, 2)
    assert (prediction.image.shape, prediction.truth.shape) == ((3, 32, 32), (32, 32))


def test_baseline_layers_are_computed_from_the_same_pixels():
    (prediction,) = predict_patches(make_trained(), [make_batch(0.1, 0.2, 0.6)])
    assert prediction.summary is not None

    assert prediction.layers["nbr"][5, 5] == pytest.approx((0.2 - 0.6) / 0.8)
    assert prediction.layers["fixed_rule"].all()
    assert prediction.summary.min_nbr == pytest.approx(-0.5)
    assert prediction.summary.is_fixed_burned


def test_summaries_only_include_labelled_pixels():
    batch = make_batch(0.0, 1.0, 0.0, mask=255)
    batch.mask[0, 0, 0] = 1
    batch.image[0, 1, 0, 0] = -1.0
    (prediction,) = predict_patches(make_trained(), [batch])
    assert prediction.summary is not None

    assert (prediction.summary.is_labelled, prediction.summary.is_burned, prediction.summary.is_argmax_burned) == (
        True,
        True,
        False,
    )
    assert prediction.summary.max_log_odds == -1.0
    assert prediction.summary.components == ()


def test_another_ignore_index_becomes_255():
    (prediction,) = predict_patches(make_trained(ignore_index=9), [make_batch(0.0, 1.0, 0.0, mask=9)])
    assert prediction.summary is not None

    assert (prediction.truth == 255).all()
    assert not prediction.summary.is_labelled


def test_missing_bands_are_named():
    missing = find_missing_bands(("B02", "B03", "B08"))

    assert "B12" in missing.nbr
    assert "B12" in missing.fixed_rule
    assert "B03" not in missing.fixed_rule
    assert find_missing_bands(BANDS) == MissingBands("", "")


def test_each_labelled_pixel_is_counted_once_by_burn_ratio():
    burned = make_batch(0.1, 0.2, 0.6, mask=1)
    burned.mask[0, 0] = 255
    shifted = make_batch(0.1, 0.6, 0.2)
    shifted.mask[0, :, :16] = 255
    fire = Fire(name="T", positions=(PatchPosition(0, 0, 0), PatchPosition(1, 0, 16)), height=32, width=48)

    counts = count_nbr(assemble_mosaics(compute_nbr([burned, shifted], BANDS, ignore_index=255), [fire]))

    assert counts.sum(1).tolist() == [32 * 16, 31 * 32]
    assert np.flatnonzero(counts[1]) < np.flatnonzero(counts[0])
