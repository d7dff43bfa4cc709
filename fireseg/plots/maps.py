"""Picture of a burned-area map beside its scene, with legend, scale bar and north arrow, and maps in notebooks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.console import format_hectares, format_share
from fireseg.plots.style import (
    DPI,
    UNLABELLED,
    choose_composite,
    colour_classes,
    render_composite,
    save_figure,
    shorten_middle,
)
from fireseg.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Lengths in pixels, from the top left corner.
_PANEL, _MIN_PANEL, _MIN_WIDTH, _MARGIN, _GAP, _LINE = 640, 48, 560, 24, 24, 24

_LETTER, _TITLE_LETTER = 8.4, 14.5  # mean width of a letter in text and title

_SWATCH = 18

_MAX_PLOTTED_PX = 2000

_TEXT_COLOUR, _CAPTION_COLOUR, _WARNING_COLOUR = "#222222", "#555555", "#b3261e"


def render_map(
    image: np.ndarray,
    classes: np.ndarray,
    *,
    bands: Sequence[str],
    task: Task,
    path: Path,
    title: str,
    notes: Sequence[str],
    warnings: Sequence[str] = (),
    hectares: Sequence[float],
    unknown_share: float,
    pixel_m: tuple[float, float],
    north_deg: float | None = 0.0,
) -> None:
    """Draws a scene and its map with scale bar, north arrow and a legend of areas.

    The panels are side by side, or one below the other if the scene is wide.

    Args:
        image: Reflectance, `(C, h, w)`; NaN where unknown. May be subsampled: pixels are drawn as given.
        classes: Classes of the same pixels, `(h, w)`; 255 where unknown, drawn hatched.
        bands: Bands of the C channels.
        task: Classes with their names and colours.
        path: PNG file to write.
        title: Heading.
        notes: Lines below the heading.
        warnings: Lines below the notes, in red.
        hectares: Area by class in the whole scene.
        unknown_share: Unknown share of the scene, 0 to 1.
        pixel_m: Distances between neighbouring columns and neighbouring rows, in metres.
        north_deg: Direction of north, in degrees clockwise from up; None at a pole, where no arrow is drawn.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    layout = _plan_layout(classes.shape[1] * pixel_m[0], classes.shape[0] * pixel_m[1])
    notes = [*notes, f"Scene: {choose_composite(bands).caption}."]
    num_letters = int(layout.total_width / _LETTER)
    texts = [(note, _CAPTION_COLOUR) for note in notes] + [(warning, _WARNING_COLOUR) for warning in warnings]
    lines = [(line, colour) for text, colour in texts for line in textwrap.wrap(text, num_letters)]
    entries = list(_list_entries(task, hectares, unknown_share, bool((classes == task.ignore_index).any())))
    positions = _arrange_entries([text for text, _ in entries], layout.total_width)
    top = _MARGIN + int(1.3 * _LINE) + len(lines) * _LINE + _GAP
    foot = top + layout.total_height + _GAP
    height = foot + 3 * _LINE + (positions[-1][1] + 1) * _LINE + _MARGIN
    figure, canvas = _create_canvas(layout.total_width + 2 * _MARGIN, height)
    _write_heading(canvas, shorten_middle(title, int(layout.total_width / _TITLE_LETTER)), lines)
    panels = {"scene": render_composite(image, bands), "map": colour_classes(classes, task)}
    for (x, y), (name, picture) in zip(layout.corners, panels.items(), strict=True):
        _add_panel(figure, canvas, picture, name, (_MARGIN + x, top + y, layout.width, layout.height))
    _draw_scale(canvas, _MARGIN, foot, layout.metres_per_px, layout.width)
    if north_deg is not None:
        _draw_north(canvas, _MARGIN + layout.total_width - 20, foot + 18, north_deg)
    for (text, style), (x, line) in zip(entries, positions, strict=True):
        _draw_entry(canvas, _MARGIN + x, foot + (2.5 + line) * _LINE, text, style)
    save_figure(figure, path)


def plot_classes(classes: np.ndarray, task: Task, *, title: str, axes: Axes | None = None) -> Axes:
    """Plots a map with a legend of its classes, with pyplot: in a notebook it appears, in a program `show` opens it.

    Args:
        classes: Classes, `(H, W)`; 255 where unknown. At most 2000 rows and columns of them are drawn.
        task: Classes with their labels and colours.
        title: Title of the axes.
        axes: Axes to plot in; new ones if None.
    """
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    axes = axes or pyplot.subplots(layout="constrained")[1]
    height, width = classes.shape
    step = max(1, -(-max(height, width) // _MAX_PLOTTED_PX))
    picture = colour_classes(classes[::step, ::step], task)
    axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    axes.set(xticks=[], yticks=[], title=title)
    edge = UNLABELLED[1]
    keys = [Patch(fc=colour, ec=edge, label=label) for label, colour in zip(task.labels, task.colours, strict=True)]
    if (classes == task.ignore_index).any():
        keys.append(Patch(fc=UNLABELLED[0], ec=edge, hatch="/////", label="unknown"))
    axes.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False)
    return axes


def plot_picture(path: Path) -> Axes:
    """Plots a picture at its own size and without a frame, with pyplot.

    Args:
        path: PNG file.
    """
    from matplotlib import pyplot
    from matplotlib.image import imread

    picture = imread(path)
    height, width = picture.shape[:2]
    axes = pyplot.figure(figsize=(width / DPI, height / DPI), dpi=DPI).add_axes((0, 0, 1, 1))
    axes.imshow(picture)
    axes.axis("off")
    return axes


def choose_scale(max_m: float) -> tuple[float, str]:
    """Chooses the length of a scale bar: the largest 1, 2 or 5 times a power of ten that fits.

    Args:
        max_m: Available length, in metres on the ground.

    Returns:
        Length in metres, and its label.

    Example:
        >>> choose_scale(7200), choose_scale(450)
        ((5000.0, '5 km'), (200.0, '200 m'))
    """
    power = 10.0 ** math.floor(math.log10(max_m))
    metres = next(factor * power for factor in (5, 2, 1) if factor * power <= max_m * (1 + 1e-9))
    return metres, f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


class _PanelLayout(NamedTuple):
    """Sizes and corners of the two panels, and the ground distance per picture pixel."""

    width: int
    height: int
    corners: tuple[tuple[int, int], tuple[int, int]]
    metres_per_px: float

    @property
    def total_width(self) -> int:
        return max(self.corners[1][0] + self.width, _MIN_WIDTH)

    @property
    def total_height(self) -> int:
        return self.corners[1][1] + self.height


def _plan_layout(width_m: float, height_m: float) -> _PanelLayout:
    is_wide = width_m > 1.6 * height_m
    metres_per_px = max(width_m / (2 if is_wide else 1), height_m) / _PANEL
    width, height = (max(_MIN_PANEL, round(side / metres_per_px)) for side in (width_m, height_m))
    second = (0, height + _GAP + _LINE) if is_wide else (width + _GAP, 0)
    return _PanelLayout(width, height, ((0, 0), second), metres_per_px)


def _create_canvas(canvas_width: int, canvas_height: int) -> tuple[Figure, Axes]:
    """Creates a figure, and axes over all of it whose coordinates are pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(canvas_width / DPI, canvas_height / DPI), dpi=DPI, facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1), frame_on=False, zorder=-1)
    canvas.set(xlim=(0, canvas_width), ylim=(canvas_height, 0), xticks=[], yticks=[])
    return figure, canvas


def _write(canvas: Axes, x: float, y: float, text: str, **style: Any) -> None:
    canvas.text(x, y, text, **{"fontsize": 8, "va": "top", "color": _TEXT_COLOUR, "parse_math": False, **style})


def _write_heading(canvas: Axes, title: str, lines: Sequence[tuple[str, str]]) -> None:
    _write(canvas, _MARGIN, _MARGIN, title, fontsize=12, fontweight="bold")
    for number, (line, colour) in enumerate(lines):
        _write(canvas, _MARGIN, _MARGIN + int(1.3 * _LINE) + number * _LINE, line, color=colour)


def _add_panel(figure: Figure, canvas: Axes, picture: np.ndarray, name: str, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    canvas_width, canvas_height = canvas.get_xlim()[1], canvas.get_ylim()[0]
    axes = figure.add_axes(
        (x / canvas_width, 1 - (y + height) / canvas_height, width / canvas_width, height / canvas_height)
    )
    axes.set(xticks=[], yticks=[])
    # Enlarged pixels stay sharp; pixels that share one of the figure are averaged.
    axes.imshow(picture, aspect="auto", interpolation="antialiased" if name == "scene" else "nearest")
    for edge in axes.spines.values():
        edge.set(color=UNLABELLED[1], linewidth=0.6)
    _write(canvas, x, y - 4, name, va="bottom", color=_CAPTION_COLOUR)


def _draw_scale(canvas: Axes, x: float, y: float, metres_per_px: float, width: int) -> None:
    metres, text = choose_scale(metres_per_px * max(width / 3, 40))
    length = metres / metres_per_px
    canvas.plot([x, x, x + length, x + length], [y, y + 8, y + 8, y], color=_TEXT_COLOUR, linewidth=1.4)
    _write(canvas, x + length + 10, y - 3, text)


def _draw_north(canvas: Axes, x: float, y: float, north_deg: float) -> None:
    angle = math.radians(north_deg)
    towards = np.array([math.sin(angle), -math.cos(angle)])
    tail, tip = np.array([x, y]) - 14 * towards, np.array([x, y]) + 14 * towards
    arrow = {"arrowstyle": "-|>", "color": _TEXT_COLOUR, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    canvas.annotate("", xy=tuple(tip), xytext=tuple(tail), arrowprops=arrow)
    label = tip + 8 * towards
    _write(canvas, label[0], label[1], "N", ha="center", va="center", fontweight="bold")


def _list_entries(
    task: Task, hectares: Sequence[float], unknown_share: float, has_unknown: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, colour, area in zip(task.labels, task.colours, hectares, strict=True):
        yield f"{name}  {format_hectares(area)}", {"facecolor": colour}
    if unknown_share > 0 or has_unknown:
        yield f"unknown  {format_share(unknown_share)}", {"facecolor": UNLABELLED[0], "hatch": "/////"}


def _arrange_entries(texts: Sequence[str], total_width: int) -> list[tuple[float, int]]:
    """Positions of legend entries: x and line number, as many side by side as fit."""
    positions, x, line = [], 0.0, 0
    for text in texts:
        width = _SWATCH + 10 + _LETTER * len(text) + _GAP
        if x and x + width > total_width:
            x, line = 0.0, line + 1
        positions.append((x, line))
        x += width
    return positions


def _draw_entry(canvas: Axes, x: float, y: float, text: str, style: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    canvas.add_patch(Rectangle((x, y), _SWATCH, _SWATCH - 4, edgecolor=UNLABELLED[1], linewidth=0.6, **style))
    _write(canvas, x + _SWATCH + 8, y + 7, text, va="center")
