"""Class weights and sampling weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.data import compute_class_weights
from fireseg.data.module import sampling_weights
from fireseg.data.statistics import PatchStatistics
from fireseg.errors import FiresegError
from fireseg.task import inverse_frequency_weights


def write_masks(folder: Path, *masks: list[int]) -> Path:
    for number, values in enumerate(masks):
        np.save(folder / f"p{number}_mask.npy", np.array([values], np.uint8))
    return folder


def test_weights_are_by_inverse_frequency_over_all_masks_without_255(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, [0, 0, 0, 255], [0, 0, 0, 1])
    weights = compute_class_weights(folder, 2)
    # Six pixels to one: weights in the ratio 1 : 6 with mean 1.
    torch.testing.assert_close(weights, torch.tensor([2 / 7, 12 / 7]))


def test_a_cap_holds_a_rare_class_down(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, [0] * 1000 + [1])
    weights = compute_class_weights(folder, 2, cap=10.0)
    assert float(weights[1] / weights[0]) == pytest.approx(10.0)


def test_an_absent_class_gets_1(tmp_path: Path) -> None:
    weights = compute_class_weights(write_masks(tmp_path, [0, 0, 1, 1]), 5)
    torch.testing.assert_close(weights, torch.tensor(inverse_frequency_weights([2, 2, 0, 0, 0])))
    assert weights[4] == 1.0


def test_masks_of_another_task_are_refused_all_at_once(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, [0, 3], [0, 1], [4, 4])
    with pytest.raises(FiresegError, match="was it made for another task") as caught:
        compute_class_weights(folder, 2)
    assert len(caught.value.faults) == 2


def test_a_folder_without_masks_says_so(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"no \*_mask\.npy in it"):
        compute_class_weights(tmp_path, 2)


def facts(pixels: dict[int, int]) -> PatchStatistics:
    return PatchStatistics(
        name="a", image_shape=(), image_dtype="float32", mask_shape=(), mask_dtype="uint8", pixels=pixels, digest="a"
    )


def test_patches_above_the_threshold_weigh_more_and_those_at_it_do_not() -> None:
    patches = [
        facts({0: 99, 1: 1}),
        facts({0: 98, 4: 2}),
        facts({0: 100}),
        facts({255: 100}),
        facts({0: 9, 1: 1, 255: 9}),
    ]
    assert sampling_weights(patches, fire_weight=5.0, fire_threshold=0.01) == (1.0, 5.0, 1.0, 1.0, 5.0)
