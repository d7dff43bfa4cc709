"""Metrics: confusion counts and their scores, detection, calibration, boundaries, bootstrap intervals."""

from __future__ import annotations

from fireseg.metric.bootstrap import bootstrap_mean, compare_paired
from fireseg.metric.boundary import BoundaryCounts, boundary_counts, boundary_scores, hausdorff_95, sum_boundary_counts
from fireseg.metric.calibration import (
    count_log_odds,
    fit_temperature,
    precision_recall,
    reliability,
    score_calibration,
    select_threshold,
)
from fireseg.metric.confusion import (
    detection_counts,
    detection_scores,
    fire_scores,
    image_counts,
    segmentation_scores,
)
from fireseg.metric.detection import Component, DetectionRule, count_detections, find_components, select_rule
from fireseg.metric.running import CombinedMetrics, DetectionMetrics, SegmentationMetrics

__all__ = [
    "BoundaryCounts",
    "CombinedMetrics",
    "Component",
    "DetectionMetrics",
    "DetectionRule",
    "SegmentationMetrics",
    "bootstrap_mean",
    "boundary_counts",
    "boundary_scores",
    "compare_paired",
    "count_detections",
    "count_log_odds",
    "detection_counts",
    "detection_scores",
    "find_components",
    "fire_scores",
    "fit_temperature",
    "hausdorff_95",
    "image_counts",
    "precision_recall",
    "reliability",
    "score_calibration",
    "segmentation_scores",
    "select_rule",
    "select_threshold",
    "sum_boundary_counts",
]
