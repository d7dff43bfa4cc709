"""Figures of scores and statistics: panels of the data balance, and plots of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.console import format_score, format_share
from fireseg.plots.html import Picture, to_uri
from fireseg.plots.style import UNLABELLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Blue, orange and green are distinct for all kinds of colour vision; hatches and markers are distinct in grey.
SPLIT_STYLES = {
    "train": {"colour": "#0072b2", "hatch": "", "mark": "o"},
    "val": {"colour": "#e69f00", "hatch": "....", "mark": "s"},
    "test": {"colour": "#009e73", "hatch": "////", "mark": "^"},
}

LonLatBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east across the antimeridian."""

_EDGE = "#4d4d4d"

_FONT_SIZE = 8

_GOLDEN_RATIO = (5**0.5 - 1) / 2

_MIN_LABELLED_SHARE = 0.08

_MIN_VISIBLE_SHARE = 0.012


Numbers = Sequence[float | None]

_WIDTH, _DPI = 4.4, 160

# Blue, orange-red and grey are distinct for all kinds of colour vision; filled, hollow and dashed are distinct in grey.
_MODEL: dict[str, Any] = {"color": "#0072b2", "marker": "o"}

_OTHER: dict[str, Any] = {"color": "#d55e00", "marker": "s", "markerfacecolor": "white"}

_BEFORE: dict[str, Any] = {"color": "#767676", "marker": "s", "markerfacecolor": "white", "linestyle": "--"}

_REFERENCE: dict[str, Any] = {"color": "#4d4d4d", "linewidth": 0.9, "linestyle": ":"}

_MAX_NAME_LENGTH = 22


class Spread(NamedTuple):
    """A mean over fires with its confidence interval; None where undefined."""

    mean: float | None
    low: float | None
    high: float | None


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


def plot_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Picture:
    """Plots a confusion matrix with the share of the row and the pixel count in each cell.

    Args:
        counts: K x K pixels, rows the truth, columns the prediction.
        names: Names of the classes.
    """
    matrix = np.asarray(counts, np.float64)
    shares = np.divide(matrix, matrix.sum(1, keepdims=True), out=np.zeros_like(matrix), where=matrix > 0)
    figure, axes = _make_figure(height=2.4 + 0.32 * len(names))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*matrix.shape):
        share = float(shares[row, column])
        text = f"{format_share(share)}\n{_format_short_count(float(matrix[row, column]))}" if matrix[row].any() else "-"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=_FONT_SIZE, color=colour)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(
            range(len(names)), [name[:_MAX_NAME_LENGTH] for name in names], parse_math=False, fontsize=_FONT_SIZE
        )
    if len(names) > 3:
        axes.tick_params(axis="x", rotation=25)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="truth")
    alt = "; ".join(
        f"truly {name}: " + ", ".join(f"{format_share(share)} {other}" for share, other in zip(row, names, strict=True))
        for name, row in zip(names, shares, strict=True)
        if row.any()
    )
    return _to_picture(figure, "Confusion matrix", f"Predicted class of labelled pixels; {alt}.")


def plot_reliability(before: Mapping[str, Numbers], after: Mapping[str, Numbers]) -> Picture:
    """Plots a reliability diagram and a histogram of the pixels in each bin of probability.

    Args:
        before: `confidence`, `frequency` and `pixels` of each bin, without temperature.
        after: The same with temperature.
    """
    figure, axes, below = _make_figure_pair(height=4.1)
    axes.plot([0, 1], [0, 1], label="ideal", **_REFERENCE)
    for curve, label, style in ((before, "without temperature", _BEFORE), (after, "with temperature", _MODEL)):
        x, y = _select_known(curve["confidence"], curve["frequency"])
        axes.plot(x, y, label=label, markersize=4.5, **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that burned")
    axes.legend(frameon=False, fontsize=_FONT_SIZE, loc="upper left")
    pixels = _to_array(after["pixels"])
    edges = np.linspace(0, 1, len(pixels) + 1)
    below.bar(edges[:-1], pixels, width=np.diff(edges), align="edge", color="#b3cde0", edgecolor="#4d4d4d", lw=0.5)
    if (pixels > 0).any():
        below.set_yscale("log")
    below.set(xlabel="predicted probability of fire", ylabel="pixels")
    x, y = _select_known(after["confidence"], after["frequency"])
    bins = ", ".join(f"{p:.2f}: {share:.2f}" for p, share in zip(x, y, strict=True)) or "no pixels"
    alt = f"Predicted probability of fire and share of such pixels that burned, with temperature: {bins}."
    return _to_picture(figure, "Reliability diagram", alt)


def plot_precision_recall(
    curve: Mapping[str, Numbers], *, point: Mapping[str, float | None], rules: Mapping[str, tuple[Any, Any]]
) -> Picture:
    """Plots the precision-recall curve with the operating point and the baseline rules.

    Args:
        curve: `precision` and `recall` by decreasing threshold.
        point: `threshold`, `precision` and `recall` of the operating point.
        rules: Recall and precision of the baseline rules, by label.
    """
    figure, axes = _make_figure(height=3.5)
    recall, precision = _select_known(curve["recall"], curve["precision"])
    axes.plot(recall, precision, color=_MODEL["color"], linewidth=1.8, label="model, all thresholds")
    alt = ["Precision against recall over all thresholds."]
    if not len(recall):
        alt.append("No pixels.")
    threshold, x, y = (point[key] for key in ("threshold", "recall", "precision"))
    if threshold is not None and x is not None and y is not None:
        axes.plot(x, y, **_MODEL, markersize=8, linestyle="", label=f"operating point, {threshold:.2f}")
        alt.append(f"Operating point at threshold {threshold:.3f}: precision {y:.3f}, recall {x:.3f}.")
    for mark, (name, (x, y)) in zip("sD^v", rules.items(), strict=False):
        if None not in (x, y):
            axes.plot(x, y, **{**_OTHER, "marker": mark}, markersize=7, linestyle="", label=name)
            alt.append(f"{name}: precision {y:.3f}, recall {x:.3f}.")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="recall", ylabel="precision")
    axes.legend(frameon=False, fontsize=_FONT_SIZE, loc="lower left")
    return _to_picture(figure, "Precision and recall", " ".join(alt))


def plot_areas(true_ha: Numbers, predicted_ha: Numbers) -> Picture:
    """Plots predicted against true burned area of each fire on logarithmic axes, linear near 0.

    Args:
        true_ha: True areas, one per fire.
        predicted_ha: Predicted areas in the same order.
    """
    x, y = _select_known(true_ha, predicted_ha)
    figure, axes = _make_figure(height=3.9)
    both = np.concatenate([x, y])
    least, top = both.min(initial=math.inf), 1.6 * both.max(initial=1)
    low = -0.3 if least < 3 or not len(both) else least / 3  # the axes are linear near 0 to include 0
    axes.plot([low, top], [low, top], label="ideal", **_REFERENCE)
    axes.plot(x, y, **_MODEL, linestyle="", markersize=6, alpha=0.8, label="fire")
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("symlog", linthresh=1, subs=(2, 5))
        getattr(axes, f"set_{axis}lim")(low, top)
        getattr(axes, f"{axis}axis").set_major_formatter(lambda value, _: f"{value:,.0f}")
        if 0 < low < top < 200 * low:  # too few major ticks
            getattr(axes, f"{axis}axis").set_minor_formatter(lambda value, _: f"{value:,.0f}")
            axes.tick_params(which="minor", labelsize=_FONT_SIZE)
    axes.set(xlabel="true area, ha", ylabel="predicted area, ha")
    axes.legend(frameon=False, fontsize=_FONT_SIZE, loc="upper left")
    num_over, num_under = int((y > x).sum()), int((y < x).sum())
    alt = f"Predicted against true area of {len(x)} fires: too large for {num_over}, too small for {num_under}."
    return _to_picture(figure, "Burned area of each fire", alt)


def plot_paired_ious(ours: Numbers, theirs: Numbers, *, other: str) -> Picture:
    """Plots the IoU of each fire by the model against that by another method.

    Args:
        ours: IoU of the model, one per fire.
        theirs: IoU of the other method, in the same order.
        other: Label of the other method.
    """
    x, y = _select_known(theirs, ours)
    figure, axes = _make_figure(height=3.9)
    axes.fill_between([0, 1], [0, 1], 1, color="#eaf3f9", linewidth=0)
    axes.plot([0, 1], [0, 1], **_REFERENCE)
    axes.plot(x, y, **_MODEL, linestyle="", markersize=6, alpha=0.8)
    axes.text(0.03, 0.97, "model better", va="top", fontsize=_FONT_SIZE)
    axes.text(0.97, 0.03, "model worse", ha="right", fontsize=_FONT_SIZE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="IoU of the model")
    axes.set_xlabel(f"IoU of {other}", parse_math=False)
    alt = f"IoU of {len(x)} fires by the model and by {other}: the model is better on {int((y > x).sum())}"
    return _to_picture(figure, "Fire by fire", f"{alt}, worse on {int((y < x).sum())}.")


def plot_groups(rows: Mapping[str, tuple[Spread, Spread]], *, title: str, other: str) -> Picture:
    """Plots the mean IoU over the fires of each group with its interval, for the model and another method.

    Args:
        rows: Means of the model and of the other method, by group.
        title: Title of the figure.
        other: Label of the other method.
    """
    figure, axes = _make_figure(height=1.3 + 0.45 * len(rows))
    for part, (style, label, shift) in enumerate(((_MODEL, "model", -0.13), (_OTHER, other, 0.13))):
        for position, spreads in enumerate(rows.values()):
            mean, low, high = _to_array(spreads[part])
            at = {"color": style["color"], "linewidth": 1.6}
            axes.plot([low, high], [position + shift] * 2, **at)
            axes.plot(mean, position + shift, **style, linestyle="", markersize=6, label=None if position else label)
    axes.set_yticks(range(len(rows)), [name[:_MAX_NAME_LENGTH] for name in rows], parse_math=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="mean IoU over fires, 95 % interval")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=_FONT_SIZE)
    means = "; ".join(
        f"{name}: model {ours}, {other} {theirs}"
        for name, spreads in rows.items()
        for ours, theirs in [[format_score(spread.mean, undefined="unknown") for spread in spreads]]
    )
    return _to_picture(figure, title, f"{title}, mean IoU. {means}.")


def _make_figure(*, height: float) -> tuple[Figure, Axes]:
    """Makes a figure narrow enough to be readable on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    return figure, _style_axes(figure.add_subplot())


def _make_figure_pair(*, height: float) -> tuple[Figure, Axes, Axes]:
    """Makes a figure with a low second panel that shares the x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    return figure, _style_axes(above), _style_axes(below)


def _style_axes(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_FONT_SIZE)
    axes.set_axisbelow(True)
    return axes


def _to_picture(figure: Figure, title: str, alt: str) -> Picture:
    file = BytesIO()
    figure.savefig(file, format="png", pil_kwargs={"optimize": True})
    return Picture(title, to_uri(file.getvalue(), "png"), alt)


def _to_array(numbers: Numbers) -> np.ndarray:
    return np.array([math.nan if number is None else number for number in numbers], np.float64)


def _select_known(ours: Numbers, theirs: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the pairs in which both numbers are known."""
    both = np.stack([_to_array(ours), _to_array(theirs)])
    one, other = both[:, np.isfinite(both).all(axis=0)]
    return one, other


def _format_short_count(count: float) -> str:
    """Formats a count in at most five characters; the table next to the figure has all digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"
