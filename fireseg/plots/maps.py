"""A map at a glance: the scene, what burned in it, how much that is, and how large it all is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.plots.style import DPI, UNLABELLED, choose_composite, colour_classes, render_composite, save_figure
from fireseg.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# All in pixels from the top left corner.
_PANEL, _SMALLEST, _NARROWEST, _MARGIN, _GAP, _LINE = 640, 48, 560, 24, 24, 24

_LETTER, _WIDE_LETTER = 8.4, 14.5  # of running text, of the title

_SWATCH = 18

_INK = "#222222"

_SOFT = "#555555"


def render_map(
    image: np.ndarray,
    classes: np.ndarray,
    *,
    bands: Sequence[str],
    task: Task,
    path: Path,
    title: str,
    notes: Sequence[str],
    hectares: Sequence[float],
    unknown_share: float,
    pixel_m: tuple[float, float],
    north_deg: float = 0.0,
) -> None:
    """Draws a composite and the map of the same ground, with scale, north and a legend in hectares.

    Side by side, or one below the other where the scene is wide.

    Args:
        image: Reflectance, `(C, h, w)`; NaN where unknown. May be thinned: pixels are drawn as they are given.
        classes: Of the same pixels, `(h, w)`; 255 where unknown, which is striped.
        bands: The C bands.
        task: What the classes mean.
        path: The PNG file to write.
        title: The heading.
        notes: Lines below it.
        hectares: Of each class, in the whole scene.
        unknown_share: Share of the scene that is unknown, 0 to 1.
        pixel_m: From one column to the next and from one row to the next, in metres.
        north_deg: Where north is, in degrees clockwise from up.

    Raises:
        FiresegError: If the picture cannot be written.
    """
    plan = _plan(classes.shape[1] * pixel_m[0], classes.shape[0] * pixel_m[1])
    notes = [*notes, f"Scene: {choose_composite(bands).caption}."]
    lines = [line for note in notes for line in textwrap.wrap(note, int(plan.across / _LETTER))]
    entries = list(_list_entries(task, hectares, unknown_share, bool((classes == task.ignore_index).any())))
    places = _flow([text for text, _ in entries], plan.across)
    top = _MARGIN + int(1.3 * _LINE) + len(lines) * _LINE + _GAP
    foot = top + plan.down + _GAP
    height = foot + 3 * _LINE + (places[-1][1] + 1) * _LINE + _MARGIN
    figure, canvas = _open(plan.across + 2 * _MARGIN, height)
    _write_heading(canvas, _shorten(title, int(plan.across / _WIDE_LETTER)), lines)
    pictures = {"scene": render_composite(image, bands), "map": colour_classes(classes, task)}
    for (x, y), (name, picture) in zip(plan.corners, pictures.items(), strict=True):
        _add_panel(figure, canvas, picture, name, (_MARGIN + x, top + y, plan.width, plan.height))
    _draw_scale(canvas, _MARGIN, foot, plan.metres_a_px, plan.width)
    _draw_north(canvas, _MARGIN + plan.across - 20, foot + 18, north_deg)
    for (text, style), (x, line) in zip(entries, places, strict=True):
        _draw_entry(canvas, _MARGIN + x, foot + (2.5 + line) * _LINE, text, style)
    save_figure(figure, path)


def choose_scale(longest_m: float) -> tuple[float, str]:
    """The length of a scale bar: 1, 2 or 5 of a power of ten, as long as there is room for.

    Args:
        longest_m: The room, in metres on the ground.

    Returns:
        Metres, and how they are said.

    Example:
        >>> choose_scale(7200), choose_scale(450)
        ((5000.0, '5 km'), (200.0, '200 m'))
    """
    power = 10.0 ** math.floor(math.log10(longest_m))
    metres = next(factor * power for factor in (5, 2, 1) if factor * power <= longest_m * (1 + 1e-9))
    return metres, f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def format_hectares(hectares: float) -> str:
    """Hectares as a legend says them: a few are not none.

    Example:
        >>> spell_hectares(0), spell_hectares(0.01), spell_hectares(12.34), spell_hectares(12345.6)
        ('0 ha', '<0.1 ha', '12.3 ha', '12,346 ha')
    """
    if 0 < hectares < 0.1:
        return "<0.1 ha"
    return f"{hectares:.1f} ha" if 0 < hectares < 100 else f"{hectares:,.0f} ha"


class _Plan(NamedTuple):
    """Where the two panels stand, and how much ground a pixel of the picture is."""

    width: int
    height: int
    corners: tuple[tuple[int, int], tuple[int, int]]
    metres_a_px: float

    @property
    def across(self) -> int:
        return max(self.corners[1][0] + self.width, _NARROWEST)

    @property
    def down(self) -> int:
        return self.corners[1][1] + self.height


def _plan(width_m: float, height_m: float) -> _Plan:
    is_wide = width_m > 1.6 * height_m
    metres_a_px = max(width_m / (2 if is_wide else 1), height_m) / _PANEL
    width, height = (max(_SMALLEST, round(side / metres_a_px)) for side in (width_m, height_m))
    second = (0, height + _GAP + _LINE) if is_wide else (width + _GAP, 0)
    return _Plan(width, height, ((0, 0), second), metres_a_px)


def _open(across: int, down: int) -> tuple[Figure, Axes]:
    """A figure, and axes over all of it that are drawn upon in pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(across / DPI, down / DPI), dpi=DPI, facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1), frame_on=False, zorder=-1)
    canvas.set(xlim=(0, across), ylim=(down, 0), xticks=[], yticks=[])
    return figure, canvas


def _write(canvas: Axes, x: float, y: float, text: str, **style: Any) -> None:
    canvas.text(x, y, text, **{"fontsize": 8, "va": "top", "color": _INK, "parse_math": False, **style})


def _write_heading(canvas: Axes, title: str, lines: Sequence[str]) -> None:
    _write(canvas, _MARGIN, _MARGIN, title, fontsize=12, fontweight="bold")
    for number, line in enumerate(lines):
        _write(canvas, _MARGIN, _MARGIN + int(1.3 * _LINE) + number * _LINE, line, color=_SOFT)


def _add_panel(figure: Figure, canvas: Axes, picture: np.ndarray, name: str, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    across, down = canvas.get_xlim()[1], canvas.get_ylim()[0]
    axes = figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))
    axes.set(xticks=[], yticks=[])
    # Pixels that are drawn larger than they are stay pixels; those that share one on paper are mixed.
    axes.imshow(picture, aspect="auto", interpolation="antialiased" if name == "scene" else "nearest")
    for edge in axes.spines.values():
        edge.set(color=UNLABELLED[1], linewidth=0.6)
    _write(canvas, x, y - 4, name, va="bottom", color=_SOFT)


def _draw_scale(canvas: Axes, x: float, y: float, metres_a_px: float, width: int) -> None:
    metres, text = choose_scale(metres_a_px * max(width / 3, 40))
    length = metres / metres_a_px
    canvas.plot([x, x, x + length, x + length], [y, y + 8, y + 8, y], color=_INK, linewidth=1.4)
    _write(canvas, x + length + 10, y - 3, text)


def _draw_north(canvas: Axes, x: float, y: float, north_deg: float) -> None:
    angle = math.radians(north_deg)
    towards = np.array([math.sin(angle), -math.cos(angle)])
    tail, tip = np.array([x, y]) - 14 * towards, np.array([x, y]) + 14 * towards
    arrow = {"arrowstyle": "-|>", "color": _INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    canvas.annotate("", xy=tuple(tip), xytext=tuple(tail), arrowprops=arrow)
    letter = tip + 8 * towards
    _write(canvas, letter[0], letter[1], "N", ha="center", va="center", fontweight="bold")


def _list_entries(
    task: Task, hectares: Sequence[float], unknown_share: float, has_unknown: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, colour, area in zip(task.class_names, task.colours, hectares, strict=True):
        yield f"{name}  {format_hectares(area)}", {"facecolor": colour}
    if unknown_share > 0 or has_unknown:
        share = "<0.1 %" if unknown_share < 0.001 else f"{unknown_share:.1%}".replace("%", " %")
        yield f"unknown  {share}", {"facecolor": UNLABELLED[0], "hatch": "/////"}


def _flow(texts: Sequence[str], across: int) -> list[tuple[float, int]]:
    """Place along the line, and line, of each entry: as many side by side as there is room for."""
    places, x, line = [], 0.0, 0
    for text in texts:
        width = _SWATCH + 10 + _LETTER * len(text) + _GAP
        if x and x + width > across:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places


def _draw_entry(canvas: Axes, x: float, y: float, text: str, style: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    canvas.add_patch(Rectangle((x, y), _SWATCH, _SWATCH - 4, edgecolor=UNLABELLED[1], linewidth=0.6, **style))
    _write(canvas, x + _SWATCH + 8, y + 7, text, va="center")


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = max(limit - 1, 2) // 2
    return f"{text[:half]}…{text[-half:]}"
