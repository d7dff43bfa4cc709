"""Tests of comparing two runs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from fireseg.errors import FiresegError
from fireseg.evaluate.compare import check_comparable, compare_runs
from tests.evaluate.builders import make_trained

IOUS = {"a": 0.8, "b": 0.6, "c": None, "d": 0.5}


def make_results(name: str, ious: dict[str, float | None], pooled: float) -> dict[str, Any]:
    return {
        "split": "test",
        "run": {"name": name, "sha256": name * 8, "task": "del", "class_names": ["background", "fire"]},
        "data": {"fingerprint": "f" * 64},
        "methods": [{"name": "model", "pixels": {"fire_iou": pooled}, "unburned": {"num": pooled}}],
        "fires": [{"name": fire, "iou": iou, "truth_sha256": fire * 64} for fire, iou in ious.items()],
    }


OURS = make_results("ours", IOUS, 0.75)
THEIRS = make_results("theirs", {"a": 0.7, "b": 0.7, "c": 0.0, "d": 0.5}, 0.7)


def test_fires_are_paired_by_name():
    shuffled = {**THEIRS, "fires": THEIRS["fires"][::-1]}

    against = compare_runs(OURS, shuffled)

    assert (against["name"], against["split"], against["pooled"]) == ("theirs", "test", {"ours": 0.75, "theirs": 0.7})
    assert (against["wins"], against["losses"], against["ties"], against["p_value"]) == (1, 1, 1, 1.0)
    assert against["difference"]["mean"] == pytest.approx(0.0)
    assert against["difference"]["num"] == 3
    assert against["unburned"] == {"ours": {"num": 0.75}, "theirs": {"num": 0.7}}
    assert against["fires"][2] == {"name": "c", "ours": None, "theirs": 0.0}


@pytest.mark.parametrize(
    ("keys", "value", "what"),
    [
        (("split",), "val", "split: test, theirs val"),
        (("run", "task"), "gra", "task: del, theirs gra"),
        (("data", "fingerprint"), "0" * 64, r"patches \(fingerprint\): ffffffffffff, theirs 000000000000"),
        (("fires", 1, "truth_sha256"), "0", "fire b: labelled differently"),
        (("fires", 1, "name"), "x", "fire b: only in ours"),
    ],
)
def test_evaluations_of_different_pixels_are_rejected(keys: tuple[Any, ...], value: str, what: str):
    theirs = copy.deepcopy(THEIRS)
    node = theirs
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value

    with pytest.raises(FiresegError, match=rf"--against theirs: (?s:.*){what}"):
        compare_runs(OURS, theirs)


def test_runs_of_another_task_or_other_patches_are_rejected_with_all_differences():
    def trained(num_classes: int, fingerprint: str, root: str) -> Any:
        return replace(make_trained(num_classes), fingerprint=fingerprint, settings={"data": {"root": root}})

    with pytest.raises(FiresegError) as caught:
        check_comparable(trained(2, "a" * 64, "patches"), trained(3, "b" * 64, "elsewhere"))

    message = str(caught.value)
    for what in ("class0 class1, theirs", "aaaaaaaaaaaa, theirs bbbbbbbbbbbb", "patches, theirs elsewhere"):
        assert what in message.replace("own (", "").replace(")", "")
    check_comparable(trained(2, "a" * 64, "patches"), trained(2, "a" * 64, "moved/patches"))
