"""Fires drawn by hand, as `stitch` would hand them over."""

from __future__ import annotations

from typing import Any

import numpy as np

from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.inference import ARGMAX, FIXED, LOG_ODDS, RATIO, SEVERITY
from fireseg.evaluate.mosaic import Mosaic, PatchPrediction, PatchSummary, summarize_patch
from fireseg.metric import find_components


def draw_fire(
    truth: Any,
    odds: Any,
    *,
    name: str = "EMSR100_AOI01_01",
    grade: Any = 1,
    ratio: Any = None,
    fixed: Any = None,
    **about: Any,
) -> Mosaic:
    """A fire of one patch, from nested lists: truth, log-odds, and what the index says."""
    truth, odds = np.array(truth, np.uint8), np.array(odds, np.float32)
    layers: dict[str, Any] = {LOG_ODDS: odds, SEVERITY: np.broadcast_to(np.uint8(grade), odds.shape).copy()}
    layers[ARGMAX] = np.where(odds > 0, layers[SEVERITY], np.uint8(0))
    if ratio is not None:
        layers[RATIO] = np.array(ratio, np.float32)
    if fixed is not None:
        layers[FIXED] = np.array(fixed, bool)
    height, width = truth.shape
    fire = Fire(name=name, places=(PatchPosition(0, 0, 0),), height=height, width=width, **about)
    return Mosaic(
        fire=fire,
        truth=truth,
        is_covered=np.ones(truth.shape, bool),
        layers=layers,
        thin_image=np.zeros((1, height, width), np.float32),
        step=1,
        facts=[describe(truth, layers)],
    )


def describe(truth: np.ndarray, layers: dict[str, Any]) -> PatchSummary:
    """What detection asks of a patch."""
    return summarize_patch(
        truth,
        odds=layers[LOG_ODDS],
        argmax=layers[ARGMAX],
        ratio=layers.get(RATIO),
        fixed=layers.get(FIXED),
        components=find_components(layers[LOG_ODDS], truth != 255),
    )


def see(truth: Any, odds: Any = None, *, image: Any = None) -> PatchPrediction:
    """A patch of one band with the model's answer; the image is the truth unless given."""
    truth = np.array(truth, np.uint8)
    odds = np.zeros(truth.shape, np.float32) if odds is None else np.array(odds, np.float32)
    image = truth[None].astype(np.float32) if image is None else image
    layers = {LOG_ODDS: odds, ARGMAX: (odds > 0).astype(np.uint8)}
    return PatchPrediction(image, truth, layers, describe(truth, layers))
