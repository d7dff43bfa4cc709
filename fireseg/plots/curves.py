"""Training curves: losses, scores and learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fireseg.plots.style import DPI, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MARK = "#d55e00"

_LINES = (
    ("loss", "train/loss", "train", "#999999"),
    ("loss", "val/loss", "validation", "#0072b2"),
    ("score", "val/fire_iou", "fire IoU", "#000000"),
    ("score", "val/fire_recall", "fire recall", "#e69f00"),
    ("score", "val/detection_f1", "detection F1", "#56b4e9"),
    ("score", "val/severity_iou", "severity IoU", "#cc79a7"),
    ("rate", "lr", "learning rate", "#3d3d3d"),
)
"""Panel, metric key, label and colour of each curve."""


def render_curves(rows: Sequence[Mapping[str, Any]], path: Path, *, baseline: float | None = None) -> None:
    """Draws losses, scores and learning rate by epoch and marks the best epoch.

    Args:
        rows: Metrics of each epoch: `epoch`, `best`, `lr`, `train/loss`, `val/loss`, `val/fire_iou`, …; undefined
            values are None or missing.
        path: Path of the PNG file to write.
        baseline: Fire IoU of an index baseline, drawn as a horizontal line.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), dpi=DPI, layout="constrained")
    axes = figure.subplot_mosaic([["loss", "score"], ["rate", "score"]], height_ratios=(2, 1), width_ratios=(1, 1.15))
    titles = {"loss": "Loss", "rate": "Learning rate", "score": "Validation scores"}
    for panel, key, label, colour in _LINES:
        values = _read_column(rows, key)
        if np.isfinite(values).any():
            style: dict[str, Any] = {"linewidth": 2.4 if key == "val/fire_iou" else 1.4, "markersize": 3.5}
            style["marker"] = "o" if len(rows) <= 40 else ""  # without markers, a single epoch would be invisible
            axes[panel].plot(_read_column(rows, "epoch"), values, label=label, color=colour, **style)
    if baseline is not None:
        label = f"index baseline, fire IoU {baseline:.3f}"
        axes["score"].axhline(baseline, color="#666666", linestyle="--", label=label)
    best = next((row for row in reversed(rows) if row.get("best")), None)
    if best is not None and best.get("val/fire_iou") is not None:
        titles["score"] += f" (best: epoch {best['epoch']}, fire IoU {best['val/fire_iou']:.3f})"
        star: dict[str, Any] = {"marker": "*", "markersize": 15, "linestyle": "", "zorder": 5, "label": "best epoch"}
        axes["score"].plot(best["epoch"], best["val/fire_iou"], color=_MARK, **star)
    for panel, title in titles.items():
        axes[panel].set_title(title, loc="left")
        _format_axes(axes[panel], _read_column(rows, "epoch"), best["epoch"] if best else None)
    axes["score"].set_ylim(-0.02, 1.02)
    rates = _read_column(rows, "lr")
    if (rates > 0).any():  # a log axis needs a positive value
        _use_log_scale(axes["rate"], rates[rates > 0])
    if axes["loss"].lines:
        axes["loss"].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0.2)
    if axes["score"].lines:
        handles, _ = axes["score"].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside lower right", ncols=6, frameon=False)
    save_figure(figure, path)


def _read_column(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Returns one value per epoch; undefined values are NaN, which interrupts the line."""
    return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])


def _format_axes(axes: Axes, epochs: np.ndarray, best: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if not axes.lines:
        axes.text(0.5, 0.5, "no values", ha="center", va="center", transform=axes.transAxes, color="#666666")
    elif best is not None:
        axes.axvline(best, color=_MARK, linewidth=0.8, zorder=1.8)
    axes.set_xlim(epochs.min(initial=1) - 0.5, epochs.max(initial=1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _use_log_scale(axes: Axes, values: np.ndarray) -> None:
    """Sets a logarithmic scale, whose labels do not overlap in a low panel."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = values.min(), values.max()
    axes.set_yscale("log", nonpositive="mask")
    margin = max(1.3, np.sqrt(10 * low / high))  # at least a decade, which holds a tick or two
    axes.set_ylim(low / margin, high * margin)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,), numticks=5))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
