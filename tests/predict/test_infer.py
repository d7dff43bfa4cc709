"""A batch of windows into probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.model import FireSegmentationModel
from fireseg.predict.inference import get_batch_size, predict_windows, prepare_model

CPU = torch.device("cpu")


@pytest.fixture
def model() -> FireSegmentationModel:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(7, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3, padding=1))
    return prepare_model(FireSegmentationModel(network, bands=BAND_NAMES), CPU)


@pytest.fixture
def windows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 10_000, (2, 64, 96, 7)).astype(np.uint16)


def test_windows_get_the_probabilities_that_the_model_gives_their_reflectance(
    model: FireSegmentationModel, windows: np.ndarray
) -> None:
    image = torch.from_numpy(windows.astype(np.float32) / 10_000).permute(0, 3, 1, 2)
    found = predict_windows(model, windows, device=CPU)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.predict_probabilities(image).numpy(), atol=1e-6)


def test_turned_and_flipped_windows_get_the_same_map_with_averaging_and_another_without(
    model: FireSegmentationModel, windows: np.ndarray
) -> None:
    turned = np.ascontiguousarray(np.rot90(windows[:, :, ::-1], axes=(1, 2)))

    def find_difference(*, tta: bool) -> float:
        upright, other = (predict_windows(model, each, device=CPU, tta=tta) for each in (windows, turned))
        return float(np.abs(np.rot90(upright[..., ::-1], axes=(2, 3)) - other).max())

    assert find_difference(tta=True) < 1e-5
    assert find_difference(tta=False) > 0.01


def test_averaged_probabilities_sum_to_one(model: FireSegmentationModel, windows: np.ndarray) -> None:
    np.testing.assert_allclose(predict_windows(model, windows, device=CPU, tta=True).sum(axis=1), 1, atol=1e-5)


def test_a_cpu_takes_one_window_at_a_time() -> None:
    assert get_batch_size(CPU) == 1
    assert get_batch_size(torch.device("cuda")) > 1


def test_a_model_that_gives_no_numbers_is_refused(model: FireSegmentationModel, windows: np.ndarray) -> None:
    model.std.fill_(float("nan"))
    with pytest.raises(FiresegError, match="probabilities are not finite"):
        predict_windows(model, windows, device=CPU)
