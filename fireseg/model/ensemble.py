"""Several models as one, whose class probabilities are the mean of theirs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fireseg.model.network import FireSegmentationModel


class FireSegmentationEnsemble(nn.Module):
    """Models of the same bands and classes, used as one.

    Args:
        members: At least one model; each keeps its own normalisation and indices.

    References:
        Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS
        2017.
    """

    def __init__(self, members: Sequence[FireSegmentationModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.bands = members[0].bands

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits whose softmax is the mean of the members' softmax.

        Args:
            image: Reflectance, `(B, C, H, W)` float, H and W at least 32.

        Returns:
            Logits, `(B, K, H, W)` float32.

        Raises:
            FiresegError: As `FireSegmentationModel`.
        """
        return average_logits([member(image) for member in self.members])


SegmentationModel = FireSegmentationModel | FireSegmentationEnsemble
"""A model as maps and exports use it."""


def average_logits(logits: Sequence[Tensor]) -> Tensor:
    """Returns logits whose softmax is the mean of the softmax of several.

    The log of the mean, computed from logs, so that probabilities near 0 keep their digits.

    Args:
        logits: At least one, `(B, K, H, W)` each.

    Returns:
        Log of the mean probabilities, `(B, K, H, W)` float32.

    Example:
        >>> logits = [torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()]
        >>> average_logits([one.view(1, 2, 1, 1) for one in logits]).exp().flatten().tolist()  # doctest: +NUMBER
        [0.7, 0.3]
    """
    total = functools.reduce(torch.logaddexp, [one.float().log_softmax(1) for one in logits])
    return total - math.log(len(logits))
