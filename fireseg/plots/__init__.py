"""Figures: composites, masks, training curves, samples and maps."""

from fireseg.plots.curves import render_curves
from fireseg.plots.samples import render_batch, render_samples
from fireseg.plots.style import (
    ERROR_COLOURS,
    choose_composite,
    colour_classes,
    colour_errors,
    render_composite,
)

__all__ = [
    "ERROR_COLOURS",
    "choose_composite",
    "colour_classes",
    "colour_errors",
    "render_batch",
    "render_composite",
    "render_curves",
    "render_samples",
]
