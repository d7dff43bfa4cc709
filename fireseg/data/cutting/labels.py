"""Which labels of a tile count: not under clouds, not where nothing is known, not where masks disagree if so wished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.tiles.masks import CLOUD, LIGHT_CLOUD, SHADOW
from fireseg.task import IGNORE_INDEX

Clouds = Literal["ignore", "keep"]
Disagreement = Literal["keep", "ignore"]

Mask = NDArray[np.uint8]
Pixels = NDArray[np.bool_]


class Disagreements(NamedTuple):
    """Pixels that both masks label, each otherwise.

    Attributes:
        graded_only: Graded above 0, but not delineated.
        delineated_only: Delineated, but of grade 0.
    """

    graded_only: int
    delineated_only: int


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What of a tile counts.

    Attributes:
        delineation: `(H, W)` uint8, 0, 1, and 255 where it does not count.
        grading: `(H, W)` uint8, 0 to 4, and 255 where it does not count; all 255 without a grading.
        cloudy: `(H, W)`, True under what is taken for cloud, whether it counts or not.
        unknown: `(H, W)`, True where the image has no value.
        disagreements: How many there were, before anything was ignored.
    """

    delineation: Mask
    grading: Mask
    cloudy: Pixels
    unknown: Pixels
    disagreements: Disagreements


def settle_labels(
    delineation: Mask,
    grading: Mask | None,
    cloud: Mask | None,
    unknown: Pixels,
    *,
    clouds: Clouds = "ignore",
    light_clouds: Clouds = "keep",
    disagreement: Disagreement = "keep",
) -> Labels:
    """Puts 255 over every label that should not count. The masks given stay as they are.

    Args:
        delineation: `(H, W)` uint8, 0, 1 or 255.
        grading: `(H, W)` uint8, 0 to 4 or 255.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 not known, which is treated as cloud.
        unknown: `(H, W)`, True where the image has no value: nothing can be labelled there.
        clouds: Whether labels under opaque cloud and its shadow are ignored.
        light_clouds: Whether light cloud and haze are taken for cloud; counts only if clouds are ignored, too.
        disagreement: Whether a label is ignored where one mask says burned and the other not.
    """
    settled = delineation.copy()
    graded = np.full_like(settled, IGNORE_INDEX) if grading is None else grading.copy()
    cloudy = np.zeros(settled.shape, np.bool_)
    if cloud is not None:
        kinds = [CLOUD, SHADOW, IGNORE_INDEX] + ([LIGHT_CLOUD] if light_clouds == "ignore" else [])
        for kind in kinds:
            cloudy |= cloud == kind
    both = (settled != IGNORE_INDEX) & (graded != IGNORE_INDEX)
    graded_only = both & (settled == 0) & (graded > 0)
    delineated_only = both & (settled > 0) & (graded == 0)
    ignored = unknown | cloudy if clouds == "ignore" else unknown.copy()
    if disagreement == "ignore":
        ignored |= graded_only | delineated_only
    settled[ignored] = IGNORE_INDEX
    graded[ignored] = IGNORE_INDEX
    counts = Disagreements(int(graded_only.sum()), int(delineated_only.sum()))
    return Labels(delineation=settled, grading=graded, cloudy=cloudy, unknown=unknown, disagreements=counts)
