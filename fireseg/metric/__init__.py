"""Counts first, scores second: what a prediction is worth."""

from __future__ import annotations

from fireseg.metric.class_weights import inverse_frequency_weights
from fireseg.metric.counts import check_classes, confusion_counts, decide, detection_counts, image_counts
from fireseg.metric.running import CombinedMetrics, DetectionMetrics, SegmentationMetrics
from fireseg.metric.scores import detection_scores, grade_scores, segmentation_scores

__all__ = [
    "CombinedMetrics",
    "DetectionMetrics",
    "SegmentationMetrics",
    "check_classes",
    "confusion_counts",
    "decide",
    "detection_counts",
    "detection_scores",
    "grade_scores",
    "image_counts",
    "inverse_frequency_weights",
    "segmentation_scores",
]
