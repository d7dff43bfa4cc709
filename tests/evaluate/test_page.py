"""The page of an evaluation, read as text."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from fireseg.evaluate.report import write_report
from fireseg.evaluate.results import Evaluation
from tests.evaluate.example import (
    FIRES,
    METHODS,
    make_content,
    make_evaluated,
    make_full_content,
    make_poor_content,
)
from tests.evaluate.read_page import Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_report(make_evaluated(make_full_content()), folder / "full.html")
    write_report(make_evaluated(make_poor_content()), folder / "poor.html")
    return folder


@pytest.fixture(scope="module")
def full(folder: Path) -> Page:
    return Page((folder / "full.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def poor(folder: Path) -> Page:
    return Page((folder / "poor.html").read_text(encoding="utf-8"))


def test_the_first_line_is_the_gain_over_the_index(full: Page) -> None:
    assert full.headings[0] == "Fire IoU 0.876: 0.153 above a threshold on the burn ratio (0.723)."
    per_fire = (
        "Per fire, IoU +0.12 [0.07, 0.17]: better than a threshold on the burn ratio on 11 of 13 fires, worse on 1"
    )
    assert f"{per_fire}, the same on 1 (sign test p = 0.006)." in full.text


def test_where_the_index_lacks_a_band_the_first_line_says_so(poor: Page) -> None:
    assert poor.headings[0] == "Fire IoU 0.876; no index to compare it with: needs B11, which these data lack."
    assert "No scores for burn ratio, fixed: needs B11, which these data lack." in poor.text


def test_what_flatters_or_misleads_stands_before_the_scores(poor: Page) -> None:
    assert poor.headings[1:3] == ["Look at this first", "Scores"]
    assert "1 leak between the splits accepted" in poor.text


def test_nothing_to_warn_of_is_no_warning(full: Page) -> None:
    assert "Look at this first" not in full.headings


def test_every_method_stands_in_every_table_of_methods(full: Page, poor: Page) -> None:
    labels = [label for _, label, *_ in METHODS]
    for page in (full, poor):
        tables = [rows for rows in page.tables.values() if rows[0][0] == "method" and "threshold" not in rows[0]]
        assert len(tables) >= 4
        for rows in tables:
            names = [row[0].removesuffix(", any pixel") for row in rows[1:] if not row[0].endswith("by the rule")]
            assert names == labels


def test_a_method_without_its_bands_has_its_row_and_no_numbers(poor: Page) -> None:
    row = next(row for row in poor.tables["Over all pixels"] if row[0] == "burn ratio, tuned")
    assert row[1:] == ["-", "-", "-", "-", "-", "needs B11, which these data lack"]


def test_counts_and_row_shares_of_the_confusion_matrix(full: Page, poor: Page) -> None:
    assert full.tables["Pixels, and share of the row"][1:] == [
        ["background", "25,402,118 (99.4 %)", "152,044 (0.59 %)", "25,554,162"],
        ["fire", "171,902 (7.29 %)", "2,185,140 (92.7 %)", "2,357,042"],
    ]
    assert poor.tables["Pixels, and share of the row"][2] == ["negligible", *"-----", "0"]


def test_calibration_before_and_after(full: Page) -> None:
    assert full.tables["Probabilities of fire"][1:] == [
        ["as the model gives it", "0.0312", "0.0211", "0.0893", "0.9470"],
        ["with the temperature", "0.0094", "0.0196", "0.0701", "0.9470"],
    ]


def test_a_temperature_that_makes_it_worse_is_called_so(full: Page, tmp_path: Path) -> None:
    content = make_content()
    content["calibration"]["after"]["ece"] = 0.04
    write_report(Evaluation(content=content, previews={}), tmp_path / "page.html")
    said = "the ECE here is worse with it"
    assert said in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert said not in full.text


def test_the_rule_for_patches_beside_any_pixel(full: Page) -> None:
    assert "at least 12 px and a largest probability of at least 0.61" in full.text
    assert full.column("Patches", "false alarms")[:2] == ["9", "4"]


def test_groups_have_the_index_beside_the_model(full: Page) -> None:
    assert full.tables["By country"][1] == ["Spain", "2", "0.631 [0.571, 0.692]", "0.511 [0.451, 0.571]", "+0.120"]
    assert {"By burned share of the tile", "By country", "By climate", "By year"} <= set(full.tables)


def test_grades_have_their_own_table(full: Page, poor: Page) -> None:
    caption = "By class, over all pixels (an index has no grades)"
    assert caption not in full.tables
    assert poor.tables[caption][2] == ["negligible", "-", "-", "-", "-", "-"]
    assert "mean error where it truly burned 0.72 grades" in poor.text


def test_every_fire_stands_in_the_table_and_what_nobody_knows_in_none(full: Page, poor: Page) -> None:
    assert full.column("Fires", "fire") == [row[0] for row in FIRES]
    assert full.column("Fires", "true ha")[9] == "10,480.0"
    assert not {"true ha", "predicted ha", "country", "IoU, index tuned"} & set(poor.tables["Fires"][0])
    assert "Not known in hectares" in poor.text


def test_what_is_not_known_is_a_dash_and_never_a_word_of_python(full: Page, poor: Page) -> None:
    for page in (full, poor):
        cells = [cell for rows in page.tables.values() for row in rows for cell in row]
        assert not {"None", "nan", "NaN", ""} & set(cells)
        assert not re.search(r"\b(?:None|nan|NaN)\b", page.text)


def test_the_other_run_is_compared_fire_by_fire_and_by_kind(full: Page, tmp_path: Path) -> None:
    assert "better than unet <mobilenet_v2> on 13 of 13 fires, worse on none" in full.text
    assert full.tables["Fire by fire against unet <mobilenet_v2>"][1] == [
        "EMSR205_AOI01_01",
        "0.861",
        "0.821",
        "+0.040",
    ]
    won = full.tables["Who wins where, by climate"]
    assert won[1] == ["Mediterranean", "6", "0", "1", "+0.034"]
    write_report(Evaluation(content=make_content(), previews={}), tmp_path / "page.html")
    assert "Against another run" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_gallery_shows_the_worst_first_and_all_where_they_are_few(full: Page, poor: Page) -> None:
    order = [row[0] for row in sorted(FIRES, key=lambda row: (row[7] is None, row[7]))][:13]
    shown = [re.search(r"of fire (\S+),", image["alt"] or "") for image in full.images]
    names = list(dict.fromkeys(found.group(1) for found in shown if found))
    assert names == order[:6] + order[:-7:-1]
    assert {"Worst fires", "Best fires"} <= set(full.headings)
    assert "The one fire with an IoU" in poor.headings


def test_a_fire_is_shown_as_composite_truth_prediction_and_error(full: Page) -> None:
    alts = [image["alt"] or "" for image in full.images if "EMSR298" in (image["alt"] or "")]
    words = "of fire EMSR298_AOI01_01, IoU 0.944 (index 0.899), 10,480.0 ha burned, 10,640.0 ha predicted"
    assert alts == [f"{what} {words}" for what in ("Satellite image", "True mask", "Predicted mask", "Errors")]


def test_how_it_was_made_is_told_in_full(full: Page, poor: Page) -> None:
    said = dict(full.tables["Run, data and decisions"])  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert said["SHA-256 of the checkpoint"] == "ab12" * 16
    assert said["threshold"] == "0.43, chosen on val"
    assert said["trained on"] == "the same data"
    assert poor.tables["Leaks accepted"][1] == ["one fire in two splits", "EMSR1 & <b>EMSR2</b>"]


def test_the_page_asks_nobody_for_anything(folder: Path) -> None:
    for name in ("full.html", "poor.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)
        assert not re.search(r"https?://|@import|url\(|<link", text)
        assert text.count("<script") == 1


def test_names_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&$_{}"
    content = make_poor_content()
    for key in ("name", "folder", "arch", "encoder"):
        content["run"][key] = evil
    content["run"]["class_names"] = [f"{evil}{number}" for number in range(5)]
    content["data"] |= {"root": evil, "leaks": [evil]}
    content["against"]["name"] = evil
    for fire in content["fires"]:
        fire |= {"name": f"{evil}{fire['name']}", "activation": evil, "country": evil, "climate": evil}
    for group in content["groups"]["size"]:
        group["name"] = evil
    for method in content["methods"]:
        method |= {"label": evil, "note": evil}
    write_report(make_evaluated(content), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "alert(1)" not in re.findall(r"<script>.*?</script>", text, re.DOTALL)[0]
    assert unescape(text).count("alert(1)") > 40


def test_every_picture_says_in_words_what_it_shows(full: Page, poor: Page) -> None:
    assert len(full.images) > 48
    assert all(len(image["alt"] or "") > 15 for page in (full, poor) for image in page.images)


def test_the_bytes_depend_on_the_content_alone(folder: Path, tmp_path: Path) -> None:
    write_report(make_evaluated(make_poor_content()), tmp_path / "elsewhere.html")
    assert (tmp_path / "elsewhere.html").read_bytes() == (folder / "poor.html").read_bytes()
