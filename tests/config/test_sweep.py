"""A sweep is refused before its first job if any of its jobs would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fireseg.config import preflight

Faults = Callable[..., list[str]]


def test_values_multiply_in_the_order_of_hydra() -> None:
    plan = preflight(["-m", "seed=1,2", "task=del,gra"])
    assert plan.jobs == (
        ("seed=1", "task=del"),
        ("seed=1", "task=gra"),
        ("seed=2", "task=del"),
        ("seed=2", "task=gra"),
    )
    assert (plan.is_multirun, plan.swept, plan.settings) == (True, ("seed", "task"), None)


@pytest.mark.parametrize("argv", [["sweep=encoders"], ["-m", "sweep=encoders"]])
def test_a_sweep_file_is_a_sweep_with_or_without_the_flag(argv: list[str]) -> None:
    plan = preflight(argv)
    assert plan.is_multirun
    assert [job[0].partition("=")[2] for job in plan.jobs] == ["resnet18", "resnet34", "mobilenet_v2"]


def test_a_typed_value_counts_before_that_of_the_sweep_file() -> None:
    assert len(preflight(["sweep=encoders", "model/encoder=resnet50,resnet18", "seed=range(0,3)"]).jobs) == 6


def test_a_sweep_of_one_is_a_sweep() -> None:
    assert preflight(["-m"]).jobs == ((),)


def test_the_faulty_job_is_named(faults: Faults) -> None:
    assert faults("-m", "data.batch_size=16,0,8") == [
        "data.batch_size: 0, but it must be greater than 0 (job 1: data.batch_size=0)"
    ]


def test_a_fault_of_some_jobs_is_told_once(faults: Faults) -> None:
    assert faults("-m", "seed=1,2", "data.fire_weight=0,1,2") == [
        "data.fire_weight: 0, but it must be greater than 0.0 (jobs 0, 3 of 6)"
    ]


def test_a_fault_of_all_jobs_is_told_as_if_there_were_one(faults: Faults) -> None:
    assert faults("-m", "seed=1,2", "engine.epochs=0") == ["engine.epochs: 0, but it must be greater than 0"]


def test_a_wrong_choice_in_a_sweep_is_found(faults: Faults) -> None:
    assert faults("-m", "task=del,grad") == [
        "task: no choice 'grad' (did you mean 'gra'?); there are del, gra (job 1: task=grad)"
    ]


def test_a_glob_picks_files() -> None:
    assert len(preflight(["-m", "model/encoder=glob(resnet*)"]).jobs) == 3


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        (
            "model.encoder=glob(*)",
            "model.encoder: glob(*) picks among files, but this is a value, so that no job would run; "
            "write model/encoder=glob(*)",
        ),
        ("model/encoder=glob(x*)", "model/encoder: glob(x*) gives no value, so that no job would run"),
        ("seed=range(3,0)", "seed: range(3,0) gives no value, so that no job would run"),
        ("optimizer.lr=interval(0,1)", "optimizer.lr: interval(0,1) needs a sweeper that draws numbers"),
        ("hydra.job.name=a,b", "hydra.job.name: 'a,b' is several values, but what is Hydra's own is one"),
        ("resume=outputs/a,outputs/b", "resume: a sweep starts new runs"),
        ("hydra/sweeper=optuna", "hydra/sweeper: no choice 'optuna'"),
    ],
)
def test_what_would_run_no_job_or_the_wrong_ones_is_refused(faults: Faults, word: str, fault: str) -> None:
    assert [line[: len(fault)] for line in faults("-m", word)] == [fault]


def test_a_fault_in_a_sweep_file_is_found(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    content = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      sed: 1,2\n"
    (tmp_path / "sweep/mine.yaml").write_text(content, encoding="utf-8")
    assert set(faults("-cd", str(tmp_path), "sweep=mine")) == {"sed: no such setting (did you mean 'seed'?)"}
