"""Mosaics of fires: the patches of a tile and their predictions reassembled, and detection scores over patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.data.format import METADATA
from fireseg.errors import FiresegError
from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.memory import check_memory
from fireseg.metric import Component, DetectionRule, count_detections, detection_scores
from fireseg.task import IGNORE_INDEX

PREVIEW_PX = 320
"""Longest side of a preview image."""

Layers = dict[str, NDArray[Any]]
"""Arrays of the same shape by name."""


class PatchSummary(NamedTuple):
    """Values of a patch that detection needs, over its labelled pixels.

    Attributes:
        is_labelled: True if any pixel is labelled.
        is_burned: True if any pixel burned.
        max_log_odds: Highest log-odds of fire.
        is_argmax_burned: True if the argmax class of any pixel is above 0.
        min_nbr: Lowest burn ratio; infinite if a band is missing.
        is_fixed_burned: True if any pixel is burned by the fixed rule.
        components: Connected burned areas that a detection rule selects from.
    """

    is_labelled: bool
    is_burned: bool
    max_log_odds: float
    is_argmax_burned: bool
    min_nbr: float
    is_fixed_burned: bool
    components: tuple[Component, ...]


class PatchPrediction(NamedTuple):
    """A patch with its predictions.

    Attributes:
        image: Reflectance, `(C, S, S)` float32.
        truth: Classes, `(S, S)` uint8, 255 where unlabelled.
        layers: Predictions by name, `(S, S)` each.
        summary: Values for detection; None if not needed.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    layers: Layers
    summary: PatchSummary | None = None


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """A fire assembled from its patches.

    Attributes:
        fire: Fire with the positions of its patches.
        truth: Classes, `(H, W)` uint8, 255 where unlabelled or not covered by a patch.
        is_covered: True where there is a patch, `(H, W)` bool.
        layers: Predictions by name, `(H, W)` each, 0 where there is no patch.
        preview_image: Every n-th row and column of the reflectance, `(C, h, w)` float32, 0 where there is no patch.
        preview_step: The n of `preview_image`.
        patches: Summaries of the patches, in order.
    """

    fire: Fire
    truth: NDArray[np.uint8]
    is_covered: NDArray[np.bool_]
    layers: Layers
    preview_image: NDArray[np.float32]
    preview_step: int
    patches: list[PatchSummary] = field(default_factory=list)

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """True where a pixel is labelled."""
        return self.truth != IGNORE_INDEX

    @property
    def is_burned(self) -> NDArray[np.bool_]:
        """True where a pixel is labelled with a class above 0."""
        return self.is_labelled & (self.truth > 0)


def assemble_mosaics(patches: Iterable[PatchPrediction], fires: Iterable[Fire]) -> Iterator[Mosaic]:
    """Assembles patches into mosaics and yields each fire as soon as its last patch is there.

    The patches of a tile follow one another, so that only one tile is in memory at a time. Where patches overlap,
    the first labelled one counts.

    Args:
        patches: All patches of the split, in order.
        fires: All fires of the split.

    Raises:
        FiresegError: If overlapping patches label the same pixel differently, which means wrong positions.
    """
    positions: dict[int, tuple[Fire, PatchPosition]] = {
        position.number: (fire, position) for fire in fires for position in fire.positions
    }
    incomplete: dict[str, tuple[Mosaic, int]] = {}
    for number, patch in enumerate(patches):
        fire, position = positions[number]
        mosaic, num_left = incomplete.pop(fire.name, None) or (_make_mosaic(fire, patch), len(fire.positions))
        _add_patch(mosaic, position, patch)
        if num_left == 1:
            yield mosaic
        else:
            incomplete[fire.name] = mosaic, num_left - 1


def _make_mosaic(fire: Fire, patch: PatchPrediction) -> Mosaic:
    shape = fire.height, fire.width
    check_memory(
        fire.height * fire.width * (2 + sum(layer.itemsize for layer in patch.layers.values())),
        f"{fire.name}: patches from a rectangle of {fire.height:,} x {fire.width:,} pixels",
        f"correct row and col of its patches in {METADATA}, or cut the tile into smaller ones",
    )
    step = -(-max(shape) // PREVIEW_PX)
    preview_shape = tuple(-(-side // step) for side in shape)
    return Mosaic(
        fire=fire,
        truth=np.full(shape, IGNORE_INDEX, np.uint8),
        is_covered=np.zeros(shape, bool),
        layers={name: np.zeros(shape, layer.dtype) for name, layer in patch.layers.items()},
        preview_image=np.zeros((len(patch.image), *preview_shape), np.float32),
        preview_step=step,
    )


def _add_patch(mosaic: Mosaic, position: PatchPosition, patch: PatchPrediction) -> None:
    _, row, col = position
    sides = zip(patch.truth.shape, mosaic.truth.shape, (row, col), strict=True)
    height, width = (min(side, whole - start) for side, whole, start in sides)
    target = slice(row, row + height), slice(col, col + width)
    source = slice(height), slice(width)
    before, new = mosaic.truth[target], patch.truth[source]
    is_free = before == IGNORE_INDEX
    if (~is_free & (new != IGNORE_INDEX) & (new != before)).any():
        raise FiresegError(
            f"{mosaic.fire.name}: overlapping patches, including the one at row {row} and column {col}, label the "
            f"same pixels differently; give row and col of each patch in {METADATA} in pixels of its tile"
        )
    mosaic.is_covered[target] = True
    np.copyto(before, new, where=is_free)
    for name, layer in mosaic.layers.items():
        np.copyto(layer[target], patch.layers[name][source], where=is_free)
    step = mosaic.preview_step
    image = patch.image[:, -row % step : height : step, -col % step : width : step]
    top, left = -(-row // step), -(-col // step)
    mosaic.preview_image[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    if patch.summary is not None:
        mosaic.patches.append(patch.summary)


def summarize_patch(
    truth: NDArray[np.uint8],
    *,
    log_odds: NDArray[np.float32],
    argmax: NDArray[np.uint8],
    nbr: NDArray[np.float32] | None,
    fixed_rule: NDArray[np.bool_] | None,
    components: Iterable[Component],
) -> PatchSummary:
    """Summarizes the arrays of a patch, `(S, S)` each, for detection.

    Args:
        truth: Classes, 255 where unlabelled.
        log_odds: Log-odds of fire.
        argmax: Argmax class.
        nbr: Burn ratio; None if a band is missing.
        fixed_rule: Burned by the fixed rule; None if a band is missing.
        components: Connected burned areas in the log-odds.
    """
    is_labelled = truth != IGNORE_INDEX
    return PatchSummary(
        is_labelled=bool(is_labelled.any()),
        is_burned=bool((is_labelled & (truth > 0)).any()),
        max_log_odds=float(log_odds[is_labelled].max(initial=-np.inf)),
        is_argmax_burned=bool((is_labelled & (argmax > 0)).any()),
        min_nbr=np.inf if nbr is None else float(nbr[is_labelled].min(initial=np.inf)),
        is_fixed_burned=fixed_rule is not None and bool((is_labelled & fixed_rule).any()),
        components=tuple(components),
    )


def score_any_pixel_detection(patches: Sequence[PatchSummary], predictions: Iterable[bool]) -> Mapping[str, float]:
    """Scores predictions of burning patches.

    Args:
        patches: Patches with a labelled pixel.
        predictions: True for each patch predicted to burn.
    """
    is_burned = np.array([patch.is_burned for patch in patches], np.int64)
    cells = 2 * is_burned + np.fromiter(predictions, np.int64, len(patches))
    return detection_scores(torch.from_numpy(np.bincount(cells, minlength=4).reshape(2, 2)))


def score_rule_detection(patches: Sequence[PatchSummary], rule: DetectionRule) -> Mapping[str, float]:
    """Scores a detection rule, which requires a minimum size and probability of a connected burned area.

    Args:
        patches: Patches with a labelled pixel.
        rule: Rule from `metric.select_rule`.
    """
    counts = count_detections([patch.components for patch in patches], [patch.is_burned for patch in patches], rule)
    return detection_scores(torch.from_numpy(counts))
