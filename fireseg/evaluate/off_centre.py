"""Off-centre check: the IoU of fires that are not in the middle of their tile, against the same pixels of whole tiles.

Tiles are cut around their fires. A model that sees whole tiles in training can learn where in a window the rim of a
fire lies, scores well on such tiles, and fails on a scene, where fires lie anywhere. Two views of a tile tell:

- mirrored: the tile is mirrored beyond its upper and left edges by half its sides, so that its fire is off centre;
- cropped: four crops of 60 % of its sides, one in each corner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.evaluate.inference import LOG_ODDS, predict_raster
from fireseg.evaluate.mosaic import Mosaic, StitchedTile
from fireseg.evaluate.thresholds import OperatingPoint
from fireseg.memory import check_memory
from fireseg.metric import compare_paired, fire_scores, image_counts
from fireseg.model.network import MIN_SIZE_PX
from fireseg.runs import TrainedModel
from fireseg.runtime.inference import ArrayRaster
from fireseg.task import IGNORE_INDEX

MAX_FIRES = 50
"""Number of tiles up to which the check is made without being asked for; it takes four times as long as the scores."""

MIN_DROP = 0.05
"""Loss of IoU from which on a model is said to rely on the position. Crops have less context, which costs a little."""

VIEWS = {"mirrored": "off centre, mirrored tiles", "cropped": "off centre, corner crops"}
"""Views of a tile, with their titles."""

_CROP_SHARE = 0.6

Region = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class OffCentreCounts:
    """Counts of the burned pixels of a fire in the views, `(2, 2)` each with rows the truth.

    Attributes:
        name: Name of the fire.
        centred: By view, counts of the map of the whole tile on the pixels of the view.
        off_centre: By view, counts of the map of the view.
    """

    name: str
    centred: Mapping[str, NDArray[np.int64]]
    off_centre: Mapping[str, NDArray[np.int64]]


def check_off_centre(
    trained: TrainedModel,
    tile: StitchedTile,
    mosaic: Mosaic,
    point: OperatingPoint,
    *,
    batch_size: int | None = None,
) -> OffCentreCounts:
    """Maps the views of a tile and compares them with the map of the whole tile on the same pixels.

    Args:
        trained: Model.
        tile: Tile.
        mosaic: The same tile with its predictions.
        point: Operating point of the model.
        batch_size: Windows per batch.

    Raises:
        FiresegError: If the mirrored tile does not fit in memory.
    """
    counts: dict[str, list[list[NDArray[np.int64]]]] = {view: [] for view in VIEWS}
    for view, raster, inside, region in _make_views(tile):
        log_odds = predict_raster(trained, raster, batch_size=batch_size)[LOG_ODDS][inside]
        truth = mosaic.truth[region]
        maps = (mosaic.layers[LOG_ODDS][region], log_odds)
        counts[view].append([_count_burned(one >= point.min_log_odds, truth) for one in maps])
    sums = {view: np.sum(pairs, axis=0) for view, pairs in counts.items()}
    return OffCentreCounts(
        name=tile.fire.name,
        centred={view: pair[0] for view, pair in sums.items()},
        off_centre={view: pair[1] for view, pair in sums.items()},
    )


def _make_views(tile: StitchedTile) -> Iterator[tuple[str, ArrayRaster, Region, Region]]:
    """Yields view, raster, the region of the raster that is scored, and the same region of the tile."""
    raster, (height, width) = tile.raster, tile.truth.shape
    top, left = height // 2, width // 2
    check_memory(
        (height + top) * (width + left) * (2 * len(raster.bands) + 7),
        f"{tile.fire.name}: mirrored for the off-centre check",
        "leave the check out with --off-centre never",
    )
    padding = ((top, 0), (left, 0))
    mirrored = ArrayRaster(
        bands=raster.bands,
        image=np.pad(raster.image, (*padding, (0, 0)), mode="reflect"),
        unknown=np.pad(raster.unknown, padding, mode="reflect"),
    )
    yield "mirrored", mirrored, (slice(top, None), slice(left, None)), (slice(None), slice(None))
    rows, cols = (math.ceil(_CROP_SHARE * side) for side in (height, width))
    for region in (
        (slice(first_row, first_row + rows), slice(first_col, first_col + cols))
        for first_row in (0, height - rows)
        for first_col in (0, width - cols)
    ):
        crop = ArrayRaster(bands=raster.bands, image=raster.image[region], unknown=raster.unknown[region])
        yield "cropped", crop, (slice(None), slice(None)), region


def _count_burned(is_predicted: NDArray[np.bool_], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    labels = np.where(truth == IGNORE_INDEX, truth, (truth > 0).astype(np.uint8))
    predicted, truth_map = (torch.from_numpy(one)[None] for one in (is_predicted.astype(np.uint8), labels))
    return image_counts(predicted, truth_map, 2)[0].numpy()


def describe_off_centre(fires: Sequence[OffCentreCounts]) -> dict[str, Any] | None:
    """Makes the entry of the results; None if no fire was checked.

    Args:
        fires: Counts of the fires.
    """
    if not fires:
        return None
    views: dict[str, Any] = {}
    for view in VIEWS:
        pairs = [(fire.off_centre[view], fire.centred[view]) for fire in fires]
        off_centre, centred = zip(*pairs, strict=True)
        views[view] = {
            "confusion": {"centred": np.sum(centred, axis=0), "off_centre": np.sum(off_centre, axis=0)},
            "pooled": {"centred": _iou(np.sum(centred, axis=0)), "off_centre": _iou(np.sum(off_centre, axis=0))},
            **compare_paired([_iou(one) for one in off_centre], [_iou(one) for one in centred])._asdict(),
        }
    rows = []
    for fire in fires:
        pairs = {view: (fire.centred[view], fire.off_centre[view]) for view in VIEWS}
        ious = {view: {"centred": _iou(one), "off_centre": _iou(other)} for view, (one, other) in pairs.items()}
        rows.append({"name": fire.name, **ious})
    drops = [views[view]["pooled"]["centred"] - views[view]["pooled"]["off_centre"] for view in VIEWS]
    return {"drop": max(drops), **views, "fires": rows}


def _iou(counts: NDArray[np.int64]) -> float:
    return fire_scores(torch.from_numpy(counts))["fire_iou"]


def describe_reliance(off_centre: Mapping[str, Any], window_px: int) -> str:
    """Describes the reliance of a model on the position of fires, with what to do; empty if there is little or none.

    Args:
        off_centre: Entry of the results.
        window_px: Side of the windows that the model was trained on, in pixels.
    """
    if off_centre["drop"] is None or off_centre["drop"] < MIN_DROP:
        return ""
    smaller = max(MIN_SIZE_PX, round(window_px / 2 / MIN_SIZE_PX) * MIN_SIZE_PX)
    return (
        f"drops {off_centre['drop']:.2f} off centre: the model relies on the position of the fire in its window; "
        f"train with data.crop={smaller}, or with smaller patches"
    )
