"""The plan of a sweep: the same one goes on, another one is refused with the difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.sweep.plan import Job, Plan, read_plan, settle_plan


def make_plan(path: Path, *, seeds: tuple[int, ...] = (0, 1), epochs: int = 2) -> Plan:
    jobs = tuple(
        Job(
            number=number,
            name=f"seed={seed}",
            subdir=f"{number}_seed-{seed}",
            overrides=(f"seed={seed}",),
            settings={"seed": seed, "engine": {"epochs": epochs, "clip_norm": None}, "data": {"bands": ["B04"]}},
        )
        for number, seed in enumerate(seeds)
    )
    return Plan(path=path, cwd=path.parent, swept=("seed",), jobs=jobs)


def refuse(plan: Plan) -> str:
    with pytest.raises(SettingError) as caught:
        settle_plan(plan)
    (fault,) = caught.value.faults
    assert fault.startswith(f"hydra.sweep.dir: {plan.path} holds another sweep: ")
    assert fault.endswith(f"or continue that one: python -m fireseg.sweep run {plan.path}")
    return fault


def test_a_written_plan_is_read_back_and_the_same_plan_goes_on(tmp_path: Path):
    plan = make_plan(tmp_path / "fires")

    assert settle_plan(plan) is False
    assert read_plan(plan.path) == plan
    assert settle_plan(plan) is True


def test_another_value_is_named_once_with_the_jobs_that_it_concerns(tmp_path: Path):
    settle_plan(plan := make_plan(tmp_path / "fires"))

    assert ": engine.epochs is 2 there and 3 here; choose" in refuse(make_plan(plan.path, epochs=3))
    changed = replace(plan.jobs[1], settings={**plan.jobs[1].settings, "data": {"bands": ["B08"]}})
    fault = refuse(replace(plan, jobs=(plan.jobs[0], changed)))
    assert ": data.bands is [B04] there and [B08] here (job 1); choose" in fault
    assert read_plan(plan.path) == plan


def test_other_jobs_and_another_working_folder_are_named(tmp_path: Path):
    settle_plan(plan := make_plan(tmp_path / "fires"))

    fault = refuse(make_plan(plan.path, seeds=(0, 2, 3)))
    assert "2 jobs there, 3 here; only there: seed=1; only here: seed=2, seed=3" in fault
    assert f"it was started in {tmp_path}, this one in /" in refuse(replace(plan, cwd=Path("/")))


def test_a_folder_without_a_plan_and_a_damaged_plan_are_refused_with_a_cure(tmp_path: Path):
    with pytest.raises(SettingError, match=r"plan\.json not found; give the folder of a sweep"):
        read_plan(tmp_path)
    for content in ("{", '{"format": 99}', '{"format": 1, "jobs": [{}], "cwd": "/", "swept": []}'):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(FiresegError, match=r"plan\.json: .*restore it"):
            read_plan(tmp_path)


def test_a_setting_that_an_earlier_version_lacked_counts_as_its_default(tmp_path: Path):
    plan = make_plan(tmp_path / "fires", seeds=(0,))
    data = {"_target_": "fireseg.data.WildfireDataModule", "root": "patches"}
    (job,) = plan.jobs
    settle_plan(replace(plan, jobs=(replace(job, settings={**job.settings, "data": data}),)))

    newer = replace(job, settings={**job.settings, "data": {**data, "crop": None, "normalisation": "dataset"}})
    assert settle_plan(replace(plan, jobs=(newer,))) is True
    changed = replace(job, settings={**job.settings, "data": {**data, "crop": None, "normalisation": "scene"}})
    assert "data.normalisation is dataset there and scene here" in refuse(replace(plan, jobs=(changed,)))
