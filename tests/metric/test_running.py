"""Scores over many batches: however these are cut, the same."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fireseg.errors import FiresegError
from fireseg.metric import CombinedMetrics, DetectionMetrics, SegmentationMetrics

Metrics = SegmentationMetrics | DetectionMetrics | CombinedMetrics


def draw(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, 3, 4, generator=generator) + torch.tensor([1.5, 0, 0, 0, 0]).view(1, 5, 1, 1)
    targets = torch.randint(0, 5, (6, 3, 4), generator=generator)
    targets *= torch.rand(6, 1, 1, generator=generator) < 0.6  # some patches do not burn
    targets[torch.rand(6, 3, 4, generator=generator) < 0.3] = 255
    return logits, targets


def every_metric() -> list[Metrics]:
    return [SegmentationMetrics(5), DetectionMetrics(), CombinedMetrics(5)]


def scores_of(metrics: Metrics, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    metrics.reset()
    for logits, targets in batches:
        metrics.update(logits, targets)
    return metrics.compute()


@given(seed=st.integers(0, 10**6), cut=st.integers(1, 5))
def test_two_batches_count_as_their_concatenation(seed: int, cut: int) -> None:
    logits, targets = draw(seed)
    for metrics in every_metric():
        parts = scores_of(metrics, (logits[:cut], targets[:cut]), (logits[cut:], targets[cut:]))
        assert parts == pytest.approx(scores_of(metrics, (logits, targets)), nan_ok=True, abs=0)


@given(seed=st.integers(0, 10**6))
def test_the_order_of_patches_and_of_pixels_in_them_does_not_matter(seed: int) -> None:
    logits, targets = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    patches, pixels = torch.randperm(6, generator=generator), torch.randperm(12, generator=generator)
    other = logits.flatten(2)[patches][..., pixels].view_as(logits)
    other_targets = targets.flatten(1)[patches][..., pixels].view_as(targets)
    for metrics in every_metric():
        shuffled = scores_of(metrics, (other, other_targets))
        assert shuffled == pytest.approx(scores_of(metrics, (logits, targets)), nan_ok=True, abs=0)


@given(seed=st.integers(0, 10**6), value=st.sampled_from([math.nan, math.inf, 1e30]))
def test_logits_of_unlabelled_pixels_change_no_score(seed: int, value: float) -> None:
    logits, targets = draw(seed)
    spoilt = logits.masked_fill((targets == 255).unsqueeze(1), 0.0)
    spoilt[:, 1].masked_fill_(targets == 255, value)
    for metrics in every_metric():
        assert scores_of(metrics, (spoilt, targets)) == pytest.approx(
            scores_of(metrics, (logits, targets)), nan_ok=True, abs=0
        )


@given(seed=st.integers(0, 10**6))
def test_combined_has_the_scores_of_both_in_one_dict(seed: int) -> None:
    batch = draw(seed)
    both = scores_of(SegmentationMetrics(5), batch) | scores_of(DetectionMetrics(), batch)
    combined = scores_of(CombinedMetrics(5), batch)
    assert list(combined) == list(both)
    assert combined == pytest.approx(both, nan_ok=True, abs=0)


def test_nothing_counted_or_reset_is_nothing_to_read() -> None:
    metrics = CombinedMetrics(5)
    fresh = metrics.compute()
    metrics.update(*draw(1))
    metrics.reset()
    assert fresh == pytest.approx(metrics.compute(), nan_ok=True)
    assert math.isnan(fresh["fire_iou"])
    assert fresh["tp"] == 0.0


def test_counts_of_two_processes_merge_by_addition() -> None:
    one, other, both = SegmentationMetrics(5), SegmentationMetrics(5), SegmentationMetrics(5)
    one.update(*draw(1))
    other.update(*draw(2))
    both.update(*draw(1))
    both.update(*draw(2))
    one.counts += other.counts
    assert one.compute() == pytest.approx(both.compute(), nan_ok=True, abs=0)


def test_keys_bear_the_names_of_the_classes() -> None:
    keys = SegmentationMetrics(5).compute().keys()
    assert {"iou_destroyed", "dice_high", "precision_moderate", "recall_negligible", "iou_no_damage"} <= keys


def test_a_task_of_ones_own_names_its_classes() -> None:
    metrics = CombinedMetrics(3, class_names=("ground", "light", "heavy"), ignore_index=9)
    metrics.update(torch.eye(3).view(1, 3, 1, 3), torch.tensor([[[0, 1, 9]]]))
    scores = metrics.compute()
    assert (scores["iou_light"], scores["grade_mae"], scores["tp"]) == (1.0, 0.0, 1.0)
    assert math.isnan(scores["iou_heavy"])


def test_a_task_of_ones_own_without_names_is_refused() -> None:
    with pytest.raises(FiresegError, match=r"task\.class_names"):
        SegmentationMetrics(3)


def test_names_must_be_as_many_as_the_classes() -> None:
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        SegmentationMetrics(3, class_names=("ground", "fire"))


def test_a_patch_is_judged_by_its_labelled_pixels_alone() -> None:
    metrics = DetectionMetrics()
    fire, quiet = [-1.0, 1.0], [1.0, -1.0]
    # Called on an unlabelled pixel only; called rightly; nothing labelled at all.
    pixels = [[fire, quiet], [fire, quiet], [fire, fire]]
    targets = torch.tensor([[[255, 0]], [[1, 255]], [[255, 255]]], dtype=torch.uint8)
    metrics.update(torch.tensor(pixels).movedim(-1, 1).unsqueeze(2), targets)
    scores = metrics.compute()
    assert [scores[name] for name in ("tp", "fp", "fn", "tn")] == [1.0, 0.0, 0.0, 1.0]
    assert scores["detection_accuracy"] == 1.0


def test_updating_does_not_wait_for_the_device() -> None:
    # A meta tensor has no values: whatever asks for one raises.
    for metrics in every_metric():
        metrics.update(torch.zeros(2, 5, 8, 8, device="meta"), torch.zeros(2, 8, 8, device="meta").byte())


def test_updating_keeps_no_graph() -> None:
    logits, targets = draw(1)
    metrics = SegmentationMetrics(5)
    metrics.update(logits.requires_grad_(), targets)
    assert not metrics.counts.requires_grad
