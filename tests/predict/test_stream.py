"""Reading, model and blending joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fireseg.data.bands import BAND_NAMES
from fireseg.geo import plan_sliding_windows
from fireseg.model import FireSegmentationModel
from fireseg.predict.inference import Rows, predict_rows, prepare_model
from fireseg.predict.quicklook import ImageSource, to_source
from tests.predict.stand_in import DarkIsBurned, draw_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return to_source(draw_image(1100, 900), BAND_NAMES)


def predict(source: ImageSource, network: nn.Module, **options: Any) -> list[Rows]:
    model = prepare_model(FireSegmentationModel(network, bands=BAND_NAMES), CPU)
    layout = plan_sliding_windows(source.height, source.width)
    rows = predict_rows(model, source, layout, num_classes=2, device=CPU, **options)
    # Unknown and image hold until the next rows alone.
    return [each._replace(unknown=each.unknown.copy(), image=each.image.copy()) for each in rows]


def join(rows: list[Rows]) -> np.ndarray:
    return np.concatenate([each.probabilities for each in rows], axis=1)


def test_every_row_comes_once_with_its_input(source: ImageSource) -> None:
    rows = predict(source, DarkIsBurned())
    assert [each.top for each in rows] == list(np.cumsum([0, *(len(each.unknown) for each in rows[:-1])]))
    np.testing.assert_array_equal(np.concatenate([each.image for each in rows]), source.steps)


def test_a_model_of_single_pixels_gives_what_it_gives_of_the_whole(source: ImageSource) -> None:
    model = FireSegmentationModel(DarkIsBurned(), bands=BAND_NAMES)
    image = torch.from_numpy(source.steps.astype(np.float32) / 10_000).permute(2, 0, 1)[None]
    np.testing.assert_allclose(
        join(predict(source, DarkIsBurned())), model.predict_probabilities(image)[0].numpy(), atol=1e-6
    )


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"batch_size": 64}, {"readers": 1}, {"readers": 5}])
def test_batch_size_and_readers_change_nothing_but_rounding(source: ImageSource, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(7, 8, 9, padding=4), nn.ReLU(), nn.Conv2d(8, 2, 9, padding=4))
    np.testing.assert_allclose(
        join(predict(source, network, **options)), join(predict(source, network, readers=2)), atol=1e-5
    )


def test_whoever_waits_is_told_of_every_window(source: ImageSource) -> None:
    told: list[int] = []
    predict(source, DarkIsBurned(), batch_size=2, advance=told.append)
    assert sum(told) == plan_sliding_windows(source.height, source.width).num_windows
