"""Panels of the composition of a data set: classes, burned shares, fire sizes and the map of the tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fireseg.console import format_share
from fireseg.plots.style import UNLABELLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Blue, orange and green are distinct for all kinds of colour vision; hatches and markers are distinct in grey.
SPLIT_STYLES = {
    "train": {"colour": "#0072b2", "hatch": "", "mark": "o"},
    "val": {"colour": "#e69f00", "hatch": "....", "mark": "s"},
    "test": {"colour": "#009e73", "hatch": "////", "mark": "^"},
    "all": {"colour": "#56b4e9", "hatch": "", "mark": "D"},  # patches with folds: a tile is in another split in each
}

LonLatBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east across the antimeridian."""

_EDGE = "#4d4d4d"

_FONT_SIZE = 8

_GOLDEN_RATIO = (5**0.5 - 1) / 2

_MIN_LABELLED_SHARE = 0.08

_MIN_VISIBLE_SHARE = 0.012


def draw_class_shares(
    axes: Axes, counts: Mapping[str, Sequence[int]], names: Sequence[str], colours: Sequence[str]
) -> None:
    """Draws one stacked bar per split with the pixel shares of its classes.

    Args:
        axes: Axes to draw on.
        counts: Pixels of each class, by split.
        names: Names of the classes.
        colours: Colours of the classes.
    """
    for position, row in enumerate(counts.values()):
        total, left = sum(row), 0.0
        for name, colour, count in zip(names, colours, row, strict=True):
            share = count / total if total else 0.0
            label = name if position == 0 else None
            axes.barh(position, share, left=left, color=colour, edgecolor=_EDGE, linewidth=0.5, label=label)
            if share >= _MIN_LABELLED_SHARE:
                at = {"ha": "center", "va": "center", "fontsize": _FONT_SIZE, "color": _text_colour(colour)}
                axes.text(left + share / 2, position, format_share(share), **at)
            left += share
        if not total:
            axes.text(0.01, position, "nothing labelled", va="center", fontsize=_FONT_SIZE)
    _label_rows(axes, list(counts))
    _set_percent_axis(axes, 1.0)
    columns = len(names) if len(names) < 4 else 3
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=columns, frameon=False, fontsize=_FONT_SIZE)


def draw_class_patches(
    axes: Axes, counts: Mapping[str, Sequence[int]], totals: Mapping[str, int], colours: Sequence[str]
) -> None:
    """Draws one bar per split and class with the number of patches in which the class occurs.

    Args:
        axes: Axes to draw on.
        counts: Patches with each class, by split.
        totals: Labelled patches of each split.
        colours: Colours of the classes.
    """
    step = len(colours) + 0.8
    for position, (split, row) in enumerate(counts.items()):
        for number, (colour, count) in enumerate(zip(colours, row, strict=True)):
            y, share = position * step + number, count / max(totals[split], 1)
            axes.barh(y, share, height=0.85, color=colour, edgecolor=_EDGE, linewidth=0.5)
            axes.text(share + 0.015, y, f"{count:,} ({format_share(share)})", va="center", fontsize=_FONT_SIZE)
    middles = [position * step + (len(colours) - 1) / 2 for position in range(len(counts))]
    axes.set_yticks(middles, [f"{split}\n{totals[split]:,}" for split in counts])
    axes.invert_yaxis()
    _set_percent_axis(axes, 1.42)
    axes.set_xlabel("of the split's labelled patches")


def draw_weights(axes: Axes, weights: Sequence[float], names: Sequence[str], colours: Sequence[str]) -> None:
    """Draws one bar per class with its weight.

    Args:
        axes: Axes to draw on.
        weights: Weights of the classes.
        names: Names of the classes.
        colours: Colours of the classes.
    """
    axes.barh(range(len(weights)), weights, color=colours, edgecolor=_EDGE, linewidth=0.5)
    for position, weight in enumerate(weights):
        axes.text(weight + 0.02 * max(weights), position, f"{weight:.3g}", va="center", fontsize=_FONT_SIZE)
    _label_rows(axes, names)
    axes.axvline(1, color=_EDGE, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1.2 * max(*weights, 1))
    axes.set_xlabel("weight of a pixel")


def draw_share_bins(axes: Axes, bins: Mapping[str, Sequence[int]], labels: Sequence[str], *, axis: str) -> None:
    """Draws a histogram of the patches of each split, side by side.

    Args:
        axes: Axes to draw on.
        bins: Patches in each bin, by split.
        labels: Labels of the bins.
        axis: Label of the axis.
    """
    width = 0.8 / max(len(bins), 1)
    highest = 0.0
    for number, (split, counts) in enumerate(bins.items()):
        style = SPLIT_STYLES[split]
        shares = np.asarray(counts) / max(sum(counts), 1)
        positions = np.arange(len(labels)) + (number - (len(bins) - 1) / 2) * width
        bar: dict[str, Any] = {"color": style["colour"], "hatch": style["hatch"], "edgecolor": "white", "linewidth": 0}
        axes.bar(positions, shares, width=0.92 * width, label=split, **bar)
        highest = max(highest, float(shares.max(initial=0)))
        for position, share, count in zip(positions, shares, counts, strict=True):
            if count:
                axes.text(position, share + 0.004, _format_bar_count(count), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel(axis)
    axes.set_ylim(0, max(1.3 * highest, 0.1))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
    axes.yaxis.set_major_formatter(_percent_formatter())
    axes.set_ylabel("of the split's patches")
    axes.legend(loc="upper center", ncols=len(bins), frameon=False, fontsize=_FONT_SIZE)


def draw_fire_sizes(axes: Axes, areas_ha: Mapping[str, Sequence[float]]) -> None:
    """Draws one marker per fire on a logarithmic axis, one row per split, with a line at the median.

    Args:
        axes: Axes to draw on.
        areas_ha: Burned areas in hectares, by split.
    """
    from matplotlib.ticker import LogLocator

    for position, (split, areas) in enumerate(areas_ha.items()):
        style, known = SPLIT_STYLES[split], sorted(area for area in areas if area > 0)
        # Spread across the row so that markers do not overlap: golden-ratio steps spread any number evenly.
        ys = [position + 0.5 * ((number * _GOLDEN_RATIO) % 1 - 0.5) for number in range(len(known))]
        mark: dict[str, Any] = {"marker": style["mark"], "color": style["colour"], "alpha": 0.75, "linestyle": ""}
        axes.plot(known, ys, markersize=5, markeredgecolor="white", markeredgewidth=0.4, **mark)
        if known:
            middle = float(np.median(known))
            axes.plot([middle] * 2, [position - 0.38, position + 0.38], color="black", linewidth=1.6)
            text = f"median {middle:,.0f} ha"
            axes.annotate(text, (middle, position - 0.39), ha="center", va="bottom", fontsize=_FONT_SIZE)
        else:
            axes.text(0.02, position, "no fire", transform=axes.get_yaxis_transform(), va="center", fontsize=_FONT_SIZE)
    axes.set_yticks(range(len(areas_ha)), [f"{split}\n{len(areas)}" for split, areas in areas_ha.items()])
    axes.set_ylim(len(areas_ha) - 0.45, -0.7)
    if any(area > 0 for areas in areas_ha.values() for area in areas):
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, high / 30), max(high, 30 * low))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.xaxis.set_minor_formatter("")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 1e3 * low else (1,)))
    axes.set_xlabel("burned hectares of a fire")
    axes.grid(axis="x", color="#e6e6e6")


def draw_map(axes: Axes, boxes: Mapping[str, Sequence[LonLatBox]]) -> None:
    """Draws boxes in longitude and latitude, with a marker on boxes that are too small to see.

    Args:
        axes: Axes to draw on.
        boxes: Boxes of the tiles, by split.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    whole = np.array([_unwrap(box) for group in boxes.values() for box in group]).reshape(-1, 4)
    if not len(whole):
        axes.text(0.5, 0.5, "no known footprint", ha="center", transform=axes.transAxes)
        return
    (west, south), (east, north) = whole[:, :2].min(axis=0), whole[:, 2:].max(axis=0)
    stretch = 1 / max(math.cos(math.radians((south + north) / 2)), 0.2)
    extent = max(east - west, (north - south) * stretch)
    for split, group in boxes.items():
        style, positions = SPLIT_STYLES[split], [_unwrap(box) for box in group]
        shapes = [Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1]) for box in positions]
        colour = style["colour"]
        axes.add_collection(PatchCollection(shapes, facecolor=f"{colour}59", edgecolor=colour, linewidth=0.9))
        small = [box for box in positions if box[2] - box[0] < _MIN_VISIBLE_SHARE * extent]
        at = [(box[0] + box[2]) / 2 for box in small], [(box[1] + box[3]) / 2 for box in small]
        mark: dict[str, Any] = {"marker": style["mark"], "markerfacecolor": "none", "markeredgecolor": colour}
        axes.plot(*at, linestyle="", markersize=4.5, markeredgewidth=0.9, **mark)
        axes.plot([], [], linestyle="", markersize=6, label=f"{split} ({len(group):,})", **mark)
    axes.margins(0.06)
    axes.autoscale_view()
    axes.set_aspect(stretch, adjustable="datalim")
    axes.xaxis.set_major_formatter(lambda value, _: _format_degrees((value + 180) % 360 - 180, "EW"))
    axes.yaxis.set_major_formatter(lambda value, _: _format_degrees(value, "NS") if abs(value) <= 90 else "")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.legend(frameon=True, fontsize=_FONT_SIZE, title="tiles", title_fontsize=_FONT_SIZE)


def _format_bar_count(count: int) -> str:
    return f"{count}" if count < 1000 else f"{count / 1000:.2g}k" if count < 99_500 else f"{count / 1000:.0f}k"


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def _set_percent_axis(axes: Axes, limit: float) -> None:
    axes.set_xlim(0, limit)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(_percent_formatter())


def _percent_formatter() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, decimals=None, symbol=" %")


def _text_colour(colour: str) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else UNLABELLED[0]


def _unwrap(box: LonLatBox) -> LonLatBox:
    west, south, east, north = box
    return (west, south, east + 360, north) if east < west else box


def _format_degrees(value: float, sides: str) -> str:
    value = round(value, 6) + 0.0
    return f"{abs(value):g}°{'' if value == 0 else sides[int(value < 0)]}"
