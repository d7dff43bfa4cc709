"""Confusion matrices and scores: by hand, against scikit-learn and torchmetrics, without unlabelled pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from fireseg.errors import FiresegError
from fireseg.metric import (
    confusion,
    detection_counts,
    detection_scores,
    image_counts,
    segmentation_scores,
)
from fireseg.metric.confusion import severity_scores
from fireseg.task import get_class_names

GRADES = get_class_names(5)
# Rows are truth: 6 unburned pixels, two of them false alarms; 4 burned, one of them missed.
COUNTS = torch.tensor([[4, 2], [1, 3]])
INTEGER_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def draw_batch(seed: int, num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, num_classes, 6, 5, generator=generator)
    targets = torch.randint(0, num_classes, (3, 6, 5), generator=generator)
    targets[torch.rand(3, 6, 5, generator=generator) < 0.3] = 255
    return logits, targets


def count_batch(output: Tensor, targets: Tensor, num_classes: int, *, ignore_index: int = 255) -> Tensor:
    return image_counts(output, targets, num_classes, ignore_index=ignore_index).sum(0)


def test_rows_are_truth_and_columns_output() -> None:
    assert count_batch(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), 2).tolist() == [[1, 1], [0, 1]]


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 7))
def test_counts_equal_those_of_scikit_learn(seed: int, num_classes: int) -> None:
    logits, targets = draw_batch(seed, num_classes)
    is_labelled = targets != 255
    expected = sklearn_metrics.confusion_matrix(
        targets[is_labelled], logits.argmax(1)[is_labelled], labels=range(num_classes)
    )
    assert count_batch(logits, targets, num_classes).tolist() == expected.tolist()
    assert count_batch(logits.argmax(1), targets, num_classes).tolist() == expected.tolist()


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5))
def test_image_counts_add_up_to_those_of_the_batch(seed: int, num_classes: int) -> None:
    logits, targets = draw_batch(seed, num_classes)
    images = image_counts(logits, targets, num_classes)
    assert torch.equal(images.sum(0), count_batch(logits, targets, num_classes))
    assert torch.equal(images[1], count_batch(logits[1:2], targets[1:2], num_classes))
    assert images.dtype == torch.int64


@given(seed=st.integers(0, 10**6), value=st.sampled_from([math.nan, math.inf, -math.inf, 1e30]))
def test_logits_of_unlabelled_pixels_are_not_counted(seed: int, value: float) -> None:
    logits, targets = draw_batch(seed, 3)
    corrupted = logits.clone()
    corrupted[:, 2:].masked_fill_((targets == 255).unsqueeze(1), value)
    assert torch.equal(image_counts(corrupted, targets, 3), image_counts(logits, targets, 3))


def test_output_of_unlabelled_pixels_may_be_any_value() -> None:
    assert count_batch(torch.tensor([[[255, 1]]]), torch.tensor([[[255, 1]]]), 2).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_any_integer_dtype_is_counted_without_overflow(dtype: torch.dtype) -> None:
    # 62 x 63 + 61 does not fit into 8 bits.
    targets = torch.tensor([[[62, 255, 3]]]).to(dtype)
    counts = count_batch(torch.tensor([[[61, 2, 3]]]).to(dtype), targets, 63)
    assert counts.nonzero().tolist() == [[3, 3], [62, 61]]


def test_ignore_index_can_be_changed() -> None:
    counts = count_batch(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]), 2, ignore_index=0)
    assert counts.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("value", [-1, 2, 100])
def test_classes_out_of_range_are_an_error(value: int) -> None:
    wrong, right = torch.tensor([[[0, value]]]), torch.tensor([[[0, 1]]])
    with pytest.raises(FiresegError, match=f"targets: .*{value}.* 0 to 1"):
        count_batch(right, wrong, 2)
    with pytest.raises(FiresegError, match=f"output: .*{value}.* 0 to 1"):
        count_batch(wrong, right, 2)


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
def test_mismatched_shapes_and_float_targets_are_an_error(output: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"output .*targets .*integers"):
        image_counts(output, targets, 2)


def test_counting_does_not_synchronise_with_the_device() -> None:
    # Reading a value of a meta tensor raises.
    images = image_counts(torch.zeros(2, 3, 8, 8, device="meta"), torch.zeros(2, 8, 8, device="meta").byte(), 3)
    assert images.shape == (2, 3, 3)
    assert detection_counts(images).shape == (2, 2)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 5))
def test_the_method_for_accelerators_counts_the_same(seed: int, num_classes: int) -> None:
    pair = torch.randint(0, num_classes**2 + 1, (3, 40), generator=torch.Generator().manual_seed(seed)).int()
    by_comparison = confusion._count_by_comparison(pair, num_classes**2)
    assert torch.equal(by_comparison, confusion._count_by_bincount(pair, num_classes**2))


def test_a_patch_is_burned_if_any_labelled_pixel_is_above_class_0() -> None:
    # One row for each patch: hit (of another grade), false alarm, miss, true negative, unlabelled.
    targets = torch.tensor([[[0, 2]], [[0, 0]], [[1, 0]], [[0, 0]], [[255, 255]]])
    output = torch.tensor([[[1, 0]], [[0, 1]], [[0, 0]], [[0, 0]], [[1, 1]]])
    assert detection_counts(image_counts(output, targets, 3)).tolist() == [[1, 1], [1, 1]]


def test_fire_predicted_on_unlabelled_pixels_is_no_detection() -> None:
    counts = detection_counts(image_counts(torch.tensor([[[1, 0]]]), torch.tensor([[[255, 0]]]), 2))
    assert counts.tolist() == [[1, 0], [0, 0]]


def draw_pixels(seed: int, num_classes: int, *, num_present: int | None = None) -> tuple[Tensor, Tensor]:
    """Draws truth and output of 60 pixels; classes from `num_present` on do not occur."""
    generator = torch.Generator().manual_seed(seed)
    truth, output = torch.randint(0, num_present or num_classes, (2, 1, 60), generator=generator)
    return truth, torch.where(torch.rand(1, 60, generator=generator) < 0.5, truth, output)


def nan_mean(values: np.ndarray) -> float:
    return float(np.mean(values[~np.isnan(values)]))


def score_with_scikit_learn(truth: Tensor, output: Tensor, labels: Iterable[int]) -> dict[str, np.ndarray]:
    """Scores of each class; NaN for absent classes, for which scikit-learn gives a Jaccard index of 0."""
    options: dict[str, Any] = {"labels": list(labels), "average": None, "zero_division": np.nan}
    scores: Any = sklearn_metrics.precision_recall_fscore_support(truth, output, **options)
    options["zero_division"] = 0
    iou = np.where(np.isnan(scores[2]), np.nan, sklearn_metrics.jaccard_score(truth, output, **options))
    return {"iou": iou, "dice": scores[2], "precision": scores[0], "recall": scores[1]}


def test_delineation_scores_by_hand() -> None:
    scores = segmentation_scores(COUNTS, get_class_names(2))
    assert scores == pytest.approx(
        {
            "fire_iou": 3 / 6,
            "fire_dice": 6 / 9,
            "fire_precision": 3 / 5,
            "fire_recall": 3 / 4,
            "mean_iou": (4 / 7 + 3 / 6) / 2,
            "mean_dice": (8 / 11 + 6 / 9) / 2,
            "iou_background": 4 / 7,
            "iou_fire": 3 / 6,
            "dice_background": 8 / 11,
            "dice_fire": 6 / 9,
            "precision_background": 4 / 5,
            "precision_fire": 3 / 5,
            "recall_background": 4 / 6,
            "recall_fire": 3 / 4,
        }
    )


def test_fire_iou_is_the_first_key_because_mlflow_compares_it_first() -> None:
    assert next(iter(segmentation_scores(COUNTS, get_class_names(2)))) == "fire_iou"


def test_scores_are_plain_floats() -> None:
    values = [*segmentation_scores(torch.eye(5), GRADES).values(), *detection_scores(COUNTS).values()]
    assert {type(value) for value in values} == {float}


def test_more_than_two_classes_have_three_severity_scores() -> None:
    extra = {"severity_iou", "grade_mae", "grade_kappa"}
    assert extra <= segmentation_scores(torch.eye(5), GRADES).keys()
    assert not extra & segmentation_scores(COUNTS, get_class_names(2)).keys()


def test_a_severity_error_does_not_lower_the_fire_iou() -> None:
    truth = torch.tensor([[0, 0, 1, 2, 3]])
    scores = segmentation_scores(count_batch(truth + (truth > 0), truth, 5), GRADES)
    assert [scores[name] for name in ("fire_iou", "fire_dice", "fire_precision", "fire_recall")] == [1.0] * 4
    assert (scores["severity_iou"], scores["grade_mae"]) == (0.0, 1.0)


def test_severity_scores_by_hand() -> None:
    # Burned pixels: grade 1 predicted as 1, grade 4 as 2, grade 2 missed; one false alarm on unburned ground.
    truth, output = torch.tensor([[1, 4, 2, 0]]), torch.tensor([[1, 2, 0, 3]])
    scores = severity_scores(count_batch(output, truth, 5))
    assert scores["severity_iou"] == pytest.approx(1 / (1 + 2 + 2))
    assert scores["grade_mae"] == pytest.approx((0 + 2 + 2) / 3)
    # Disagreement 0 + 4 + 4; by chance that of the nine pairs of truth {1, 4, 2} and output {1, 2, 0}, over 3.
    by_chance = ((0 + 1 + 1) + (9 + 4 + 16) + (1 + 0 + 4)) / 3
    assert scores["grade_kappa"] == pytest.approx(1 - 8 / by_chance)


@pytest.mark.parametrize("num_present", [1, 2, 3, 5])
def test_a_perfect_prediction_scores_1_also_with_absent_classes(num_present: int) -> None:
    truth = torch.arange(num_present).repeat(4)[None]
    scores = segmentation_scores(count_batch(truth, truth, 5), GRADES)
    assert scores["mean_iou"] == scores["mean_dice"] == 1.0
    defined = {value for name, value in scores.items() if name != "grade_mae" and not math.isnan(value)}
    assert defined == {1.0}
    assert math.isnan(scores["iou_destroyed"]) == (num_present < 5)


def test_undefined_scores_are_nan_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = segmentation_scores(torch.zeros(5, 5).long(), GRADES) | detection_scores(torch.zeros(2, 2).long())
        unburned = segmentation_scores(torch.tensor([[9, 0], [0, 0]]), get_class_names(2))
    assert {name for name, value in empty.items() if not math.isnan(value)} == {"tp", "fp", "fn", "tn"}
    assert math.isnan(unburned["fire_iou"])
    assert unburned["mean_iou"] == 1.0


def test_where_nothing_burned_a_false_alarm_has_a_precision_and_no_iou() -> None:
    scores = segmentation_scores(torch.tensor([[8, 1], [0, 0]]), get_class_names(2))
    assert (scores["fire_precision"], scores["iou_fire"]) == (0.0, 0.0)
    assert all(math.isnan(scores[f"fire_{measure}"]) for measure in ("iou", "dice", "recall"))


def test_kappa_of_a_single_grade_is_nan() -> None:
    truth = torch.full((1, 5), 3)
    assert math.isnan(severity_scores(count_batch(truth, truth, 5))["grade_kappa"])


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6), num_absent=st.integers(0, 2))
def test_class_scores_equal_those_of_scikit_learn(seed: int, num_classes: int, num_absent: int) -> None:
    truth, output = draw_pixels(seed, num_classes, num_present=max(num_classes - num_absent, 1))
    names = [f"c{number}" for number in range(num_classes)]
    scores = segmentation_scores(count_batch(output, truth, num_classes), names)
    expected = score_with_scikit_learn(truth[0], output[0], range(num_classes))
    for measure, values in expected.items():
        assert [scores[f"{measure}_{name}"] for name in names] == pytest.approx(values.tolist(), nan_ok=True)
    assert scores["mean_iou"] == pytest.approx(nan_mean(expected["iou"]))
    assert scores["mean_dice"] == pytest.approx(nan_mean(expected["dice"]))


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6))
def test_fire_scores_equal_binary_scores_of_scikit_learn(seed: int, num_classes: int) -> None:
    truth, output = draw_pixels(seed, num_classes)
    scores = segmentation_scores(count_batch(output, truth, num_classes), [str(n) for n in range(num_classes)])
    burned, predicted = truth[0] > 0, output[0] > 0
    assert scores["fire_iou"] == pytest.approx(sklearn_metrics.jaccard_score(burned, predicted))
    assert scores["fire_dice"] == pytest.approx(sklearn_metrics.f1_score(burned, predicted))
    assert scores["fire_precision"] == pytest.approx(sklearn_metrics.precision_score(burned, predicted))
    assert scores["fire_recall"] == pytest.approx(sklearn_metrics.recall_score(burned, predicted))


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(3, 6))
def test_severity_scores_equal_those_of_scikit_learn(seed: int, num_classes: int) -> None:
    truth, output = draw_pixels(seed, num_classes)
    scores = severity_scores(count_batch(output, truth, num_classes))
    burned, predicted = truth[truth > 0], output[truth > 0]
    kappa = sklearn_metrics.cohen_kappa_score(burned, predicted, labels=range(num_classes), weights="quadratic")
    severity = sklearn_metrics.jaccard_score(truth[0], output[0], labels=range(1, num_classes), average="micro")
    assert scores["grade_kappa"] == pytest.approx(kappa)
    assert scores["grade_mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(burned, predicted))
    assert scores["severity_iou"] == pytest.approx(severity)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(3, 6))
def test_scores_equal_those_of_torchmetrics_if_all_classes_occur(seed: int, num_classes: int) -> None:
    truth, output = draw_pixels(seed, num_classes)
    truth[0, :num_classes] = torch.arange(num_classes)
    truth[0, -9:] = 255
    output[0, :num_classes] = torch.arange(num_classes)
    names = [str(number) for number in range(num_classes)]
    scores = segmentation_scores(count_batch(output, truth, num_classes), names)
    options = {"num_classes": num_classes, "average": None, "ignore_index": 255}
    expected = {
        "iou": torchmetrics.multiclass_jaccard_index(output, truth, **options),
        "dice": torchmetrics.multiclass_f1_score(output, truth, **options),
        "precision": torchmetrics.multiclass_precision(output, truth, **options),
        "recall": torchmetrics.multiclass_recall(output, truth, **options),
    }
    for measure, values in expected.items():
        assert [scores[f"{measure}_{name}"] for name in names] == pytest.approx(values.tolist(), abs=1e-6)
    kappa = torchmetrics.multiclass_cohen_kappa(
        output[truth % 255 > 0], truth[truth % 255 > 0], num_classes, "quadratic"
    )
    assert scores["grade_kappa"] == pytest.approx(kappa.item(), abs=1e-5)


@settings(max_examples=15)
@given(cells=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_detection_scores_equal_those_of_scikit_learn(cells: list[int]) -> None:
    truth = torch.tensor([0, 0, 1, 1]).repeat_interleave(torch.tensor(cells))
    output = torch.tensor([0, 1, 0, 1]).repeat_interleave(torch.tensor(cells))
    scores = detection_scores(torch.tensor(cells).view(2, 2))
    assert [scores[name] for name in ("tn", "fp", "fn", "tp")] == cells
    if len(truth):
        expected = score_with_scikit_learn(truth, output, [1])
        accuracy = sklearn_metrics.accuracy_score(truth, output)
        values = [scores[f"detection_{name}"] for name in ("accuracy", "precision", "recall", "f1")]
        expected_values = [accuracy, *expected["precision"], *expected["recall"], *expected["dice"]]
        assert values == pytest.approx(expected_values, nan_ok=True)


def test_a_missing_class_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        segmentation_scores(COUNTS, ["background"])
