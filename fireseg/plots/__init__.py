"""Pictures: composites, masks, curves."""

from fireseg.plots.curves import render_curves
from fireseg.plots.maps import render_map
from fireseg.plots.samples import render_batch, render_samples
from fireseg.plots.style import (
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
