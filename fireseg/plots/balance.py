"""What a data set is made of, as panels of their own or all on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.plots import scores as panels
from fireseg.plots.scores import LonLatBox, format_share
from fireseg.plots.style import save_figure
from fireseg.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SHARE_LABELS = ("none", "to 1%", "to 10%", "to 30%", "to 50%", "to 100%")

_SHARE_EDGES = (0.0, 0.01, 0.1, 0.3, 0.5, 1.0)

NO_CLOUD_MASK = "no mask"

_PAGE_DPI = 160

_SHEET_DPI = 110


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """How often each class of a task occurs.

    Attributes:
        task: What the classes mean.
        pixels: Labelled pixels of each class, by split.
        patches: Patches with at least one pixel of each class, by split.
        totals: Patches with anything labelled, by split.
        weights: Recommended weight of a pixel of each class; empty without training patches.
    """

    task: Task
    pixels: Mapping[str, Sequence[int]]
    patches: Mapping[str, Sequence[int]]
    totals: Mapping[str, int]
    weights: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What a data set is made of.

    Attributes:
        classes: By task.
        burned: Burned share of each patch with labels, by split.
        cloud: Share of cloud of each patch, NaN where nobody knows, by split.
        fires_ha: Burned hectares of each fire, by split.
        boxes: Footprints of the tiles, by split.
    """

    classes: Sequence[ClassCounts]
    burned: Mapping[str, Sequence[float]]
    cloud: Mapping[str, Sequence[float]]
    fires_ha: Mapping[str, Sequence[float]]
    boxes: Mapping[str, Sequence[LonLatBox]]


class Panel(NamedTuple):
    """One picture of the sheet or of a page.

    Attributes:
        title: What it shows.
        alt: The same facts in words, for whoever does not see it.
        draw: Draws it.
        is_wide: Whether it wants the whole width of a sheet.
        kind: Where on a page it belongs: `classes`, `patches` or `map`.
    """

    title: str
    alt: str
    draw: Callable[[Axes], None]
    is_wide: bool = False
    kind: str = "patches"


def list_panels(balance: Balance) -> list[Panel]:
    """The pictures that tell what a data set is made of."""
    return [panel for counts in balance.classes for panel in _show_classes(counts)] + [
        _show_bins("Burned share of a patch", balance.burned, "burned, of the labelled pixels of a patch"),
        _show_fires(balance.fires_ha),
        _show_bins("Cloud over a patch", balance.cloud, "cloud over a patch"),
        _show_map(balance.boxes),
    ]


def draw_panel(panel: Panel) -> bytes:
    """A panel by itself, as PNG: narrow enough that its letters can be read on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 4.2) if panel.is_wide else (4.4, 3.1), dpi=_PAGE_DPI, layout="constrained")
    panel.draw(_prepare_axes(figure.add_subplot()))
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def render_balance(balance: Balance, path: Path, *, title: str) -> None:
    """Draws all panels on one sheet.

    Args:
        balance: What the data set is made of.
        path: The PNG file to write.
        title: The heading.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    from matplotlib.figure import Figure

    shown = list_panels(balance)
    rows = [shown[first : first + 3] for first in range(0, len(shown) - 1, 3)]
    figure = Figure(figsize=(15, 3.5 * len(rows) + 6), dpi=_SHEET_DPI, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(rows) + 1, 3, height_ratios=[3.5] * len(rows) + [5.4])
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            axes = _prepare_axes(figure.add_subplot(grid[number, column]))
            panel.draw(axes)
            axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
    axes = _prepare_axes(figure.add_subplot(grid[-1, :]))
    shown[-1].draw(axes)
    axes.set_title(shown[-1].title, loc="left", fontsize=11, fontweight="bold")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left", parse_math=False)
    save_figure(figure, path)


def count_shares(shares: Sequence[float]) -> list[int]:
    """How many shares fall into each of `SHARE_LABELS`.

    Example:
        >>> count_shares([0.0, 0.004, 0.01, 0.2, 1.0, float("nan")])
        [1, 2, 0, 1, 0, 1]
    """
    known = np.asarray(shares, np.float64)
    bins = np.searchsorted(_SHARE_EDGES, known[np.isfinite(known)], side="left")
    return np.bincount(bins, minlength=len(_SHARE_EDGES))[: len(_SHARE_EDGES)].tolist()


def _show_classes(counts: ClassCounts) -> Iterator[Panel]:
    task = counts.task
    names, colours, label = task.class_names, task.colours, task.name.upper()
    shares = {split: [count / max(sum(row), 1) for count in row] for split, row in counts.pixels.items()}
    yield Panel(
        f"{label}: labelled pixels by class",
        "Share of labelled pixels. " + _spell_rows(shares, names, format_share),
        partial(panels.draw_class_shares, counts=counts.pixels, names=names, colours=colours),
        kind="classes",
    )
    yield Panel(
        f"{label}: patches in which a class occurs",
        "Patches with at least one pixel of a class. " + _spell_rows(counts.patches, names, "{:,}".format),
        partial(panels.draw_class_patches, counts=counts.patches, totals=counts.totals, colours=colours),
        kind="classes",
    )
    if counts.weights:
        yield Panel(
            f"{label}: recommended class weights",
            "Weight of a pixel in the loss: "
            + ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, counts.weights, strict=True)),
            partial(panels.draw_weights, weights=counts.weights, names=names, colours=colours),
            kind="classes",
        )


def _show_bins(title: str, shares: Mapping[str, Sequence[float]], axis: str) -> Panel:
    unknown = {split: int(np.isnan(np.asarray(values, np.float64)).sum()) for split, values in shares.items()}
    labels: tuple[str, ...] = SHARE_LABELS
    bins = {split: count_shares(values) for split, values in shares.items()}
    if any(unknown.values()):
        labels = (*labels, NO_CLOUD_MASK)
        bins = {split: [*counts, unknown[split]] for split, counts in bins.items()}
    alt = f"{title}, patches. {_spell_rows(bins, labels, '{:,}'.format)}"
    return Panel(title, alt, partial(panels.draw_share_bins, bins=bins, labels=labels, axis=axis))


def _show_fires(areas: Mapping[str, Sequence[float]]) -> Panel:
    parts = []
    for split, row in areas.items():
        known = [area for area in row if area > 0]
        span = f", {min(known):,.0f} to {max(known):,.0f} ha, median {np.median(known):,.0f} ha" if known else ""
        parts.append(f"{split}: {len(row)} {'fire' if len(row) == 1 else 'fires'}{span}")
    alt = "Burned hectares of each fire on an axis of powers of ten. " + "; ".join(parts) + "."
    return Panel("Fire sizes", alt, partial(panels.draw_fire_sizes, areas_ha=areas))


def _show_map(boxes: Mapping[str, Sequence[LonLatBox]]) -> Panel:
    every = [box for group in boxes.values() for box in group]
    alt = "Map of the tiles, coloured by split, north up, without a base map."
    if every:
        west, south = min(box[0] for box in every), min(box[1] for box in every)
        east, north = max(box[2] for box in every), max(box[3] for box in every)
        alt += f" From longitude {west:.1f} to {east:.1f} and latitude {south:.1f} to {north:.1f} degrees."
    return Panel("Where the tiles lie", alt, partial(panels.draw_map, boxes=boxes), is_wide=True, kind="map")


def _prepare_axes(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.set_axisbelow(True)
    return axes


def _spell_rows(rows: Mapping[str, Sequence[Any]], names: Sequence[str], spell: Callable[[Any], str]) -> str:
    spelt = (
        f"{split}: " + ", ".join(f"{name} {spell(value)}" for name, value in zip(names, row, strict=True))
        for split, row in rows.items()
    )
    return "; ".join(spelt) + "."
