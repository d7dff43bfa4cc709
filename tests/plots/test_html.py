"""Tests of self-contained HTML pages: escaping, tables, script policy, embedded images."""

from __future__ import annotations

import math
import re
import shutil
from base64 import b64decode, b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from fireseg.plots import html
from fireseg.plots.html import Cell, Picture, Strip, encode_pixels, to_uri, write_page

IMPORTS = '{% from "macros.html.j2" import key, pictures, row, section, strips, table with context %}'


def render(folder: Path, content: str, **values: Any) -> str:
    source = f'{{% extends "page.html.j2" %}}{IMPORTS}{{% block title %}}A title{{% endblock %}}{{% block content %}}'
    (folder / "templates").mkdir(exist_ok=True)
    for file in html.TEMPLATES.iterdir():
        shutil.copy(file, folder / "templates")
    (folder / "templates/test.html.j2").write_text(f"{source}{content}{{% endblock %}}", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "TEMPLATES", folder / "templates")
        write_page(folder / "page.html", "test.html.j2", **values)
    return (folder / "page.html").read_text(encoding="utf-8")


def render_table(folder: Path, cells: list[object], options: str = "") -> str:
    content = '{% call table("Caption", ["a", "b"], "lr"' + options + ") %}{{ row(*cells) }}{% endcall %}"
    return render(folder, content, cells=cells)


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    content = (
        "{% call section(evil, evil) %}<p>{{ evil }}</p>{{ pictures([picture]) }}{{ strips([strip]) }}"
        "{{ key([(evil, '#fff')]) }}"
        "{% call table(evil, [evil], 'l', 21) %}{{ row(evil, evil) }}{% endcall %}{% endcall %}"
    )
    picture = Picture(evil, to_uri(b"x", "png"), evil)
    page = render(tmp_path, content, evil=evil, picture=picture, strip=Strip(evil, evil, [picture]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 15


def test_sections_are_listed_in_the_navigation(tmp_path: Path) -> None:
    page = render(tmp_path, '{% call section("one", "First", "warn") %}Text{% endcall %}')
    assert '<a href="#one">First</a>' in page
    assert '<section id="one" class="warn">' in page


def test_tables_of_more_than_20_rows_are_folded_below_their_caption(tmp_path: Path) -> None:
    folded = render_table(tmp_path, ["x"], ", 21")
    assert "<summary>Caption (21)</summary>" in folded
    assert "<h3>" not in folded
    assert "<details>" not in render_table(tmp_path, ["x"], ", 20")


def test_png_pixels_are_lossless() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    uri = encode_pixels(pixels, "png")
    back = imread(BytesIO(b64decode(uri.removeprefix("data:image/png;base64,"))), format="png")
    np.testing.assert_array_equal(np.rint(255 * back[..., :3]), pixels)


def test_large_images_are_subsampled_to_320_pixels() -> None:
    uri = encode_pixels(np.zeros((1000, 700, 3), np.uint8), "jpeg")
    back = imread(BytesIO(b64decode(uri.removeprefix("data:image/jpeg;base64,"))), format="jpeg")
    assert back.shape == (250, 175, 3)


def test_a_page_without_a_sortable_table_has_no_script(tmp_path: Path) -> None:
    page = render_table(tmp_path, ["x"])
    assert "<script" not in page
    assert "script-src" not in page


def test_the_content_security_policy_names_the_script_by_its_hash(tmp_path: Path) -> None:
    page = render_table(tmp_path, ["x"], ", is_sortable=true")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = b64encode(sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in page


def test_cells_carry_their_sort_key(tmp_path: Path) -> None:
    page = render_table(tmp_path, ["x", Cell("1,234.5 ha", 1234.5), Cell("-", None), Cell("-", None, "l"), "word"])
    assert '<td class="r" data-value="1234.5">1,234.5 ha</td>' in page
    assert '<td class="r" data-value="">-</td>' in page
    assert '<td class="l" data-value="">-</td>' in page
    assert '<td class="l">word</td>' in page


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        *(("none|number", "-"), ("nan|number", "-"), ("inf|number", "-"), ("1234.56|number(',.1f')", "1,234.6")),
        *(
            ("none|percentage", "-"),
            ("nan|percentage", "-"),
            ("0|percentage", "0.0 %"),
            ("0.0059|percentage", "0.59 %"),
        ),
        *(("0.5|percentage", "50.0 %"), ("0.1|percentage(signed=true)", "+10.0 %"), ("0.034|share", "3.4 %")),
        *(("none|text", "-"), ("'Spain'|text", "Spain"), ("1|counted('fire')", "1 fire")),
    ],
)
def test_filters_format_values(tmp_path: Path, expression: str, expected: str) -> None:
    page = render(tmp_path, f"<p>{{{{ {expression} }}}}</p>", nan=math.nan, inf=math.inf)
    assert f"<p>{expected}</p>" in page


def test_the_tab_is_the_title_unless_given(tmp_path: Path) -> None:
    assert "<title>A title</title>" in render(tmp_path, "")
    page = render(tmp_path, '{% endblock %}{% block tab %}{{ "a <tab>" }}')
    assert "<title>a &lt;tab&gt;</title>" in page
