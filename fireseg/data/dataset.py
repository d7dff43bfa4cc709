"""Patches on disk as tensors, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fireseg.data.augment import Augmentation
from fireseg.data.bands import BAND_NAMES, select_bands
from fireseg.data.order import Draw, sample_rng
from fireseg.data.patches import PatchSource
from fireseg.data.sources import open_source
from fireseg.task import IGNORE_INDEX


class Sample(NamedTuple):
    """One patch.

    Attributes:
        image: Reflectance, `(C, H, W)` float32.
        mask: Classes, `(H, W)` uint8, 255 where nobody labelled.
        name: The name of the patch.
    """

    image: Tensor
    mask: Tensor
    name: str


class WildfirePatchDataset(Dataset[Sample]):
    """The patches of one split, packed or one .npy each.

    Asked for a number it gives the patch as in epoch 0; asked for a `Draw` it gives what that draw
    stands for. Either way the answer depends on the question and the seed alone, never on what was
    asked before: worker processes may share the work in any way.

    Args:
        split_dir: Folder of `{name}_image.npy` and `{name}_mask.npy`, or of packed arrays; or its patches,
            opened before.
        bands: Bands to give, in this order.
        names: Which patches take part; all that there are by default.
        task_name: `del` or `gra`: which masks to read where both are stored; `del` by default.
        augment: What happens to a patch; nothing by default.
        fire_threshold: A patch whose burned share of the labelled pixels is above is augmented as one with fire.
        ignore_index: Mask value of unlabelled pixels.
        seed: Another seed, other augmentations.

    Raises:
        FiresegError: If the folder is missing or has no patch.

    Example:
        >>> image, mask, name = WildfirePatchDataset("patches/train")[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        split_dir: Path | str | PatchSource,
        *,
        bands: Sequence[str] = BAND_NAMES,
        names: Iterable[str] | None = None,
        task_name: str | None = None,
        augment: Augmentation | None = None,
        fire_threshold: float = 0.01,
        ignore_index: int = IGNORE_INDEX,
        seed: int = 0,
    ) -> None:
        source = open_source(Path(split_dir), task_name) if isinstance(split_dir, (str, Path)) else split_dir
        self.patches = source if names is None else source.take(names)
        self.bands = tuple(bands)
        self.augment = augment
        self.fire_threshold = fire_threshold
        self.ignore_index = ignore_index
        self.seed = seed

    @property
    def names(self) -> tuple[str, ...]:
        """Patch names, in the order of their numbers."""
        return self.patches.names

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, which: int | Draw) -> Sample:
        """The patch with this number, or for this draw."""
        draw = which if isinstance(which, Draw) else Draw(0, range(len(self))[which], range(len(self))[which])
        image, mask = self.patches.read(draw.patch)
        if (channels := select_bands(image.shape[2], self.bands, self.patches.bands)) is not None:
            image = image[..., channels]
        if self.augment is None:
            image, mask = np.ascontiguousarray(image.transpose(2, 0, 1)), np.ascontiguousarray(mask)
        else:
            rng = sample_rng(self.seed, draw)
            image, mask = self.augment(image, mask, rng, is_fire=self._is_fire(mask))
        return Sample(torch.from_numpy(image), torch.from_numpy(mask), self.names[draw.patch])

    def _is_fire(self, mask: NDArray[np.uint8]) -> bool:
        num_labelled = np.count_nonzero(mask != self.ignore_index)
        num_unburned = np.count_nonzero(mask == 0)
        return bool(num_labelled - num_unburned > self.fire_threshold * num_labelled)
