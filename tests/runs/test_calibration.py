"""Threshold and temperature stored in a run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError
from fireseg.runs import Calibration, read_calibration, write_calibration
from fireseg.runs.folder import RunFolder

CALIBRATION = Calibration(
    temperature=1.7,
    threshold=0.42,
    rule_min_pixels=12,
    rule_min_odds=-0.3,
    checkpoint_sha256="0123456789abcdef" * 4,
    fingerprint="f00d",
)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_calibration(folder) is None
    write_calibration(folder, CALIBRATION)
    assert read_calibration(folder) == CALIBRATION
    write_calibration(folder, replace(CALIBRATION, threshold=0.5))
    assert read_calibration(folder) == replace(CALIBRATION, threshold=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0}, "temperature: "),
        ({"temperature": float("nan")}, "temperature: "),
        ({"temperature": 1e308}, "temperature: "),
        ({"temperature": 1e-300}, "temperature: "),
        ({"rule_min_odds": -1e308}, "rule_min_odds: "),
        ({"gain": float("nan")}, "gain: "),
        ({"threshold": 1}, "threshold: "),
        ({"threshold": "half"}, "threshold: "),
        ({"rule_min_pixels": 0}, "rule_min_pixels: "),
        ({"rule_min_odds": float("inf")}, "rule_min_odds: "),
        ({"checkpoint_sha256": "abc"}, "checkpoint_sha256: "),
        ({"temperature": -1, "threshold": 2}, "temperature: "),
    ],
)
def test_an_invalid_value_is_rejected_with_its_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**asdict(CALIBRATION), **change}))
    with pytest.raises(FiresegError) as caught:
        read_calibration(RunFolder(tmp_path))
    assert len(caught.value.faults) == len(change)
    assert caught.value.faults[0].startswith(f"{path}: {words}")
    assert "fireseg.evaluate" in caught.value.faults[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\udcff"])
def test_a_file_that_is_not_a_calibration_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FiresegError, match=r"calibration\.json: .*fireseg\.evaluate"):
        read_calibration(RunFolder(tmp_path))
