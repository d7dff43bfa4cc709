"""Tests of the off-centre check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.inference import predict_tile
from fireseg.evaluate.mosaic import StitchedTile
from fireseg.evaluate.off_centre import check_off_centre, describe_off_centre, describe_reliance
from fireseg.evaluate.results import to_dict
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.model import FireSegmentationModel
from fireseg.runs import TrainedModel
from fireseg.runtime.inference import ArrayRaster
from tests.evaluate.builders import make_trained


class Middle(nn.Module):
    """Predicts fire in the middle half of its window, whatever the image is."""

    def forward(self, image: Tensor) -> Tensor:
        size, _, height, width = image.shape
        fire = torch.full((size, height, width), -5.0)
        fire[:, height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 5.0
        return torch.stack([-fire, fire], 1)


def make_positional() -> TrainedModel:
    trained = make_trained()
    return replace(trained, build_model=lambda: FireSegmentationModel(Middle(), bands=trained.bands).eval())


def make_burned_tile(name: str = "T") -> StitchedTile:
    """Makes a tile of 64 pixels whose middle half burned, with a high B08 where it did."""
    truth = np.zeros((64, 64), np.uint8)
    truth[16:48, 16:48] = 1
    image = np.stack([5000 * (truth == 0), 5000 * (truth == 1), np.full(truth.shape, 5000)], axis=2).astype(np.uint16)
    return StitchedTile(
        fire=Fire(name=name, positions=(PatchPosition(0, 0, 0),), height=64, width=64),
        raster=ArrayRaster(bands=("B03", "B08", "B12"), image=image, unknown=np.zeros(truth.shape, bool)),
        is_covered=np.ones(truth.shape, bool),
        truth=truth,
        patch_truths=[truth],
    )


def check(trained: TrainedModel, *tiles: StitchedTile) -> dict:
    point = OperatingPoint()
    counts = [check_off_centre(trained, tile, predict_tile(trained, tile), point) for tile in tiles]
    return to_dict(describe_off_centre(counts))


def test_a_model_that_knows_the_middle_of_its_window_loses_off_centre():
    found = check(make_positional(), make_burned_tile())

    # Mirrored by 32 px, the window has 96 px and its middle half ends at column 40 of the tile: 24 x 24 px are hit.
    assert found["mirrored"]["pooled"] == {"centred": 1.0, "off_centre": pytest.approx(576 / (1024 + 1600 - 576))}
    # Crops of 39 px lie at the upper left of windows of 64 px, of which 16 to 38 are predicted. The fire is at 16 to 38
    # in the crop at 0, and at 0 to 22 in that at 25: 23 x 23, 23 x 7, 7 x 23 and 7 x 7 px are hit.
    assert found["cropped"]["pooled"] == {"centred": 1.0, "off_centre": pytest.approx(900 / (8 * 23**2 - 900))}
    assert found["drop"] == pytest.approx(1 - 900 / 3332)
    assert found["fires"][0]["mirrored"]["off_centre"] == pytest.approx(576 / 2048)


def test_a_model_that_only_sees_pixels_loses_nothing():
    found = check(make_trained(), make_burned_tile())

    for view in ("mirrored", "cropped"):
        assert found[view]["pooled"] == {"centred": 1.0, "off_centre": 1.0}
    assert found["drop"] == 0.0


def test_unlabelled_pixels_do_not_count_in_any_view():
    tile = make_burned_tile()
    tile.truth[:, 40:] = 255
    found = check(make_positional(), tile)

    assert found["mirrored"]["pooled"]["off_centre"] == pytest.approx(576 / (32 * 24 + 40 * 40 - 576))


def test_differences_are_paired_over_fires_with_an_interval():
    found = check(make_positional(), *(make_burned_tile(f"T{number}") for number in range(5)))

    difference = found["mirrored"]["difference"]
    assert (difference["mean"], difference["num"]) == (pytest.approx(576 / 2048 - 1), 5)
    assert difference["low"] == difference["high"] == difference["mean"]
    assert (found["mirrored"]["wins"], found["mirrored"]["losses"]) == (0, 5)


def test_a_loss_is_told_with_what_to_do():
    assert describe_reliance({"drop": None}, 224) == describe_reliance({"drop": 0.04}, 224) == ""
    assert "drops 0.09 off centre" in describe_reliance({"drop": 0.09}, 224)
    assert "data.crop=128" in describe_reliance({"drop": 0.09}, 224)
    assert "data.crop=64" in describe_reliance({"drop": 0.09}, 128)


def test_no_fire_gives_no_entry():
    assert describe_off_centre([]) is None
