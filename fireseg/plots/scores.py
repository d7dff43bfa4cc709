"""Plots of an evaluation: confusion, calibration, curves and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.console import format_score, format_share
from fireseg.plots.html import Picture, to_uri
from fireseg.plots.style import REPORT_DPI, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FONT_SIZE = 8
"""Size of texts in the figures of a report, in points."""

Numbers = Sequence[float | None]

_WIDTH = 4.4

# Blue, orange-red and grey are distinct for all kinds of colour vision; filled, hollow and dashed are distinct in grey.
_MODEL: dict[str, Any] = {"color": "#0072b2", "marker": "o"}

_OTHER: dict[str, Any] = {"color": "#d55e00", "marker": "s", "markerfacecolor": "white"}

_BEFORE: dict[str, Any] = {"color": "#767676", "marker": "s", "markerfacecolor": "white", "linestyle": "--"}

_REFERENCE: dict[str, Any] = {"color": "#4d4d4d", "linewidth": 0.9, "linestyle": ":"}

_MAX_NAME_LENGTH = 22


class Spread(NamedTuple):
    """A mean over fires with its confidence interval, or the values if there are too few; None where undefined."""

    mean: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...] = ()


def plot_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Picture:
    """Plots a confusion matrix with the share of the row and the pixel count in each cell.

    Args:
        counts: K x K pixels, rows the truth, columns the prediction.
        names: Names of the classes.
    """
    matrix = np.asarray(counts, np.float64)
    shares = np.divide(matrix, matrix.sum(1, keepdims=True), out=np.zeros_like(matrix), where=matrix > 0)
    figure, axes = make_figure(height=2.4 + 0.32 * len(names))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*matrix.shape):
        share = float(shares[row, column])
        text = f"{format_share(share)}\n{_format_short_count(float(matrix[row, column]))}" if matrix[row].any() else "-"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=FONT_SIZE, color=colour)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(
            range(len(names)), [name[:_MAX_NAME_LENGTH] for name in names], parse_math=False, fontsize=FONT_SIZE
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
    return to_picture(figure, "Confusion matrix", f"Predicted class of labelled pixels; {alt}.")


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
    axes.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left")
    pixels = _to_array(after["pixels"])
    edges = np.linspace(0, 1, len(pixels) + 1)
    below.bar(edges[:-1], pixels, width=np.diff(edges), align="edge", color="#b3cde0", edgecolor="#4d4d4d", lw=0.5)
    if (pixels > 0).any():
        below.set_yscale("log")
    below.set(xlabel="predicted probability of having burned", ylabel="pixels")
    x, y = _select_known(after["confidence"], after["frequency"])
    bins = ", ".join(f"{p:.2f}: {share:.2f}" for p, share in zip(x, y, strict=True)) or "no pixels"
    alt = f"Predicted probability of having burned and share of such pixels that burned, with temperature: {bins}."
    return to_picture(figure, "Reliability diagram", alt)


def plot_precision_recall(
    curve: Mapping[str, Numbers], *, point: Mapping[str, float | None], rules: Mapping[str, tuple[Any, Any]]
) -> Picture:
    """Plots the precision-recall curve with the operating point and the baseline rules.

    Args:
        curve: `precision` and `recall` by decreasing threshold.
        point: `threshold`, `precision` and `recall` of the operating point.
        rules: Recall and precision of the baseline rules, by label.
    """
    figure, axes = make_figure(height=3.5)
    recall, precision = _select_known(curve["recall"], curve["precision"])
    axes.plot(recall, precision, color=_MODEL["color"], linewidth=1.8, label="model, all thresholds")
    alt = ["Precision against recall over all thresholds."]
    if not len(recall):
        alt.append("No pixels.")
    threshold, x, y = (point[key] for key in ("threshold", "recall", "precision"))
    if threshold is not None and x is not None and y is not None:
        axes.plot(x, y, **_MODEL, markersize=8, linestyle="", label=f"operating point, {threshold:.2f}")
        alt.append(f"Operating point at threshold {threshold:.3f}: precision {y:.3f}, recall {x:.3f}.")
    for mark, (name, (x, y)) in zip("sD^vP", rules.items(), strict=False):
        if None not in (x, y):
            axes.plot(x, y, **{**_OTHER, "marker": mark}, markersize=7, linestyle="", label=name)
            alt.append(f"{name}: precision {y:.3f}, recall {x:.3f}.")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="recall", ylabel="precision")
    axes.legend(frameon=False, fontsize=FONT_SIZE, loc="lower left")
    return to_picture(figure, "Precision and recall", " ".join(alt))


def plot_areas(true_ha: Numbers, predicted_ha: Numbers) -> Picture:
    """Plots predicted against true burned area of each fire on logarithmic axes, linear near 0.

    Args:
        true_ha: True areas, one per fire.
        predicted_ha: Predicted areas in the same order.
    """
    x, y = _select_known(true_ha, predicted_ha)
    figure, axes = make_figure(height=3.9)
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
            axes.tick_params(which="minor", labelsize=FONT_SIZE)
    axes.set(xlabel="true area, ha", ylabel="predicted area, ha")
    axes.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left")
    num_over, num_under = int((y > x).sum()), int((y < x).sum())
    alt = f"Predicted against true area of {len(x)} fires: too large for {num_over}, too small for {num_under}."
    return to_picture(figure, "Burned area of each fire", alt)


def plot_paired_ious(ours: Numbers, theirs: Numbers, *, other: str) -> Picture:
    """Plots the IoU of each fire by the model against that by another method.

    Args:
        ours: IoU of the model, one per fire.
        theirs: IoU of the other method, in the same order.
        other: Label of the other method.
    """
    x, y = _select_known(theirs, ours)
    figure, axes = make_figure(height=3.9)
    axes.fill_between([0, 1], [0, 1], 1, color="#eaf3f9", linewidth=0)
    axes.plot([0, 1], [0, 1], **_REFERENCE)
    axes.plot(x, y, **_MODEL, linestyle="", markersize=6, alpha=0.8)
    axes.text(0.03, 0.97, "model better", va="top", fontsize=FONT_SIZE)
    axes.text(0.97, 0.03, "model worse", ha="right", fontsize=FONT_SIZE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="IoU of the model")
    axes.set_xlabel(f"IoU of {other}", parse_math=False)
    alt = f"IoU of {len(x)} fires by the model and by {other}: the model is better on {int((y > x).sum())}"
    return to_picture(figure, "Fire by fire", f"{alt}, worse on {int((y < x).sum())}.")


def plot_groups(rows: Mapping[str, tuple[Spread, Spread]], *, title: str, other: str) -> Picture:
    """Plots the mean IoU over the fires of each group with its interval, for the model and another method.

    Args:
        rows: Means of the model and of the other method, by group.
        title: Title of the figure.
        other: Label of the other method.
    """
    figure, axes = make_figure(height=1.3 + 0.45 * len(rows))
    for part, (style, label, shift) in enumerate(((_MODEL, "model", -0.13), (_OTHER, other, 0.13))):
        for position, spreads in enumerate(rows.values()):
            mean, low, high = _to_array(spreads[part][:3])
            values = spreads[part].values
            at = {"color": style["color"], "linewidth": 1.6}
            axes.plot([low, high], [position + shift] * 2, **at)
            axes.plot(values, [position + shift] * len(values), "|", color=style["color"], markersize=9)
            axes.plot(mean, position + shift, **style, linestyle="", markersize=6, label=None if position else label)
    axes.set_yticks(range(len(rows)), [name[:_MAX_NAME_LENGTH] for name in rows], parse_math=False)
    axes.set(
        xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="mean IoU over fires, 95 % interval, or ticks: values"
    )
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=FONT_SIZE)
    means = "; ".join(
        f"{name}: model {ours}, {other} {theirs}"
        for name, spreads in rows.items()
        for ours, theirs in [[format_score(spread.mean, undefined="unknown") for spread in spreads]]
    )
    return to_picture(figure, title, f"{title}, mean IoU. {means}.")


def make_figure(*, height: float) -> tuple[Figure, Axes]:
    """Makes a figure narrow enough to be readable on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=REPORT_DPI, layout="constrained")
    return figure, style_axes(figure.add_subplot(), labelsize=FONT_SIZE)


def _make_figure_pair(*, height: float) -> tuple[Figure, Axes, Axes]:
    """Makes a figure with a low second panel that shares the x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=REPORT_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    return figure, style_axes(above, labelsize=FONT_SIZE), style_axes(below, labelsize=FONT_SIZE)


def to_picture(figure: Figure, title: str, alt: str) -> Picture:
    """Encodes a figure for a report."""
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
