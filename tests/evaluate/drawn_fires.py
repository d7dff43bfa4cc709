"""Fires drawn by hand, as `stitch` would hand them over."""

from __future__ import annotations

from typing import Any

import numpy as np

from fireseg.evaluate.fires import Fire, Place
from fireseg.evaluate.inference import ARGMAX, FIXED, GRADE, ODDS, RATIO
from fireseg.evaluate.mosaic import PatchFacts, Seen, Stitched, sum_up
from fireseg.metric import list_components


def draw_fire(
    truth: Any,
    odds: Any,
    *,
    name: str = "EMSR100_AOI01_01",
    grade: Any = 1,
    ratio: Any = None,
    fixed: Any = None,
    **about: Any,
) -> Stitched:
    """A fire of one patch, from nested lists: truth, log-odds, and what the index says."""
    truth, odds = np.array(truth, np.uint8), np.array(odds, np.float32)
    layers: dict[str, Any] = {ODDS: odds, GRADE: np.broadcast_to(np.uint8(grade), odds.shape).copy()}
    layers[ARGMAX] = np.where(odds > 0, layers[GRADE], np.uint8(0))
    if ratio is not None:
        layers[RATIO] = np.array(ratio, np.float32)
    if fixed is not None:
        layers[FIXED] = np.array(fixed, bool)
    height, width = truth.shape
    fire = Fire(name=name, places=(Place(0, 0, 0),), height=height, width=width, **about)
    return Stitched(
        fire=fire,
        truth=truth,
        is_covered=np.ones(truth.shape, bool),
        layers=layers,
        thin_image=np.zeros((1, height, width), np.float32),
        step=1,
        facts=[describe(truth, layers)],
    )


def describe(truth: np.ndarray, layers: dict[str, Any]) -> PatchFacts:
    """What detection asks of a patch."""
    return sum_up(
        truth,
        odds=layers[ODDS],
        argmax=layers[ARGMAX],
        ratio=layers.get(RATIO),
        fixed=layers.get(FIXED),
        components=list_components(layers[ODDS], truth != 255),
    )


def see(truth: Any, odds: Any = None, *, image: Any = None) -> Seen:
    """A patch of one band with the model's answer; the image is the truth unless given."""
    truth = np.array(truth, np.uint8)
    odds = np.zeros(truth.shape, np.float32) if odds is None else np.array(odds, np.float32)
    image = truth[None].astype(np.float32) if image is None else image
    layers = {ODDS: odds, ARGMAX: (odds > 0).astype(np.uint8)}
    return Seen(image, truth, layers, describe(truth, layers))
