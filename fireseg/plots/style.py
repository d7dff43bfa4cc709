"""Colours, band composites and the layout of figures that show patches in rows of panels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fireseg.files import atomic_write
from fireseg.task import Task

# Figures are created without pyplot, whose figures and backend are global to the process, so that threads can
# draw and windows of the user are not affected.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    Pixels = Tensor | np.ndarray

# Dark grey, orange and blue are distinguishable with every kind of colour vision and, by lightness, in grey prints.
ERROR_COLOURS = {
    "unburned in both": "#d9d9d9",
    "false alarm": "#d55e00",
    "miss": "#56b4e9",
    "burned in both": "#3d3d3d",
}
"""Outcomes of a pixel and their colours, in the order of the codes of `encode_errors`."""

REPORT_DPI = 160

UNLABELLED = ("#ffffff", "#8c8c8c")
"""The two colours of the stripes that mark unlabelled pixels."""

_TRUE_COLOUR = ("B04", "B03", "B02")

_SHORT_WAVE = tuple((swir, nir, "B04") for swir in ("B12", "B11") for nir in ("B8A", "B08"))

# Reflectances shown at full brightness: fixed, so that a shade means the same reflectance in every picture.
_BRIGHTEST = {"B02": 0.35, "B03": 0.35, "B04": 0.35}

_BRIGHTEST_INFRARED = 0.45

_GAMMA = 1 / 1.2


class Composite(NamedTuple):
    """Bands shown as red, green and blue, or one band as grey, and the caption that explains them."""

    bands: tuple[str, ...]
    caption: str


def choose_composite(bands: Sequence[str]) -> Composite:
    """Chooses the composite that shows burned land best among those that the bands allow.

    Short-wave infrared, near infrared and red (burned land dark red, vegetation green), else true colour, else
    the first three bands, else the first band in grey.

    Example:
        >>> choose_composite(("B02", "B03", "B04", "B08", "B12")).bands
        ('B12', 'B08', 'B04')
    """
    for candidate in _SHORT_WAVE:
        if set(candidate) <= set(bands):
            legend = "burned land dark red or brown, vegetation green"
            return Composite(candidate, f"short-wave infrared {_format_bands(candidate)}; {legend}")
    if set(_TRUE_COLOUR) <= set(bands):
        return Composite(_TRUE_COLOUR, f"true colour {_format_bands(_TRUE_COLOUR)}")
    if len(bands) >= 3:
        return Composite(tuple(bands[:3]), f"first three bands {_format_bands(bands[:3])}")
    return Composite((bands[0],), f"{bands[0]} in grey")


def _format_bands(bands: Sequence[str]) -> str:
    return f"{' '.join(bands)} as red, green, blue"


def render_composite(image: Pixels, bands: Sequence[str]) -> np.ndarray:
    """Renders a patch or scene as the composite of `choose_composite`.

    Args:
        image: Surface reflectance, `(C, H, W)`.
        bands: The C bands of the image, in order.

    Returns:
        `(H, W, 3)` uint8; mid-grey where a displayed band is not finite.
    """
    composite = choose_composite(bands).bands
    planes = to_array(image[[list(bands).index(band) for band in composite]]).astype(np.float32, copy=False)
    is_finite = np.asarray(np.isfinite(planes).all(axis=0))
    brightest = np.array([_BRIGHTEST.get(band, _BRIGHTEST_INFRARED) for band in composite], np.float32)[:, None, None]
    scaled = np.where(is_finite, planes, 0).clip(0, brightest) / brightest
    tones = np.rint(255 * scaled**_GAMMA).astype(np.uint8)
    picture = np.broadcast_to(tones, (3, *is_finite.shape)).transpose(1, 2, 0)
    return np.where(is_finite[..., None], picture, np.uint8(128))


def colour_classes(mask: Pixels, task: Task) -> np.ndarray:
    """Colours a mask or prediction in the colours of the task.

    Args:
        mask: Class of every pixel, `(H, W)`.
        task: Task of the classes.

    Returns:
        `(H, W, 3)` uint8; values that are no class are striped.
    """
    return _paint(to_array(mask), task.colours)


def colour_errors(truth: Pixels, prediction: Pixels, task: Task) -> np.ndarray:
    """Colours hits, false alarms and misses of burned pixels in `ERROR_COLOURS`.

    Args:
        truth: Class of every pixel, `(H, W)`.
        prediction: Predicted class of every pixel, `(H, W)`.
        task: Task of the classes.

    Returns:
        `(H, W, 3)` uint8; unlabelled pixels are striped.
    """
    return _paint(encode_errors(truth, prediction, task), tuple(ERROR_COLOURS.values()))


def encode_errors(truth: Pixels, prediction: Pixels, task: Task) -> np.ndarray:
    """Encodes truth and prediction as one code per pixel, burned or not regardless of the grade.

    Returns:
        uint8 of the same shape: 0 unburned in both, 1 false alarm, 2 miss, 3 burned in both, 255 unlabelled.

    Example:
        >>> from fireseg.task import Task
        >>> task = Task(name="del", num_classes=2, class_names=("background", "fire"))
        >>> encode_errors(np.array([[0, 0, 1, 1, 255]]), np.array([[0, 1, 0, 1, 1]]), task).tolist()
        [[0, 1, 2, 3, 255]]
    """
    true, predicted = to_array(truth), to_array(prediction)
    code = 2 * (true > 0).astype(np.uint8) + (predicted > 0)
    return np.where(true == task.ignore_index, np.uint8(255), code)


def to_array(pixels: Pixels) -> np.ndarray:
    """Converts a tensor on any device, or an array, to a NumPy array."""
    return pixels if isinstance(pixels, np.ndarray) else pixels.detach().cpu().numpy()


def _paint(values: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Colours pixels by value; values without a colour get diagonal stripes."""
    width = max(1, min(values.shape) // 32)
    stripes = np.add.outer(np.arange(values.shape[0]), np.arange(values.shape[1])) // width % 2
    table = np.array([list(bytes.fromhex(colour[1:])) for colour in (*colours, *UNLABELLED)], np.uint8)
    return table[np.where(values < len(colours), values, len(colours) + stripes)]


DPI = 128

# In pixels. A panel of 256 px shows a patch of the default size without resampling.
_PANEL, _MARGIN, _GAP, _BLOCK_GAP, _LINE = 256, 24, 6, 30, 24

_LETTER, _WIDE_LETTER = 7.9, 9.3  # mean letter width of running text; of capitals, digits and bold text

_KEY_TITLE_WIDTH = 108


class _Grid(NamedTuple):
    """Layout of the panels of a sheet, in pixels from the top left corner."""

    columns: int
    width: int
    height: int
    num_panels: int

    @property
    def block_width(self) -> int:
        """Width of the panels of one patch."""
        return self.num_panels * (self.width + _GAP) - _GAP

    @property
    def total_width(self) -> int:
        """Width of the sheet without its margins."""
        return self.columns * (self.block_width + _BLOCK_GAP) - _BLOCK_GAP

    @property
    def row_height(self) -> int:
        """Height of a row of blocks: caption, panels and gap."""
        return self.height + _LINE + _GAP

    def locate(self, number: int, panel: int) -> tuple[int, int]:
        """Left and lower edge of a panel, relative to the top of the first row."""
        row, column = divmod(number, self.columns)
        left = _MARGIN + column * (self.block_width + _BLOCK_GAP) + panel * (self.width + _GAP)
        return left, (row + 1) * self.row_height - _GAP


class _Sheet(NamedTuple):
    """A figure with coordinates in pixels from its top left corner."""

    figure: Figure
    width: int
    height: int

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"fontsize": 8, "va": "top", "parse_math": False, **style}  # a name may hold a dollar sign
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def add_panel(self, x: int, bottom: int, width: int, height: int) -> Axes:
        box = (x / self.width, 1 - bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, frame_on=False)
        axes.set(xticks=[], yticks=[])
        return axes


def compose_figure(
    captions: Sequence[tuple[str, str]],
    *,
    panels: Sequence[str],
    shape: tuple[int, ...],
    title: str,
    notes: Sequence[str],
    keys: Mapping[str, Mapping[str, str]],
) -> tuple[Figure, list[list[Axes]]]:
    """Creates a figure with title, notes, captions, empty panels and legends.

    All positions are whole pixels, so that texts do not overlap and all pixels of a patch have the same size.

    Args:
        captions: Name and score of every patch.
        panels: Titles of the panels of a patch.
        shape: Height and width of a patch in pixels.
        title: Title of the figure.
        notes: Paragraphs below the title.
        keys: Colours by label, for each legend by its title.

    Returns:
        The figure and the axes of every patch.
    """
    from matplotlib.figure import Figure

    grid = _choose_grid(len(captions), len(panels), shape)
    lines = [line for note in notes for line in textwrap.wrap(note, int(grid.total_width / _LETTER))]
    key_columns = {name: _count_key_columns(colours, grid.total_width) for name, colours in keys.items()}
    key_rows = {name: math.ceil((len(colours) + 1) / key_columns[name]) for name, colours in keys.items()}
    top = _MARGIN + _LINE * (len(lines) + 2) + _GAP
    key_top = top + math.ceil(len(captions) / grid.columns) * grid.row_height + _GAP
    width, height = grid.total_width + 2 * _MARGIN, key_top + _LINE * sum(key_rows.values()) + _GAP
    sheet = _Sheet(Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white"), width, height)
    max_letters = int(grid.total_width / (1.6 * _WIDE_LETTER))
    sheet.write(_MARGIN, 16, shorten_middle(title, max_letters), fontsize=12, fontweight="bold")
    for number, line in enumerate(lines):
        sheet.write(_MARGIN, 48 + number * _LINE, line, color="#444444")
    for index, panel in enumerate(list(panels) * min(grid.columns, len(captions))):
        x, _ = grid.locate(*divmod(index, len(panels)))
        sheet.write(x + grid.width / 2, top - _LINE + _GAP, panel, ha="center", color="#444444")
    blocks = [_add_block(sheet, grid, number, top, *caption) for number, caption in enumerate(captions)]
    for name, colours in keys.items():
        sheet.write(_MARGIN, key_top, name, fontweight="bold")
        _add_key(sheet, colours, key_top, key_columns[name])
        key_top += _LINE * key_rows[name]
    return sheet.figure, blocks


def style_axes(axes: Axes, *, labelsize: int) -> Axes:
    """Removes the upper and right spine, sets the size of tick labels, draws grid lines below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=labelsize)
    axes.set_axisbelow(True)
    return axes


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG atomically."""
    with atomic_write(path) as part:
        figure.savefig(part, format="png")


def _choose_grid(num_blocks: int, num_panels: int, shape: tuple[int, ...]) -> _Grid:
    """Chooses the grid closest to an aspect ratio of 3:2 with few empty cells, at most eight panels wide."""

    def cost(columns: int) -> float:
        rows = math.ceil(num_blocks / columns)
        aspect_ratio = columns * num_panels * shape[1] / (rows * shape[0])
        return abs(math.log(aspect_ratio / 1.5)) + (rows * columns - num_blocks) / num_blocks

    columns = min(range(1, 8 // num_panels + 1), key=cost)
    width = _PANEL * (2 if columns * num_panels == 2 else 1)
    return _Grid(columns, width, max(round(width * shape[0] / shape[1]), 1), num_panels)


def _add_block(sheet: _Sheet, grid: _Grid, number: int, top: int, name: str, score: str) -> list[Axes]:
    positions = [grid.locate(number, panel) for panel in range(grid.num_panels)]
    block = [sheet.add_panel(x, top + y, grid.width, grid.height) for x, y in positions]
    max_letters = int(grid.block_width / _WIDE_LETTER) - len(score) - 1
    block[0].set_title(shorten_middle(name, max_letters), loc="left", fontsize=8, pad=3, parse_math=False)
    block[-1].set_title(score, loc="right", fontsize=8, pad=3, fontweight="bold")
    return block


def _add_key(sheet: _Sheet, colours: Mapping[str, str], y: int, columns: int) -> None:
    from matplotlib.patches import Patch

    edge = UNLABELLED[1]
    handles = [Patch(facecolor=colour, edgecolor=edge, label=label) for label, colour in colours.items()]
    handles.append(Patch(facecolor=UNLABELLED[0], edgecolor=edge, hatch="/////", label="unlabelled"))
    style = {"frameon": False, "fontsize": 8, "borderpad": 0, "borderaxespad": 0, "columnspacing": 1.5}
    corner = ((_MARGIN + _KEY_TITLE_WIDTH) / sheet.width, 1 - y / sheet.height)
    sheet.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=columns, **style)


def _count_key_columns(colours: Mapping[str, str], total_width: int) -> int:
    """Number of legend entries that fit side by side to the right of the legend title."""
    widest = (max(len(label) for label in (*colours, "unlabelled")) + 7) * _LETTER
    return max(1, min(len(colours) + 1, int((total_width - _KEY_TITLE_WIDTH) / widest)))


def shorten_middle(text: str, limit: int) -> str:
    """Replaces the middle of a text longer than `limit` characters by an ellipsis; both ends identify a patch."""
    if len(text) <= limit:
        return text
    half = max(limit - 1, 2) // 2
    return f"{text[:half]}…{text[-half:]}"
