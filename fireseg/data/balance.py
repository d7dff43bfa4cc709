"""What makes up for fire being rare: class weights for the loss, sampling weights for the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fireseg.data.measure import PatchFacts, count_values
from fireseg.data.packed import map_array
from fireseg.data.patches import MASK_END, WAYS_OUT, read_array
from fireseg.data.store import masks_file
from fireseg.errors import FiresegError
from fireseg.metric import inverse_frequency_weights
from fireseg.task import IGNORE_INDEX


def compute_class_weights(
    split_dir: Path | str, num_classes: int, *, cap: float = 20.0, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Weights by inverse frequency of the classes in the masks of a split.

    Reads masks only, so that images need not be there. A run counts them in its one pass over the data.

    Args:
        split_dir: Folder with `*_mask.npy`, or with packed masks.
        num_classes: How many classes the masks have. Of packed ones, two means the delineations.
        cap: Largest ratio of two weights.
        ignore_index: Mask value that counts for nothing.

    Returns:
        One weight a class, `(num_classes,)` float32, mean 1 over the classes that occur; an absent one gets 1.

    Raises:
        FiresegError: If there is no mask, or a mask holds values that are no class.

    Example:
        >>> compute_class_weights("patches/train", 2)  # doctest: +SKIP
        tensor([0.35, 1.65])
    """
    counts: Counter[int] = Counter()
    faults = []
    for path, mask in _iter_masks(Path(split_dir), num_classes):
        if mask.dtype != np.uint8:
            faults.append(f"{path}: {mask.dtype}, but a mask is uint8; save mask.astype(np.uint8)")
            continue
        found = count_values(mask)
        if strange := [value for value in found if value >= num_classes and value != ignore_index]:
            faults.append(
                f"{path}: value {strange[0]}, but num_classes={num_classes} means 0 to {num_classes - 1} and "
                f"{ignore_index}; was it made for another task?"
            )
        counts.update(found)
    if faults:
        raise FiresegError(*faults[:20], *([f"and {len(faults) - 20} more"] if len(faults) > 20 else []))
    return torch.tensor(inverse_frequency_weights([counts[value] for value in range(num_classes)], cap))


def _iter_masks(folder: Path, num_classes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Where a mask is read from, and the mask."""
    packed = folder / masks_file("del" if num_classes == 2 else "gra")
    if packed.exists():
        for row, mask in enumerate(map_array(packed)):
            yield f"{packed}: row {row}", mask
        return
    paths = sorted(folder.glob(f"*{MASK_END}"))
    if not paths:
        raise FiresegError(f"{folder}: no *{MASK_END} in it; {WAYS_OUT}")
    for path in paths:
        yield str(path), read_array(path)


def sampling_weights(
    patches: Sequence[PatchFacts], *, fire_weight: float, fire_threshold: float, ignore_index: int = IGNORE_INDEX
) -> tuple[float, ...]:
    """How often each patch is drawn, beside the others.

    Args:
        patches: Facts of the training patches.
        fire_weight: Weight of a patch with fire; every other has 1.
        fire_threshold: A patch whose burned share of the labelled pixels is above has fire.
        ignore_index: Mask value of unlabelled pixels.
    """
    return tuple(fire_weight if facts.burned_share(ignore_index) > fire_threshold else 1.0 for facts in patches)
