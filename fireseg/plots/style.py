"""A sheet of patches: blocks of panels with captions, a heading above, the keys to the colours below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fireseg.files import atomic_write
from fireseg.task import Task

# Figures are made and drawn directly, never through pyplot, whose figures and backend belong to
# the whole process: a thread may draw, and no window of the user's is touched.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Pixels = Tensor | np.ndarray

# Dark, orange and blue differ for every kind of colour vision, and in a grey print by lightness.
ERROR_COLOURS = {
    "unburned in both": "#d9d9d9",
    "false alarm": "#d55e00",
    "miss": "#56b4e9",
    "burned in both": "#3d3d3d",
}
"""What truth and prediction say together, in the order of the codes of `compare`, and its colour."""

UNLABELLED = ("#ffffff", "#8c8c8c")
"""The two colours of the stripes that mark pixels nobody labelled."""

_TRUE_COLOUR = ("B04", "B03", "B02")

_SHORT_WAVE = tuple((swir, nir, "B04") for swir in ("B12", "B11") for nir in ("B8A", "B08"))

# Reflectances that fill a colour: fixed, so that one shade is one reflectance in every picture.
_BRIGHTEST = {"B02": 0.35, "B03": 0.35, "B04": 0.35}

_BRIGHTEST_INFRARED = 0.45

_GAMMA = 1 / 1.2


class Composite(NamedTuple):
    """Which bands a composite shows as red, green and blue (or one as grey), and how to read it."""

    bands: tuple[str, ...]
    caption: str


def choose_composite(bands: Sequence[str]) -> Composite:
    """The composite that tells burned land best, of those that the bands allow.

    Short-wave and near infrared with red (burned land dark red, vegetation green), else true
    colour, else the first three bands, else the first one in grey.

    Example:
        >>> choose_recipe(("B02", "B03", "B04", "B08", "B12")).bands
        ('B12', 'B08', 'B04')
    """
    for wanted in _SHORT_WAVE:
        if set(wanted) <= set(bands):
            reading = "burned land dark red or brown, vegetation green"
            return Composite(wanted, f"short-wave infrared {_spell(wanted)}; {reading}")
    if set(_TRUE_COLOUR) <= set(bands):
        return Composite(_TRUE_COLOUR, f"true colour {_spell(_TRUE_COLOUR)}")
    if len(bands) >= 3:
        return Composite(tuple(bands[:3]), f"first three bands {_spell(bands[:3])}")
    return Composite((bands[0],), f"{bands[0]} in grey")


def render_composite(image: Pixels, bands: Sequence[str]) -> np.ndarray:
    """A picture of a patch or scene by `choose_composite`.

    Args:
        image: Surface reflectance, `(C, H, W)`.
        bands: The C bands of the image, in order.

    Returns:
        `(H, W, 3)` uint8; mid-grey where a band that is shown has no finite value.
    """
    recipe = choose_composite(bands).bands
    shown = torch.as_tensor(image)[[list(bands).index(band) for band in recipe]].detach().float().cpu().numpy()
    is_known = np.asarray(np.isfinite(shown).all(axis=0))
    brightest = np.array([_BRIGHTEST.get(band, _BRIGHTEST_INFRARED) for band in recipe], np.float32)
    scaled = np.where(is_known, shown, 0) / brightest[:, None, None]
    tones = np.rint(255 * scaled.clip(0, 1) ** _GAMMA).astype(np.uint8)
    picture = np.broadcast_to(tones, (3, *is_known.shape)).transpose(1, 2, 0)
    return np.where(is_known[..., None], picture, np.uint8(128))


def colour_classes(mask: Pixels, task: Task) -> np.ndarray:
    """A mask or prediction in the task's colours.

    Args:
        mask: Class of every pixel, `(H, W)`.
        task: What the values mean.

    Returns:
        `(H, W, 3)` uint8; what is no class is striped.
    """
    return _paint(to_array(mask), task.colours)


def colour_errors(truth: Pixels, prediction: Pixels, task: Task) -> np.ndarray:
    """Where truth and prediction agree on burned or not, in the colours of `ERROR_COLOURS`.

    Args:
        truth: Class of every pixel, `(H, W)`.
        prediction: The predicted class, `(H, W)`.
        task: What the values mean.

    Returns:
        `(H, W, 3)` uint8; what nobody labelled is striped.
    """
    return _paint(compare(truth, prediction, task), tuple(ERROR_COLOURS.values()))


def compare(truth: Pixels, prediction: Pixels, task: Task) -> np.ndarray:
    """Truth and prediction as one code a pixel, on burned or not, whatever the grade.

    Returns:
        uint8 of the same shape: 0 unburned in both, 1 false alarm, 2 miss, 3 burned in both, 255
        where nobody labelled.

    Example:
        >>> from fireseg.task import Task
        >>> task = Task(name="del", num_classes=2, class_names=("background", "fire"))
        >>> compare(np.array([[0, 0, 1, 1, 255]]), np.array([[0, 1, 0, 1, 1]]), task).tolist()
        [[0, 1, 2, 3, 255]]
    """
    true, predicted = to_array(truth), to_array(prediction)
    code = 2 * (true > 0).astype(np.uint8) + (predicted > 0)
    return np.where(true == task.ignore_index, np.uint8(255), code)


def to_array(pixels: Pixels) -> np.ndarray:
    """The same numbers for numpy, whatever device they are on."""
    return torch.as_tensor(pixels).detach().cpu().numpy()


def _paint(values: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Pixels in the colour of their value; values beyond the colours get diagonal stripes."""
    width = max(1, min(values.shape) // 32)
    stripes = np.add.outer(np.arange(values.shape[0]), np.arange(values.shape[1])) // width % 2
    table = np.array([list(bytes.fromhex(colour[1:])) for colour in (*colours, *UNLABELLED)], np.uint8)
    return table[np.where(values < len(colours), values, len(colours) + stripes)]


def _spell(bands: Sequence[str]) -> str:
    return f"{' '.join(bands)} as red, green, blue"


DPI = 128

# All in pixels. A panel of 256 shows the usual patch one to one.
_PANEL, _MARGIN, _GAP, _BLOCK_GAP, _LINE = 256, 24, 6, 30, 24

_LETTER, _WIDE_LETTER = 7.9, 9.3  # of running text; of names in capitals and digits, and of bold text

_KEY_NAME = 108


class _Grid(NamedTuple):
    """Where the panels of a sheet stand, in pixels from the top left corner."""

    columns: int
    width: int
    height: int
    num_panels: int

    @property
    def block(self) -> int:
        """Width of the panels of one patch."""
        return self.num_panels * (self.width + _GAP) - _GAP

    @property
    def across(self) -> int:
        """Width of the sheet between its margins."""
        return self.columns * (self.block + _BLOCK_GAP) - _BLOCK_GAP

    @property
    def step(self) -> int:
        """From one row of blocks to the next: a caption, and the panels."""
        return self.height + _LINE + _GAP

    def place(self, number: int, panel: int) -> tuple[int, int]:
        """Left and lower edge of a panel, below the heading."""
        row, column = divmod(number, self.columns)
        left = _MARGIN + column * (self.block + _BLOCK_GAP) + panel * (self.width + _GAP)
        return left, (row + 1) * self.step - _GAP


class _Sheet(NamedTuple):
    """A figure that is drawn upon in pixels from its top left corner."""

    figure: Figure
    across: int
    down: int

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"fontsize": 8, "va": "top", "parse_math": False, **style}  # a name may hold a dollar sign
        self.figure.text(x / self.across, 1 - y / self.down, text, **style)

    def add_panel(self, x: int, bottom: int, width: int, height: int) -> Axes:
        box = (x / self.across, 1 - bottom / self.down, width / self.across, height / self.down)
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
    """An empty sheet with everything on it but the patches.

    Everything stands on whole pixels, so that no text meets another and no pixel of a patch is drawn
    wider than its neighbour.

    Args:
        captions: Name and reading of every patch.
        panels: What the panels of a patch are called.
        shape: Height and width of a patch.
        title: The heading.
        notes: Paragraphs below the heading.
        keys: By the name of the key, the colours by what they mean.

    Returns:
        The figure, and the axes of every patch.
    """
    from matplotlib.figure import Figure

    grid = _plan(len(captions), len(panels), shape)
    letters = int(grid.across / _LETTER)
    lines = [line for note in notes for line in textwrap.wrap(note, letters)]
    fits = {name: _count_fitting(colours, grid.across) for name, colours in keys.items()}
    key_rows = {name: math.ceil((len(colours) + 1) / fits[name]) for name, colours in keys.items()}
    top = _MARGIN + _LINE * (len(lines) + 2) + _GAP
    foot = top + math.ceil(len(captions) / grid.columns) * grid.step + _GAP
    across, down = grid.across + 2 * _MARGIN, foot + _LINE * sum(key_rows.values()) + _GAP
    sheet = _Sheet(Figure(figsize=(across / DPI, down / DPI), dpi=DPI, facecolor="white"), across, down)
    sheet.write(_MARGIN, 16, _shorten(title, int(grid.across / (1.6 * _WIDE_LETTER))), fontsize=12, fontweight="bold")
    for number, line in enumerate(lines):
        sheet.write(_MARGIN, 48 + number * _LINE, line, color="#444444")
    for place, panel in enumerate(list(panels) * min(grid.columns, len(captions))):
        x, _ = grid.place(*divmod(place, len(panels)))
        sheet.write(x + grid.width / 2, top - _LINE + _GAP, panel, ha="center", color="#444444")
    blocks = [_add_block(sheet, grid, number, top, *caption) for number, caption in enumerate(captions)]
    for name, colours in keys.items():
        sheet.write(_MARGIN, foot, name, fontweight="bold")
        _add_key(sheet, colours, foot, fits[name])
        foot += _LINE * key_rows[name]
    return sheet.figure, blocks


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the picture whole or not at all, as PNG whatever the temporary name."""
    with atomic_write(path) as part:
        figure.savefig(part, format="png")


def _plan(num_blocks: int, num_panels: int, shape: tuple[int, ...]) -> _Grid:
    """The grid that comes near 3:2 with few empty places, at most eight panels wide."""

    def cost(columns: int) -> float:
        rows = math.ceil(num_blocks / columns)
        proportion = columns * num_panels * shape[1] / (rows * shape[0])
        return abs(math.log(proportion / 1.5)) + (rows * columns - num_blocks) / num_blocks

    columns = min(range(1, 8 // num_panels + 1), key=cost)
    width = _PANEL * (2 if columns * num_panels == 2 else 1)
    return _Grid(columns, width, max(round(width * shape[0] / shape[1]), 1), num_panels)


def _add_block(sheet: _Sheet, grid: _Grid, number: int, top: int, name: str, reading: str) -> list[Axes]:
    places = [grid.place(number, panel) for panel in range(grid.num_panels)]
    block = [sheet.add_panel(x, top + y, grid.width, grid.height) for x, y in places]
    room = int(grid.block / _WIDE_LETTER) - len(reading) - 1
    block[0].set_title(_shorten(name, room), loc="left", fontsize=8, pad=3, parse_math=False)
    block[-1].set_title(reading, loc="right", fontsize=8, pad=3, fontweight="bold")
    return block


def _add_key(sheet: _Sheet, colours: Mapping[str, str], y: int, columns: int) -> None:
    from matplotlib.patches import Patch

    edge = UNLABELLED[1]
    handles = [Patch(facecolor=colour, edgecolor=edge, label=label) for label, colour in colours.items()]
    handles.append(Patch(facecolor=UNLABELLED[0], edgecolor=edge, hatch="/////", label="unlabelled"))
    style = {"frameon": False, "fontsize": 8, "borderpad": 0, "borderaxespad": 0, "columnspacing": 1.5}
    corner = ((_MARGIN + _KEY_NAME) / sheet.across, 1 - y / sheet.down)
    sheet.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=columns, **style)


def _count_fitting(colours: Mapping[str, str], across: int) -> int:
    """Entries of a key that fit side by side, right of its name."""
    widest = (max(len(label) for label in (*colours, "unlabelled")) + 7) * _LETTER
    return max(1, min(len(colours) + 1, int((across - _KEY_NAME) / widest)))


def _shorten(text: str, limit: int) -> str:
    """The text with its middle left out where it is too long: both ends of a patch name tell."""
    if len(text) <= limit:
        return text
    half = max(limit - 1, 2) // 2
    return f"{text[:half]}…{text[-half:]}"
