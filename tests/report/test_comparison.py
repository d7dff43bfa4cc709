"""Entries are compared with the best one on the same fires."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from fireseg.report.comparison import compare_to_best, find_unevaluated, format_evaluations, is_certain
from fireseg.runs.leaderboard import Table, read_leaderboard
from tests.runs.builders import write_finished_run

FIRES = {"a": 0.8, "b": 0.7, "c": 0.9, "d": 0.6, "e": 0.75}


def shift(change: float) -> dict[str, float]:
    return {name: iou + change for name, iou in FIRES.items()}


def make_table(folder: Path, fires: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    """Writes one run for each encoder, the best first, and ranks them."""
    for number, (encoder, evaluations) in enumerate(fires.items()):
        settings = {"model.encoder": encoder}
        write_finished_run(folder / encoder, settings=settings, ious=[0.9 - 0.1 * number], fires=evaluations)
    return read_leaderboard([folder]).tables[0]


def test_the_difference_is_that_of_each_fire_and_a_negative_one_is_worse_than_the_best(tmp_path: Path) -> None:
    theirs = {**shift(-0.2), "e": 0.74}
    table = make_table(tmp_path, {"best": {"test": FIRES}, "other": {"test": theirs}})
    (difference,) = compare_to_best(table, "test")
    assert difference.rank == 2
    assert difference.pairs is not None
    # Four fires are 0.2 worse, one 0.01.
    assert difference.pairs.difference.mean == pytest.approx(-0.162)
    assert (difference.pairs.wins, difference.pairs.losses, difference.pairs.difference.num) == (0, 5, 5)
    assert is_certain(difference.pairs)


def test_a_difference_whose_interval_includes_zero_or_of_few_fires_is_not_certain(tmp_path: Path) -> None:
    mixed = {"a": 0.9, "b": 0.6, "c": 0.8, "d": 0.7, "e": 0.75}
    table = make_table(tmp_path / "mixed", {"best": {"test": FIRES}, "other": {"test": mixed}})
    few = {"best": {"test": {"a": 0.9, "b": 0.8}}, "other": {"test": {"a": 0.1, "b": 0.2}}}
    for one in (table, make_table(tmp_path / "few", few)):
        (difference,) = compare_to_best(one, "test")
        assert difference.pairs is not None
        assert not is_certain(difference.pairs)


def test_seeds_are_averaged_for_each_fire_before_they_are_compared(tmp_path: Path) -> None:
    for seed, change in ((0, -0.1), (1, 0.1)):
        settings = {"model.encoder": "best", "seed": seed}
        write_finished_run(tmp_path / f"best_{seed}", settings=settings, fires={"test": shift(change)}, ious=[0.9])
    write_finished_run(
        tmp_path / "other", settings={"model.encoder": "other"}, fires={"test": shift(-0.05)}, ious=[0.5]
    )
    (difference,) = compare_to_best(read_leaderboard([tmp_path]).tables[0], "test")
    assert difference.pairs is not None
    assert difference.pairs.difference.mean == pytest.approx(-0.05)
    assert difference.pairs.losses == 5


def test_fires_with_other_labels_are_not_compared(tmp_path: Path) -> None:
    table = make_table(tmp_path, {"best": {"test": FIRES}, "other": {"test": FIRES}})
    path = tmp_path / "other" / "evaluation_test.json"
    content = json.loads(path.read_text())
    content["fires"][0]["truth_sha256"] = "changed"
    path.write_text(json.dumps(content))
    (difference,) = compare_to_best(read_leaderboard([tmp_path]).tables[0], "test")
    assert table.num_runs == 2
    assert (difference.pairs, difference.reason) == (None, "fire a: labelled differently")


def test_runs_without_an_evaluation_are_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    table = make_table(tmp_path, {"best": {"test": FIRES}, "other": {"val": FIRES}})
    (difference,) = compare_to_best(table, "test")
    assert difference.reason == "1 of 1 runs not evaluated on test"
    commands = format_evaluations(find_unevaluated(table, "test"), "test")
    assert commands == [f"python -m fireseg.evaluate {tmp_path / 'other'} --split test"]
