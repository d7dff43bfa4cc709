"""Runs the model and the NBR baseline on every tile of a split, on the path of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.data.bands import to_reflectance
from fireseg.decision import argmax_classes, probability_log_odds, severity_classes
from fireseg.evaluate.baseline import (
    CHANGE_INDICES,
    compute_change,
    count_ratios,
    fixed_rule,
    has_change,
    missing_for_fixed_rule,
    missing_for_nbr,
    normalised_burn_ratio,
)
from fireseg.evaluate.mosaic import (
    Layers,
    Mosaic,
    PatchSummary,
    StitchedTile,
    build_mosaic,
    summarize_patch,
)
from fireseg.geo import plan_sliding_windows
from fireseg.metric import find_components
from fireseg.runs import TrainedModel
from fireseg.runtime.engines import TorchEngine
from fireseg.runtime.inference import ArrayRaster, RasterSource, predict_rows
from fireseg.task import IGNORE_INDEX

LOG_ODDS, ARGMAX, SEVERITY, NBR, FIXED_RULE = "log_odds", "argmax", "severity", "nbr", "fixed_rule"
"""Layers: log-odds of fire, argmax class, argmax over the classes above 0, burn ratio, burned by the fixed rule.
Those of a pair also have the indices of change under their own names."""

_MAX_LOG_ODDS = 1e6
"""Limit of the log-odds, far beyond any threshold; those of a probability of 0 or 1 in float32 are infinite."""

_RULE_ROWS = 256


class MissingBands(NamedTuple):
    """Bands that the baseline rules need and a model does not have.

    Attributes:
        nbr: Reason why there is no burn ratio; empty if there is one.
        fixed_rule: Reason why the fixed rule cannot be applied; empty if it can.
    """

    nbr: str
    fixed_rule: str


def find_missing_bands(bands: Sequence[str]) -> MissingBands:
    """Finds the bands that each baseline rule lacks."""
    return MissingBands(missing_for_nbr(bands), missing_for_fixed_rule(bands))


def predict_tile(trained: TrainedModel, tile: StitchedTile, *, batch_size: int | None = None) -> Mosaic:
    """Predicts a tile with the model, as `predict` maps it, and with the baseline rules.

    Detection of a patch is read off the map of its tile.

    Args:
        trained: Model to run.
        tile: Tile with the bands of the model.
        batch_size: Windows per batch; see `runtime.inference.get_batch_size` if None.

    Raises:
        SettingError: If a batch does not fit in memory.
        FiresegError: If the probabilities are not finite.
    """
    missing = find_missing_bands(trained.bands)
    layers = predict_raster(trained, tile.raster, batch_size=batch_size)
    if not missing.nbr:
        layers[NBR] = _apply_rule(tile.raster, normalised_burn_ratio)
    if not missing.fixed_rule:
        layers[FIXED_RULE] = _apply_rule(tile.raster, fixed_rule)
    if has_change(trained.bands):
        layers |= {name: _apply_rule(tile.raster, partial(compute_change, name)) for name in CHANGE_INDICES}
    return build_mosaic(tile, layers=layers, patches=[*_summarize_patches(tile, layers)])


def predict_raster(trained: TrainedModel, raster: RasterSource, *, batch_size: int | None = None) -> Layers:
    """Predicts all pixels of a raster by the sliding windows of a map.

    Args:
        trained: Model.
        raster: Raster with the bands of the model.
        batch_size: Windows per batch.

    Returns:
        `log_odds` float32, `argmax` uint8 and `severity` uint8, `(H, W)` each; without meaning where it is unknown.

    Raises:
        SettingError: If a batch does not fit in memory.
        FiresegError: If the probabilities are not finite.
    """
    shape = raster.height, raster.width
    layers: Layers = {LOG_ODDS: np.empty(shape, np.float32)}
    layers |= {name: np.empty(shape, np.uint8) for name in (ARGMAX, SEVERITY)}
    layout, engine = plan_sliding_windows(*shape), TorchEngine(trained)
    with closing(predict_rows(trained, raster, layout, engine=engine, batch_size=batch_size)) as rows:
        for top, left, probabilities, _, _ in rows:
            region = slice(top, top + probabilities.shape[1]), slice(left, left + probabilities.shape[2])
            # Peaks of components are stored, and infinity is no JSON number.
            layers[LOG_ODDS][region] = probability_log_odds(probabilities).clip(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
            layers[ARGMAX][region] = argmax_classes(torch.from_numpy(probabilities)[None])[0].numpy()
            layers[SEVERITY][region] = severity_classes(probabilities)
    return layers


def _summarize_patches(tile: StitchedTile, layers: Layers) -> Iterator[PatchSummary]:
    for (_, row, col), truth in zip(tile.fire.positions, tile.patch_truths, strict=True):
        window = slice(row, row + truth.shape[0]), slice(col, col + truth.shape[1])
        cut = {name: layer[window] for name, layer in layers.items()}
        yield summarize_patch(
            truth,
            log_odds=cut[LOG_ODDS],
            argmax=cut[ARGMAX],
            nbr=cut.get(NBR),
            fixed_rule=cut.get(FIXED_RULE),
            changes={name: cut[name] for name in CHANGE_INDICES if name in cut},
            components=find_components(cut[LOG_ODDS], truth != IGNORE_INDEX),
        )


def _apply_rule(raster: ArrayRaster, rule: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    """Applies a rule to some rows at a time, because reflectance takes twice the memory of the stored integers."""
    parts = [raster.image[top : top + _RULE_ROWS] for top in range(0, raster.height, _RULE_ROWS)]
    return np.concatenate([rule(to_reflectance(part.transpose(2, 0, 1)), raster.bands) for part in parts])


def count_indices(tiles: Iterable[StitchedTile]) -> dict[str, NDArray[np.int64]]:
    """Counts burned and unburned pixels by burn ratio, for `baseline.tune_threshold`; each pixel counts once.

    Args:
        tiles: All tiles of a split, at least one; the bands of the ratio must be among theirs.

    Returns:
        Counts of the burn ratio under `nbr`; of a pair also those of each index of change, of whose negative value,
        because burned land is above its threshold.
    """
    totals: dict[str, NDArray[np.int64]] = {}
    for tile in tiles:
        counts = {NBR: count_ratios(_apply_rule(tile.raster, normalised_burn_ratio), tile.truth)}
        for name in CHANGE_INDICES if has_change(tile.raster.bands) else ():
            counts[name] = count_ratios(-_apply_rule(tile.raster, partial(compute_change, name)), tile.truth)
        totals = {name: totals.get(name, 0) + values for name, values in counts.items()}
    return totals
