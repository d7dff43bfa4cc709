"""Settings and metrics in the form that trackers store."""

from __future__ import annotations

import math
import posixpath
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fireseg.tracker.protocol import as_key, finite, flatten, shorten, strip


def test_nested_settings_become_dotted_names_in_order() -> None:
    settings = {"seed": 1, "model": {"arch": "unet", "encoder": {"name": "resnet34"}}}
    assert list(flatten(settings).items()) == [
        ("seed", "1"),
        ("model.arch", "unet"),
        ("model.encoder.name", "resnet34"),
    ]


def test_values_are_written_as_in_yaml() -> None:
    settings = {"a": None, "b": True, "c": 1e-4, "d": ["B02", "B12"], "e": Path("patches"), "f": {}, "g": ""}
    texts = ["null", "true", "0.0001", '["B02", "B12"]', "patches", "{}", ""]
    assert list(flatten(settings).values()) == texts


def test_keys_that_build_objects_or_name_the_run_are_left_out() -> None:
    settings = {
        "output_dir": "outputs/x",
        "resume": None,
        "loss": {"_target_": "f", "_partial_": True, "gamma": 2.0},
        "tracker": {"run_name": "mine", "experiment": "fires"},
    }
    assert strip(settings) == {"loss": {"gamma": 2.0}, "tracker": {"experiment": "fires"}}


def test_a_long_value_is_cut_to_the_length_that_mlflow_stores() -> None:
    text = flatten({"a": "x" * 7000})["a"]
    assert (len(text), text[-1]) == (6000, "…")
    assert shorten("abc", 3) == "abc"


def test_metrics_that_are_not_finite_are_left_out_and_the_rest_keep_their_order() -> None:
    metrics = {"val/fire_iou": 0.5, "a": math.nan, "lr": 1, "b": None, "c": math.inf}
    assert list(finite(metrics).items()) == [("val/fire_iou", 0.5), ("lr", 1.0)]


@given(st.text(max_size=300))
def test_any_name_becomes_a_valid_key(name: str) -> None:
    key = as_key(name)
    assert re.fullmatch(r"[/\w.\-: ]{1,250}", key)
    assert posixpath.normpath(key) == key
    assert not key.startswith(("/", ".."))


def test_names_of_metrics_and_settings_stay_as_they_are() -> None:
    assert [as_key(name) for name in ("val/fire_iou", "model.encoder", "test/iou_no_damage")] == [
        "val/fire_iou",
        "model.encoder",
        "test/iou_no_damage",
    ]
