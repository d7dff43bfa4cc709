"""Cuts tiles into patches: window positions, masking of labels, and patch statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import SettingError
from fireseg.prepare.options import LabelRule
from fireseg.task import CLOUD, IGNORE_INDEX, LIGHT_CLOUD, SHADOW, TASKS

Mask = NDArray[np.uint8]

Pixels = NDArray[np.bool_]

Reason = Literal["cloud", "unlabelled"]


class PatchPosition(NamedTuple):
    """The position of a square window in a tile.

    Attributes:
        row: First row of the window.
        col: First column of the window.
    """

    row: int
    col: int


class Disagreements(NamedTuple):
    """Numbers of pixels labelled by both masks with contradicting values.

    Attributes:
        graded_only: Pixels graded above 0, but not delineated.
        delineated_only: Pixels delineated, but of grade 0.
    """

    graded_only: int
    delineated_only: int


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a tile, with 255 where they are ignored.

    Attributes:
        delineation: `(H, W)` uint8, 0, 1 or 255.
        grading: `(H, W)` uint8, 0 to 4 or 255; all 255 if the tile has no grading.
        cloudy: `(H, W)`, True for pixels counted as cloud, whether their labels are ignored or not.
        unknown: `(H, W)`, True for pixels without image data.
        disagreements: Numbers of disagreeing pixels before any label was ignored.
    """

    delineation: Mask
    grading: Mask
    cloudy: Pixels
    unknown: Pixels
    disagreements: Disagreements


@dataclass(frozen=True, kw_only=True)
class WindowStatistics:
    """Statistics of a window.

    Attributes:
        cloud_fraction: Share of cloud among pixels with image data, 0 to 1.
        unknown_fraction: Share of all pixels without image data or beyond the tile, 0 to 1.
        delineated: Labelled pixels of each delineation class.
        graded: Labelled pixels of each grade; all 0 without a grading.
    """

    cloud_fraction: float
    unknown_fraction: float
    delineated: tuple[int, ...]
    graded: tuple[int, ...]

    @property
    def burn_fraction(self) -> float:
        """Burned share of the labelled pixels (of the grading if the delineation has none), 0 to 1."""
        counts = self.delineated if any(self.delineated) else self.graded
        return sum(counts[1:]) / max(sum(counts), 1)

    def find_exclusion_reason(self, max_cloud: float) -> Reason | None:
        """Returns the reason to leave the window out, or None.

        Args:
            max_cloud: Maximum cloud fraction, 0 to 1.
        """
        if self.cloud_fraction > max_cloud:
            return "cloud"
        return None if any(self.delineated) or any(self.graded) else "unlabelled"


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch cut from a tile.

    Attributes:
        window: Position in the tile.
        image: `(S, S, C)` uint16, reflectance times 10000, 0 without data.
        delineation: `(S, S)` uint8, 0, 1 or 255.
        grading: `(S, S)` uint8, 0 to 4 or 255.
        statistics: Statistics of the labels and clouds.
    """

    window: PatchPosition
    image: NDArray[np.uint16]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8]
    statistics: WindowStatistics


def mask_labels(
    delineation: Mask,
    grading: Mask | None,
    cloud: Mask | None,
    unknown: Pixels,
    *,
    clouds: LabelRule = "ignore",
    light_clouds: LabelRule = "keep",
    disagreement: LabelRule = "keep",
) -> Labels:
    """Sets ignored labels to 255 in copies of the masks.

    Args:
        delineation: `(H, W)` uint8, 0, 1 or 255.
        grading: `(H, W)` uint8, 0 to 4 or 255.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 unknown (treated as cloud).
        unknown: `(H, W)`, True for pixels without image data; their labels are always ignored.
        clouds: `ignore` ignores labels under opaque cloud and cloud shadow.
        light_clouds: `ignore` treats light cloud and haze as cloud.
        disagreement: `ignore` ignores labels where one mask is burned and the other is not.
    """
    delineated = delineation.copy()
    graded = np.full_like(delineated, IGNORE_INDEX) if grading is None else grading.copy()
    cloudy = np.zeros(delineated.shape, np.bool_)
    if cloud is not None:
        values = [CLOUD, SHADOW, IGNORE_INDEX] + ([LIGHT_CLOUD] if light_clouds == "ignore" else [])
        for value in values:
            cloudy |= cloud == value
    both = (delineated != IGNORE_INDEX) & (graded != IGNORE_INDEX)
    graded_only = both & (delineated == 0) & (graded > 0)
    delineated_only = both & (delineated > 0) & (graded == 0)
    ignored = unknown | cloudy if clouds == "ignore" else unknown.copy()
    if disagreement == "ignore":
        ignored |= graded_only | delineated_only
    delineated[ignored] = IGNORE_INDEX
    graded[ignored] = IGNORE_INDEX
    counts = Disagreements(int(graded_only.sum()), int(delineated_only.sum()))
    return Labels(delineation=delineated, grading=graded, cloudy=cloudy, unknown=unknown, disagreements=counts)


def cut_patches(
    image: NDArray[np.uint16], labels: Labels, *, size: int, stride: int, ignore_repeats: bool
) -> Iterator[Patch]:
    """Cuts a tile into patches, including those that will be left out.

    Args:
        image: `(H, W, C)` uint16.
        labels: Labels of the tile, `(H, W)` each.
        size: Patch height and width in pixels.
        stride: Distance between patches in pixels.
        ignore_repeats: True to set labels that an earlier patch contains to 255, as scores require.

    Yields:
        Patches row by row.
    """
    windows = plan_tile_windows(*labels.delineation.shape, size=size, stride=stride)
    repeats = mark_repeats(windows, size=size) if ignore_repeats else [None] * len(windows)
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
            statistics=_measure(labels, window, size, delineation, grading),
        )


def _measure(labels: Labels, window: PatchPosition, size: int, delineation: Mask, grading: Mask) -> WindowStatistics:
    unknown = cut_window(labels.unknown, window, size, True)
    cloudy = cut_window(labels.cloudy, window, size, False) & ~unknown
    num_unknown = int(unknown.sum())
    return WindowStatistics(
        cloud_fraction=int(cloudy.sum()) / max(unknown.size - num_unknown, 1),
        unknown_fraction=num_unknown / unknown.size,
        delineated=_count_classes(delineation, TASKS["del"].num_classes),
        graded=_count_classes(grading, TASKS["gra"].num_classes),
    )


def _count_classes(mask: Mask, num_classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(mask.ravel(), minlength=256)[:num_classes].tolist())


def plan_tile_windows(height: int, width: int, *, size: int, stride: int) -> list[PatchPosition]:
    """Returns window positions that cover a tile without gaps, row by row.

    The last window of a row or column is shifted inwards to end at the edge of the tile. A tile smaller than
    a window gets one window, which extends beyond the tile.

    Args:
        height: Tile height in pixels.
        width: Tile width in pixels.
        size: Patch height and width in pixels.
        stride: Distance between windows in pixels, 1 to `size`.

    Raises:
        SettingError: If the size or the stride is out of range.

    Example:
        >>> plan_tile_windows(4, 10, size=4, stride=4)
        [PatchPosition(row=0, col=0), PatchPosition(row=0, col=4), PatchPosition(row=0, col=6)]
    """
    if size < 1:
        raise SettingError(f"size: {size}, but must be at least 1 pixel")
    if not 1 <= stride <= size:
        raise SettingError(f"stride: {stride}, but must be 1 to the window size ({size}) to leave no gaps")
    rows, cols = (_window_starts(length, size, stride) for length in (height, width))
    return [PatchPosition(row, col) for row in rows for col in cols]


def mark_repeats(windows: Sequence[PatchPosition], *, size: int) -> list[NDArray[np.bool_]]:
    """Marks the pixels of each window that an earlier window contains.

    If these pixels are ignored, every pixel of the tile counts exactly once over all windows.

    Args:
        windows: All windows of a tile, as returned by `plan_tile_windows`.
        size: Patch height and width in pixels.

    Returns:
        One `(size, size)` mask per window, True where an earlier window contains the pixel.
    """
    rows, cols = ({window[axis] for window in windows} for axis in (0, 1))
    in_rows, in_cols = _mark_repeats_on_axis(rows, size), _mark_repeats_on_axis(cols, size)
    return [in_rows[window.row][:, None] | in_cols[window.col][None, :] for window in windows]


def cut_window(array: NDArray[Any], window: PatchPosition, size: int, fill: float) -> NDArray[Any]:
    """Copies the pixels of a window.

    Args:
        array: `(H, W)` or `(H, W, C)`.
        window: Position of the window.
        size: Patch height and width in pixels.
        fill: Value of pixels beyond the tile.

    Returns:
        `(size, size)` or `(size, size, C)`, of the same dtype.
    """
    part = array[window.row : window.row + size, window.col : window.col + size]
    if part.shape[:2] == (size, size):
        return part.copy()
    padded = np.full((size, size, *array.shape[2:]), fill, array.dtype)
    padded[: part.shape[0], : part.shape[1]] = part
    return padded


def get_bounds(
    transform: tuple[float, float, float, float, float, float], window: PatchPosition, size: int
) -> tuple[float, float, float, float]:
    """Returns x_min, y_min, x_max and y_max of a window in the units of the tile's CRS.

    Args:
        transform: Affine transform of the tile: x = a col + b row + c, y = d col + e row + f.
        window: Position of the window.
        size: Patch height and width in pixels.

    Example:
        >>> get_bounds((10.0, 0.0, 500.0, 0.0, -10.0, 900.0), PatchPosition(1, 2), 4)
        (520.0, 850.0, 560.0, 890.0)
    """
    a, b, c, d, e, f = transform
    corners = [(window.row + down, window.col + right) for down in (0, size) for right in (0, size)]
    xs = [a * col + b * row + c for row, col in corners]
    ys = [d * col + e * row + f for row, col in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _window_starts(length: int, size: int, stride: int) -> list[int]:
    last = max(length - size, 0)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def _mark_repeats_on_axis(starts: set[int], size: int) -> dict[int, Pixels]:
    """Marks, for each start along an axis, the pixels that the previous window contains."""
    repeats: dict[int, Pixels] = {}
    end = 0
    for start in sorted(starts):
        repeats[start] = np.arange(start, start + size) < end
        end = start + size
    return repeats
