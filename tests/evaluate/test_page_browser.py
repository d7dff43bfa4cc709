"""The page of an evaluation, opened in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from typing import Any

import pytest

from fireseg.evaluate.report import write_report
from tests.evaluate.example import FIRES, make_evaluated, make_full_content, make_poor_content

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
    *("--virtual-time-budget=20000", "--window-size=1400,1000", "--dump-dom"),
)
PROBE = """<iframe src='full.html' width=400></iframe><iframe src='full.html' width=1200></iframe>
<iframe src='poor.html' width=400></iframe><style>iframe { border: 0; height: 900px }</style><script>
onload = () => {
  const [phone, desk, poor] = [...document.querySelectorAll('iframe')].map((frame) => frame.contentWindow);
  const found = [phone, desk, poor].map((view) => ({
    across: view.document.documentElement.scrollWidth, width: view.innerWidth,
    hidden: [...view.document.images].filter((i) => !(i.naturalWidth > 0 && i.width > 40)).length,
    requests: view.performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith('data:')),
  }));
  const table = desk.document.querySelector('#fires table'), heads = [...table.tHead.rows[0].cells];
  const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
  const place = (name) => heads.findIndex((head) => head.textContent === name);
  const sorts = {};
  for (const name of ['true ha', 'true ha', 'IoU', 'IoU', 'country', 'fire']) {
    const head = heads[place(name)], button = head.querySelector('button');
    button.focus();
    const hasFocus = desk.document.activeElement === button;
    button.click();
    const others = heads.filter((each) => each !== head).map((each) => each.getAttribute('aria-sort'));
    const key = name + ' ' + head.getAttribute('aria-sort');
    sorts[key] = {cells: column(place(name)), fires: column(0), hasFocus, others: [...new Set(others)]};
  }
  document.title = JSON.stringify({pages: found, sorts});
}
</script>"""


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser says of both pages, at 400 and 1200 pixels, and what sorting did."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH to open the page with")
    folder = tmp_path_factory.mktemp("pages")
    write_report(make_evaluated(make_full_content()), folder / "full.html")
    write_report(make_evaluated(make_poor_content()), folder / "poor.html")
    (folder / "probe.html").write_text(PROBE)
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    command = [CHROMIUM, *SWITCHES, profile, (folder / "probe.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    assert found, shown[:2000]
    return json.loads(unescape(found.group(1)))


def test_a_browser_shows_every_picture_asks_nobody_and_nothing_reaches_over_the_edge(browsed: dict[str, Any]) -> None:
    assert [page["width"] for page in browsed["pages"]] == [400, 1200, 400]
    for page in browsed["pages"]:
        assert page["across"] <= page["width"]
        assert page["hidden"] == 0
        assert page["requests"] == []


def test_a_heading_sorts_numbers_as_numbers_and_what_nobody_knows_comes_last(browsed: dict[str, Any]) -> None:
    sorts = browsed["sorts"]
    hectares = sorted(row[5] for row in FIRES)
    assert sorts["true ha ascending"]["cells"] == [f"{area:,.1f}" for area in hectares]
    assert sorts["true ha descending"]["cells"] == [f"{area:,.1f}" for area in hectares[::-1]]
    ious = sorted(row[7] for row in FIRES if row[7] is not None)
    assert sorts["IoU ascending"]["cells"] == [*(f"{iou:.3f}" for iou in ious), "-"]
    assert sorts["IoU descending"]["cells"] == [*(f"{iou:.3f}" for iou in ious[::-1]), "-"]
    assert sorts["IoU descending"]["fires"][0] == "EMSR298_AOI01_01"
    assert sorts["country ascending"]["cells"] == sorted(row[1] for row in FIRES)


def test_a_heading_is_a_button_that_says_which_way_it_sorts(browsed: dict[str, Any]) -> None:
    assert all(sort["hasFocus"] and sort["others"] == ["none"] for sort in browsed["sorts"].values())
    assert browsed["sorts"]["fire ascending"]["cells"] == sorted(row[0] for row in FIRES)
