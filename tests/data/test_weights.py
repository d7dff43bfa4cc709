"""Weights of classes and of patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.data import compute_class_weights
from fireseg.data.statistics import PatchStatistics
from fireseg.data.weights import compute_sampling_weights
from fireseg.errors import FiresegError
from fireseg.task import inverse_frequency_weights


def write_masks(folder: Path, *masks: list[int]) -> Path:
    for number, values in enumerate(masks):
        np.save(folder / f"p{number}_mask.npy", np.array([values], np.uint8))
    return folder


def test_class_weights_are_inverse_frequencies_over_all_masks_without_255(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, [0, 0, 0, 255], [0, 0, 0, 1])
    weights = compute_class_weights(folder, 2)
    # Six pixels to one: weights in the ratio 1 : 6 with mean 1.
    torch.testing.assert_close(weights, torch.tensor([2 / 7, 12 / 7]))


def test_the_cap_limits_the_weight_of_a_rare_class(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, [0] * 1000 + [1])
    weights = compute_class_weights(folder, 2, cap=10.0)
    assert float(weights[1] / weights[0]) == pytest.approx(10.0)


def test_an_absent_class_has_weight_1(tmp_path: Path) -> None:
    weights = compute_class_weights(write_masks(tmp_path, [0, 0, 1, 1]), 5)
    torch.testing.assert_close(weights, torch.tensor(inverse_frequency_weights([2, 2, 0, 0, 0])))
    assert weights[4] == 1.0


def test_all_masks_of_another_task_are_reported_at_once(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, [0, 3], [0, 1], [4, 4])
    with pytest.raises(FiresegError, match="another task") as caught:
        compute_class_weights(folder, 2)
    assert len(caught.value.faults) == 2


def test_class_weights_of_a_folder_without_masks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"no \*_mask\.npy in it"):
        compute_class_weights(tmp_path, 2)


def statistics_of(pixels: dict[int, int]) -> PatchStatistics:
    return PatchStatistics(
        name="a", image_shape=(), image_dtype="float32", mask_shape=(), mask_dtype="uint8", pixels=pixels, digest="a"
    )


def test_patches_above_the_fire_threshold_have_the_fire_weight() -> None:
    patches = [
        statistics_of({0: 99, 1: 1}),
        statistics_of({0: 98, 4: 2}),
        statistics_of({0: 100}),
        statistics_of({255: 100}),
        statistics_of({0: 9, 1: 1, 255: 9}),
    ]
    assert compute_sampling_weights(patches, fire_weight=5.0, fire_threshold=0.01) == (1.0, 5.0, 1.0, 1.0, 5.0)


@pytest.fixture
def train(make_packed) -> Path:
    return make_packed() / "train"


def test_class_weights_of_a_packed_split(train: Path) -> None:
    masks = np.load(train / "masks_del.npy")
    rare = (masks == 0).sum() / (masks == 1).sum()
    weights = compute_class_weights(train, 2)
    assert float(weights[1] / weights[0]) == pytest.approx(rare)
    assert len(compute_class_weights(train, 5)) == 5
