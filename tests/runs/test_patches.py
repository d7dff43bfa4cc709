"""Tests of finding the patches of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.runs.patches import find_patches_root


def make_settings(root: Path | str) -> dict[str, Any]:
    return {"data": {"root": str(root)}}


def test_patches_are_found_by_option_provenance_or_settings(tmp_path: Path):
    noted = {"data": {"root": str(tmp_path)}}
    assert find_patches_root(make_settings("gone"), noted, None) == tmp_path
    assert find_patches_root(make_settings(tmp_path), {"data": {"root": "/gone"}}, None) == tmp_path
    assert find_patches_root(make_settings("gone"), {}, tmp_path) == tmp_path


def test_moved_patches_are_named_with_the_option_to_give(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"data.root: /gone/patches: no such folder any more.*--data PATCHES"):
        find_patches_root(make_settings("gone"), {"data": {"root": "/gone/patches"}}, None)
    with pytest.raises(SettingError, match=r"--data .*nowhere: no such folder"):
        find_patches_root(make_settings(tmp_path), {}, tmp_path / "nowhere")
