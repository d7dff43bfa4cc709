"""A tile cut into patches, each with what it holds in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fireseg.data.cutting.labels import Labels
from fireseg.data.cutting.windows import Window, cut, lay_windows, mark_repeats
from fireseg.task import DELINEATION, GRADING, IGNORE_INDEX

Reason = Literal["cloud", "unlabelled"]


@dataclass(frozen=True, kw_only=True)
class WindowFacts:
    """A window in numbers.

    Attributes:
        cloud_fraction: Share of cloud among the pixels that the image knows, 0 to 1.
        unknown_fraction: Share of all pixels without a value in the image or beyond the tile, 0 to 1.
        delineated: Labelled pixels of each class of the delineation.
        graded: Labelled pixels of each grade; all 0 without a grading.
    """

    cloud_fraction: float
    unknown_fraction: float
    delineated: tuple[int, ...]
    graded: tuple[int, ...]

    @property
    def burn_fraction(self) -> float:
        """Burned among labelled pixels: of the delineation, or of the grading where only that is labelled; else 0."""
        counts = self.delineated if any(self.delineated) else self.graded
        return sum(counts[1:]) / max(sum(counts), 1)

    def why_left_out(self, max_cloud: float) -> Reason | None:
        """Why nothing is to be learnt from the window, or None.

        Args:
            max_cloud: Highest share of cloud that is kept.
        """
        if self.cloud_fraction > max_cloud:
            return "cloud"
        return None if any(self.delineated) or any(self.graded) else "unlabelled"


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One window of a tile.

    Attributes:
        window: Where it lies.
        image: `(S, S, C)` uint16, reflectance times 10000, 0 where nothing is known.
        delineation: `(S, S)` uint8, 0, 1, 255.
        grading: `(S, S)` uint8, 0 to 4, 255.
        facts: What it holds.
    """

    window: Window
    image: NDArray[np.uint16]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8]
    facts: WindowFacts


def cut_patches(image: NDArray[np.uint16], labels: Labels, *, size: int, stride: int, is_once: bool) -> Iterator[Patch]:
    """Cuts a tile into all its windows, also those that are not worth keeping.

    Args:
        image: `(H, W, C)` uint16.
        labels: What of the tile counts, `(H, W)` each.
        size: Side of a window.
        stride: Pixels from one window to the next.
        is_once: Whether what a window repeats of one before becomes 255, as scores want it.

    Yields:
        Patches row by row.
    """
    windows = lay_windows(*labels.delineation.shape, size=size, stride=stride)
    repeats = mark_repeats(windows, size=size) if is_once else [None] * len(windows)
    for window, repeated in zip(windows, repeats, strict=True):
        delineation = cut(labels.delineation, window, size, IGNORE_INDEX)
        grading = cut(labels.grading, window, size, IGNORE_INDEX)
        if repeated is not None:
            delineation[repeated] = IGNORE_INDEX
            grading[repeated] = IGNORE_INDEX
        yield Patch(
            window=window,
            image=cut(image, window, size, 0),
            delineation=delineation,
            grading=grading,
            facts=_measure(labels, window, size, delineation, grading),
        )


def _measure(
    labels: Labels, window: Window, size: int, delineation: NDArray[np.uint8], grading: NDArray[np.uint8]
) -> WindowFacts:
    unknown = cut(labels.unknown, window, size, True)
    cloudy = cut(labels.cloudy, window, size, False) & ~unknown
    num_unknown = int(unknown.sum())
    return WindowFacts(
        cloud_fraction=int(cloudy.sum()) / max(unknown.size - num_unknown, 1),
        unknown_fraction=num_unknown / unknown.size,
        delineated=_count(delineation, len(DELINEATION)),
        graded=_count(grading, len(GRADING)),
    )


def _count(mask: NDArray[np.uint8], num_classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(mask.ravel(), minlength=256)[:num_classes].tolist())
