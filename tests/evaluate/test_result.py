"""From arrays to a file that any JSON reader takes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fireseg.evaluate.results import read_content, to_dict, write_content
from fireseg.metric import Interval
from tests.evaluate.trained_run import read_json


def test_what_is_not_a_number_becomes_null():
    plain = to_dict({"a": math.nan, "b": np.array([1.5, np.inf]), "c": (np.float32(0.5), -math.inf), "d": np.True_})

    assert plain == {"a": None, "b": [1.5, None], "c": [0.5, None], "d": True}


def test_an_interval_keeps_its_names():
    assert to_dict({"iou": Interval(0.5, math.nan, math.nan, 1)}) == {
        "iou": {"mean": 0.5, "low": None, "high": None, "num": 1}
    }


def test_what_is_written_is_read_back(tmp_path: Path):
    content = {"format": 1, "name": "São Tomé", "iou": None}
    write_content(content, tmp_path / "evaluation_test.json")

    assert read_json(tmp_path / "evaluation_test.json") == content
    assert read_content(tmp_path / "evaluation_test.json") == content


def test_what_is_no_evaluation_of_this_format_is_not_read(tmp_path: Path):
    path = tmp_path / "evaluation_test.json"
    assert read_content(path) is None
    for text in ("{", "[]", '{"format": 99}'):
        path.write_text(text)
        assert read_content(path) is None
