"""Mosaics of fires: tiles stitched from patches, their predictions, and detection scores over patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.data.bands import SCALE, to_reflectance
from fireseg.data.format import METADATA
from fireseg.errors import FiresegError
from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.memory import check_memory
from fireseg.metric import Component, DetectionRule, count_detections, detection_scores
from fireseg.pairs import split_pair
from fireseg.runtime.inference import ArrayRaster
from fireseg.task import IGNORE_INDEX

PREVIEW_PX = 320
"""Longest side of a preview image."""

LAYER_BYTES, PAIR_LAYER_BYTES = 11, 12
"""Bytes of a pixel in all layers: two float32, two uint8 and one bool; and in three more float32 of a pair."""

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
        max_changes: Highest value of each index of change; empty of a single scene.
    """

    is_labelled: bool
    is_burned: bool
    max_log_odds: float
    is_argmax_burned: bool
    min_nbr: float
    is_fixed_burned: bool
    components: tuple[Component, ...]
    max_changes: Mapping[str, float] = {}


class PatchPixels(NamedTuple):
    """A patch as it is stored.

    Attributes:
        image: Reflectance, `(C, S, S)` float32.
        truth: Classes, `(S, S)` uint8, 255 where unlabelled.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StitchedTile:
    """A tile stitched from its patches.

    Attributes:
        fire: Fire with the positions of its patches.
        raster: Its image, unknown where there is no patch.
        is_covered: True where there is a patch, `(H, W)` bool.
        truth: Classes, `(H, W)` uint8, 255 where unlabelled or not covered by a patch.
        patch_truths: Classes of each patch, `(S, S)` uint8, in the order of `fire.positions`; a label that several
            patches contain may be 255 in all but one.
    """

    fire: Fire
    raster: ArrayRaster
    is_covered: NDArray[np.bool_]
    truth: NDArray[np.uint8]
    patch_truths: list[NDArray[np.uint8]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """A fire with the predictions of its whole tile.

    Attributes:
        fire: Fire with the positions of its patches.
        truth: Classes, `(H, W)` uint8, 255 where unlabelled or not covered by a patch.
        is_covered: True where there is a patch, `(H, W)` bool.
        layers: Predictions by name, `(H, W)` each; without meaning where there is no patch.
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


def stitch_tiles(patches: Iterable[PatchPixels], fires: Iterable[Fire], bands: Sequence[str]) -> Iterator[StitchedTile]:
    """Stitches patches to tiles and yields each tile as soon as its last patch is there.

    The patches of a tile follow one another, so that only one tile is in memory at a time. Where patches overlap,
    the first labelled one counts.

    Args:
        patches: All patches of the split, in order.
        fires: All fires of the split.
        bands: Bands of the patches.

    Raises:
        FiresegError: If overlapping patches label the same pixel differently, which means wrong positions.
    """
    positions: dict[int, tuple[Fire, PatchPosition]] = {
        position.number: (fire, position) for fire in fires for position in fire.positions
    }
    incomplete: dict[str, StitchedTile] = {}
    for number, patch in enumerate(patches):
        fire, position = positions[number]
        tile = incomplete.pop(fire.name, None) or _make_tile(fire, patch, tuple(bands))
        _add_patch(tile, position, patch)
        if len(tile.patch_truths) == len(fire.positions):
            yield tile
        else:
            incomplete[fire.name] = tile


def _make_tile(fire: Fire, patch: PatchPixels, bands: tuple[str, ...]) -> StitchedTile:
    shape = fire.height, fire.width
    pixel_bytes = 2 * len(patch.image) + 3 + LAYER_BYTES + (PAIR_LAYER_BYTES if split_pair(bands)[1] else 0)
    check_memory(
        fire.height * fire.width * pixel_bytes + len(fire.positions) * patch.truth.nbytes,
        f"{fire.name}: patches from a rectangle of {fire.height:,} x {fire.width:,} pixels",
        f"correct row and col of its patches in {METADATA}, or cut the tile into smaller ones",
    )
    return StitchedTile(
        fire=fire,
        raster=ArrayRaster(
            bands=bands, image=np.zeros((*shape, len(patch.image)), np.uint16), unknown=np.ones(shape, bool)
        ),
        is_covered=np.zeros(shape, bool),
        truth=np.full(shape, IGNORE_INDEX, np.uint8),
    )


def _add_patch(tile: StitchedTile, position: PatchPosition, patch: PatchPixels) -> None:
    _, row, col = position
    sides = zip(patch.truth.shape, tile.truth.shape, (row, col), strict=True)
    height, width = (min(side, whole - start) for side, whole, start in sides)
    target = slice(row, row + height), slice(col, col + width)
    before, new = tile.truth[target], patch.truth[:height, :width]
    is_free = before == IGNORE_INDEX
    if (~is_free & (new != IGNORE_INDEX) & (new != before)).any():
        raise FiresegError(
            f"{tile.fire.name}: overlapping patches, including the one at row {row} and column {col}, label the "
            f"same pixels differently; give row and col of each patch in {METADATA} in pixels of its tile"
        )
    image = _to_stored(patch.image[:, :height, :width])
    unknown = tile.raster.unknown[target]
    np.copyto(tile.raster.image[target], image, where=unknown[..., None])
    unknown &= ~image.any(axis=2)
    tile.is_covered[target] = True
    np.copyto(before, new, where=is_free)
    tile.patch_truths.append(new)


def _to_stored(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Returns `(C, h, w)` reflectance as `(h, w, C)` integers, as rasters are read; exact for prepared patches."""
    scaled = np.rint(image.transpose(1, 2, 0) * np.float32(SCALE))
    return scaled.clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def build_mosaic(tile: StitchedTile, *, layers: Layers, patches: list[PatchSummary]) -> Mosaic:
    """Makes the mosaic of a tile, which keeps only a preview of its image.

    Args:
        tile: Tile.
        layers: Predictions by name, `(H, W)` each.
        patches: Summaries of the patches, in order.
    """
    step = -(-max(tile.truth.shape) // PREVIEW_PX)
    preview = to_reflectance(tile.raster.image[::step, ::step]).transpose(2, 0, 1)
    return Mosaic(
        fire=tile.fire,
        truth=tile.truth,
        is_covered=tile.is_covered,
        layers=layers,
        preview_image=np.where(tile.is_covered[::step, ::step], preview, np.float32(0.0)),
        preview_step=step,
        patches=patches,
    )


def summarize_patch(
    truth: NDArray[np.uint8],
    *,
    log_odds: NDArray[np.float32],
    argmax: NDArray[np.uint8],
    nbr: NDArray[np.float32] | None,
    fixed_rule: NDArray[np.bool_] | None,
    components: Iterable[Component],
    changes: Mapping[str, NDArray[np.float32]] | None = None,
) -> PatchSummary:
    """Summarizes the arrays of a patch, `(S, S)` each, for detection.

    Args:
        truth: Classes, 255 where unlabelled.
        log_odds: Log-odds of fire.
        argmax: Argmax class.
        nbr: Burn ratio; None if a band is missing.
        fixed_rule: Burned by the fixed rule; None if a band is missing.
        components: Connected burned areas in the log-odds.
        changes: Indices of change by name, of a pair.
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
        max_changes={name: float(values[is_labelled].max(initial=-np.inf)) for name, values in (changes or {}).items()},
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
