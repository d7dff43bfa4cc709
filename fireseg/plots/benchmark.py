"""Figure of a benchmark: scores of the recipes, and their differences to the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.plots.style import REPORT_DPI, save_figure, shorten_middle, style_axes

_RECIPE, _BASELINE, _CERTAIN = "#0072b2", "#8c8c8c", "#d55e00"


def plot_benchmark(rows: Sequence[Mapping[str, Any]], path: Path, *, num_fires: int) -> None:
    """Plots the mean IoU over fires of each row and its difference to the first recipe, with their intervals.

    Differences whose interval excludes 0 have another colour.

    Args:
        rows: Rows of the results, see `benchmark.results`.
        path: PNG file to write.
        num_fires: Number of fires, for the title.

    Raises:
        FiresegError: If the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.3 + 0.32 * len(rows)), dpi=REPORT_DPI, layout="constrained")
    scores, differences = (style_axes(axes, labelsize=9) for axes in figure.subplots(1, 2, sharey=True))
    for position, row in enumerate(rows):
        colour = _BASELINE if row["is_baseline"] else _RECIPE
        _draw_interval(scores, position, row["iou"], colour)
        if row["difference"]:
            interval = row["difference"]["difference"]
            is_certain = interval["low"] is not None and not interval["low"] <= 0 <= interval["high"]
            _draw_interval(differences, position, interval, _CERTAIN if is_certain else colour)
    labels = [
        shorten_middle(row["recipe"] + ("" if row["max_tiles"] is None else f", {row['max_tiles']} tiles"), 36)
        for row in rows
    ]
    scores.set_yticks(range(len(rows)), labels, parse_math=False)
    scores.set(ylim=(len(rows) - 0.5, -0.5), xlabel="fire IoU, mean over fires")
    differences.axvline(0, color="#4d4d4d", linewidth=0.9, linestyle=":")
    differences.set(xlabel="difference to the first recipe\n(orange: the interval excludes 0)")
    figure.suptitle(
        f"{num_fires} fires, each judged by models that never saw it; 95 % intervals over fires", fontsize=10
    )
    save_figure(figure, path)


def _draw_interval(axes: Any, position: int, interval: Mapping[str, Any], colour: str) -> None:
    if interval["low"] is not None:
        axes.plot([interval["low"], interval["high"]], [position] * 2, color=colour, linewidth=1.8)
    if interval["mean"] is not None:
        axes.plot(interval["mean"], position, "o", color=colour, markersize=5)
