"""A page that stands by itself."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from fireseg.plots.html import Cell, Picture, Section, Strip, Table, encode_pixels, render_page, to_uri


def render(folder: Path, **parts: object) -> str:
    section = Section(name="one", title="One", **parts)  # pyright: ignore[reportArgumentType]
    render_page(folder / "page.html", title="A title", summary="A summary.", sections=[section])
    return (folder / "page.html").read_text(encoding="utf-8")


def test_what_names_hold_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    picture = Picture(evil, to_uri(b"x", "png"), evil)
    table = Table(evil, [evil], [[evil]], "l", True)
    strip = Strip(evil, evil, [picture])
    page = render(tmp_path, text=[evil], pictures=[picture], strips=[strip], tables=[table], key=[(evil, "#fff")])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 9


def test_a_folded_table_has_its_caption_outside(tmp_path: Path) -> None:
    page = render(tmp_path, tables=[Table("All tiles", ["a"], [["1"], ["2"]], "l", is_folded=True)])
    assert "<summary>All tiles (2)</summary>" in page
    assert "<h3>" not in page


def test_pixels_of_few_colours_come_back_to_the_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    uri = encode_pixels(pixels, "png")
    back = imread(BytesIO(b64decode(uri.removeprefix("data:image/png;base64,"))), format="png")
    np.testing.assert_array_equal(np.rint(255 * back[..., :3]), pixels)


def test_a_picture_larger_than_a_page_can_show_is_made_smaller() -> None:
    uri = encode_pixels(np.zeros((1000, 700, 3), np.uint8), "jpeg")
    back = imread(BytesIO(b64decode(uri.removeprefix("data:image/jpeg;base64,"))), format="jpeg")
    assert back.shape == (250, 175, 3)


def test_a_page_without_a_sortable_table_has_no_script(tmp_path: Path) -> None:
    page = render(tmp_path, tables=[Table("", ["a"], [["1"]], "l")])
    assert "<script" not in page
    assert "script-src" not in page


def test_the_policy_names_the_one_script_by_its_hash(tmp_path: Path) -> None:
    page = render(tmp_path, tables=[Table("", ["a"], [["1"]], "l", is_sortable=True)])
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = b64encode(sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in page


def test_a_number_carries_what_it_is_sorted_by_and_an_unknown_one_nothing(tmp_path: Path) -> None:
    rows = [["x", Cell("1,234.5 ha", 1234.5), Cell("-", None), "word"]]
    page = render(tmp_path, tables=[Table("", ["a", "b", "c", "d"], rows, "lrrl", is_sortable=True)])
    assert '<td class="r" data-value="1234.5">1,234.5 ha</td>' in page
    assert '<td class="r" data-value="">-</td>' in page
    assert '<td class="l">word</td>' in page


def test_the_tab_has_the_heading_unless_it_is_named(tmp_path: Path) -> None:
    render_page(tmp_path / "one.html", title="A title", summary="", sections=[])
    render_page(tmp_path / "other.html", title="A title", summary="", sections=[], tab="a <tab>")
    assert "<title>A title</title>" in (tmp_path / "one.html").read_text()
    assert "<title>a &lt;tab&gt;</title>" in (tmp_path / "other.html").read_text()
