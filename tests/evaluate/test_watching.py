"""What is said of each patch, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fireseg.batch import Batch
from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.inference import AvailableIndices, compute_ratios, count_fire_ratios, predict_patches
from fireseg.evaluate.mosaic import assemble_mosaics
from fireseg.model import FireSegmentationModel
from fireseg.runs import TrainedModel
from fireseg.task import Task

BANDS = ("B03", "B08", "B12")


class First(nn.Module):
    """Takes what the bands say for logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, image: Tensor) -> Tensor:
        return image[:, : self.num_classes]


def make_trained(num_classes: int = 2, ignore_index: int = 255) -> TrainedModel:
    names = tuple(f"class{number}" for number in range(num_classes))
    return TrainedModel(
        model=FireSegmentationModel(First(num_classes), bands=BANDS).eval(),
        task=Task(name="own", num_classes=num_classes, class_names=names, ignore_index=ignore_index),
        bands=BANDS,
        settings={},
        device=torch.device("cpu"),
        checkpoint=Path("best_model.pt"),
        sha256="",
        epoch=1,
        fingerprint="",
        folder=None,
        calibration=None,
    )


def make_batch(*bands: float, mask: int = 0) -> Batch:
    """One patch, every pixel with the same reflectance."""
    image = torch.tensor(bands)[None, :, None, None].expand(1, -1, 32, 32).contiguous()
    return Batch(image, torch.full((1, 32, 32), mask, dtype=torch.uint8), ("patch",))


def test_odds_class_and_grade_are_those_of_the_logits():
    (seen,) = predict_patches(make_trained(3), [make_batch(1.0, 0.5, 0.75)])

    fire = np.log(np.exp(0.5) + np.exp(0.75)) - 1.0
    assert seen.layers["odds"][0, 0] == pytest.approx(fire)
    assert (seen.layers["argmax"][0, 0], seen.layers["grade"][0, 0]) == (0, 2)
    assert (seen.image.shape, seen.truth.shape) == ((3, 32, 32), (32, 32))


def test_the_index_looks_at_the_same_pixels():
    (seen,) = predict_patches(make_trained(), [make_batch(0.1, 0.2, 0.6)])
    assert seen.facts is not None

    assert seen.layers["ratio"][5, 5] == pytest.approx((0.2 - 0.6) / 0.8)
    assert seen.layers["fixed"].all()
    assert seen.facts.lowest_ratio == pytest.approx(-0.5)
    assert seen.facts.is_fixed


def test_what_detection_asks_is_asked_of_labelled_pixels_alone():
    batch = make_batch(0.0, 1.0, 0.0, mask=255)
    batch.mask[0, 0, 0] = 1
    batch.image[0, 1, 0, 0] = -1.0
    (seen,) = predict_patches(make_trained(), [batch])
    assert seen.facts is not None

    assert (seen.facts.is_labelled, seen.facts.burns, seen.facts.is_argmax) == (True, True, False)
    assert seen.facts.peak_odds == -1.0
    assert seen.facts.components == ()


def test_an_ignored_value_of_ones_own_becomes_255():
    (seen,) = predict_patches(make_trained(ignore_index=9), [make_batch(0.0, 1.0, 0.0, mask=9)])
    assert seen.facts is not None

    assert (seen.truth == 255).all()
    assert not seen.facts.is_labelled


def test_a_rule_that_lacks_a_band_names_it():
    lacking = AvailableIndices.of(("B02", "B03", "B08"))

    assert "B12" in lacking.ratio
    assert "B12" in lacking.fixed
    assert "B03" not in lacking.fixed
    assert AvailableIndices.of(BANDS) == AvailableIndices("", "")


def test_ratios_are_counted_once_a_pixel_where_somebody_labelled():
    burned = make_batch(0.1, 0.2, 0.6, mask=1)
    burned.mask[0, 0] = 255
    shifted = make_batch(0.1, 0.6, 0.2)
    shifted.mask[0, :, :16] = 255
    fire = Fire(name="T", places=(PatchPosition(0, 0, 0), PatchPosition(1, 0, 16)), height=32, width=48)

    counts = count_fire_ratios(assemble_mosaics(compute_ratios([burned, shifted], BANDS, ignore_index=255), [fire]))

    assert counts.sum(1).tolist() == [32 * 16, 31 * 32]
    assert np.flatnonzero(counts[1]) < np.flatnonzero(counts[0])
