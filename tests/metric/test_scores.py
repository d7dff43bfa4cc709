"""Scores read off counts: by hand, and against scikit-learn and torchmetrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as theirs
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from fireseg.metric import confusion_counts, detection_scores, segmentation_scores, severity_scores
from fireseg.task import get_class_names

GRADES = get_class_names(5)
# Rows the truth: 6 unburned pixels, two of them called burned; 4 burned, one of them missed.
BY_HAND = torch.tensor([[4, 2], [1, 3]])


def draw(seed: int, num_classes: int, *, num_present: int | None = None) -> tuple[Tensor, Tensor]:
    """Truth and output of 60 pixels; classes from `num_present` on occur in neither."""
    generator = torch.Generator().manual_seed(seed)
    truth, output = torch.randint(0, num_present or num_classes, (2, 1, 60), generator=generator)
    return truth, torch.where(torch.rand(1, 60, generator=generator) < 0.5, truth, output)


def nan_mean(values: np.ndarray) -> float:
    return float(np.mean(values[~np.isnan(values)]))


def read_by_scikit_learn(truth: Tensor, output: Tensor, labels: Iterable[int]) -> dict[str, np.ndarray]:
    """Scores of each class; NaN where it is in neither, which scikit-learn says of all but the Jaccard index."""
    options: dict[str, Any] = {"labels": list(labels), "average": None, "zero_division": np.nan}
    scores: Any = sklearn_metrics.precision_recall_fscore_support(truth, output, **options)
    options["zero_division"] = 0
    iou = np.where(np.isnan(scores[2]), np.nan, sklearn_metrics.jaccard_score(truth, output, **options))
    return {"iou": iou, "dice": scores[2], "precision": scores[0], "recall": scores[1]}


def test_scores_of_a_delineation_by_hand() -> None:
    scores = segmentation_scores(BY_HAND, get_class_names(2))
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


def test_fire_iou_comes_first_because_compare_pages_open_on_it() -> None:
    assert next(iter(segmentation_scores(BY_HAND, get_class_names(2)))) == "fire_iou"


def test_scores_are_plain_floats() -> None:
    values = [*segmentation_scores(torch.eye(5), GRADES).values(), *detection_scores(BY_HAND).values()]
    assert {type(value) for value in values} == {float}


def test_grades_have_three_scores_more_than_two_classes_have() -> None:
    extra = {"severity_iou", "grade_mae", "grade_kappa"}
    assert extra <= segmentation_scores(torch.eye(5), GRADES).keys()
    assert not extra & segmentation_scores(BY_HAND, get_class_names(2)).keys()


def test_a_burned_map_with_severity_off_by_one_has_a_fire_iou_of_1() -> None:
    truth = torch.tensor([[0, 0, 1, 2, 3]])
    scores = segmentation_scores(confusion_counts(truth + (truth > 0), truth, 5), GRADES)
    assert [scores[name] for name in ("fire_iou", "fire_dice", "fire_precision", "fire_recall")] == [1.0] * 4
    assert (scores["severity_iou"], scores["grade_mae"]) == (0.0, 1.0)


def test_grade_scores_by_hand() -> None:
    # Burned pixels: grade 1 told as 1, grade 4 told as 2, grade 2 missed; one false alarm on unburned ground.
    truth, output = torch.tensor([[1, 4, 2, 0]]), torch.tensor([[1, 2, 0, 3]])
    scores = severity_scores(confusion_counts(output, truth, 5))
    assert scores["severity_iou"] == pytest.approx(1 / (1 + 2 + 2))
    assert scores["grade_mae"] == pytest.approx((0 + 2 + 2) / 3)
    # Disagreement 0 + 4 + 4 against the nine pairs of truth {1, 4, 2} and output {1, 2, 0}, a third each.
    by_chance = ((0 + 1 + 1) + (9 + 4 + 16) + (1 + 0 + 4)) / 3
    assert scores["grade_kappa"] == pytest.approx(1 - 8 / by_chance)


@pytest.mark.parametrize("num_present", [1, 2, 3, 5])
def test_a_perfect_map_scores_1_even_when_classes_are_absent(num_present: int) -> None:
    truth = torch.arange(num_present).repeat(4)[None]
    scores = segmentation_scores(confusion_counts(truth, truth, 5), GRADES)
    assert scores["mean_iou"] == scores["mean_dice"] == 1.0
    read = {value for name, value in scores.items() if name != "grade_mae" and not math.isnan(value)}
    assert read == {1.0}
    assert math.isnan(scores["iou_destroyed"]) == (num_present < 5)


def test_what_has_nothing_to_read_is_nan_and_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = segmentation_scores(torch.zeros(5, 5).long(), GRADES) | detection_scores(torch.zeros(2, 2).long())
        unburned = segmentation_scores(torch.tensor([[9, 0], [0, 0]]), get_class_names(2))
    assert {name for name, value in empty.items() if not math.isnan(value)} == {"tp", "fp", "fn", "tn"}
    assert math.isnan(unburned["fire_iou"])
    assert unburned["mean_iou"] == 1.0


def test_a_false_alarm_without_any_fire_is_an_iou_of_0_and_no_recall() -> None:
    scores = segmentation_scores(torch.tensor([[8, 1], [0, 0]]), get_class_names(2))
    assert (scores["fire_iou"], scores["fire_precision"]) == (0.0, 0.0)
    assert math.isnan(scores["fire_recall"])


def test_kappa_of_one_single_grade_has_nothing_to_read() -> None:
    truth = torch.full((1, 5), 3)
    assert math.isnan(severity_scores(confusion_counts(truth, truth, 5))["grade_kappa"])


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6), num_absent=st.integers(0, 2))
def test_class_scores_agree_with_scikit_learn(seed: int, num_classes: int, num_absent: int) -> None:
    truth, output = draw(seed, num_classes, num_present=max(num_classes - num_absent, 1))
    names = [f"c{number}" for number in range(num_classes)]
    scores = segmentation_scores(confusion_counts(output, truth, num_classes), names)
    expected = read_by_scikit_learn(truth[0], output[0], range(num_classes))
    for measure, values in expected.items():
        assert [scores[f"{measure}_{name}"] for name in names] == pytest.approx(values.tolist(), nan_ok=True)
    assert scores["mean_iou"] == pytest.approx(nan_mean(expected["iou"]))
    assert scores["mean_dice"] == pytest.approx(nan_mean(expected["dice"]))


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6))
def test_fire_scores_agree_with_scikit_learn_on_burned_or_not(seed: int, num_classes: int) -> None:
    truth, output = draw(seed, num_classes)
    scores = segmentation_scores(confusion_counts(output, truth, num_classes), [str(n) for n in range(num_classes)])
    burned, called = truth[0] > 0, output[0] > 0
    assert scores["fire_iou"] == pytest.approx(sklearn_metrics.jaccard_score(burned, called))
    assert scores["fire_dice"] == pytest.approx(sklearn_metrics.f1_score(burned, called))
    assert scores["fire_precision"] == pytest.approx(sklearn_metrics.precision_score(burned, called))
    assert scores["fire_recall"] == pytest.approx(sklearn_metrics.recall_score(burned, called))


@given(seed=st.integers(0, 10**6), num_classes=st.integers(3, 6))
def test_grade_scores_agree_with_scikit_learn_on_burned_pixels(seed: int, num_classes: int) -> None:
    truth, output = draw(seed, num_classes)
    scores = severity_scores(confusion_counts(output, truth, num_classes))
    burned, told = truth[truth > 0], output[truth > 0]
    kappa = sklearn_metrics.cohen_kappa_score(burned, told, labels=range(num_classes), weights="quadratic")
    severity = sklearn_metrics.jaccard_score(truth[0], output[0], labels=range(1, num_classes), average="micro")
    assert scores["grade_kappa"] == pytest.approx(kappa)
    assert scores["grade_mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(burned, told))
    assert scores["severity_iou"] == pytest.approx(severity)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(3, 6))
def test_scores_agree_with_torchmetrics_where_all_classes_occur(seed: int, num_classes: int) -> None:
    truth, output = draw(seed, num_classes)
    truth[0, :num_classes] = torch.arange(num_classes)
    truth[0, -9:] = 255
    output[0, :num_classes] = torch.arange(num_classes)
    names = [str(number) for number in range(num_classes)]
    scores = segmentation_scores(confusion_counts(output, truth, num_classes), names)
    options = {"num_classes": num_classes, "average": None, "ignore_index": 255}
    expected = {
        "iou": theirs.multiclass_jaccard_index(output, truth, **options),
        "dice": theirs.multiclass_f1_score(output, truth, **options),
        "precision": theirs.multiclass_precision(output, truth, **options),
        "recall": theirs.multiclass_recall(output, truth, **options),
    }
    for measure, values in expected.items():
        assert [scores[f"{measure}_{name}"] for name in names] == pytest.approx(values.tolist(), abs=1e-6)
    kappa = theirs.multiclass_cohen_kappa(output[truth % 255 > 0], truth[truth % 255 > 0], num_classes, "quadratic")
    assert scores["grade_kappa"] == pytest.approx(kappa.item(), abs=1e-5)


@given(cells=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_detection_scores_agree_with_scikit_learn(cells: list[int]) -> None:
    truth = torch.tensor([0, 0, 1, 1]).repeat_interleave(torch.tensor(cells))
    answer = torch.tensor([0, 1, 0, 1]).repeat_interleave(torch.tensor(cells))
    scores = detection_scores(torch.tensor(cells).view(2, 2))
    assert [scores[name] for name in ("tn", "fp", "fn", "tp")] == cells
    if len(truth):
        expected = read_by_scikit_learn(truth, answer, [1])
        accuracy = sklearn_metrics.accuracy_score(truth, answer)
        found = [scores[f"detection_{name}"] for name in ("accuracy", "precision", "recall", "f1")]
        wanted = [accuracy, *expected["precision"], *expected["recall"], *expected["dice"]]
        assert found == pytest.approx(wanted, nan_ok=True)


def test_every_class_needs_a_name() -> None:
    with pytest.raises(ValueError, match="zip"):
        segmentation_scores(BY_HAND, ["background"])
