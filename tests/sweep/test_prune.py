"""Early ends of jobs that are behind the others of their sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fireseg.sweep.options import PruneRule
from fireseg.sweep.plan import Plan
from fireseg.sweep.prune import create_pruning, is_behind, list_rungs
from fireseg.sweep.queue import read_status
from fireseg.sweep.status import describe
from scripts.kill_test import write_patches
from tests.sweep.builders import list_jobs, start_sweep
from tests.sweep.stand_ins import write_sweep


def write_metrics(plan: Plan, number: int, scores: list[float | None], fingerprint: str = "same") -> None:
    folder = plan.get_folder(plan.jobs[number])
    folder.path.mkdir(exist_ok=True)
    for epoch, score in enumerate(scores, start=1):
        folder.append_metrics({"epoch": epoch, "seconds": 1.0, "best": True, "val/fire_iou": score})
    folder.write_provenance({"data": {"root": "patches", "fingerprint": fingerprint, "class_counts": [1, 1]}})


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Returns a sweep of seven jobs of 20 epochs, of which five have reached epoch 2 with 0.1, 0.2 ... 0.5."""
    plan = write_sweep(tmp_path / "fires", [0.0] * 7, epochs=20)
    for number in range(1, 6):
        write_metrics(plan, number, [number / 10, 0.0])
    return plan


def test_rungs_begin_after_a_tenth_of_the_epochs_and_leave_out_the_last():
    assert list_rungs(20, "median") == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert list_rungs(20, "asha") == [2, 6, 18]
    assert list_rungs(3, "asha") == [1]
    assert list_rungs(1, "median") == []


@pytest.mark.parametrize(
    ("rule", "own", "expected"),
    [
        ("median", 0.29, True),
        ("median", 0.3, False),
        ("asha", 0.39, True),  # of six the best two go on
        ("asha", 0.45, False),
        ("asha", 0.4, False),
    ],
)
def test_a_job_stops_below_the_median_or_outside_of_the_best_third(rule: PruneRule, own: float, expected: bool):
    assert is_behind(own, [0.1, 0.2, 0.3, 0.4, 0.5], rule) is expected


def test_four_other_jobs_are_too_few():
    assert not is_behind(0.0, [0.9] * 4, "median")
    assert not is_behind(0.0, [0.9] * 4, "asha")


def test_the_best_so_far_counts_not_the_last_epoch(plan: Plan):
    write_metrics(plan, 0, [0.35, 0.0])
    assert not create_pruning(plan, plan.jobs[0], "median")(2)


def test_a_job_behind_stops_at_a_rung_and_stays_stopped_without_the_option(plan: Plan):
    write_metrics(plan, 0, [0.1, 0.2])
    should_prune = create_pruning(plan, plan.jobs[0], "median")
    assert not should_prune(1)  # no rung
    assert should_prune(2)
    note = json.loads(plan.get_folder(plan.jobs[0]).provenance.read_text())["pruned"]
    assert (note["epoch"], note["score"], sorted(note["others"])) == (2, 0.2, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert create_pruning(plan, plan.jobs[0], None)(2)
    assert describe(read_status(plan, plan.jobs[0])) == "pruned at epoch 2"


def test_jobs_on_other_patches_do_not_count(plan: Plan):
    write_metrics(plan, 0, [0.1, 0.2], fingerprint="other")
    assert not create_pruning(plan, plan.jobs[0], "median")(2)


def test_jobs_that_have_not_reached_the_rung_do_not_count(plan: Plan):
    write_metrics(plan, 0, [0.0, 0.0, 0.0, 0.0])
    write_metrics(plan, 6, [0.9, 0.9])
    assert not create_pruning(plan, plan.jobs[0], "median")(4)
    assert create_pruning(plan, plan.jobs[0], "median")(2)


def test_an_undefined_score_is_not_behind(plan: Plan):
    write_metrics(plan, 0, [None, None])
    assert not create_pruning(plan, plan.jobs[0], "median")(2)


def test_a_pruned_job_is_finished_with_its_best_model_and_is_named_in_the_results(tmp_path: Path):
    patches = write_patches(tmp_path / "patches")
    words = [f"data.root={patches}", "engine.epochs=3", "hydra.sweep.dir=fires", "--prune", "median"]
    before = "import fireseg.sweep.prune as prune\nprune.is_behind = lambda *_: True"
    process = start_sweep(words, tmp_path, before)
    output, _ = process.communicate()

    assert process.returncode == 0, output
    (run,) = list_jobs(tmp_path / "fires")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert (run / "checkpoints/best_model.pt").exists()
    assert "pruned at epoch 1" in output[output.index("IoU") :]
    assert json.loads((run / "run.json").read_text())["tracked"]["status"] == "FINISHED"
