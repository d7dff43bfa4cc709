"""What a model is worth, drawn: where pixels go, what probabilities mean, who wins where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.plots.html import Picture, to_uri
from fireseg.plots.style import UNLABELLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Blue, orange and green that differ for every kind of colour vision; hatch and mark tell them apart in grey.
SPLIT_STYLES = {
    "train": {"colour": "#0072b2", "hatch": "", "mark": "o"},
    "val": {"colour": "#e69f00", "hatch": "....", "mark": "s"},
    "test": {"colour": "#009e73", "hatch": "////", "mark": "^"},
}

LonLatBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; across the antimeridian west is above east."""

_EDGE = "#4d4d4d"

_SMALL = 8

_GOLDEN = (5**0.5 - 1) / 2

_LEAST_WRITTEN = 0.08

_VISIBLE = 0.012


def draw_class_shares(
    axes: Axes, counts: Mapping[str, Sequence[int]], names: Sequence[str], colours: Sequence[str]
) -> None:
    """One bar a split, made up of its classes.

    Args:
        axes: Where to.
        counts: Pixels of each class by split.
        names: Of the classes.
        colours: Of the classes.
    """
    for place, row in enumerate(counts.values()):
        total, left = sum(row), 0.0
        for name, colour, count in zip(names, colours, row, strict=True):
            share = count / total if total else 0.0
            label = name if place == 0 else None
            axes.barh(place, share, left=left, color=colour, edgecolor=_EDGE, linewidth=0.5, label=label)
            if share >= _LEAST_WRITTEN:
                at = {"ha": "center", "va": "center", "fontsize": _SMALL, "color": _readable_on(colour)}
                axes.text(left + share / 2, place, format_share(share), **at)
            left += share
        if not total:
            axes.text(0.01, place, "nothing labelled", va="center", fontsize=_SMALL)
    _name_rows(axes, list(counts))
    _show_percent(axes, 1.0)
    columns = len(names) if len(names) < 4 else 3
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=columns, frameon=False, fontsize=_SMALL)


def draw_class_patches(
    axes: Axes, counts: Mapping[str, Sequence[int]], totals: Mapping[str, int], colours: Sequence[str]
) -> None:
    """One bar a class and split: in how many of the patches it occurs.

    Args:
        axes: Where to.
        counts: Patches with each class, by split.
        totals: Patches of each split.
        colours: Of the classes.
    """
    step = len(colours) + 0.8
    for place, (split, row) in enumerate(counts.items()):
        for number, (colour, count) in enumerate(zip(colours, row, strict=True)):
            y, share = place * step + number, count / max(totals[split], 1)
            axes.barh(y, share, height=0.85, color=colour, edgecolor=_EDGE, linewidth=0.5)
            axes.text(share + 0.015, y, f"{count:,} ({format_share(share)})", va="center", fontsize=_SMALL)
    middles = [place * step + (len(colours) - 1) / 2 for place in range(len(counts))]
    axes.set_yticks(middles, [f"{split}\n{totals[split]:,}" for split in counts])
    axes.invert_yaxis()
    _show_percent(axes, 1.42)
    axes.set_xlabel("of the split's labelled patches")


def draw_weights(axes: Axes, weights: Sequence[float], names: Sequence[str], colours: Sequence[str]) -> None:
    """One bar a class: how much one of its pixels should weigh.

    Args:
        axes: Where to.
        weights: Of the classes.
        names: Of the classes.
        colours: Of the classes.
    """
    axes.barh(range(len(weights)), weights, color=colours, edgecolor=_EDGE, linewidth=0.5)
    for place, weight in enumerate(weights):
        axes.text(weight + 0.02 * max(weights), place, f"{weight:.3g}", va="center", fontsize=_SMALL)
    _name_rows(axes, names)
    axes.axvline(1, color=_EDGE, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1.2 * max(*weights, 1))
    axes.set_xlabel("weight of a pixel")


def draw_share_bins(axes: Axes, bins: Mapping[str, Sequence[int]], labels: Sequence[str], *, axis: str) -> None:
    """Bars side by side: what share of the patches of each split falls into each bin.

    Args:
        axes: Where to.
        bins: Patches in each bin, by split.
        labels: Of the bins.
        axis: What is binned.
    """
    width = 0.8 / max(len(bins), 1)
    highest = 0.0
    for number, (split, counts) in enumerate(bins.items()):
        style = SPLIT_STYLES[split]
        shares = np.asarray(counts) / max(sum(counts), 1)
        places = np.arange(len(labels)) + (number - (len(bins) - 1) / 2) * width
        look: dict[str, Any] = {"color": style["colour"], "hatch": style["hatch"], "edgecolor": "white", "linewidth": 0}
        axes.bar(places, shares, width=0.92 * width, label=split, **look)
        highest = max(highest, float(shares.max(initial=0)))
        for place, share, count in zip(places, shares, counts, strict=True):
            if count:
                axes.text(place, share + 0.004, _shorten_label(count), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel(axis)
    axes.set_ylim(0, max(1.3 * highest, 0.1))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
    axes.yaxis.set_major_formatter(_percent())
    axes.set_ylabel("of the split's patches")
    axes.legend(loc="upper center", ncols=len(bins), frameon=False, fontsize=_SMALL)


def draw_fire_sizes(axes: Axes, areas_ha: Mapping[str, Sequence[float]]) -> None:
    """One mark a fire on an axis of powers of ten, one row a split, the median as a line.

    Args:
        axes: Where to.
        areas_ha: Burned areas in hectares, by split.
    """
    from matplotlib.ticker import LogLocator

    for place, (split, areas) in enumerate(areas_ha.items()):
        style, known = SPLIT_STYLES[split], sorted(area for area in areas if area > 0)
        # Side by side rather than upon each other: steps of the golden ratio spread any number evenly.
        beside = [place + 0.5 * ((number * _GOLDEN) % 1 - 0.5) for number in range(len(known))]
        mark: dict[str, Any] = {"marker": style["mark"], "color": style["colour"], "alpha": 0.75, "linestyle": ""}
        axes.plot(known, beside, markersize=5, markeredgecolor="white", markeredgewidth=0.4, **mark)
        if known:
            middle = float(np.median(known))
            axes.plot([middle] * 2, [place - 0.38, place + 0.38], color="black", linewidth=1.6)
            text = f"median {middle:,.0f} ha"
            axes.annotate(text, (middle, place - 0.39), ha="center", va="bottom", fontsize=_SMALL)
        else:
            axes.text(0.02, place, "no fire", transform=axes.get_yaxis_transform(), va="center", fontsize=_SMALL)
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
    """Boxes on longitude and latitude, north up, and a mark where a box is too small to be seen.

    Args:
        axes: Where to.
        boxes: Of the tiles, by split.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    whole = np.array([_unwrap(box) for group in boxes.values() for box in group]).reshape(-1, 4)
    if not len(whole):
        axes.text(0.5, 0.5, "no footprint is known", ha="center", transform=axes.transAxes)
        return
    (west, south), (east, north) = whole[:, :2].min(axis=0), whole[:, 2:].max(axis=0)
    stretch = 1 / max(math.cos(math.radians((south + north) / 2)), 0.2)
    extent = max(east - west, (north - south) * stretch)
    for split, group in boxes.items():
        style, places = SPLIT_STYLES[split], [_unwrap(box) for box in group]
        shapes = [Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1]) for box in places]
        colour = style["colour"]
        axes.add_collection(PatchCollection(shapes, facecolor=f"{colour}59", edgecolor=colour, linewidth=0.9))
        small = [box for box in places if box[2] - box[0] < _VISIBLE * extent]
        at = [(box[0] + box[2]) / 2 for box in small], [(box[1] + box[3]) / 2 for box in small]
        mark: dict[str, Any] = {"marker": style["mark"], "markerfacecolor": "none", "markeredgecolor": colour}
        axes.plot(*at, linestyle="", markersize=4.5, markeredgewidth=0.9, **mark)
        axes.plot([], [], linestyle="", markersize=6, label=f"{split} ({len(group):,})", **mark)
    axes.margins(0.06)
    axes.autoscale_view()
    axes.set_aspect(stretch, adjustable="datalim")
    axes.xaxis.set_major_formatter(lambda value, _: _spell_degrees((value + 180) % 360 - 180, "EW"))
    axes.yaxis.set_major_formatter(lambda value, _: _spell_degrees(value, "NS") if abs(value) <= 90 else "")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.legend(frameon=True, fontsize=_SMALL, title="tiles", title_fontsize=_SMALL)


def format_share(share: float) -> str:
    """A share in percent, where a few are not none and nearly all are not all.

    Example:
        >>> spell_share(0.0), spell_share(0.0004), spell_share(0.034), spell_share(0.217), spell_share(0.9999)
        ('0 %', '<0.1 %', '3.4 %', '22 %', '>99.9 %')
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 or 0.99 < share < 1 else f"{100 * share:.0f} %"


def _shorten_label(count: int) -> str:
    return f"{count}" if count < 1000 else f"{count / 1000:.2g}k" if count < 99_500 else f"{count / 1000:.0f}k"


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def _show_percent(axes: Axes, limit: float) -> None:
    axes.set_xlim(0, limit)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(_percent())


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, decimals=None, symbol=" %")


def _readable_on(colour: str) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else UNLABELLED[0]


def _unwrap(box: LonLatBox) -> LonLatBox:
    west, south, east, north = box
    return (west, south, east + 360, north) if east < west else box


def _spell_degrees(value: float, sides: str) -> str:
    value = round(value, 6) + 0.0
    return f"{abs(value):g}°{'' if value == 0 else sides[int(value < 0)]}"


Numbers = Sequence[float | None]

_WIDTH, _DPI = 4.4, 160

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


def plot_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Picture:
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
        text = f"{format_share(share)}\n{_shorten(float(matrix[row, column]))}" if matrix[row].any() else "-"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=_SMALL, color=colour)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), [name[:_LONGEST_NAME] for name in names], parse_math=False, fontsize=_SMALL)
    if len(names) > 3:
        axes.tick_params(axis="x", rotation=25)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="truth")
    said = "; ".join(
        f"truly {name}: " + ", ".join(f"{format_share(share)} {other}" for share, other in zip(row, names, strict=True))
        for name, row in zip(names, shares, strict=True)
        if row.any()
    )
    return _finish(figure, "Where the pixels of each class went", f"Predicted class of labelled pixels; {said}.")


def plot_reliability(before: Mapping[str, Numbers], after: Mapping[str, Numbers]) -> Picture:
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


def plot_precision_recall(
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


def plot_areas(true_ha: Numbers, predicted_ha: Numbers) -> Picture:
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


def plot_paired_ious(ours: Numbers, theirs: Numbers, *, rival: str) -> Picture:
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


def plot_groups(rows: Mapping[str, tuple[Spread, Spread]], *, title: str, rival: str) -> Picture:
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
