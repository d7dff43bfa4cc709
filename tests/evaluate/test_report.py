"""Tests of the HTML report, read as text and opened in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fireseg.evaluate.fires import Fire, PatchPosition
from fireseg.evaluate.mosaic import PatchPixels, build_mosaic, stitch_tiles
from fireseg.evaluate.report import PreviewSelection, make_preview, write_report
from fireseg.evaluate.results import Evaluation
from tests.evaluate.builders import (
    ALL_BANDS,
    FIRES,
    METHODS,
    Page,
    make_evaluation,
    make_full_results,
    make_mosaic,
    make_poor_results,
    make_results,
)
from tests.runs.builders import SELF_TRAINING


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_report(make_evaluation(make_full_results()), folder / "full.html")
    write_report(make_evaluation(make_poor_results()), folder / "poor.html")
    return folder


@pytest.fixture(scope="module")
def full(folder: Path) -> Page:
    return Page((folder / "full.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def poor(folder: Path) -> Page:
    return Page((folder / "poor.html").read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path: Path, no_figures: None):
    """Writes a report without figures and previews, and parses it."""

    def write(results: dict[str, Any]) -> Page:
        write_report(Evaluation(results=results, previews={}), tmp_path / "page.html")
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return write


PANELS = ("Satellite image", "Errors")

BASELINE = "the NBR baseline"


@pytest.mark.parametrize(
    ("iou", "gain", "headline"),
    [
        (0.876, 0.153, f"Fire IoU 0.876: 0.153 above {BASELINE} (0.723)."),
        (0.650, -0.073, f"Fire IoU 0.650: 0.073 below {BASELINE} (0.723)."),
        (0.723, 0.0004, f"Fire IoU 0.723: no better than {BASELINE} (0.723)."),
        (0.723, -0.0004, f"Fire IoU 0.723: no better than {BASELINE} (0.723)."),
        (None, None, "No fire IoU: nothing burned in the labels."),
        (0.5, None, f"Fire IoU 0.500; {BASELINE} has none to compare with."),
    ],
    ids=["better", "worse", "same", "same from below", "no fire", "no gain"],
)
def test_the_headline_is_the_gain_over_the_baseline(write: Any, iou: Any, gain: Any, headline: str) -> None:
    results = make_results()
    results["methods"][0]["pixels"]["fire_iou"] = iou
    results["gain"]["pooled"] = gain
    assert write(results).headings[0] == headline


def test_scores_off_centre_have_a_table(full: Page, poor: Page) -> None:
    assert full.column("Fire IoU of the same pixels", "off centre") == ["0.850", "0.841"]
    assert full.column("Fire IoU of the same pixels", "difference per fire")[0].startswith("-0.031 [-0.061, -0.001]")
    assert "Off centre" not in poor.headings
    assert "blended windows of about 544 px" in full.text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "on 11 of 13 fires, worse on 1, equal on 1 (sign test p = 0.006). Run"),
        ({"p_value": 1e-6}, "(sign test p < 0.001). Run"),
        ({"losses": 0, "wins": 12, "ties": 0}, "on 12 of 12 fires, worse on none (sign test"),
        (
            {"difference": {"mean": 0.02, "low": -0.03, "high": 0.07, "num": 13, "values": None}, "p_value": 0.58},
            "(sign test p = 0.58); the interval includes 0, so the difference may be chance. Run",
        ),
        (
            {"difference": {"mean": -0.02, "low": None, "high": None, "num": 1, "values": [-0.02]}},
            "per fire -0.02 (n = 1: -0.02): better than the NBR baseline on 11 of 13 fires, worse on 1, equal on 1. "
            "Fewer than 5 fires: their values instead of an interval. Run",
        ),
        (
            {"difference": {"mean": None, "low": None, "high": None, "num": 0, "values": []}},
            "No fire has an IoU from both the model and the NBR baseline. Run",
        ),
    ],
    ids=["usual", "significant", "all won", "chance", "one fire", "no fire"],
)
def test_the_summary_gives_the_uncertainty_of_the_gain(write: Any, values: dict[str, Any], sentence: str) -> None:
    results = make_results()
    results["gain"]["per_fire"] |= values
    assert sentence in write(results).text


@pytest.mark.parametrize(
    ("part", "values", "start"),
    [
        ("decision", {"is_optimistic": True}, "Temperature, threshold and detection rule were chosen on test"),
        ("decision", {"chosen_on": None}, "There is no burned pixel of val to choose a threshold on: threshold 0.43"),
        ("data", {"leaks": ["a: b", "c: d"]}, "2 leaks between the splits accepted"),
        ("data", {"is_same": False}, "These are not the patches that the run was trained on"),
        ("off_centre", {"advice": "drops 0.10 off centre: why; cure"}, "The score drops 0.10 off centre: why; cure."),
        ("data", {"fires": 3}, "Only 3 fires:"),
    ],
    ids=["optimistic", "nothing to choose on", "leaks", "other data", "off centre", "few fires"],
)
def test_each_reason_for_doubt_is_a_warning(write: Any, part: str, values: dict[str, Any], start: str) -> None:
    results = make_results()
    results[part] |= values
    page = write(results)
    assert page.headings[1] == "Warnings"
    assert f"Warnings {start}" in page.text


def test_scores_on_train_have_a_warning(write: Any) -> None:
    assert "Warnings The model was trained on these fires" in write(make_results() | {"split": "train"}).text


def test_without_a_reason_for_doubt_there_is_no_warning(full: Page) -> None:
    assert "Warnings" not in full.headings


def test_the_report_starts_with_the_gain_over_the_baseline(full: Page) -> None:
    assert full.headings[0] == "Fire IoU 0.876: 0.153 above the NBR baseline (0.723)."
    assert "IoU difference per fire +0.12 [+0.07, +0.17] (n = 13): better than the NBR baseline on 11 of" in full.text
    assert "on 11 of 13 fires, worse on 1, equal on 1 (sign test p = 0.006)." in full.text


def test_a_baseline_without_its_bands_is_named_with_the_reason(poor: Page) -> None:
    assert poor.headings[0] == "Fire IoU 0.876; no NBR baseline to compare with: needs B11, which these data lack."
    assert "No scores for NBR, fixed: needs B11, which these data lack." in poor.text


def test_warnings_come_before_the_scores(poor: Page) -> None:
    assert poor.headings[1:3] == ["Warnings", "Scores"]
    assert "1 leak between the splits accepted" in poor.text


def test_every_method_is_in_every_table_of_methods(full: Page, poor: Page) -> None:
    labels = [label for _, label, *_ in METHODS]
    for page in (full, poor):
        tables = [rows for rows in page.tables.values() if rows[0][0] == "method" and "threshold" not in rows[0]]
        assert len(tables) >= 4
        for rows in tables:
            names = [row[0].removesuffix(", any pixel") for row in rows[1:] if not row[0].endswith("by the rule")]
            assert names == labels


def test_a_method_without_its_bands_has_a_row_without_numbers(poor: Page) -> None:
    row = next(row for row in poor.tables["Over all pixels"] if row[0] == "NBR, tuned")
    assert row[1:] == ["-", "-", "-", "-", "-", "needs B11, which these data lack"]


def test_the_confusion_matrix_has_counts_and_row_shares(full: Page, poor: Page) -> None:
    assert full.tables["Pixels, and share of the row"][1:] == [
        ["unburned", "25,402,118 (99.4 %)", "152,044 (0.59 %)", "25,554,162"],
        ["burned", "171,902 (7.29 %)", "2,185,140 (92.7 %)", "2,357,042"],
    ]
    assert poor.tables["Pixels, and share of the row"][2] == ["negligible", *"-----", "0"]


def test_calibration_is_shown_before_and_after_the_temperature(full: Page) -> None:
    assert full.tables["Probabilities of having burned"][1:] == [
        ["without temperature", "0.0312", "0.0211", "0.0893", "0.9470"],
        ["with temperature", "0.0094", "0.0196", "0.0701", "0.9470"],
    ]


def test_a_temperature_that_makes_the_ece_worse_is_mentioned(full: Page, write: Any) -> None:
    results = make_results()
    results["calibration"]["after"]["ece"] = 0.04
    sentence = "it makes the ECE worse"
    assert sentence in write(results).text
    assert sentence not in full.text


def test_detection_is_shown_by_any_pixel_and_by_the_rule(full: Page) -> None:
    assert "at least 12 px and a largest probability of at least 0.61" in full.text
    assert full.column("Patches", "false positives")[:2] == ["9", "4"]


def test_groups_compare_the_model_with_the_baseline(full: Page) -> None:
    values = ["0.631 (n = 2: 0.631 0.631)", "0.511 (n = 2: 0.511 0.511)", "+0.120 (n = 2: +0.120 +0.120)"]
    assert full.tables["By country"][1] == ["Spain", "2", *values]
    assert full.tables["By climate"][1][2] == "0.673 [0.613, 0.733] (n = 7)"
    assert {"By burned share of the tile", "By country", "By climate", "By year"} <= set(full.tables)


def test_severity_classes_have_their_own_table(full: Page, poor: Page) -> None:
    caption = "By class, over all pixels (the baseline has no severity classes)"
    assert caption not in full.tables
    assert poor.tables[caption][2] == ["negligible", "-", "-", "-", "-", "-"]
    assert "mean absolute error on burned pixels 0.72 classes" in poor.text


def test_the_table_of_fires_has_no_empty_columns(full: Page, poor: Page) -> None:
    assert full.column("Fires", "fire") == [row[0] for row in FIRES]
    assert full.column("Fires", "true ha")[9] == "10,480.0"
    assert not {"true ha", "predicted ha", "country", "IoU, NBR tuned"} & set(poor.tables["Fires"][0])
    assert "Areas in hectares are unknown" in poor.text


def test_missing_values_are_dashes(full: Page, poor: Page) -> None:
    for page in (full, poor):
        cells = [cell for rows in page.tables.values() for row in rows for cell in row]
        assert not {"None", "nan", "NaN", ""} & set(cells)
        assert not re.search(r"\b(?:None|nan|NaN|Undefined)\b", page.text)


def test_another_run_is_compared_by_fire_and_by_group(full: Page, write: Any) -> None:
    assert "better than unet <mobilenet_v2> on 13 of 13 fires, worse on none" in full.text
    pair = ["EMSR205_AOI01_01", "0.861", "0.821", "+0.040"]
    assert full.tables["Fire by fire against unet <mobilenet_v2>"][1] == pair
    assert full.tables["Wins and losses by climate"][1] == ["Mediterranean", "6", "0", "1", "+0.034"]
    assert "Comparison with another run" not in write(make_results()).headings


def test_false_alarms_on_tiles_without_fire_are_counted_apart(full: Page) -> None:
    rows = full.tables["Tiles without fire: false alarms"]
    assert rows[1] == ["model", "1", "1", "340", "3.4", "7.2"]
    assert "13 fires and 1 tile without fire" in full.text
    assert "The other run, 1 tile without fire: false alarms on 1, 12.5 ha, 7.2 ha per 1000 km²." in full.text


def test_the_gallery_shows_the_worst_and_best_fires_or_all_if_few(full: Page, poor: Page) -> None:
    order = [row[0] for row in sorted(FIRES, key=lambda row: (row[7] is None, row[7]))][:13]
    matches = [re.search(r"mask of fire (\S+),", image["alt"] or "") for image in full.images]
    names = list(dict.fromkeys(match.group(1) for match in matches if match))
    assert names == order[:6] + order[:-7:-1]
    assert {"Worst fires", "Best fires"} <= set(full.headings)
    assert "The one fire with an IoU" in poor.headings


def test_a_fire_is_shown_as_image_truth_prediction_and_errors(full: Page) -> None:
    alts = [image["alt"] or "" for image in full.images if "EMSR298" in (image["alt"] or "")][2:]
    caption = "of fire EMSR298_AOI01_01, IoU 0.944 (NBR 0.899), 10,480.0 ha burned, 10,640.0 ha predicted"
    assert alts == [f"{what} {caption}" for what in ("Satellite image", "True mask", "Predicted mask", "Errors")]


def test_the_first_screen_has_the_best_and_the_worst_fire_beside_the_numbers(full: Page, poor: Page) -> None:
    alts = [(image["alt"] or "").partition(",")[0] for image in full.images[:4]]
    assert alts == [f"{what} of fire {fire}" for fire in ("EMSR298_AOI01_01", "EMSR237_AOI01_01") for what in PANELS]
    assert next(iter(full.tables)) == "At a glance"
    assert full.tables["At a glance"][1] == ["IoU over all pixels", "0.876", "0.723"]
    assert full.tables["At a glance"][3] == ["95 % interval, 13 fires", "0.796 to 0.896", "0.643 to 0.743"]
    assert "The one fire: EMSR213_AOI02_01" in poor.text
    assert poor.tables["At a glance"][3] == ["value, 1 fire", "0.620", "-"]


def test_better_argmax_on_the_judged_fires_is_a_warning(full: Page, write: Any) -> None:
    results = make_results()
    results["methods"][1]["pixels"]["fire_iou"] = 0.9
    sentence = "Argmax, without threshold and temperature, is better on these fires: IoU 0.900 instead of 0.876"
    assert f"Warnings {sentence}" in write(results).text
    assert "Argmax, without" not in full.text


def test_the_report_says_where_the_calibration_is_from(full: Page, write: Any) -> None:
    assert "temperature are those of the run\u2019s own calibration. Threshold: chosen on val" in full.text
    results = make_results()
    results["decision"]["origin"] = "given"
    assert "val of the given patches, because the run has no calibration" in write(results).text


def test_provenance_is_complete(full: Page, poor: Page) -> None:
    items = dict(full.tables["Run, data and decisions"])  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert items["SHA-256 of the checkpoint"] == "ab12" * 16
    assert items["threshold"] == "0.43, chosen on val, where it gains IoU over 0.5: +0.031 [+0.012, +0.050], n = 9"
    assert items["trained on"] == "the same data"
    assert poor.tables["Leaks accepted"][1] == ["one fire in two splits", "EMSR1 & <b>EMSR2</b>"]


def test_a_self_trained_run_names_its_teacher(write: Any) -> None:
    results = make_results()
    page = write({**results, "run": {**results["run"], "self_training": SELF_TRAINING}})
    text = dict(page.tables["Run, data and decisions"])["self-training"]
    assert text.startswith("12 unlabelled patches (3 left out) labelled by outputs/teacher (sha256 cafecafecafe) where")
    assert text.endswith("at least 0.9: 50 % of their clear pixels, 25 % of these burned")


def test_the_report_needs_no_network(folder: Path) -> None:
    for name in ("full.html", "poor.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)
        assert not re.search(r"https?://|@import|url\(|<link", text)
        assert text.count("<script") == 1


def test_names_are_escaped(tmp_path: Path, no_figures: None) -> None:
    evil = "<script>alert(1)</script>\"'&$_{}"
    results = make_poor_results()
    for key in ("name", "folder", "arch", "encoder"):
        results["run"][key] = evil
    results["run"]["class_names"] = [f"{evil}{number}" for number in range(5)]
    results["data"] |= {"root": evil, "leaks": [evil]}
    results["against"]["name"] = evil
    for fire in results["fires"]:
        fire |= {"name": f"{evil}{fire['name']}", "activation": evil, "country": evil, "climate": evil}
    for group in results["groups"]["size"]:
        group["name"] = evil
    write_report(make_evaluation(results), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "alert(1)" not in re.findall(r"<script>.*?</script>", text, re.DOTALL)[0]
    assert unescape(text).count("alert(1)") > 40


def test_every_image_has_an_alternative_text(full: Page, poor: Page) -> None:
    assert len(full.images) > 48
    assert all(len(image["alt"] or "") > 15 for page in (full, poor) for image in page.images)


def test_the_bytes_depend_on_the_evaluation_only(tmp_path: Path, no_figures: None) -> None:
    paths = [tmp_path / folder / "evaluation_test_ab12.html" for folder in ("one", "other")]
    for path in paths:
        path.parent.mkdir()
        write_report(make_evaluation(make_poor_results()), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "evaluation_test_ab12.json next to this page" in paths[0].read_text(encoding="utf-8")


def test_the_best_and_the_worst_fires_are_selected() -> None:
    selection = PreviewSelection(2)
    for number in np.random.default_rng(0).permutation(9):
        selection.add(make_mosaic([[1]], [[1.0]], name=f"fire{number}"), np.ones((1, 1), np.uint8), number / 10)

    assert list(selection.previews) == ["fire8", "fire7", "fire1", "fire0"]


def test_fires_without_iou_are_not_selected() -> None:
    selection = PreviewSelection()
    selection.add(make_mosaic([[0]], [[-1.0]]), np.zeros((1, 1), np.uint8), math.nan)

    assert selection.previews == {}


def test_previews_are_small_and_mark_gaps_between_patches() -> None:
    fire = Fire(name="T", positions=(PatchPosition(0, 0, 0), PatchPosition(1, 0, 400)), height=200, width=600)
    patch = PatchPixels(np.full((7, 200, 200), 0.3, np.float32), np.ones((200, 200), np.uint8))
    (tile,) = stitch_tiles([patch, patch], [fire], ALL_BANDS)
    mosaic = build_mosaic(tile, layers={}, patches=[])

    preview = make_preview(mosaic, np.ones((200, 600), np.uint8))

    assert preview.composite_image.shape == (7, 100, 300)
    assert preview.truth.shape == preview.predicted.shape == (100, 300)
    assert preview.predicted[0, [0, 99, 100, 199, 200]].tolist() == [1, 1, 255, 255, 1]
    assert preview.composite_image[0, 0, [99, 100]].tolist() == [np.float32(0.3), 0.0]


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
def browsed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Opens both pages in a browser, 400 and 1200 pixels wide, and sorts the table of fires."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH to open the page with")
    (folder / "probe.html").write_text(PROBE)
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    command = [CHROMIUM, *SWITCHES, profile, (folder / "probe.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    assert title, shown[:2000]
    return json.loads(unescape(title.group(1)))


def test_a_browser_shows_all_images_without_requests_and_overflow(browsed: dict[str, Any]) -> None:
    assert [page["width"] for page in browsed["pages"]] == [400, 1200, 400]
    for page in browsed["pages"]:
        assert page["across"] <= page["width"]
        assert page["hidden"] == 0
        assert page["requests"] == []


def test_headings_sort_numerically_with_missing_values_last(browsed: dict[str, Any]) -> None:
    sorts = browsed["sorts"]
    hectares = sorted(row[5] for row in FIRES)
    assert sorts["true ha ascending"]["cells"] == [f"{area:,.1f}" for area in hectares]
    assert sorts["true ha descending"]["cells"] == [f"{area:,.1f}" for area in hectares[::-1]]
    ious = sorted(row[7] for row in FIRES if row[7] is not None)
    assert sorts["IoU ascending"]["cells"] == [*(f"{iou:.3f}" for iou in ious), "-"]
    assert sorts["IoU descending"]["cells"] == [*(f"{iou:.3f}" for iou in ious[::-1]), "-"]
    assert sorts["IoU descending"]["fires"][0] == "EMSR298_AOI01_01"
    assert sorts["country ascending"]["cells"] == sorted(row[1] for row in FIRES)


def test_headings_are_buttons_with_aria_sort(browsed: dict[str, Any]) -> None:
    assert all(sort["hasFocus"] and sort["others"] == ["none"] for sort in browsed["sorts"].values())
    assert browsed["sorts"]["fire ascending"]["cells"] == sorted(row[0] for row in FIRES)
