"""Classes of a mask: names, colours, the ignored value, and weights by frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fireseg.errors import FiresegError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = 255
"""Mask value of unlabelled pixels, which losses, metrics and statistics ignore."""

DELINEATION_CLASSES = ("background", "fire")

GRADING_CLASSES = ("no_damage", "negligible", "moderate", "high", "destroyed")

LANDCOVER_CLASSES = {
    10: "tree_cover",
    20: "shrubland",
    30: "grassland",
    40: "cropland",
    50: "built_up",
    60: "bare",
    70: "snow_and_ice",
    80: "water",
    90: "herbaceous_wetland",
    95: "mangroves",
    100: "moss_and_lichen",
}
"""Values of ESA WorldCover (Zanaga et al. 2022, doi:10.5281/zenodo.7254221) and their names."""

NUM_AUXILIARY = len(LANDCOVER_CLASSES)
"""Number of classes of the auxiliary task."""

CLEAR, CLOUD, LIGHT_CLOUD, SHADOW = range(4)
"""Values of a CEMS cloud mask (CM)."""

# Unburned ground is grey so that burned classes stand out; the ramp darkens steadily, so it is readable
# without colour vision.
_COLOURS = {
    2: ("#d9d9d9", "#c1272d"),
    5: ("#d9d9d9", "#fed976", "#fd8d3c", "#e31a1c", "#67000d"),
}


def get_class_names(num_classes: int) -> tuple[str, ...]:
    """Returns the class names of a CEMS mask, as used in metric keys and legends.

    Args:
        num_classes: 2 for a delineation (DEL), 5 for a grading (GRA).

    Returns:
        One name for each class, in the order of the mask values.

    Raises:
        FiresegError: If no CEMS product has that many classes.

    Example:
        >>> get_class_names(2)
        ('background', 'fire')
    """
    for names in (DELINEATION_CLASSES, GRADING_CLASSES):
        if len(names) == num_classes:
            return names
    raise FiresegError(
        f"num_classes: {num_classes}, but a CEMS mask has 2 classes (task=del) or 5 (task=gra); "
        "for other tasks, name the classes in task.class_names"
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labelling task: the values of a mask and their names.

    Class 0 is unburned; every class above it is fire.

    Args:
        name: Short name: `del`, `gra`, or another.
        num_classes: Number of classes including unburned, at least 2.
        class_names: One name for each class.
        ignore_index: Mask value of unlabelled pixels, outside the classes.
        auxiliary: Second task that is learnt beside this one and dropped afterwards: `landcover`, the classes of ESA
            WorldCover, or None.
        auxiliary_weight: Weight of its cross-entropy in the loss.
    """

    name: str
    num_classes: Annotated[int, Field(ge=2, le=254)]
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    ignore_index: Annotated[int, Field(ge=0, le=255)] = IGNORE_INDEX
    auxiliary: Literal["landcover"] | None = None
    auxiliary_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.4

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise FiresegError(
                f"task.class_names: {len(self.class_names)} names for task.num_classes={self.num_classes}; "
                "give one name for each class"
            )
        if self.ignore_index < self.num_classes:
            raise FiresegError(
                f"task.ignore_index: {self.ignore_index} is one of the classes 0 to {self.num_classes - 1}; "
                "choose a value that no class has, such as 255"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """One label for each class in legends: `unburned` and `burned`, or the names of the grades in plain words."""
        if self.class_names == DELINEATION_CLASSES:
            return ("unburned", "burned")
        return tuple(name.replace("_", " ") for name in self.class_names)

    @property
    def colours(self) -> tuple[str, ...]:
        """One `#rrggbb` for each class: grey for unburned, then pale to dark with severity."""
        if self.num_classes in _COLOURS:
            return _COLOURS[self.num_classes]
        ramp = [[int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in _COLOURS[5][1:]]
        steps = np.linspace(0, len(ramp) - 1, self.num_classes - 1)
        mixed = np.stack([np.interp(steps, range(len(ramp)), channel) for channel in zip(*ramp, strict=True)], axis=1)
        return (_COLOURS[5][0], *("#" + "".join(f"{round(part):02x}" for part in colour) for colour in mixed))


TASKS = {
    "del": Task(name="del", num_classes=len(DELINEATION_CLASSES), class_names=DELINEATION_CLASSES),
    "gra": Task(name="gra", num_classes=len(GRADING_CLASSES), class_names=GRADING_CLASSES),
}
"""Tasks of the CEMS masks by name."""


def check_classes(place: str, classes: Tensor, num_classes: int) -> None:
    """Checks that class values exist, for tensors on the CPU; elsewhere the check would block the host.

    Args:
        place: Location for the error message.
        classes: Integer tensor of any shape, without the ignored value.
        num_classes: Number of classes K.

    Raises:
        FiresegError: If a value of a CPU tensor is outside 0 to K - 1.
    """
    if classes.device.type != "cpu" or not classes.numel():
        return
    low, high = (int(value) for value in classes.aminmax())
    if low < 0 or high >= num_classes:
        value = low if low < 0 else high
        raise FiresegError(
            f"{place}: value {value}, but the classes are 0 to {num_classes - 1}; use masks of this task, or set task"
        )


def select_main_task(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns logits and classes without those of the auxiliary task, which training batches may have.

    Args:
        logits: Logits, `(B, K, H, W)`, or `(B, K + NUM_AUXILIARY, H, W)`.
        mask: Classes, `(B, H, W)`, or those of both tasks, `(B, 2, H, W)`.
    """
    return (logits[:, :-NUM_AUXILIARY], mask[:, 0]) if mask.ndim == 4 else (logits, mask)


def inverse_frequency_weights(counts: Sequence[int], cap: float = 20.0) -> tuple[float, ...]:
    """Computes class weights by inverse frequency, capped, with mean 1.

    w = min(n_max / n, cap), divided by its mean over the classes that occur. Since the cap is applied before
    the division, the mean is 1 and the largest weight is at most `cap` times the smallest.

    Args:
        counts: Labelled pixels of each class.
        cap: Largest ratio of two weights, at least 1.

    Returns:
        One weight for each class; 1 for a class that does not occur.

    Raises:
        ValueError: If a count is negative, or `cap` is below 1.

    Example:
        >>> inverse_frequency_weights([90, 30, 0])
        (0.5, 1.5, 1.0)
    """
    if min(counts) < 0 or not cap >= 1:
        raise ValueError(f"counts {tuple(counts)}, cap {cap}: want counts from 0 and a cap from 1")
    most = max(counts)
    ratios = [min(most / count, cap) if count else 0.0 for count in counts]
    mean = sum(ratios) / max(sum(count > 0 for count in counts), 1)
    return tuple(ratio / mean if ratio else 1.0 for ratio in ratios)
