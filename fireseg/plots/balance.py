"""Figures of the composition of a data set: classes, fires, clouds and footprints, as panels or on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.console import format_count, format_share
from fireseg.plots import balance_panels
from fireseg.plots.balance_panels import LonLatBox
from fireseg.plots.style import REPORT_DPI, save_figure, style_axes
from fireseg.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE_LABELS = ("none", "to 1 %", "to 10 %", "to 30 %", "to 50 %", "to 100 %")

_SHARE_EDGES = (0.0, 0.01, 0.1, 0.3, 0.5, 1.0)

NO_CLOUD_MASK = "no mask"

_SHEET_DPI = 110

_LABEL_SIZE = 9


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """Frequencies of the classes of a task.

    Attributes:
        task: The task.
        pixels: Number of labelled pixels of each class, by split.
        patches: Number of patches with at least one pixel of each class, by split.
        totals: Number of patches with at least one labelled pixel, by split.
        weights: Recommended class weights for the loss; empty without training patches.
    """

    task: Task
    pixels: Mapping[str, Sequence[int]]
    patches: Mapping[str, Sequence[int]]
    totals: Mapping[str, int]
    weights: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Balance:
    """The composition of a data set.

    Attributes:
        classes: Class frequencies of each task.
        burned: Burned share of each labelled patch, by split.
        cloud: Cloud cover of each patch, NaN if unknown, by split.
        fires_ha: Burned area of each fire in hectares, by split.
        boxes: Footprints of the tiles in degrees, by split.
    """

    classes: Sequence[ClassCounts]
    burned: Mapping[str, Sequence[float]]
    cloud: Mapping[str, Sequence[float]]
    fires_ha: Mapping[str, Sequence[float]]
    boxes: Mapping[str, Sequence[LonLatBox]]


class Panel(NamedTuple):
    """A figure of the sheet or the report.

    Attributes:
        title: Title.
        alt: The values shown as text, for people who cannot see the figure.
        draw: Function that draws on axes.
        is_wide: True if the figure takes the whole width.
        kind: Section of the report: `classes`, `patches` or `map`.
    """

    title: str
    alt: str
    draw: Callable[[Axes], None]
    is_wide: bool = False
    kind: str = "patches"


def list_panels(balance: Balance) -> list[Panel]:
    """Returns the panels of a data set, the map last."""
    return [panel for counts in balance.classes for panel in _make_class_panels(counts)] + [
        _make_share_panel("Burned share of patches", balance.burned, "burned share of the labelled pixels of a patch"),
        _make_fire_panel(balance.fires_ha),
        _make_share_panel("Cloud cover of patches", balance.cloud, "cloud cover of a patch"),
        _make_map_panel(balance.boxes),
    ]


def draw_panel(panel: Panel) -> bytes:
    """Draws a panel as PNG, narrow enough to be readable on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 4.2) if panel.is_wide else (4.4, 3.1), dpi=REPORT_DPI, layout="constrained")
    panel.draw(style_axes(figure.add_subplot(), labelsize=_LABEL_SIZE))
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def render_balance(balance: Balance, path: Path, *, title: str) -> None:
    """Draws all panels on one sheet.

    Args:
        balance: Composition of the data set.
        path: PNG file to write.
        title: Title of the sheet.

    Raises:
        FiresegError: If the file cannot be written.
    """
    from matplotlib.figure import Figure

    *panels, map_panel = list_panels(balance)
    rows = [panels[first : first + 3] for first in range(0, len(panels), 3)]
    figure = Figure(figsize=(15, 3.5 * len(rows) + 6), dpi=_SHEET_DPI, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(rows) + 1, 3, height_ratios=[3.5] * len(rows) + [5.4])
    cells = [(panel, grid[number, column]) for number, row in enumerate(rows) for column, panel in enumerate(row)]
    for panel, cell in [*cells, (map_panel, grid[-1, :])]:
        axes = style_axes(figure.add_subplot(cell), labelsize=_LABEL_SIZE)
        panel.draw(axes)
        axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left", parse_math=False)
    save_figure(figure, path)


def count_shares(shares: Sequence[float]) -> list[int]:
    """Counts the shares in each bin of `SHARE_LABELS`; NaN is not counted.

    Example:
        >>> count_shares([0.0, 0.004, 0.01, 0.2, 1.0, float("nan")])
        [1, 2, 0, 1, 0, 1]
    """
    known = np.asarray(shares, np.float64)
    bins = np.searchsorted(_SHARE_EDGES, known[np.isfinite(known)], side="left")
    return np.bincount(bins, minlength=len(_SHARE_EDGES))[: len(_SHARE_EDGES)].tolist()


def _make_class_panels(counts: ClassCounts) -> Iterator[Panel]:
    task = counts.task
    names, colours, label = task.labels, task.colours, task.name.upper()
    shares = {split: [count / max(sum(row), 1) for count in row] for split, row in counts.pixels.items()}
    yield Panel(
        f"{label}: labelled pixels by class",
        "Share of labelled pixels. " + _format_rows(shares, names, format_share),
        partial(balance_panels.draw_class_shares, counts=counts.pixels, names=names, colours=colours),
        kind="classes",
    )
    yield Panel(
        f"{label}: patches with each class",
        "Patches with at least one pixel of a class. " + _format_rows(counts.patches, names, "{:,}".format),
        partial(balance_panels.draw_class_patches, counts=counts.patches, totals=counts.totals, colours=colours),
        kind="classes",
    )
    if counts.weights:
        yield Panel(
            f"{label}: recommended class weights",
            "Weight of a pixel in the loss: "
            + ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, counts.weights, strict=True)),
            partial(balance_panels.draw_weights, weights=counts.weights, names=names, colours=colours),
            kind="classes",
        )


def _make_share_panel(title: str, shares: Mapping[str, Sequence[float]], axis: str) -> Panel:
    unknown = {split: int(np.isnan(np.asarray(values, np.float64)).sum()) for split, values in shares.items()}
    labels: tuple[str, ...] = SHARE_LABELS
    bins = {split: count_shares(values) for split, values in shares.items()}
    if any(unknown.values()):
        labels = (*labels, NO_CLOUD_MASK)
        bins = {split: [*counts, unknown[split]] for split, counts in bins.items()}
    alt = f"{title}, patches. {_format_rows(bins, labels, '{:,}'.format)}"
    return Panel(title, alt, partial(balance_panels.draw_share_bins, bins=bins, labels=labels, axis=axis))


def _make_fire_panel(areas: Mapping[str, Sequence[float]]) -> Panel:
    parts = []
    for split, row in areas.items():
        known = [area for area in row if area > 0]
        span = f", {min(known):,.0f} to {max(known):,.0f} ha, median {np.median(known):,.0f} ha" if known else ""
        parts.append(f"{split}: {format_count(len(row), 'fire')}{span}")
    alt = "Burned hectares of each fire on a logarithmic axis. " + "; ".join(parts) + "."
    return Panel("Fire sizes", alt, partial(balance_panels.draw_fire_sizes, areas_ha=areas))


def _make_map_panel(boxes: Mapping[str, Sequence[LonLatBox]]) -> Panel:
    all_boxes = [box for group in boxes.values() for box in group]
    alt = "Map of the tiles, coloured by split, north up, without a base map."
    if all_boxes:
        west, south = min(box[0] for box in all_boxes), min(box[1] for box in all_boxes)
        east, north = max(box[2] for box in all_boxes), max(box[3] for box in all_boxes)
        alt += f" From longitude {west:.1f} to {east:.1f} and latitude {south:.1f} to {north:.1f} degrees."
    return Panel("Map of the tiles", alt, partial(balance_panels.draw_map, boxes=boxes), is_wide=True, kind="map")


def _format_rows(rows: Mapping[str, Sequence[Any]], names: Sequence[str], format_value: Callable[[Any], str]) -> str:
    lines = (
        f"{split}: " + ", ".join(f"{name} {format_value(value)}" for name, value in zip(names, row, strict=True))
        for split, row in rows.items()
    )
    return "; ".join(lines) + "."
