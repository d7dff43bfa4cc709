"""Tests of predicting tiles."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.data.bands import to_reflectance
from fireseg.evaluate.baseline import CHANGE_INDICES, compute_change, iou_at, tune_threshold
from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.inference import MissingBands, count_indices, find_missing_bands, predict_tile
from fireseg.evaluate.mosaic import StitchedTile, build_mosaic, stitch_tiles
from fireseg.evaluate.scores import decide_fire
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.runtime.inference import ArrayRaster
from tests.evaluate.builders import make_pixels_of_patch, make_tile, make_trained

BANDS = ("B03", "B08", "B12")


def test_layers_follow_from_the_logits():
    mosaic = predict_tile(make_trained(3), make_tile(1.0, 0.5, 0.75))

    fire = np.log(np.exp(0.5) + np.exp(0.75)) - 1.0
    assert mosaic.layers["log_odds"][0, 0] == pytest.approx(fire, rel=1e-5)
    assert (mosaic.layers["argmax"][0, 0], mosaic.layers["severity"][0, 0]) == (0, 2)
    assert mosaic.preview_image[:, 0, 0].tolist() == pytest.approx([1.0, 0.5, 0.75])


def test_baseline_layers_are_computed_from_the_same_pixels():
    mosaic = predict_tile(make_trained(), make_tile(0.1, 0.2, 0.6))

    assert mosaic.layers["nbr"][5, 5] == pytest.approx((0.2 - 0.6) / 0.8)
    assert mosaic.layers["fixed_rule"].all()
    assert mosaic.patches[0].min_nbr == pytest.approx(-0.5)
    assert mosaic.patches[0].is_fixed_burned


def test_summaries_only_include_labelled_pixels():
    corner = np.zeros((32, 32))
    corner[0, 0] = 1
    mosaic = predict_tile(make_trained(), make_tile(corner, 1 - corner, 0.0, truth=np.where(corner, 1, 255)))
    (patch,) = mosaic.patches

    assert (patch.is_labelled, patch.is_burned, patch.is_argmax_burned) == (True, True, False)
    assert patch.max_log_odds == pytest.approx(-1.0)
    assert patch.components == ()


def test_certain_pixels_have_finite_log_odds():
    mosaic = predict_tile(make_trained(), make_tile(0.0, 6.5, 0.0))
    certain = make_tile(0.0, 0.0, 0.0)
    certain.raster.unknown[:] = True
    unknown = predict_tile(make_trained(), certain)

    assert mosaic.layers["log_odds"].max() == pytest.approx(6.5, rel=1e-5)
    assert np.isfinite(unknown.layers["log_odds"]).all()


def test_detection_of_overlapping_patches_is_read_off_one_map():
    # The second patch repeats the labels of the first one in its left half, which are 255 there.
    fire = Fire(name="T", positions=(PatchPosition(0, 0, 0), PatchPosition(1, 0, 16)), height=32, width=48)
    burned = np.where(np.arange(48) < 32, 1.0, 0.0) * np.ones((32, 1))
    image = np.stack([(5000 * (1 - burned)), 5000 * burned, np.full((32, 48), 5000)], axis=2).astype(np.uint16)
    truths = [np.ones((32, 32), np.uint8), np.where(np.arange(32) < 16, 255, 0).astype(np.uint8) * np.ones((32, 1))]
    tile = StitchedTile(
        fire=fire,
        raster=ArrayRaster(bands=BANDS, image=image, unknown=np.zeros((32, 48), bool)),
        is_covered=np.ones((32, 48), bool),
        truth=burned.astype(np.uint8),
        patch_truths=[truth.astype(np.uint8) for truth in truths],
    )

    mosaic = predict_tile(make_trained(), tile)

    assert [patch.is_burned for patch in mosaic.patches] == [True, False]
    assert [patch.is_argmax_burned for patch in mosaic.patches] == [True, False]
    assert [[part.pixels for part in patch.components] for patch in mosaic.patches] == [[32 * 32], []]


def test_missing_bands_are_named():
    missing = find_missing_bands(("B02", "B03", "B08"))

    assert "B12" in missing.nbr
    assert "B12" in missing.fixed_rule
    assert "B03" not in missing.fixed_rule
    assert find_missing_bands(BANDS) == MissingBands("", "")


def test_each_labelled_pixel_is_counted_once_by_burn_ratio():
    def make_patch(near: float, short: float, truth: np.ndarray):
        patch = make_pixels_of_patch(truth)
        image = np.stack([np.full((32, 32), value, np.float32) for value in (0.1, near, short)])
        return patch._replace(image=image)

    burned, shifted = np.ones((32, 32)), np.zeros((32, 32))
    burned[0] = shifted[:, :16] = 255
    fire = Fire(name="T", positions=(PatchPosition(0, 0, 0), PatchPosition(1, 0, 16)), height=32, width=48)

    tiles = stitch_tiles([make_patch(0.2, 0.6, burned), make_patch(0.6, 0.2, shifted)], [fire], BANDS)
    counts = count_indices(tiles)["nbr"]

    assert counts.sum(1).tolist() == [32 * 16, 31 * 32]
    assert np.flatnonzero(counts[1]) < np.flatnonzero(counts[0])


def make_pair(truth: np.ndarray, *, old_scar: np.ndarray) -> StitchedTile:
    """Makes a tile on which NBR is 7/11 before and -0.2 after a fire, and -0.2 in both scenes on an older scar."""
    spectra = {True: (0.2, 0.3), False: (0.45, 0.1)}
    is_char = (truth == 1) | old_scar, old_scar
    image = np.stack([np.where(char, spectra[True][n], spectra[False][n]) for char in is_char for n in (0, 1)], 2)
    raster = ArrayRaster(
        bands=("B08", "B12", "B08_PRE", "B12_PRE"),
        image=np.rint(image * 10_000).astype(np.uint16),
        unknown=np.zeros(truth.shape, bool),
    )
    fire = Fire(name="T", positions=(PatchPosition(0, 0, 0),), height=truth.shape[0], width=truth.shape[1])
    return StitchedTile(fire=fire, raster=raster, is_covered=~raster.unknown, truth=truth, patch_truths=[truth])


def test_indices_of_change_tell_a_fire_from_an_older_scar_that_nbr_takes_for_one():
    truth = np.zeros((32, 48), np.uint8)
    truth[:, :16] = 1
    old_scar = np.zeros(truth.shape, bool)
    old_scar[:, 40:] = True
    tile = make_pair(truth, old_scar=old_scar)
    counts = count_indices([tile])
    assert tuple(counts) == ("nbr", "dNBR", "RdNBR", "RBR")
    assert all(values.sum() == truth.size for values in counts.values())
    assert iou_at(counts["nbr"], tune_threshold(counts["nbr"])) == pytest.approx(16 / 24)
    change, before = 7 / 11 + 0.2, 7 / 11
    for name, value in {"dNBR": change, "RdNBR": change / before**0.5, "RBR": change / (before + 1.001)}.items():
        threshold = -tune_threshold(counts[name])
        assert iou_at(counts[name], -threshold) == 1
        assert 0 <= threshold < value

    rules = {name: -tune_threshold(counts[name]) for name in CHANGE_INDICES}
    image = to_reflectance(tile.raster.image).transpose(2, 0, 1)
    layers = {name: compute_change(name, image, tile.raster.bands) for name in CHANGE_INDICES}
    layers |= {"log_odds": np.zeros(truth.shape, np.float32), "argmax": truth, "severity": truth}
    mosaic = build_mosaic(tile, layers=layers, patches=[])
    maps = decide_fire(mosaic, OperatingPoint(), None, rules)
    for method in ("index_dnbr", "index_rdnbr", "index_rbr"):
        np.testing.assert_array_equal(maps[method], truth)
