"""Metrics: confusion counts and their scores, detection, calibration, boundaries, intervals over fires."""

from __future__ import annotations

from fireseg.metric.boundary import BoundaryCounts, boundary_counts, boundary_scores, hausdorff_95, sum_boundary_counts
from fireseg.metric.calibration import (
    ThresholdGain,
    count_log_odds,
    cross_validate_threshold,
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
    severity_scores,
)
from fireseg.metric.detection import Component, DetectionRule, count_detections, find_components, select_rule
from fireseg.metric.interval import MIN_FIRES, Interval, compare_paired, estimate_mean
from fireseg.metric.running import CombinedMetrics, DetectionMetrics, SegmentationMetrics

__all__ = [
    "MIN_FIRES",
    "BoundaryCounts",
    "CombinedMetrics",
    "Component",
    "DetectionMetrics",
    "DetectionRule",
    "Interval",
    "SegmentationMetrics",
    "ThresholdGain",
    "boundary_counts",
    "boundary_scores",
    "compare_paired",
    "count_detections",
    "count_log_odds",
    "cross_validate_threshold",
    "detection_counts",
    "detection_scores",
    "estimate_mean",
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
    "severity_scores",
    "sum_boundary_counts",
]
