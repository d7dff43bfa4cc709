"""A page that stands by itself: tables and pictures in one HTML file that asks nobody for anything."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fireseg.files import atomic_write

_TEMPLATE = "page.html"

_SORT = "sort.js"

_MOST_PX = 320

_JPEG_QUALITY = 85


class Picture(NamedTuple):
    """A picture within the page.

    Attributes:
        title: Above it; may be empty.
        uri: The picture itself, as `data:`.
        alt: What it shows, in words.
        is_wide: Whether it takes the whole width.
    """

    title: str
    uri: str
    alt: str
    is_wide: bool = False


class Strip(NamedTuple):
    """Pictures of one thing side by side.

    Attributes:
        title: What it is.
        caption: What there is to say.
        pictures: One or more.
    """

    title: str
    caption: str
    pictures: Sequence[Picture]


class Cell(NamedTuple):
    """A number in a table.

    Attributes:
        text: As it is read.
        value: As it is sorted; None where nobody knows, which comes last either way.
    """

    text: str
    value: float | None


class Table(NamedTuple):
    """A table. The first column names the rows.

    Attributes:
        caption: What it says.
        columns: Headings.
        rows: Cells as text, or as numbers where they are to be sorted as such.
        align: A letter a column, `l` or `r`.
        is_folded: Whether only its caption is shown until somebody wants more. Print shows all.
        is_sortable: Whether a click on a heading sorts the rows; where no script runs they stay as they are.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    align: str
    is_folded: bool = False
    is_sortable: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        name: In its address, unique on the page.
        title: The heading.
        text: Paragraphs above the rest.
        pictures: Beside one another where there is room.
        strips: The same for strips.
        key: Colours of the strips and their meaning.
        tables: Below the pictures.
        tone: `warn` where somebody should look before going on.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    strips: Sequence[Strip] = ()
    key: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    tone: Literal["", "warn"] = ""


def render_page(path: Path, *, title: str, summary: str, sections: Sequence[Section], tab: str = "") -> None:
    """Writes the page, whole or not at all.

    The one script that a page may hold sorts tables, and only where there are such. The page's own policy
    names that script by its hash: nothing else can run, whatever a name holds.

    Args:
        path: The HTML file.
        title: The heading.
        summary: The sentence below.
        sections: What follows.
        tab: What the browser calls the page, where that is not the heading.

    Raises:
        FiresegError: If the file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sorts = any(table.is_sortable for section in sections for table in section.tables)
    script = (folder / _SORT).read_text(encoding="utf-8") if sorts else ""
    text = environment.get_template(_TEMPLATE).render(
        title=title,
        summary=summary,
        sections=sections,
        tab=tab or title,
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def to_uri(content: bytes, kind: Literal["png", "jpeg"]) -> str:
    """An encoded picture as an address that holds the picture.

    Example:
        >>> to_uri(b"abc", "png")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def encode_pixels(pixels: np.ndarray, kind: Literal["png", "jpeg"]) -> str:
    """Pixels as an address that holds them, every n-th only where there are more than a page can show.

    Args:
        pixels: `(H, W, 3)` uint8.
        kind: `png` for a few colours with sharp edges, `jpeg` for photographs.
    """
    from matplotlib.image import imsave

    step = -(-max(pixels.shape[:2]) // _MOST_PX)
    file = BytesIO()
    options = {"quality": _JPEG_QUALITY} if kind == "jpeg" else {"optimize": True}
    imsave(file, np.ascontiguousarray(pixels[::step, ::step]), format=kind, pil_kwargs=options)
    return to_uri(file.getvalue(), kind)
