"""Metrics that accumulate counts over batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fireseg.metric.confusion import detection_counts, detection_scores, image_counts, segmentation_scores
from fireseg.task import IGNORE_INDEX, get_class_names


class SegmentationMetrics:
    """Accumulates pixel scores over batches.

    Args:
        num_classes: K, including unburned.
        class_names: K class names for the keys; those of CEMS masks if not given.
        ignore_index: Target value of unlabelled pixels.

    Attributes:
        counts: `(K, K)` int64, rows the truth, columns the output, on the device of the batches. Counts of
            several processes can be added.

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
            raise ValueError(f"class_names: {len(self.class_names)} names for {num_classes} classes; give one for each")
        self.ignore_index = ignore_index
        self.reset()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Counts a batch: logits `(B, K, H, W)`, targets `(B, H, W)` of any integer dtype."""
        self.add(image_counts(logits, targets, len(self.class_names), ignore_index=self.ignore_index))

    def add(self, images: Tensor) -> None:
        """Adds counts from `image_counts`."""
        self.counts = self.counts.to(images.device) + images.sum(0)

    def compute(self) -> dict[str, float]:
        """Computes the scores of all batches so far, with the keys of `segmentation_scores`."""
        return segmentation_scores(self.counts, self.class_names)

    def reset(self) -> None:
        """Sets all counts to 0."""
        self.counts = torch.zeros(len(self.class_names), len(self.class_names), dtype=torch.int64)


class DetectionMetrics:
    """Accumulates patch scores over batches: whether a patch with fire is detected as one.

    Args:
        ignore_index: Target value of unlabelled pixels; fire predicted there does not count.

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
        """Adds counts from `image_counts`."""
        self.counts = self.counts.to(images.device) + detection_counts(images)

    def compute(self) -> dict[str, float]:
        """Computes the scores of all batches so far, with the keys of `detection_scores`."""
        return detection_scores(self.counts)

    def reset(self) -> None:
        """Sets all counts to 0."""
        self.counts = torch.zeros(2, 2, dtype=torch.int64)


class CombinedMetrics:
    """Accumulates pixel and patch scores together from one pass over the logits.

    Args:
        num_classes: K, including unburned.
        class_names: K class names for the keys; those of CEMS masks if not given.
        ignore_index: Target value of unlabelled pixels.
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
        """Computes the pixel scores, then the patch scores, of all batches so far."""
        return self.segmentation.compute() | self.detection.compute()

    def sync(self, add: Callable[[Tensor], Tensor]) -> None:
        """Adds the counts of several processes.

        Args:
            add: Returns the sum of a tensor over the processes.
        """
        self.segmentation.counts = add(self.segmentation.counts)
        self.detection.counts = add(self.detection.counts)

    def reset(self) -> None:
        """Sets all counts to 0."""
        self.segmentation.reset()
        self.detection.reset()
