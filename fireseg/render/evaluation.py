"""What a model is worth, drawn: where pixels go, what probabilities mean, who wins where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.render.page import Picture, to_uri
from fireseg.render.panels import spell_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Sequence[float | None]

_WIDTH, _DPI = 4.4, 160
_SMALL = 8
# Blue, orange-red and grey differ for every kind of colour vision; filled, hollow and dashed tell them apart in grey.
_OURS: dict[str, Any] = {"color": "#0072b2", "marker": "o"}
_OTHER: dict[str, Any] = {"color": "#d55e00", "marker": "s", "markerfacecolor": "white"}
_BEFORE: dict[str, Any] = {"color": "#767676", "marker": "s", "markerfacecolor": "white", "linestyle": "--"}
_RULE: dict[str, Any] = {"color": "#4d4d4d", "linewidth": 0.9, "linestyle": ":"}
_LONGEST_NAME = 22


class Spread(NamedTuple):
    """A mean over fires and what it may be by chance; None where nobody knows."""

    mean: float | None
    low: float | None
    high: float | None


def show_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Picture:
    """Where the pixels of each true class went: share of the row by darkness and in words, and the count.

    Args:
        counts: K x K pixels, rows the truth, columns the prediction.
        names: Of the classes.
    """
    matrix = np.asarray(counts, np.float64)
    shares = np.divide(matrix, matrix.sum(1, keepdims=True), out=np.zeros_like(matrix), where=matrix > 0)
    figure, axes = _start(height=2.4 + 0.32 * len(names))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*matrix.shape):
        share = float(shares[row, column])
        text = f"{spell_share(share)}\n{_shorten(float(matrix[row, column]))}" if matrix[row].any() else "-"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=_SMALL, color=colour)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), [name[:_LONGEST_NAME] for name in names], parse_math=False, fontsize=_SMALL)
    if len(names) > 3:
        axes.tick_params(axis="x", rotation=25)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="truth")
    said = "; ".join(
        f"truly {name}: " + ", ".join(f"{spell_share(share)} {other}" for share, other in zip(row, names, strict=True))
        for name, row in zip(names, shares, strict=True)
        if row.any()
    )
    return _finish(figure, "Where the pixels of each class went", f"Predicted class of labelled pixels; {said}.")


def show_reliability(before: Mapping[str, Numbers], after: Mapping[str, Numbers]) -> Picture:
    """Does fire of probability p burn in p of the cases? And how many pixels each point rests on.

    Args:
        before: `confidence`, `frequency` and `pixels` of each bin of probability, as the model gives it.
        after: The same with the temperature.
    """
    figure, axes, below = _start_pair(height=4.1)
    axes.plot([0, 1], [0, 1], label="exactly right", **_RULE)
    for curve, label, style in ((before, "as the model gives it", _BEFORE), (after, "with the temperature", _OURS)):
        x, y = _pairs(curve["confidence"], curve["frequency"])
        axes.plot(x, y, label=label, markersize=4.5, **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that burned")
    axes.legend(frameon=False, fontsize=_SMALL, loc="upper left")
    pixels = _to_array(after["pixels"])
    edges = np.linspace(0, 1, len(pixels) + 1)
    below.bar(edges[:-1], pixels, width=np.diff(edges), align="edge", color="#b3cde0", edgecolor="#4d4d4d", lw=0.5)
    if (pixels > 0).any():
        below.set_yscale("log")
    below.set(xlabel="predicted probability of fire", ylabel="pixels")
    x, y = _pairs(after["confidence"], after["frequency"])
    said = ", ".join(f"{p:.2f}: {share:.2f}" for p, share in zip(x, y, strict=True)) or "nothing to read"
    alt = f"Predicted probability of fire and the share of such pixels that burned, with the temperature: {said}."
    return _finish(figure, "Reliability: do probabilities mean what they say?", alt)


def show_precision_recall(
    curve: Mapping[str, Numbers], *, point: Mapping[str, float | None], rules: Mapping[str, tuple[Any, Any]]
) -> Picture:
    """What each threshold finds and what it costs, with the threshold in use and rules that have none.

    Args:
        curve: `precision` and `recall`, by falling threshold.
        point: `threshold`, `precision` and `recall` of the threshold in use.
        rules: Recall and precision of the index rules, by what they are called.
    """
    figure, axes = _start(height=3.5)
    recall, precision = _pairs(curve["recall"], curve["precision"])
    axes.plot(recall, precision, color=_OURS["color"], linewidth=1.8, label="model, every threshold")
    said = ["Precision against recall over all thresholds."]
    if not len(recall):
        said.append("Nothing to read.")
    threshold, x, y = (point[key] for key in ("threshold", "recall", "precision"))
    if threshold is not None and x is not None and y is not None:
        axes.plot(x, y, **_OURS, markersize=8, linestyle="", label=f"threshold in use, {threshold:.2f}")
        said.append(f"At the threshold in use, {threshold:.3f}: precision {y:.3f}, recall {x:.3f}.")
    for mark, (name, (x, y)) in zip("sD^v", rules.items(), strict=False):
        if None not in (x, y):
            axes.plot(x, y, **{**_OTHER, "marker": mark}, markersize=7, linestyle="", label=name)
            said.append(f"{name}: precision {y:.3f}, recall {x:.3f}.")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="recall: share of the burned pixels found", ylabel="precision")
    axes.legend(frameon=False, fontsize=_SMALL, loc="lower left")
    return _finish(figure, "Precision and recall", " ".join(said))


def show_areas(true_ha: Numbers, predicted_ha: Numbers) -> Picture:
    """Burned hectares of each fire, predicted against true, on axes of powers of ten, which begin at 0 where they must.

    Args:
        true_ha: One number a fire.
        predicted_ha: In the same order.
    """
    x, y = _pairs(true_ha, predicted_ha)
    figure, axes = _start(height=3.9)
    both = np.concatenate([x, y])
    least, top = both.min(initial=math.inf), 1.6 * both.max(initial=1)
    low = -0.3 if least < 3 or not len(both) else least / 3  # near 0 the axes are linear, or 0 has no place
    axes.plot([low, top], [low, top], label="exactly right", **_RULE)
    axes.plot(x, y, **_OURS, linestyle="", markersize=6, alpha=0.8, label="a fire")
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("symlog", linthresh=1, subs=(2, 5))
        getattr(axes, f"set_{axis}lim")(low, top)
        getattr(axes, f"{axis}axis").set_major_formatter(lambda value, _: f"{value:,.0f}")
        if 0 < low < top < 200 * low:  # too few powers of ten to read a size from
            getattr(axes, f"{axis}axis").set_minor_formatter(lambda value, _: f"{value:,.0f}")
            axes.tick_params(which="minor", labelsize=_SMALL)
    axes.set(xlabel="truly burned, ha", ylabel="predicted, ha")
    axes.legend(frameon=False, fontsize=_SMALL, loc="upper left")
    more = int((y > x).sum())
    alt = f"Predicted against true hectares of {len(x)} fires: too large in {more}, too small in {int((y < x).sum())}."
    return _finish(figure, "Burned area of each fire", alt)


def show_pairs(ours: Numbers, theirs: Numbers, *, rival: str) -> Picture:
    """IoU of each fire by two methods: above the line the model is better.

    Args:
        ours: Of the model, one a fire.
        theirs: In the same order.
        rival: What the other method is called.
    """
    x, y = _pairs(theirs, ours)
    figure, axes = _start(height=3.9)
    axes.fill_between([0, 1], [0, 1], 1, color="#eaf3f9", linewidth=0)
    axes.plot([0, 1], [0, 1], **_RULE)
    axes.plot(x, y, **_OURS, linestyle="", markersize=6, alpha=0.8)
    axes.text(0.03, 0.97, "model better", va="top", fontsize=_SMALL)
    axes.text(0.97, 0.03, "model worse", ha="right", fontsize=_SMALL)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="IoU of the model")
    axes.set_xlabel(f"IoU of {rival}", parse_math=False)
    alt = f"IoU of {len(x)} fires by the model and by {rival}: the model is better on {int((y > x).sum())}"
    return _finish(figure, "Fire by fire", f"{alt}, worse on {int((y < x).sum())}.")


def show_groups(rows: Mapping[str, tuple[Spread, Spread]], *, title: str, rival: str) -> Picture:
    """Mean IoU over the fires of each group with its interval, model above index.

    Args:
        rows: Of the model and of the index, by group.
        title: What the groups are.
        rival: What the index is called.
    """
    figure, axes = _start(height=1.3 + 0.45 * len(rows))
    for part, (style, label, shift) in enumerate(((_OURS, "model", -0.13), (_OTHER, rival, 0.13))):
        for place, spreads in enumerate(rows.values()):
            mean, low, high = _to_array(spreads[part])
            at = {"color": style["color"], "linewidth": 1.6}
            axes.plot([low, high], [place + shift] * 2, **at)
            axes.plot(mean, place + shift, **style, linestyle="", markersize=6, label=None if place else label)
    axes.set_yticks(range(len(rows)), [name[:_LONGEST_NAME] for name in rows], parse_math=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="mean IoU over fires, 95 % interval")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=_SMALL)
    said = "; ".join(
        f"{name}: model {_spell(ours.mean)}, {rival} {_spell(theirs.mean)}" for name, (ours, theirs) in rows.items()
    )
    return _finish(figure, title, f"{title}, mean IoU. {said}.")


def _start(*, height: float) -> tuple[Figure, Axes]:
    """A figure narrow enough that its letters can be read on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    return figure, _prepare(figure.add_subplot())


def _start_pair(*, height: float) -> tuple[Figure, Axes, Axes]:
    """The same with a low panel below that shares the axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    return figure, _prepare(above), _prepare(below)


def _prepare(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SMALL)
    axes.set_axisbelow(True)
    return axes


def _finish(figure: Figure, title: str, alt: str) -> Picture:
    file = BytesIO()
    figure.savefig(file, format="png", pil_kwargs={"optimize": True})
    return Picture(title, to_uri(file.getvalue(), "png"), alt)


def _to_array(numbers: Numbers) -> np.ndarray:
    return np.array([math.nan if number is None else number for number in numbers], np.float64)


def _pairs(ours: Numbers, theirs: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Both, where both are known."""
    both = np.stack([_to_array(ours), _to_array(theirs)])
    one, other = both[:, np.isfinite(both).all(axis=0)]
    return one, other


def _shorten(count: float) -> str:
    """A count in at most five characters: the picture has little room, and the table beside it has all digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def _spell(score: float | None) -> str:
    return "unknown" if score is None or math.isnan(score) else f"{score:.3f}"
