"""Interpolations are resolved, and slugs are valid folder names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fireseg.config.resolve import resolve, slug
from fireseg.errors import SettingError


def test_the_hydra_node_is_left_out() -> None:
    cfg = OmegaConf.create({"hydra": {"a": 1}, "b": {"c": "${d}"}, "d": [1, None]})
    assert resolve(cfg) == {"b": {"c": [1, None]}, "d": [1, None]}


def test_all_unresolved_interpolations_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    cfg = OmegaConf.create({"a": "${b}", "c": {"d": ["${oc.env:NOWHERE}"]}})
    with pytest.raises(SettingError) as caught:
        resolve(cfg)
    first, second = caught.value.faults
    assert first.startswith("a: ")
    assert "'b'" in first
    assert second.startswith("c.d[0]: ")
    assert "'NOWHERE'" in second


def test_count_is_the_length_of_a_list() -> None:
    cfg = OmegaConf.create({"bands": ["B04", "B08"], "channels": "${count:${bands}}"})
    assert resolve(cfg)["channels"] == 2


def test_a_slug_replaces_characters_that_folders_cannot_have() -> None:
    cfg = OmegaConf.create({"typed": "data.bands=[B02,B03],data.root='/a b'", "name": "0_${slug:${typed}}"})
    assert cfg.name == "0_data.bands-B02_B03-_data.root-a-b"


@pytest.mark.parametrize(("text", "name"), [("", "base"), ("...", "base"), ("a/b", "a-b"), ("lr=1e-3", "lr-1e-3")])
def test_a_slug_is_never_empty_and_has_no_slash(text: str, name: str) -> None:
    assert slug(text) == name


@given(st.text(max_size=300))
def test_a_slug_is_a_visible_folder_name(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", slug(text))
    assert slug(text)[0] not in ".-"


def test_long_names_with_the_same_start_differ() -> None:
    assert slug("x" * 200 + "a") != slug("x" * 200 + "b")
