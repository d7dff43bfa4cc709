"""Results of a benchmark, worked out by hand from small evaluations."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fireseg.benchmark.protocol import Group, Protocol, Recipe
from fireseg.benchmark.results import JudgedRun, build_results, format_results, write_results
from fireseg.errors import FiresegError

FIRES = "ABCDEF"

PROTOCOL = Protocol(recipes={"base": Recipe(), "new": Recipe(settings=("optimizer.lr=1",))}, folds=3)


def make_confusion(iou: float) -> list[list[int]]:
    """Pixels with this fire IoU: 100 in truth or prediction."""
    hits = round(100 * iou)
    return [[900, (100 - hits) // 2], [100 - hits - (100 - hits) // 2, hits]]


def make_fire(name: str, iou: float, *, true_ha: float = 10.0, predicted_ha: float = 12.0) -> dict[str, Any]:
    return {
        "name": name,
        "burned_share": 0.1,
        "iou": iou,
        "index_tuned_iou": 0.5,
        "true_ha": true_ha,
        "predicted_ha": predicted_ha,
        "boundary_f1_2px": iou / 2,
    }


def make_run(recipe: str, fold: int, seed: int, ious: dict[str, float], *, predicted_ha: float = 12.0) -> JudgedRun:
    pooled = sum(ious.values()) / len(ious)
    areas = {"true_ha": 10.0 * len(ious), "predicted_ha": predicted_ha * len(ious)}
    unburned = {**make_fire("nothing burned", 0.0), "burned_share": 0.0, "iou": None}
    results = {
        "fires": [*(make_fire(name, iou, predicted_ha=predicted_ha) for name, iou in ious.items()), unburned],
        "methods": [
            {"name": "model", "label": "model", "is_there": True, "confusion": make_confusion(pooled), "area": areas},
            {"name": "model_argmax", "label": "model, argmax", "is_there": True},
            {
                "name": "index_tuned",
                "label": "NBR, tuned",
                "is_there": True,
                "confusion": make_confusion(0.5),
                "area": {"true_ha": 10.0, "predicted_ha": 5.0},
            },
            {"name": "index_fixed", "label": "NBR, fixed", "is_there": False},
        ],
        "off_centre": {
            "cropped": {"confusion": {"off_centre": make_confusion(pooled - 0.1)}},
            "fires": [{"name": name, "cropped": {"off_centre": iou - 0.1}} for name, iou in ious.items()],
        },
    }
    return JudgedRun(Group(recipe, None), fold, seed, 60.0 * (seed + 1), results)


def make_runs(recipe: str, gain: float = 0.0, *, seeds: tuple[int, ...] = (0, 1)) -> list[JudgedRun]:
    """Three folds of two fires; seed 1 is 0.2 better than seed 0 on each."""
    return [
        make_run(recipe, fold, seed, dict.fromkeys(FIRES[2 * fold : 2 * fold + 2], 0.4 + gain + 0.2 * seed))
        for seed in seeds
        for fold in range(3)
    ]


def test_scores_are_means_over_fires_and_seeds() -> None:
    results = build_results(PROTOCOL, [*make_runs("base"), *make_runs("new", 0.1)])
    base, new, baseline = results["rows"]
    assert results["fires"] == list(FIRES)
    assert [row["recipe"] for row in results["rows"]] == ["base", "new", "NBR, tuned"]
    assert base["iou"]["mean"] == pytest.approx(0.5)  # 0.4 and 0.6
    assert base["pooled"] == pytest.approx(0.5)
    assert base["pooled_off_centre"] == pytest.approx(0.4)
    assert base["area_error"] == pytest.approx(0.2)
    assert base["boundary_f1"] == pytest.approx(0.25)
    assert base["minutes"] == pytest.approx(1.5)
    assert base["difference"] is None
    assert (new["iou"]["mean"], new["difference"]["difference"]["mean"]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert (new["difference"]["wins"], new["difference"]["losses"]) == (6, 0)
    assert (baseline["is_baseline"], baseline["pooled"], baseline["area_error"]) == (True, 0.5, -0.5)
    assert baseline["difference"]["ties"] == 6


def test_rules_over_the_change_of_a_pair_are_rows_if_one_recipe_has_pairs() -> None:
    pairs = make_runs("pairs", 0.1)
    for run in pairs:
        rule = {**run.results["methods"][2], "name": "index_dnbr", "label": "dNBR, tuned"}
        run.results["methods"].append({**rule, "confusion": make_confusion(0.7)})
        for fire in run.results["fires"]:
            fire["index_dnbr_iou"] = 0.7
    rows = build_results(PROTOCOL, [*make_runs("base"), *pairs])["rows"]
    assert [row["recipe"] for row in rows] == ["base", "pairs", "NBR, tuned", "dNBR, tuned"]
    assert (rows[3]["iou"]["mean"], rows[3]["pooled"]) == (pytest.approx(0.7), pytest.approx(0.7))
    assert rows[3]["difference"]["difference"]["mean"] == pytest.approx(0.2)


def test_seeds_as_one_model_are_a_row_without_a_seed() -> None:
    name = "two seeds"
    together = [
        run._replace(group=Group(name, None), seed=None, seconds=180.0) for run in make_runs("base", 0.3, seeds=(0,))
    ]
    results = build_results(PROTOCOL, [*make_runs("base"), *together])
    row = results["rows"][1]
    assert (row["recipe"], row["minutes"]) == (name, pytest.approx(3.0))
    assert row["iou"]["mean"] == pytest.approx(0.7)
    assert row["difference"]["difference"]["mean"] == pytest.approx(0.2)  # to the mean of the seeds, 0.5
    assert {entry["seed"] for entry in results["judged"] if entry["recipe"] == name} == {None}


def test_a_pair_of_grades_counts_as_burned_in_pooled_scores() -> None:
    runs = make_runs("base", seeds=(0,))
    for run in runs:  # rows are the truth: 3 hits of grade 1 and 2, 1 miss, 2 false alarms
        run.results["methods"][0]["confusion"] = [[9, 1, 1], [1, 1, 1], [0, 0, 1]]
    assert build_results(PROTOCOL, runs)["rows"][0]["pooled"] == pytest.approx(0.5)


def test_severity_is_compared_fire_by_fire_for_grades_only(tmp_path: Path) -> None:
    base, new = make_runs("base"), make_runs("new", 0.1)
    for runs, severity in ((base, 0.25), (new, 0.375)):
        for run in runs:
            for number, fire in enumerate(run.results["fires"]):
                fire |= {"severity_iou": severity + 0.125 * number, "grade_mae": 0.5 + number}
    results = build_results(PROTOCOL, [*base, *new])
    first, second, baseline = results["rows"]
    assert (first["severity_iou"]["mean"], first["severity_difference"]) == (pytest.approx(0.3125), None)
    assert second["severity_iou"]["mean"] == pytest.approx(0.4375)
    assert second["severity_difference"]["difference"]["mean"] == pytest.approx(0.125)
    assert (second["severity_difference"]["wins"], baseline["severity_iou"]) == (6, None)
    assert {entry["severity_iou"] for entry in results["judged"]} == {0.25, 0.375, 0.5}
    assert (first["grade_mae"], second["grade_mae"], baseline["grade_mae"]) == (1.0, 1.0, None)
    write_results(results, tmp_path)
    heading, _, _, row, other = (tmp_path / "results.md").read_text().splitlines()[:5]
    assert heading.endswith("| severity IoU, mean over fires | difference in it | grade error | minutes |")
    assert " | 0.438 [0." in row
    assert " | +0.125 [+0.125, +0.125] | 1.00 | " in row
    assert other.endswith("| - | - | - | - |")

    plain = build_results(PROTOCOL, [*make_runs("base"), *new])["rows"]
    assert (plain[0]["severity_iou"], plain[1]["severity_difference"]) == (None, None)
    assert plain[1]["severity_iou"]["mean"] == pytest.approx(0.4375)


def test_learning_curves_are_compared_with_the_same_number_of_tiles() -> None:
    few = [run._replace(group=Group(run.group.recipe, 9)) for run in [*make_runs("base", -0.2), *make_runs("new", 0.3)]]
    rows = build_results(PROTOCOL, [*make_runs("base"), *make_runs("new"), *few])["rows"]
    found = {(row["recipe"], row["max_tiles"]): row["difference"] for row in rows}
    assert found["new", None]["difference"]["mean"] == pytest.approx(0.0)
    assert found["new", 9]["difference"]["mean"] == pytest.approx(0.5)


def test_a_fire_that_was_judged_twice_or_not_by_all_is_an_error() -> None:
    runs = make_runs("base", seeds=(0,))
    with pytest.raises(FiresegError, match=r"base-all: a fire was judged twice"):
        build_results(PROTOCOL, [*runs, make_run("base", 2, 0, {"A": 0.1})])
    with pytest.raises(FiresegError, match=r"new-all, seed 0: E, F: judged for some of the recipes only"):
        build_results(PROTOCOL, [*runs, *make_runs("new", seeds=(0,))[:2]])


def test_the_table_is_written_for_people_and_for_programs(tmp_path: Path) -> None:
    results = build_results(PROTOCOL, [*make_runs("base"), *make_runs("new", 0.1)])
    write_results(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    heading, _, base, new, baseline = (tmp_path / "results.md").read_text().splitlines()[:5]
    assert len({line.count("|") for line in (heading, base, new, baseline)}) == 1
    assert "0.600 [0.600, 0.600]" in new
    assert "+0.100" in new
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 6
    assert (rows[0]["recipe"], rows[0]["fire"], float(rows[0]["iou_off_centre"])) == ("base", "A", pytest.approx(0.3))
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert any("NBR, tuned" in line for line in format_results(results))
