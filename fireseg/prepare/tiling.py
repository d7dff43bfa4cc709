"""Where the windows of a tile lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import SettingError
from fireseg.task import CLOUD, DELINEATION_CLASSES, GRADING_CLASSES, IGNORE_INDEX, LIGHT_CLOUD, SHADOW


class Window(NamedTuple):
    """A square of a tile.

    Attributes:
        row: First row.
        col: First column.
    """

    row: int
    col: int


def plan_tile_windows(height: int, width: int, *, size: int, stride: int) -> list[Window]:
    """Covers a tile with windows, row by row.

    Every pixel lies in one at least: the last window of a row or column is shifted inwards to end with
    the tile. Where the tile is smaller than a window there is one, which reaches beyond it.

    Args:
        height: Rows of the tile.
        width: Columns of the tile.
        size: Side of a window.
        stride: Pixels from one to the next, 1 to `size`.

    Raises:
        SettingError: If windows of this stride would leave gaps.

    Example:
        >>> lay_windows(4, 10, size=4, stride=4)
        [Window(row=0, col=0), Window(row=0, col=4), Window(row=0, col=6)]
    """
    if size < 1:
        raise SettingError(f"size: {size}, but a window is 1 pixel wide at least")
    if not 1 <= stride <= size:
        raise SettingError(
            f"stride: {stride}, but 1 to the size of a window ({size}) leaves no gaps; choose among these"
        )
    return [Window(row, col) for row in _starts(height, size, stride) for col in _starts(width, size, stride)]


def mark_repeats(windows: Sequence[Window], *, size: int) -> list[NDArray[np.bool_]]:
    """What each window shows that one before it has shown already.

    Where these pixels are ignored, every pixel of the tile counts exactly once over all windows.

    Args:
        windows: All windows of a tile, as `plan_tile_windows` gives them.
        size: Side of a window.

    Returns:
        One `(size, size)` mask a window, True where the pixel came before.
    """
    rows, cols = ({window[axis] for window in windows} for axis in (0, 1))
    seen_rows, seen_cols = _mark_seen(rows, size), _mark_seen(cols, size)
    return [seen_rows[window.row][:, None] | seen_cols[window.col][None, :] for window in windows]


def cut_window(array: NDArray[Any], window: Window, size: int, fill: float) -> NDArray[Any]:
    """The pixels of a window, in an array of their own.

    Args:
        array: `(H, W)` or `(H, W, C)`.
        window: Where.
        size: Side of the window.
        fill: Value of what lies beyond the tile.

    Returns:
        `(size, size)` or `(size, size, C)`, of the same type.
    """
    part = array[window.row : window.row + size, window.col : window.col + size]
    if part.shape[:2] == (size, size):
        return part.copy()
    padded = np.full((size, size, *array.shape[2:]), fill, array.dtype)
    padded[: part.shape[0], : part.shape[1]] = part
    return padded


def get_bounds(
    transform: tuple[float, float, float, float, float, float], window: Window, size: int
) -> tuple[float, float, float, float]:
    """Smallest x, smallest y, largest x and largest y of a window, in the units of the tile's reference system.

    Args:
        transform: Of the tile: x = a col + b row + c, y = d col + e row + f.
        window: Where.
        size: Side of the window.

    Example:
        >>> get_bounds((10.0, 0.0, 500.0, 0.0, -10.0, 900.0), Window(1, 2), 4)
        (520.0, 850.0, 560.0, 890.0)
    """
    a, b, c, d, e, f = transform
    corners = [(window.row + down, window.col + right) for down in (0, size) for right in (0, size)]
    xs = [a * col + b * row + c for row, col in corners]
    ys = [d * col + e * row + f for row, col in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _starts(length: int, size: int, stride: int) -> list[int]:
    last = max(length - size, 0)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def _mark_seen(starts: set[int], size: int) -> dict[int, NDArray[np.bool_]]:
    """For each start along one side, which of its pixels the start before reaches."""
    seen: dict[int, NDArray[np.bool_]] = {}
    end = 0
    for start in sorted(starts):
        seen[start] = np.arange(start, start + size) < end
        end = start + size
    return seen


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


def mask_labels(
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


Reason = Literal["cloud", "unlabelled"]


@dataclass(frozen=True, kw_only=True)
class WindowStatistics:
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
    facts: WindowStatistics


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
    windows = plan_tile_windows(*labels.delineation.shape, size=size, stride=stride)
    repeats = mark_repeats(windows, size=size) if is_once else [None] * len(windows)
    for window, repeated in zip(windows, repeats, strict=True):
        delineation = cut_window(labels.delineation, window, size, IGNORE_INDEX)
        grading = cut_window(labels.grading, window, size, IGNORE_INDEX)
        if repeated is not None:
            delineation[repeated] = IGNORE_INDEX
            grading[repeated] = IGNORE_INDEX
        yield Patch(
            window=window,
            image=cut_window(image, window, size, 0),
            delineation=delineation,
            grading=grading,
            facts=_measure(labels, window, size, delineation, grading),
        )


def _measure(
    labels: Labels, window: Window, size: int, delineation: NDArray[np.uint8], grading: NDArray[np.uint8]
) -> WindowStatistics:
    unknown = cut_window(labels.unknown, window, size, True)
    cloudy = cut_window(labels.cloudy, window, size, False) & ~unknown
    num_unknown = int(unknown.sum())
    return WindowStatistics(
        cloud_fraction=int(cloudy.sum()) / max(unknown.size - num_unknown, 1),
        unknown_fraction=num_unknown / unknown.size,
        delineated=_count(delineation, len(DELINEATION_CLASSES)),
        graded=_count(grading, len(GRADING_CLASSES)),
    )


def _count(mask: NDArray[np.uint8], num_classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(mask.ravel(), minlength=256)[:num_classes].tolist())
