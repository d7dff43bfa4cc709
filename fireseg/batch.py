"""The one thing that flows: some patches, their masks and their names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Some patches side by side.

    Attributes:
        image: Surface reflectance, `(B, C, H, W)` float32, mostly 0 to 1.
        mask: Class of every pixel, `(B, H, W)` uint8, 255 where nobody labelled.
        names: Patch names, B of them.
    """

    image: Tensor
    mask: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; from pinned memory to CUDA the copy does not hold up the host."""
        # Elsewhere the host must wait: a loader may fill the same memory with its next batch.
        is_free = device.type == "cuda"
        image, mask = (part.to(device, non_blocking=is_free) for part in (self.image, self.mask))
        return Batch(image, mask, self.names)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, as a data loader asks for it."""
        return Batch(self.image.pin_memory(), self.mask.pin_memory(), self.names)
