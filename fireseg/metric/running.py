"""Scores over as many batches as one likes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fireseg.metric.confusion import detection_counts, detection_scores, image_counts, segmentation_scores
from fireseg.task import IGNORE_INDEX, get_class_names


class SegmentationMetrics:
    """Pixel scores over as many batches as one likes.

    Args:
        num_classes: K, unburned included.
        class_names: K names for the keys; those of CEMS masks if not given.
        ignore_index: True value of unlabelled pixels.

    Attributes:
        counts: `(K, K)` int64, rows the truth, columns the output, on the device of the batches.
            To merge two, add them.

    Example:
        >>> metrics = SegmentationMetrics(2)
        >>> metrics.update(torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]]), torch.tensor([[[1, 0]]]))
        >>> metrics.compute()["fire_iou"]
        0.5
    """

    def __init__(
        self, num_classes: int, *, class_names: Sequence[str] | None = None, ignore_index: int = IGNORE_INDEX
    ) -> None:
        self.class_names = tuple(class_names) if class_names is not None else get_class_names(num_classes)
        if len(self.class_names) != num_classes:
            raise ValueError(f"class_names: {len(self.class_names)} names for {num_classes} classes")
        self.ignore_index = ignore_index
        self.reset()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Counts a batch: logits `(B, K, H, W)`, targets `(B, H, W)` of any integer dtype."""
        self.add(image_counts(logits, targets, len(self.class_names), ignore_index=self.ignore_index))

    def add(self, images: Tensor) -> None:
        """Adds what `image_counts` gave."""
        self.counts = self.counts.to(images.device) + images.sum(0)

    def compute(self) -> dict[str, float]:
        """The scores so far, as `segmentation_scores` names them."""
        return segmentation_scores(self.counts, self.class_names)

    def reset(self) -> None:
        """Forgets all counts."""
        self.counts = torch.zeros(len(self.class_names), len(self.class_names), dtype=torch.int64)


class DetectionMetrics:
    """Patch scores: does it burn anywhere, and was that seen?

    Args:
        ignore_index: True value of unlabelled pixels: what is predicted there alarms nobody.

    Attributes:
        counts: `(2, 2)` int64 `[[tn, fp], [fn, tp]]`, on the device of the batches.
    """

    def __init__(self, *, ignore_index: int = IGNORE_INDEX) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Counts a batch: logits `(B, K, H, W)`, targets `(B, H, W)` of any integer dtype."""
        self.add(image_counts(logits, targets, logits.shape[1], ignore_index=self.ignore_index))

    def add(self, images: Tensor) -> None:
        """Adds what `image_counts` gave."""
        self.counts = self.counts.to(images.device) + detection_counts(images)

    def compute(self) -> dict[str, float]:
        """The scores so far, as `detection_scores` names them."""
        return detection_scores(self.counts)

    def reset(self) -> None:
        """Forgets all counts."""
        self.counts = torch.zeros(2, 2, dtype=torch.int64)


class CombinedMetrics:
    """Pixel and patch scores in one dict, from one look at the logits.

    Args:
        num_classes: K, unburned included.
        class_names: K names for the keys; those of CEMS masks if not given.
        ignore_index: True value of unlabelled pixels.
    """

    def __init__(
        self, num_classes: int, *, class_names: Sequence[str] | None = None, ignore_index: int = IGNORE_INDEX
    ) -> None:
        self.segmentation = SegmentationMetrics(num_classes, class_names=class_names, ignore_index=ignore_index)
        self.detection = DetectionMetrics(ignore_index=ignore_index)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Counts a batch: logits `(B, K, H, W)`, targets `(B, H, W)` of any integer dtype."""
        num_classes = len(self.segmentation.class_names)
        images = image_counts(logits, targets, num_classes, ignore_index=self.segmentation.ignore_index)
        self.segmentation.add(images)
        self.detection.add(images)

    def compute(self) -> dict[str, float]:
        """The scores so far: those of the pixels, then those of the patches."""
        return self.segmentation.compute() | self.detection.compute()

    def reset(self) -> None:
        """Forgets all counts."""
        self.segmentation.reset()
        self.detection.reset()
