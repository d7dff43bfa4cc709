"""Interpolations become what they stand for, and names of folders can be folders."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fireseg.config.schema import resolve, slug
from fireseg.errors import SettingError


def test_hydras_own_settings_are_left_out() -> None:
    cfg = OmegaConf.create({"hydra": {"a": 1}, "b": {"c": "${d}"}, "d": [1, None]})
    assert resolve(cfg) == {"b": {"c": [1, None]}, "d": [1, None]}


def test_all_interpolations_without_a_meaning_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    cfg = OmegaConf.create({"a": "${b}", "c": {"d": ["${oc.env:NOWHERE}"]}})
    with pytest.raises(SettingError) as caught:
        resolve(cfg)
    assert caught.value.faults == (
        "a: Interpolation key 'b' not found; write a value that can be resolved",
        "c.d[0]: Environment variable 'NOWHERE' not found; write a value that can be resolved",
    )


def test_count_follows_a_list() -> None:
    cfg = OmegaConf.create({"bands": ["B04", "B08"], "channels": "${count:${bands}}"})
    assert resolve(cfg)["channels"] == 2


def test_a_slug_is_taken_of_whatever_stands_there() -> None:
    cfg = OmegaConf.create({"typed": "data.bands=[B02,B03],data.root='/a b'", "name": "0_${slug:${typed}}"})
    assert cfg.name == "0_data.bands-B02_B03-_data.root-a-b"


@pytest.mark.parametrize(("text", "name"), [("", "base"), ("...", "base"), ("a/b", "a-b"), ("lr=1e-3", "lr-1e-3")])
def test_a_slug_is_never_empty_and_never_nested(text: str, name: str) -> None:
    assert slug(text) == name


@given(st.text(max_size=300))
def test_a_slug_can_be_a_folder_beside_others(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", slug(text))
    assert slug(text)[0] not in ".-"


def test_long_names_that_begin_alike_stay_apart() -> None:
    assert slug("x" * 200 + "a") != slug("x" * 200 + "b")
