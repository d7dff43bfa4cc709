"""Accumulated metrics: independent of the batches, without unlabelled pixels, mergeable."""

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


def draw_batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, 3, 4, generator=generator) + torch.tensor([1.5, 0, 0, 0, 0]).view(1, 5, 1, 1)
    targets = torch.randint(0, 5, (6, 3, 4), generator=generator)
    targets *= torch.rand(6, 1, 1, generator=generator) < 0.6  # some patches are unburned
    targets[torch.rand(6, 3, 4, generator=generator) < 0.3] = 255
    return logits, targets


def make_metrics() -> list[Metrics]:
    return [SegmentationMetrics(5), DetectionMetrics(), CombinedMetrics(5)]


def compute_scores(metrics: Metrics, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    metrics.reset()
    for logits, targets in batches:
        metrics.update(logits, targets)
    return metrics.compute()


@given(seed=st.integers(0, 10**6), cut=st.integers(1, 5))
def test_two_batches_score_as_their_concatenation(seed: int, cut: int) -> None:
    logits, targets = draw_batch(seed)
    for metrics in make_metrics():
        parts = compute_scores(metrics, (logits[:cut], targets[:cut]), (logits[cut:], targets[cut:]))
        assert parts == pytest.approx(compute_scores(metrics, (logits, targets)), nan_ok=True, abs=0)


@given(seed=st.integers(0, 10**6))
def test_the_order_of_patches_and_pixels_does_not_matter(seed: int) -> None:
    logits, targets = draw_batch(seed)
    generator = torch.Generator().manual_seed(seed)
    patches, pixels = torch.randperm(6, generator=generator), torch.randperm(12, generator=generator)
    other = logits.flatten(2)[patches][..., pixels].view_as(logits)
    other_targets = targets.flatten(1)[patches][..., pixels].view_as(targets)
    for metrics in make_metrics():
        shuffled = compute_scores(metrics, (other, other_targets))
        assert shuffled == pytest.approx(compute_scores(metrics, (logits, targets)), nan_ok=True, abs=0)


@given(seed=st.integers(0, 10**6), value=st.sampled_from([math.nan, math.inf, 1e30]))
def test_logits_of_unlabelled_pixels_do_not_matter(seed: int, value: float) -> None:
    logits, targets = draw_batch(seed)
    corrupted = logits.masked_fill((targets == 255).unsqueeze(1), 0.0)
    corrupted[:, 1].masked_fill_(targets == 255, value)
    for metrics in make_metrics():
        assert compute_scores(metrics, (corrupted, targets)) == pytest.approx(
            compute_scores(metrics, (logits, targets)), nan_ok=True, abs=0
        )


@given(seed=st.integers(0, 10**6))
def test_combined_metrics_have_the_scores_of_both(seed: int) -> None:
    batch = draw_batch(seed)
    both = compute_scores(SegmentationMetrics(5), batch) | compute_scores(DetectionMetrics(), batch)
    combined = compute_scores(CombinedMetrics(5), batch)
    assert list(combined) == list(both)
    assert combined == pytest.approx(both, nan_ok=True, abs=0)


def test_reset_removes_all_counts() -> None:
    metrics = CombinedMetrics(5)
    fresh = metrics.compute()
    metrics.update(*draw_batch(1))
    metrics.reset()
    assert fresh == pytest.approx(metrics.compute(), nan_ok=True)
    assert math.isnan(fresh["fire_iou"])
    assert fresh["tp"] == 0.0


def test_counts_of_two_processes_can_be_added() -> None:
    one, other, both = SegmentationMetrics(5), SegmentationMetrics(5), SegmentationMetrics(5)
    one.update(*draw_batch(1))
    other.update(*draw_batch(2))
    both.update(*draw_batch(1))
    both.update(*draw_batch(2))
    one.counts += other.counts
    assert one.compute() == pytest.approx(both.compute(), nan_ok=True, abs=0)


def test_keys_contain_the_class_names() -> None:
    keys = SegmentationMetrics(5).compute().keys()
    assert {"iou_destroyed", "dice_high", "precision_moderate", "recall_negligible", "iou_no_damage"} <= keys


def test_custom_class_names_and_ignore_index() -> None:
    metrics = CombinedMetrics(3, class_names=("ground", "light", "heavy"), ignore_index=9)
    metrics.update(torch.eye(3).view(1, 3, 1, 3), torch.tensor([[[0, 1, 9]]]))
    scores = metrics.compute()
    assert (scores["iou_light"], scores["grade_mae"], scores["tp"]) == (1.0, 0.0, 1.0)
    assert math.isnan(scores["iou_heavy"])


def test_an_unknown_number_of_classes_without_names_is_an_error() -> None:
    with pytest.raises(FiresegError, match=r"task\.class_names"):
        SegmentationMetrics(3)


def test_a_wrong_number_of_class_names_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        SegmentationMetrics(3, class_names=("ground", "fire"))


def test_detection_uses_labelled_pixels_only() -> None:
    metrics = DetectionMetrics()
    fire, unburned = [-1.0, 1.0], [1.0, -1.0]
    # Fire on an unlabelled pixel only; a hit; a patch without labels.
    pixels = [[fire, unburned], [fire, unburned], [fire, fire]]
    targets = torch.tensor([[[255, 0]], [[1, 255]], [[255, 255]]], dtype=torch.uint8)
    metrics.update(torch.tensor(pixels).movedim(-1, 1).unsqueeze(2), targets)
    scores = metrics.compute()
    assert [scores[name] for name in ("tp", "fp", "fn", "tn")] == [1.0, 0.0, 0.0, 1.0]
    assert scores["detection_accuracy"] == 1.0


def test_update_does_not_synchronise_with_the_device() -> None:
    # Reading a value of a meta tensor raises.
    for metrics in make_metrics():
        metrics.update(torch.zeros(2, 5, 8, 8, device="meta"), torch.zeros(2, 8, 8, device="meta").byte())


def test_update_keeps_no_autograd_graph() -> None:
    logits, targets = draw_batch(1)
    metrics = SegmentationMetrics(5)
    metrics.update(logits.requires_grad_(), targets)
    assert not metrics.counts.requires_grad
