"""What each way of deciding is worth on one fire, in counts that add up over fires."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.evaluating.deciding import Decision
from fireseg.evaluating.detecting import PatchFacts
from fireseg.evaluating.fires import Fire
from fireseg.evaluating.hectares import sum_hectares
from fireseg.evaluating.stitching import Stitched
from fireseg.evaluating.watching import ARGMAX, FIXED, GRADE, ODDS, RATIO
from fireseg.metric import EdgeCounts, count_odds, edge_counts, hausdorff_95, image_counts

MODEL, MODEL_ARGMAX, INDEX_TUNED, INDEX_FIXED = METHODS = ("model", "model_argmax", "index_tuned", "index_fixed")
"""Threshold from val; likeliest class; burn ratio with its threshold from train; the rule that nobody tuned."""

INDICES = (INDEX_TUNED, INDEX_FIXED)
"""Those that know no grades."""

Classes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One method on one fire.

    Attributes:
        confusion: `(K, K)` int64, rows the truth; `(2, 2)` of an index, which knows no grades.
        edges: Of burned against unburned.
        hausdorff_px: NaN where truth or prediction has no edge.
        predicted_ha: Burned by the method; None where the ground is unknown.
    """

    confusion: NDArray[np.int64]
    edges: EdgeCounts
    hausdorff_px: float
    predicted_ha: float | None


@dataclass(frozen=True, kw_only=True)
class FireScores:
    """One fire.

    Attributes:
        fire: Which.
        methods: By name; without those that lack a band.
        odds: As `metric.count_odds`.
        patches: Those with a labelled pixel.
        true_ha: Truly burned; None where the ground is unknown.
        truth_sha256: Of its labels and where they lie.
    """

    fire: Fire
    methods: Mapping[str, Measures]
    odds: NDArray[np.int64]
    patches: tuple[PatchFacts, ...]
    true_ha: float | None
    truth_sha256: str

    @property
    def labelled_pixels(self) -> int:
        """How many pixels somebody labelled."""
        return int(self.odds.sum())

    @property
    def burned_share(self) -> float:
        """Share of the labelled pixels that burned, NaN where there is none."""
        return float(self.odds[1].sum() / self.labelled_pixels) if self.labelled_pixels else float("nan")


def decide_fire(fire: Stitched, decision: Decision, ratio_threshold: float | None) -> dict[str, Classes]:
    """The map that each method draws.

    Args:
        fire: In one piece.
        decision: From val.
        ratio_threshold: From train; None where there is none.

    Returns:
        Classes, `(H, W)` uint8, by method; an index knows 0 and 1 alone.
    """
    layers = fire.layers
    burned = layers[ODDS] >= decision.least_odds
    maps = {MODEL: np.where(burned, layers[GRADE], np.uint8(0)), MODEL_ARGMAX: layers[ARGMAX]}
    if RATIO in layers and ratio_threshold is not None:
        maps[INDEX_TUNED] = (layers[RATIO] < ratio_threshold).astype(np.uint8)
    if FIXED in layers:
        maps[INDEX_FIXED] = layers[FIXED].astype(np.uint8)
    return maps


def measure_fire(fire: Stitched, maps: Mapping[str, Classes], *, num_classes: int) -> FireScores:
    """Holds the maps against the truth, where there is one.

    Args:
        fire: In one piece.
        maps: From `decide_fire`.
        num_classes: K of the task.
    """
    burned = {"": fire.is_burned} | {name: fire.is_labelled & (classes > 0) for name, classes in maps.items()}
    hectares = sum_hectares(fire.fire, burned)
    methods = {}
    for name, classes in maps.items():
        methods[name] = Measures(
            confusion=_count(classes, fire, 2 if name in INDICES else num_classes),
            edges=edge_counts(fire.is_burned, burned[name], is_labelled=fire.is_labelled),
            hausdorff_px=hausdorff_95(fire.is_burned, burned[name], is_labelled=fire.is_labelled),
            predicted_ha=hectares[name] if hectares else None,
        )
    return FireScores(
        fire=fire.fire,
        methods=methods,
        odds=count_odds(fire.layers[ODDS], fire.truth),
        patches=tuple(patch for patch in fire.facts if patch.is_labelled),
        true_ha=hectares[""] if hectares else None,
        truth_sha256=_digest(fire),
    )


def _count(classes: Classes, fire: Stitched, num_classes: int) -> NDArray[np.int64]:
    truth = fire.truth if num_classes > 2 else np.where(fire.is_labelled, fire.is_burned.astype(np.uint8), fire.truth)
    return image_counts(torch.from_numpy(classes)[None], torch.from_numpy(truth)[None], num_classes)[0].numpy()


def _digest(fire: Stitched) -> str:
    places = [place[1:] for place in fire.fire.places]
    digest = hashlib.sha256(repr((fire.truth.shape, places)).encode())
    digest.update(np.ascontiguousarray(fire.truth).data)
    return digest.hexdigest()
