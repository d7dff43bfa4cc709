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
        """The same batch on a device; from pinned memory the copy does not hold up the host."""
        image = self.image.to(device, non_blocking=True)
        return Batch(image, self.mask.to(device, non_blocking=True), self.names)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, as a data loader asks for it."""
        return Batch(self.image.pin_memory(), self.mask.pin_memory(), self.names)
