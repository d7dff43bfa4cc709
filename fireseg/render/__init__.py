"""Pictures: composites, masks, curves."""

from fireseg.render.curves import render_curves
from fireseg.render.gallery import render_batch, render_samples
from fireseg.render.map import render_map
from fireseg.render.pixels import (
    AGREEMENT,
    UNLABELLED,
    Recipe,
    choose_recipe,
    colour_agreement,
    colour_classes,
    compare,
    composite,
)

__all__ = [
    "AGREEMENT",
    "UNLABELLED",
    "Recipe",
    "choose_recipe",
    "colour_agreement",
    "colour_classes",
    "compare",
    "composite",
    "render_batch",
    "render_curves",
    "render_map",
    "render_samples",
]
