"""Counting pixels and patches: against scikit-learn, and with unlabelled pixels left out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from torch import Tensor

from fireseg.decision import argmax_classes
from fireseg.errors import FiresegError
from fireseg.metric import confusion as counts
from fireseg.metric import confusion_counts, detection_counts, image_counts

INTEGER_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def draw(seed: int, num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, num_classes, 6, 5, generator=generator)
    targets = torch.randint(0, num_classes, (3, 6, 5), generator=generator)
    targets[torch.rand(3, 6, 5, generator=generator) < 0.3] = 255
    return logits, targets


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 7), is_rounded=st.booleans())
def test_the_decision_is_that_of_argmax_ties_included(seed: int, num_classes: int, is_rounded: bool) -> None:
    logits, _ = draw(seed, num_classes)
    logits = logits.round() if is_rounded else logits
    for given_logits in (logits, logits.contiguous(memory_format=torch.channels_last), logits.bfloat16()):
        assert torch.equal(argmax_classes(given_logits).long(), given_logits.argmax(1))


def test_rows_are_the_truth_and_columns_the_output() -> None:
    assert confusion_counts(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), 2).tolist() == [[1, 1], [0, 1]]


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 7))
def test_counts_agree_with_scikit_learn(seed: int, num_classes: int) -> None:
    logits, targets = draw(seed, num_classes)
    keep = targets != 255
    theirs = confusion_matrix(targets[keep], logits.argmax(1)[keep], labels=range(num_classes))
    assert confusion_counts(logits, targets, num_classes).tolist() == theirs.tolist()
    assert confusion_counts(logits.argmax(1), targets, num_classes).tolist() == theirs.tolist()


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5))
def test_counts_of_images_add_up_to_those_of_the_batch(seed: int, num_classes: int) -> None:
    logits, targets = draw(seed, num_classes)
    images = image_counts(logits, targets, num_classes)
    assert torch.equal(images.sum(0), confusion_counts(logits, targets, num_classes))
    assert torch.equal(images[1], confusion_counts(logits[1:2], targets[1:2], num_classes))
    assert images.dtype == torch.int64


@given(seed=st.integers(0, 10**6), value=st.sampled_from([math.nan, math.inf, -math.inf, 1e30]))
def test_logits_of_unlabelled_pixels_are_counted_nowhere(seed: int, value: float) -> None:
    logits, targets = draw(seed, 3)
    spoilt = logits.clone()
    spoilt[:, 2:].masked_fill_((targets == 255).unsqueeze(1), value)
    assert torch.equal(image_counts(spoilt, targets, 3), image_counts(logits, targets, 3))


def test_classes_given_for_unlabelled_pixels_may_be_anything() -> None:
    assert confusion_counts(torch.tensor([[[255, 1]]]), torch.tensor([[[255, 1]]]), 2).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_targets_and_classes_may_be_of_any_integer_dtype(dtype: torch.dtype) -> None:
    # 63 x 5 does not fit into the bytes that the masks come in.
    targets = torch.tensor([[[62, 255, 3]]]).to(dtype)
    found = confusion_counts(torch.tensor([[[61, 2, 3]]]).to(dtype), targets, 63)
    assert found.nonzero().tolist() == [[3, 3], [62, 61]]


def test_another_ignore_index_is_honoured() -> None:
    found = confusion_counts(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]), 2, ignore_index=0)
    assert found.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("value", [-1, 2, 100])
def test_classes_that_do_not_exist_are_refused(value: int) -> None:
    wrong, right = torch.tensor([[[0, value]]]), torch.tensor([[[0, 1]]])
    with pytest.raises(FiresegError, match=f"targets: value {value}, but the classes are 0 to 1"):
        confusion_counts(right, wrong, 2)
    with pytest.raises(FiresegError, match=f"output: value {value}, but the classes are 0 to 1"):
        confusion_counts(wrong, right, 2)


@pytest.mark.parametrize(
    ("output", "targets"),
    [
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4).long()),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 5).long()),
        (torch.zeros(1, 4, 4).long(), torch.zeros(2, 4, 4).long()),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4)),
    ],
    ids=["three classes", "another width", "another batch", "floats"],
)
def test_shapes_that_do_not_belong_together_and_floats_are_refused(output: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match="want"):
        image_counts(output, targets, 2)


def test_counting_does_not_wait_for_the_device() -> None:
    # A meta tensor has no values: whatever asks for one raises.
    images = image_counts(torch.zeros(2, 3, 8, 8, device="meta"), torch.zeros(2, 8, 8, device="meta").byte(), 3)
    assert images.shape == (2, 3, 3)
    assert detection_counts(images).shape == (2, 2)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5))
def test_accelerators_count_the_same_in_their_own_way(seed: int, num_classes: int) -> None:
    pair = torch.randint(0, num_classes**2 + 1, (3, 40), generator=torch.Generator().manual_seed(seed)).int()
    by_comparison = counts._count_by_comparison(pair, num_classes**2)
    assert torch.equal(by_comparison, counts._count_by_bincount(pair, num_classes**2))


def test_a_patch_burns_if_any_labelled_pixel_is_above_class_0() -> None:
    # One row a patch: hit (of another grade), false alarm, miss, rightly quiet, nothing labelled.
    targets = torch.tensor([[[0, 2]], [[0, 0]], [[1, 0]], [[0, 0]], [[255, 255]]])
    output = torch.tensor([[[1, 0]], [[0, 1]], [[0, 0]], [[0, 0]], [[1, 1]]])
    assert detection_counts(image_counts(output, targets, 3)).tolist() == [[1, 1], [1, 1]]


def test_fire_called_where_nobody_labelled_is_no_detection() -> None:
    found = detection_counts(image_counts(torch.tensor([[[1, 0]]]), torch.tensor([[[255, 0]]]), 2))
    assert found.tolist() == [[1, 0], [0, 0]]
