"""Loss of a task together with an auxiliary task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fireseg.loss.combined import CombinedLoss
from fireseg.loss.cross_entropy import focal_sums
from fireseg.loss.pixels import compute_log_probabilities, mean_cost
from fireseg.task import NUM_AUXILIARY, select_main_task


class AuxiliaryLoss(nn.Module):
    """Loss of a task, and `weight` x cross-entropy of the auxiliary task that shares its features.

    Validation has no auxiliary task: for masks `(B, H, W)` it is the loss of the task.

    Args:
        main: Loss of the task.
        weight: Weight of the auxiliary task.
    """

    def __init__(self, main: CombinedLoss, weight: float) -> None:
        super().__init__()
        self.main = main
        self.weight = weight

    @property
    def class_weights(self) -> Tensor | None:
        """Class weights of the task."""
        return self.main.class_weights

    def forward(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its detached parts, those of the task and `auxiliary_loss`.

        Args:
            logits: Logits of both tasks `(B, K + NUM_AUXILIARY, H, W)`, or of the task.
            targets: Classes of both tasks `(B, 2, H, W)`, or of the task `(B, H, W)`.
        """
        if targets.ndim == 3:
            return self.main(logits, targets)
        return self.combine(self.compute_sums(logits, targets))

    def compute_sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the sums of the task, and the two of the cross-entropy of the auxiliary task."""
        cover = compute_log_probabilities(
            logits[:, -NUM_AUXILIARY:], targets[:, 1], ignore_index=self.main.ignore_index
        )
        return torch.cat([self.main.compute_sums(*select_main_task(logits, targets)), focal_sums(cover)])

    def combine(self, sums: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its parts, as `forward` does, from the sums of `compute_sums`."""
        total, parts = self.main.combine(sums[:-2])
        cost = mean_cost(sums[-2:])
        return total + self.weight * cost, parts | {"auxiliary_loss": cost.detach()}
