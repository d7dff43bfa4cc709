"""An evaluation in a sentence or two."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fireseg.evaluate.report import (
    list_warnings,
    show,
    show_interval,
    show_share,
    spell_headline,
    spell_p_value,
    spell_summary,
)
from tests.evaluate.example import make_content

INDEX = "a threshold on the burn ratio"


@pytest.mark.parametrize(
    ("iou", "gain", "said"),
    [
        (0.876, 0.153, f"Fire IoU 0.876: 0.153 above {INDEX} (0.723)."),
        (0.650, -0.073, f"Fire IoU 0.650: 0.073 below {INDEX} (0.723), which learns nothing."),
        (0.723, 0.0004, f"Fire IoU 0.723: no better than {INDEX} (0.723), which learns nothing."),
        (0.723, -0.0004, f"Fire IoU 0.723: no better than {INDEX} (0.723), which learns nothing."),
        (None, None, "Nothing burns here, neither in truth nor on the map: there is no fire IoU to tell."),
        (0.5, None, f"Fire IoU 0.500; {INDEX} has none to compare it with."),
        (0.5, math.nan, f"Fire IoU 0.500; {INDEX} has none to compare it with."),
    ],
    ids=["better", "worse", "same", "same from below", "no fire", "no gain", "gain is NaN"],
)
def test_the_headline_is_the_gain_or_the_plain_truth(iou: float | None, gain: float | None, said: str) -> None:
    content = make_content()
    content["methods"][0]["pixels"]["fire_iou"] = iou
    content["gain"]["pooled"] = gain
    assert spell_headline(content) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "on 11 of 13 fires, worse on 1, the same on 1 (sign test p = 0.006). Run"),
        ({"losses": 0, "wins": 12, "ties": 0}, "on 12 of 12 fires, worse on none (sign test"),
        (
            {"difference": {"mean": 0.02, "low": -0.03, "high": 0.07, "num": 13}, "p_value": 0.58},
            "(sign test p = 0.58); the interval holds 0: on these fires the difference may be chance. Run",
        ),
        (
            {"difference": {"mean": -0.02, "low": None, "high": None, "num": 1}},
            "Per fire, IoU -0.02: better than a threshold on the burn ratio on 11 of 13 fires, worse on 1, the same "
            "on 1. Too few fires for an interval. Run",
        ),
        (
            {"difference": {"mean": None, "low": None, "high": None, "num": 0}},
            "No fire has an IoU by both the model and a threshold on the burn ratio. Run",
        ),
    ],
    ids=["usual", "all won", "chance", "one fire", "no fire"],
)
def test_the_summary_says_how_sure_the_gain_is(values: dict[str, Any], said: str) -> None:
    content = make_content()
    content["gain"]["per_fire"] |= values
    assert said in spell_summary(content)


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("decision", {"is_optimistic": True}, "Temperature, threshold and rule were chosen on test, the very fires"),
        ("decision", {"chosen_on": None}, "There was nothing to choose a threshold on: 0.43 and temperature 1.31"),
        ("data", {"leaks": ["a: b", "c: d"]}, "2 leaks between the splits accepted"),
        ("data", {"is_same": False}, "These are not the patches that the run was trained on"),
        ("data", {"fires": 3}, "Only 3 fires:"),
    ],
    ids=["optimistic", "nothing to choose on", "leaks", "other data", "few fires"],
)
def test_what_flatters_or_misleads_is_warned_of_alone(part: str, values: dict[str, Any], said: str) -> None:
    content = make_content()
    assert not list(list_warnings(content))
    content[part] |= values
    (warning,) = list_warnings(content)
    assert warning.startswith(said)


def test_fires_learnt_from_are_called_so() -> None:
    (warning,) = list_warnings(make_content() | {"split": "train"})
    assert "the fires that the model learnt from" in warning


def test_what_is_not_known_is_a_dash_without_a_value() -> None:
    for value in (None, math.nan, math.inf):
        assert show(value) == show_share(value) == ("-", None)
    assert show_interval(None) == show_interval({"mean": None, "low": None, "high": None}) == ("-", None)


def test_a_share_has_digits_where_they_tell_something() -> None:
    assert [show_share(value).text for value in (0.0, 0.0059, 0.0999, 0.5, 1.0)] == [
        *("0.0 %", "0.59 %", "9.99 %", "50.0 %", "100.0 %")
    ]
    assert show_share(0.1, signed=True).text == "+10.0 %"


def test_a_p_value_has_digits_where_they_matter() -> None:
    assert [spell_p_value(value) for value in (1e-6, 0.0063, 0.25)] == ["p < 0.001", "p = 0.006", "p = 0.25"]
