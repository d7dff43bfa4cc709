"""Self-contained HTML reports: jinja2 templates filled with numbers, tables and embedded images."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fireseg.console import format_count, format_interval, format_name, format_share
from fireseg.files import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"

_MAX_IMAGE_PX = 320

_JPEG_QUALITY = 85


class Picture(NamedTuple):
    """An image in a report.

    Attributes:
        title: Text above the image; may be empty.
        uri: Image as a `data:` URI.
        alt: Description of the image for people who cannot see it.
        is_wide: True if the image takes the whole width of the page.
    """

    title: str
    uri: str
    alt: str
    is_wide: bool = False


class Strip(NamedTuple):
    """A row of images of the same scene or patch.

    Attributes:
        title: Name of the scene or patch.
        caption: Text below the title.
        pictures: One or more images.
    """

    title: str
    caption: str
    pictures: Sequence[Picture]


class Cell(NamedTuple):
    """A table cell with a sort key; in running text it reads as its text.

    Attributes:
        text: Formatted value.
        value: Sort key; None sorts last in both directions.
        align: `r` for numbers, `l` for text.
    """

    text: str
    value: float | None
    align: Literal["l", "r"] = "r"

    def __str__(self) -> str:
        return self.text


def write_page(
    path: Path, template: str, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> None:
    """Renders a template and writes the HTML file atomically.

    The page needs no network. Its Content-Security-Policy allows only the script that sorts tables, by hash, so no
    name in the data can run as code.

    Args:
        path: HTML file to write.
        template: Template name in `templates/`.
        filters: Filters of the template besides those of `make_environment`.
        values: Variables of the template.

    Raises:
        FiresegError: If the file cannot be written.
    """
    environment = make_environment()
    environment.filters |= filters or {}
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    text = environment.get_template(template).render(contents=[], sort_script=script, **values)
    with atomic_write(path) as part:
        part.write_text(format_name(text.lstrip(), keep="\n\t"), encoding="utf-8", newline="\n")


def make_environment() -> Environment:
    """Creates the jinja2 environment of the reports.

    Its filters `number`, `percentage` and `text` format a value as a `Cell`, `-` if it is missing; `share` and
    `counted` are `fireseg.console.format_share` and `format_count`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {
        "number": format_number,
        "percentage": format_percentage,
        "share": format_share,
        "text": format_text,
        "counted": format_count,
        "sha256_base64": lambda text: b64encode(sha256(text.encode()).digest()).decode(),
    }
    return environment


def format_number(value: float | None, spec: str = ".3f") -> Cell:
    """Formats a number as a table cell; `-` if it is None or not finite."""
    if value is None or not math.isfinite(value):
        return Cell("-", None)
    return Cell(f"{value:{spec}}", value)


def format_percentage(value: float | None, *, signed: bool = False) -> Cell:
    """Formats a share as a percentage with 1 decimal, or 2 below 10 %; `-` if it is None or not finite."""
    if value is None or not math.isfinite(value):
        return Cell("-", None)
    places = 2 if 0 < abs(value) < 0.1 else 1
    return Cell(f"{100 * value:{'+' if signed else ''}.{places}f} %", value)


def format_text(value: str | None) -> str | Cell:
    """Returns the text, or a `-` that sorts last if there is none."""
    return value or Cell("-", None, "l")


def make_interval_cell(interval: Mapping[str, Any] | None, *, signed: bool = False, places: int = 3) -> Cell:
    """Formats a mean with its interval as a table cell.

    Example:
        >>> interval = {"mean": 0.12, "low": 0.08, "high": 0.17, "num": 16, "values": None}
        >>> make_interval_cell(interval, signed=True, places=2).text
        '+0.12 [+0.08, +0.17] (n = 16)'
    """
    if interval is None or interval["mean"] is None or math.isnan(interval["mean"]):
        return Cell("-", None)
    return Cell(format_interval(interval, f"{'+' if signed else ''}.{places}f"), interval["mean"])


def format_p_value(value: float) -> str:
    """Formats a p-value with 2 or 3 decimals."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def to_uri(content: bytes, kind: Literal["png", "jpeg"]) -> str:
    """Encodes an image file as a `data:` URI.

    Example:
        >>> to_uri(b"abc", "png")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def encode_pixels(pixels: np.ndarray, kind: Literal["png", "jpeg"]) -> str:
    """Encodes pixels as a `data:` URI, subsampled to at most 320 pixels a side.

    Args:
        pixels: `(H, W, 3)` uint8.
        kind: `png` for a few colours with sharp edges, `jpeg` for photographs.
    """
    from matplotlib.image import imsave

    step = -(-max(pixels.shape[:2]) // _MAX_IMAGE_PX)
    file = BytesIO()
    options = {"quality": _JPEG_QUALITY} if kind == "jpeg" else {"optimize": True}
    imsave(file, np.ascontiguousarray(pixels[::step, ::step]), format=kind, pil_kwargs=options)
    return to_uri(file.getvalue(), kind)
