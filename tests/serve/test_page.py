"""The page in a real Chromium: drop, watch, look, redraw, download, on a desk and on a phone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyogrio
import pytest

from tests.predict.builders import draw_image, write_run, write_scene
from tests.serve.browser import CHROMIUM, Browser
from tests.serve.builders import Server, serve, write_odd_scene

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SHOWN = "!document.getElementById('result').hidden && document.querySelectorAll('.leaflet-tile-loaded').length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_run(folder / "run")
    write_scene(folder / "scenes" / "small.tif", draw_image(96, 96, seed=1))
    write_scene(folder / "scene.tif", draw_image(200, 260))
    (folder / "broken.tif").write_bytes(b"II*\0" + b"x" * 100)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serve(folder, "--root", str(folder / "scenes")) as server:
        yield server


@pytest.fixture(scope="module")
def browser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(server.url)
        yield browser


def read_text(browser: Browser, element: str) -> str:
    return browser.evaluate(f"document.getElementById('{element}').textContent")


def test_a_dropped_scene_is_mapped_shown_redrawn_and_downloaded(browser: Browser, folder: Path, server: Server) -> None:
    browser.wait_for("document.getElementById('suffixes').textContent.includes('MB')")
    browser.drop_file("#drop", folder / "scene.tif")
    browser.wait_for("document.querySelector('#scenes button')")
    assert read_text(browser, "name") in ("", "scene.tif")
    browser.wait_for(SHOWN)
    (scene,) = browser.evaluate("scenes")
    assert read_text(browser, "verdict") == ("Fire found" if scene["has_fire"] else "No fire found")
    assert read_text(browser, "probability") == f"{scene['max_probability']:.2f}"
    # Detection stands above the map, and the legend has its areas.
    tops = [browser.evaluate(f"document.getElementById('{part}').offsetTop") for part in ("detection", "map")]
    assert tops[0] < tops[1]
    details = browser.evaluate("shown")
    assert f"{details['classes'][0]['ha']:,.0f} ha" in read_text(browser, "legend")
    assert "burned land dark red or brown" in read_text(browser, "scene-colours")

    browser.evaluate("{ const t = find('threshold'); t.value = 1; t.dispatchEvent(new Event('input')); }")
    browser.wait_for("[...document.querySelectorAll('.leaflet-tile')].some((tile) => tile.src.includes('threshold='))")
    total = sum(details["area_by_probability"][1:])
    assert f"Redrawn at 0.002: {total:,.0f} ha burned" in read_text(browser, "redrawn")
    browser.evaluate("find('reset').click()")
    assert browser.evaluate("find('redrawn').hidden")
    browser.evaluate("{ const o = find('opacity'); o.value = 30; o.dispatchEvent(new Event('input')); }")
    assert browser.evaluate("mapLayer.options.opacity") == 0.3

    browser.evaluate("find('download-burned').click()")
    path = browser.downloads / "scene_burned.gpkg"
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        browser.evaluate("1")
        time.sleep(0.1)
    assert pyogrio.read_info(path, layer="burned")["features"] == details["summary"]["polygons"]["count"]


def test_a_failed_scene_shows_its_cause_and_the_list_is_sorted(browser: Browser, folder: Path) -> None:
    browser.drop_file("#drop", folder / "broken.tif")
    browser.evaluate("find('root').open = true")
    browser.wait_for("document.querySelector('#root-list button')")
    assert read_text(browser, "root-list") == "small.tif"
    browser.evaluate("document.querySelector('#root-list button').click()")
    browser.wait_for("scenes.length === 3 && scenes.every((scene) => ['done', 'failed'].includes(scene.state))")
    browser.evaluate("select(scenes.find((scene) => scene.name === 'broken.tif').id)")
    browser.wait_for("!find('faults').hidden")
    assert read_text(browser, "faults").startswith("broken.tif: ")
    browser.evaluate("{ const s = find('sort'); s.value = 'burned_ha'; s.dispatchEvent(new Event('change')); }")
    names = browser.evaluate("[...document.querySelectorAll('#scenes .label')].map((label) => label.textContent)")
    areas = {scene["name"]: scene["burned_ha"] for scene in browser.evaluate("scenes")}
    assert areas["broken.tif"] is None
    assert names == sorted(areas, key=lambda name: -1 if areas[name] is None else areas[name], reverse=True)


def test_flags_are_shown_above_the_map_and_in_the_list(browser: Browser, server: Server, folder: Path) -> None:
    path = write_odd_scene(folder / "odd.tif")
    scene = server.wait(server.upload(path, name="odd.tif", trust_values=True).json()["id"])
    (flag,) = scene["flags"]
    browser.wait_for("scenes.some((scene) => scene.name === 'odd.tif')")
    browser.evaluate("select(scenes.find((scene) => scene.name === 'odd.tif').id)")
    browser.wait_for("shown && shown.name === 'odd.tif' && !find('result').hidden")
    assert read_text(browser, "flags") == f"Caution: {flag}"
    assert browser.evaluate("find('flags').offsetTop < find('map').offsetTop")
    assert "caution: 1 flag" in read_text(browser, "scenes")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, width: int) -> None:
    browser.resize(width, 844)
    browser.evaluate("select(scenes.find((scene) => scene.name === 'scene.tif').id)")
    browser.wait_for(SHOWN)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    sizes = browser.evaluate(
        "[...document.querySelectorAll('main button')].map((b) => b.getBoundingClientRect().right)"
    )
    assert max(sizes) <= width


def test_the_page_asks_nothing_but_its_server_and_breaks_no_rule(browser: Browser, server: Server) -> None:
    browser.open(f"{server.url}/docs")
    browser.wait_for("document.body.textContent.includes('POST /scenes')")
    hosts = {urlsplit(address).netloc for address in browser.addresses if not address.startswith("data:")}
    assert hosts == {urlsplit(server.url).netloc}
    assert browser.problems == []
