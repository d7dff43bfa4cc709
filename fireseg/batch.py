"""The batch of patches that data loaders yield and that training, evaluation and plots take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A batch of patches.

    Attributes:
        image: Surface reflectance, `(B, C, H, W)` float32, mostly 0 to 1.
        mask: Class of each pixel, `(B, H, W)` uint8; 255 for unlabelled pixels.
        names: Patch names, B of them.
    """

    image: Tensor
    mask: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """Copies the batch to a device; from pinned memory to CUDA without blocking the host."""
        # For other devices the host must wait: a loader may reuse the same memory for its next batch.
        is_cuda = device.type == "cuda"
        image, mask = (tensor.to(device, non_blocking=is_cuda) for tensor in (self.image, self.mask))
        return Batch(image, mask, self.names)

    def pin_memory(self) -> Batch:
        """Copies the batch to page-locked memory; called by torch's DataLoader."""
        return Batch(self.image.pin_memory(), self.mask.pin_memory(), self.names)
