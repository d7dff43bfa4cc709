"""Weights against imbalance: of the classes in the loss, and of patches in their sampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fireseg.data.format import masks_file
from fireseg.data.patches import DATA_ROOT_HELP, MASK_SUFFIX, read_array
from fireseg.data.reader import map_array
from fireseg.data.statistics import PatchStatistics, count_values
from fireseg.errors import FiresegError, shorten
from fireseg.task import IGNORE_INDEX, inverse_frequency_weights


def compute_class_weights(
    split_dir: Path | str, num_classes: int, *, cap: float = 20.0, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Computes inverse-frequency class weights from the masks of a split.

    Only masks are read, and each counts whole. A training run counts the classes in its single pass over the data
    instead, and each pixel of a tile once where patches overlap.

    Args:
        split_dir: Folder with `*_mask.npy`, or with packed masks.
        num_classes: Number of classes. For packed masks, 2 selects the delineations.
        cap: Largest ratio of two weights.
        ignore_index: Mask value of unlabelled pixels.

    Returns:
        One weight per class, `(num_classes,)` float32, mean 1 over the classes that occur; an absent one gets 1.

    Raises:
        FiresegError: If there is no mask, or a mask has values outside the classes.

    Example:
        >>> compute_class_weights("patches/train", 2)  # doctest: +SKIP
        tensor([0.35, 1.65])
    """
    counts: Counter[int] = Counter()
    faults = []
    for location, mask in _iter_masks(Path(split_dir), num_classes):
        if mask.dtype != np.uint8:
            faults.append(f"{location}: {mask.dtype}, but a mask must be uint8; save mask.astype(np.uint8)")
            continue
        mask_counts = count_values(mask)
        if unknown := [value for value in mask_counts if value >= num_classes and value != ignore_index]:
            faults.append(
                f"{location}: value {unknown[0]}, but num_classes={num_classes} means 0 to {num_classes - 1} and "
                f"{ignore_index}; was it made for another task?"
            )
        counts.update(mask_counts)
    if faults:
        raise FiresegError(*shorten(faults))
    return torch.tensor(inverse_frequency_weights([counts[value] for value in range(num_classes)], cap))


def compute_sampling_weights(
    patches: Sequence[PatchStatistics], *, fire_weight: float, fire_threshold: float, ignore_index: int = IGNORE_INDEX
) -> tuple[float, ...]:
    """Returns the sampling weight of each patch.

    Args:
        patches: Statistics of the training patches.
        fire_weight: Weight of a patch with fire; every other patch has 1.
        fire_threshold: A patch has fire if more than this share of its labelled pixels is burned.
        ignore_index: Mask value of unlabelled pixels.
    """
    return tuple(fire_weight if patch.burned_share(ignore_index) > fire_threshold else 1.0 for patch in patches)


def _iter_masks(folder: Path, num_classes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields location and content of each mask."""
    packed = folder / masks_file("del" if num_classes == 2 else "gra")
    if packed.exists():
        for row, mask in enumerate(map_array(packed)):
            yield f"{packed}: row {row}", mask
        return
    paths = sorted(folder.glob(f"*{MASK_SUFFIX}"))
    if not paths:
        raise FiresegError(f"{folder}: no *{MASK_SUFFIX} in it; {DATA_ROOT_HELP}")
    for path in paths:
        yield str(path), read_array(path)
