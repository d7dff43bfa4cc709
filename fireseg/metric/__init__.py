"""Counts first, scores second: what a prediction is worth."""

from __future__ import annotations

from fireseg.metric.bootstrap import Comparison, Interval, bootstrap_mean, compare_pairs
from fireseg.metric.boundary import EdgeCounts, edge_counts, edge_scores, hausdorff_95, sum_edges
from fireseg.metric.calibration import (
    NUM_ODDS_BINS,
    ODDS_EDGES,
    ODDS_RANGE,
    PrecisionRecall,
    Reliability,
    count_odds,
    fire_odds,
    fit_temperature,
    pick_threshold,
    precision_recall,
    reliability,
    score_calibration,
)
from fireseg.metric.confusion import (
    confusion_counts,
    decide,
    detection_counts,
    detection_scores,
    grade_scores,
    image_counts,
    segmentation_scores,
)
from fireseg.metric.detection import Component, DetectionRule, count_detections, list_components, pick_rule
from fireseg.metric.running import CombinedMetrics, DetectionMetrics, SegmentationMetrics
from fireseg.task import check_classes, inverse_frequency_weights

__all__ = [
    "NUM_ODDS_BINS",
    "ODDS_EDGES",
    "ODDS_RANGE",
    "CombinedMetrics",
    "Comparison",
    "Component",
    "DetectionMetrics",
    "DetectionRule",
    "EdgeCounts",
    "Interval",
    "PrecisionRecall",
    "Reliability",
    "SegmentationMetrics",
    "bootstrap_mean",
    "check_classes",
    "compare_pairs",
    "confusion_counts",
    "count_detections",
    "count_odds",
    "decide",
    "detection_counts",
    "detection_scores",
    "edge_counts",
    "edge_scores",
    "fire_odds",
    "fit_temperature",
    "grade_scores",
    "hausdorff_95",
    "image_counts",
    "inverse_frequency_weights",
    "list_components",
    "pick_rule",
    "pick_threshold",
    "precision_recall",
    "reliability",
    "score_calibration",
    "segmentation_scores",
    "sum_edges",
]
