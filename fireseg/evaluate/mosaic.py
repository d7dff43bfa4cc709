"""The windows of a tile put together again, with all that was said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.evaluate.fires import METADATA, Fire, PatchPosition
from fireseg.metric import Component, DetectionRule, count_detections, detection_scores
from fireseg.task import IGNORE_INDEX


class PatchSummary(NamedTuple):
    """One patch, as far as detection asks; of its labelled pixels alone.

    Attributes:
        is_labelled: Whether there is any.
        burns: Whether any burned.
        peak_odds: Their highest log-odds of fire.
        is_argmax: Whether the likeliest class of any is above 0.
        lowest_ratio: Their lowest burn ratio, infinite where a band is missing.
        is_fixed: Whether any burned by the fixed rule.
        components: The burned areas that a rule may ask for.
    """

    is_labelled: bool
    burns: bool
    peak_odds: float
    is_argmax: bool
    lowest_ratio: float
    is_fixed: bool
    components: tuple[Component, ...]


def summarize_patch(
    truth: NDArray[np.uint8],
    *,
    odds: NDArray[np.float32],
    argmax: NDArray[np.uint8],
    ratio: NDArray[np.float32] | None,
    fixed: NDArray[np.bool_] | None,
    components: Iterable[Component],
) -> PatchSummary:
    """What of a patch has to be kept, `(S, S)` each.

    Args:
        truth: Classes, 255 where nobody labelled.
        odds: Log-odds of fire.
        argmax: Likeliest class.
        ratio: Burn ratio, None where a band is missing.
        fixed: What the fixed rule calls burned, None where a band is missing.
        components: Of the burned areas in the odds.
    """
    is_labelled = truth != IGNORE_INDEX
    return PatchSummary(
        is_labelled=bool(is_labelled.any()),
        burns=bool((is_labelled & (truth > 0)).any()),
        peak_odds=float(odds[is_labelled].max(initial=-np.inf)),
        is_argmax=bool((is_labelled & (argmax > 0)).any()),
        lowest_ratio=np.inf if ratio is None else float(ratio[is_labelled].min(initial=np.inf)),
        is_fixed=fixed is not None and bool((is_labelled & fixed).any()),
        components=tuple(components),
    )


def score_argmax_detection(patches: Sequence[PatchSummary], calls: Iterable[bool]) -> Mapping[str, float]:
    """Scores of a way of deciding by any pixel.

    Args:
        patches: Those with a labelled pixel.
        calls: Whether each is called burning.
    """
    burns = np.array([patch.burns for patch in patches], np.int64)
    cells = 2 * burns + np.fromiter(calls, np.int64, len(patches))
    return detection_scores(torch.from_numpy(np.bincount(cells, minlength=4).reshape(2, 2)))


def score_rule(patches: Sequence[PatchSummary], rule: DetectionRule) -> Mapping[str, float]:
    """Scores of a rule that asks for size and certainty of a burned area.

    Args:
        patches: Those with a labelled pixel.
        rule: As from `metric.pick_rule`.
    """
    counts = count_detections([patch.components for patch in patches], [patch.burns for patch in patches], rule)
    return detection_scores(torch.from_numpy(counts))


PREVIEW_PX = 320
"""Longest side of what is kept of an image."""

Layers = dict[str, NDArray[Any]]
"""Maps of one shape by name."""


class PatchPrediction(NamedTuple):
    """One patch, and what was said of it.

    Attributes:
        image: Reflectance, `(C, S, S)` float32.
        truth: Classes, `(S, S)` uint8, 255 where nobody labelled.
        layers: What was predicted, `(S, S)` each, by a name of the caller's.
        facts: What detection asks of it, None where nobody will.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    layers: Layers
    facts: PatchSummary | None = None


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """A fire in one piece.

    Attributes:
        fire: Which one.
        truth: Classes, `(H, W)` uint8, 255 where nobody labelled or there is no patch.
        is_covered: Where there is a patch, `(H, W)` bool.
        layers: What was predicted, `(H, W)` each, 0 where there is no patch.
        thin_image: Every n-th row and column of the reflectance, `(C, h, w)` float32, 0 where there is no patch.
        step: That n.
        facts: What detection asks of each patch, in order.
    """

    fire: Fire
    truth: NDArray[np.uint8]
    is_covered: NDArray[np.bool_]
    layers: Layers
    thin_image: NDArray[np.float32]
    step: int
    facts: list[PatchSummary] = field(default_factory=list)

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Where somebody labelled."""
        return self.truth != IGNORE_INDEX

    @property
    def is_burned(self) -> NDArray[np.bool_]:
        """Where that label is above 0."""
        return self.is_labelled & (self.truth > 0)


def assemble_mosaics(patches: Iterable[PatchPrediction], fires: Iterable[Fire]) -> Iterator[Mosaic]:
    """Puts patches together, and hands over each fire as soon as its last patch has come.

    The patches of a tile follow one another, so that only one tile is in memory at a time. Where windows overlap,
    the first that is labelled counts.

    Args:
        patches: All patches of the split, in its order.
        fires: Which patch belongs where.

    Raises:
        FiresegError: If two windows label the same pixel differently: they cannot lie where they are said to.
    """
    home: dict[int, tuple[Fire, PatchPosition]] = {
        place.number: (fire, place) for fire in fires for place in fire.places
    }
    opened: dict[str, tuple[Mosaic, int]] = {}
    for number, seen in enumerate(patches):
        fire, place = home[number]
        canvas, left = opened.pop(fire.name, None) or (_begin(fire, seen), len(fire.places))
        _put(canvas, place, seen)
        if left == 1:
            yield canvas
        else:
            opened[fire.name] = canvas, left - 1


def _begin(fire: Fire, seen: PatchPrediction) -> Mosaic:
    shape = fire.height, fire.width
    step = -(-max(shape) // PREVIEW_PX)
    thin = tuple(-(-side // step) for side in shape)
    return Mosaic(
        fire=fire,
        truth=np.full(shape, IGNORE_INDEX, np.uint8),
        is_covered=np.zeros(shape, bool),
        layers={name: np.zeros(shape, layer.dtype) for name, layer in seen.layers.items()},
        thin_image=np.zeros((len(seen.image), *thin), np.float32),
        step=step,
    )


def _put(canvas: Mosaic, place: PatchPosition, seen: PatchPrediction) -> None:
    _, row, col = place
    height, width = (min(side, whole - start) for side, whole, start in _sides(canvas, place, seen))
    where = slice(row, row + height), slice(col, col + width)
    inside = slice(height), slice(width)
    before, now = canvas.truth[where], seen.truth[inside]
    is_labelled = before != IGNORE_INDEX
    if (is_labelled & (now != IGNORE_INDEX) & (now != before)).any():
        raise FiresegError(
            f"{canvas.fire.name}: windows that overlap, the one at row {row} and column {col} among them, label the "
            f"same pixels differently; give row and col of each patch in {METADATA} in pixels of its tile"
        )
    is_free = ~is_labelled
    canvas.is_covered[where] = True
    np.copyto(before, now, where=is_free)
    for name, layer in canvas.layers.items():
        np.copyto(layer[where], seen.layers[name][inside], where=is_free)
    _put_thin(canvas, place, seen, height, width)
    if seen.facts is not None:
        canvas.facts.append(seen.facts)


def _sides(canvas: Mosaic, place: PatchPosition, seen: PatchPrediction) -> Iterator[tuple[int, int, int]]:
    return zip(seen.truth.shape, canvas.truth.shape, place[1:], strict=True)


def _put_thin(canvas: Mosaic, place: PatchPosition, seen: PatchPrediction, height: int, width: int) -> None:
    """Those rows and columns of a window that the picture of the whole keeps."""
    step = canvas.step
    first_row, first_col = -place.row % step, -place.col % step
    part = seen.image[:, first_row:height:step, first_col:width:step]
    top, left = (place.row + first_row) // step, (place.col + first_col) // step
    canvas.thin_image[:, top : top + part.shape[1], left : left + part.shape[2]] = part
