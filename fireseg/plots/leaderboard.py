"""Plots that compare runs: cost against score, learning curves, differences, importance of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fireseg.plots.html import Picture
from fireseg.plots.scores import FONT_SIZE, Numbers, Spread, make_figure, to_picture
from fireseg.plots.style import shorten_middle

# The palette of Okabe and Ito without yellow, which is too light for lines: distinct for all kinds of colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")

_OTHER_COLOUR = "#bdbdbd"

_REFERENCE_COLOUR = "#4d4d4d"

_MAX_LABEL = 26


class ScoredCost(NamedTuple):
    """An entry of a leaderboard in a plot of cost and score.

    Attributes:
        rank: Rank of the entry.
        cost: Cost in the unit of the axis; None if it is not known.
        score: Fire IoU, 0 to 1; None if it is not known.
        deviation: Standard deviation of the score over seeds; None for one seed.
    """

    rank: int
    cost: float | None
    score: float | None
    deviation: float | None = None


def find_pareto_front(points: Sequence[ScoredCost]) -> list[ScoredCost]:
    """Finds the points that no other one beats in both cost and score, cheapest first.

    Args:
        points: Points; those without cost or score are left out.

    Example:
        >>> front = find_pareto_front([ScoredCost(1, 9, 0.8), ScoredCost(2, 12, 0.7), ScoredCost(3, 2, 0.6)])
        >>> [point.rank for point in front]
        [3, 1]
    """
    front: list[ScoredCost] = []
    for point in sorted(_select_known(points), key=lambda point: (point.cost, -(point.score or 0))):
        if not front or (point.score or 0) > (front[-1].score or 0):
            front.append(point)
    return front


def _select_known(points: Sequence[ScoredCost]) -> list[ScoredCost]:
    return [point for point in points if point.cost is not None and point.score is not None]


def plot_costs(points: Sequence[ScoredCost], *, title: str, axis: str) -> Picture:
    """Plots the score of each entry against a cost, with the Pareto front; numbers are ranks.

    Args:
        points: Cost and score of each entry.
        title: Title of the figure.
        axis: Label of the cost axis.
    """
    figure, axes = make_figure(height=3.4)
    known, front = _select_known(points), find_pareto_front(points)
    costs, scores = ([float(point[index] or 0) for point in known] for index in (1, 2))
    deviations = [point.deviation or 0 for point in known]
    is_best = [point in front for point in known]
    if known and 0 < min(costs) < max(costs) / 10:
        axes.set_xscale("log")
    axes.step(
        [float(point.cost or 0) for point in front],
        [float(point.score or 0) for point in front],
        where="post",
        color=_COLOURS[0],
        linewidth=1.2,
        linestyle="--",
        label="Pareto front",
    )
    axes.errorbar(costs, scores, yerr=deviations, fmt="none", ecolor=_OTHER_COLOUR, elinewidth=1.2, zorder=1)
    colours = [_COLOURS[0] if best else "white" for best in is_best]
    axes.scatter(costs, scores, s=34, c=colours, edgecolors=_COLOURS[0], zorder=3)
    for point, x, y in zip(known, costs, scores, strict=True):
        at = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": FONT_SIZE}
        axes.annotate(str(point.rank), (x, y), **at)
    axes.margins(x=0.12, y=0.15)
    axes.set(xlabel=axis, ylabel="fire IoU on val")
    if front:
        axes.legend(frameon=False, fontsize=FONT_SIZE, loc="lower right")
    ranks = ", ".join(str(point.rank) for point in front) or "none"
    return to_picture(figure, title, f"{title} of {len(known)} entries. On the Pareto front, cheapest first: {ranks}.")


def plot_learning_curves(curves: Mapping[str, Sequence[tuple[Numbers, Numbers]]]) -> Picture:
    """Plots the fire IoU on val by epoch of all runs; one colour for each of the first entries.

    Args:
        curves: Epochs and scores of each run, by label of the entry, best first.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = make_figure(height=3.8)
    num_others = max(len(curves) - len(_COLOURS), 0)
    # The best entries are drawn last, above the others.
    for position, (label, runs) in reversed(list(enumerate(curves.items()))):
        is_shown = position < len(_COLOURS)
        name = f"{position + 1}  {shorten_middle(label, _MAX_LABEL)}"
        if not is_shown:
            name = f"{num_others} others" if position == len(_COLOURS) else "_"
        for number, (epochs, scores) in enumerate(runs):
            axes.plot(
                _to_array(epochs),
                _to_array(scores),
                color=_COLOURS[position] if is_shown else _OTHER_COLOUR,
                linewidth=1.4 if is_shown else 0.8,
                marker="o" if len(epochs) <= 12 else "",
                markersize=3,
                label="_" if number else name,
            )
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles[::-1], labels[::-1], loc="outside lower center", ncols=2, frameon=False, fontsize=FONT_SIZE
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel="fire IoU on val")
    num_runs = sum(map(len, curves.values()))
    return to_picture(
        figure, "Learning curves", f"Fire IoU on val by epoch of {num_runs} runs of {len(curves)} entries."
    )


def plot_differences(rows: Mapping[str, Spread], *, best: str, split: str) -> Picture:
    """Plots the mean IoU difference of each entry to the best one over the same fires, with its interval.

    Args:
        rows: Mean differences by label.
        best: Label of the best entry.
        split: Split of the fires.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = make_figure(height=1.2 + 0.32 * len(rows))
    for position, spread in enumerate(rows.values()):
        mean, low, high = _to_array(spread[:3])
        axes.plot([low, high], [position] * 2, color=_COLOURS[0], linewidth=1.6)
        axes.plot(spread.values, [position] * len(spread.values), "|", color=_COLOURS[0], markersize=9)
        axes.plot(mean, position, "o", color=_COLOURS[0], markersize=6)
    axes.axvline(0, color=_REFERENCE_COLOUR, linewidth=0.9, linestyle=":")
    axes.set_yticks(range(len(rows)), [shorten_middle(name, _MAX_LABEL) for name in rows], parse_math=False)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"IoU difference on {split}, 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    means = "; ".join(f"{name} {spread.mean:+.3f}" for name, spread in rows.items() if spread.mean is not None)
    return to_picture(
        figure, "Difference to the best", f"Mean IoU difference to {best} over fires of {split}: {means}."
    )


def plot_importance(loss: Mapping[str, float]) -> Picture:
    """Plots the permutation importance of settings as bars.

    Args:
        loss: Increase of the error in IoU by name of the setting, largest first.
    """
    figure, axes = make_figure(height=1.2 + 0.3 * len(loss))
    colours = [_OTHER_COLOUR if name.startswith("seed") else _COLOURS[0] for name in loss]
    axes.barh(range(len(loss)), list(loss.values()), color=colours, height=0.6)
    axes.axvline(0, color=_REFERENCE_COLOUR, linewidth=0.9)
    axes.set_yticks(range(len(loss)), [shorten_middle(name, _MAX_LABEL) for name in loss], parse_math=False)
    axes.set(ylim=(len(loss) - 0.5, -0.5), xlabel="increase of the error of the predicted IoU")
    values = "; ".join(f"{name} {value:.4f}" for name, value in loss.items())
    return to_picture(figure, "Importance of the settings", f"Permutation importance: {values}.")


def _to_array(numbers: Numbers) -> np.ndarray:
    return np.array([math.nan if number is None else number for number in numbers], np.float64)
