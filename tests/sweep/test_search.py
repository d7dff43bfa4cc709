"""Search for the best settings: real processes, a real journal of Optuna, kills."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from fireseg.config.search import Interval, read_search_space
from fireseg.errors import SettingError
from fireseg.sweep.options import SearchOptions
from fireseg.sweep.plan import read_plan
from fireseg.sweep.search import run_search
from scripts.kill_test import read_rows, write_patches
from tests.processes import ForkedProcess
from tests.sweep.builders import SETTINGS, continue_sweep, list_jobs

SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-2))", "loss=ce,dice")


def start_search(cwd: Path, *words: str) -> ForkedProcess:
    common = ["search", *SETTINGS, "data.root=patches", "engine.epochs=1", *SPACE, "hydra.sweep.dir=fires"]
    return continue_sweep(*common, *words, cwd=cwd)


def finish(process: ForkedProcess, exit_code: int) -> str:
    output, _ = process.communicate()
    assert process.returncode == exit_code, output
    return output


def read_trials(sweep: Path) -> list[tuple[str, float | None]]:
    """Reads states and values of the trials with Optuna itself."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(sweep / "study.log")))
    study = optuna.load_study(storage=storage, study_name="fireseg")
    return [(trial.state.name, trial.value) for trial in study.trials]


def test_a_killed_search_goes_on_with_the_same_trials_and_none_stays_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sweeps = []
    for name, is_killed in (("undisturbed", False), ("killed", True)):
        cwd = tmp_path / name
        write_patches(cwd / "patches")
        sweeps.append(sweep := cwd / "fires")
        process = start_search(cwd, "--trials", "2")
        if is_killed:
            deadline = time.monotonic() + 120
            while not list(sweep.glob("1_*/job.json")):
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert [state for state, _ in read_trials(sweep)] == ["COMPLETE", "RUNNING"]
            process = start_search(cwd, "--trials", "2")
        output = finish(process, 0)
        assert "best: job " in output

    undisturbed, killed = sweeps
    overrides = [[job.overrides for job in read_plan(sweep).jobs] for sweep in sweeps]
    assert overrides[0] == overrides[1]
    assert len(set(overrides[0])) == 2
    for run, other in zip(list_jobs(undisturbed), list_jobs(killed), strict=True):
        assert read_rows(run) == read_rows(other)
    scores = [read_rows(run)[0]["val/fire_iou"] for run in list_jobs(killed)]
    assert read_trials(killed) == [("COMPLETE", score) for score in scores]

    monkeypatch.chdir(tmp_path / "killed")
    words = ("data.root=patches", "engine.epochs=1", *SETTINGS, "loss=ce,dice,ce_dice", "hydra.sweep.dir=fires")
    with pytest.raises(SettingError, match=r"^hydra\.sweep\.dir: fires holds a search of other settings"):
        run_search(SearchOptions(overrides=words))


def test_two_commands_share_a_search_and_a_failed_trial_is_told(tmp_path: Path):
    write_patches(tmp_path / "patches")
    one = start_search(tmp_path, "data.root=patches,nowhere", "--trials", "4", "--jobs", "2")
    other = start_search(tmp_path, "data.root=patches,nowhere", "--trials", "4")
    outputs = [process.communicate()[0] for process in (one, other)]

    jobs = read_plan(tmp_path / "fires").jobs
    assert [job.number for job in jobs] == [0, 1, 2, 3], outputs
    states = [state for state, _ in read_trials(tmp_path / "fires")]
    assert states == ["FAIL" if job.settings["data"]["root"] == "nowhere" else "COMPLETE" for job in jobs]
    records = [json.loads((run / "job.json").read_text()) for run in list_jobs(tmp_path / "fires")]
    assert {record["attempts"] for record in records if record["state"] == "finished"} <= {1}


def test_the_file_of_the_project_has_learning_rate_loss_augmentation_and_encoder():
    space = read_search_space(["sweep=search", "optimizer.lr=1e-3"])
    assert set(space.dimensions) == {"loss", "data/augment", "model/encoder"}
    space = read_search_space(["sweep=search"])
    assert space.dimensions["optimizer.lr"] == Interval(low=1e-5, high=3e-3, is_log=True, is_integer=False)


@pytest.mark.parametrize(
    ("words", "location", "cure"),
    [
        (["optimizer.lr=interval(1,0)"], "optimizer.lr", "must grow"),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr", "above 0"),
        (["loss=ce,dic"], "loss", "did you mean 'dice'"),
        (["engine.epochs=3"], "sweep", "write sweep=search"),
        (["engine.epochs=0,3"], "engine.epochs", "0"),
    ],
)
def test_a_wrong_space_is_refused_before_the_first_trial(words: list[str], location: str, cure: str):
    with pytest.raises(SettingError, match=rf"{location}: .*{cure}"):
        read_search_space(words)


def test_a_search_is_not_an_array_of_slurm_and_needs_optuna(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SettingError, match=r"^--engine: slurm, .*sbatch"):
        run_search(SearchOptions(overrides=SPACE, engine="slurm"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'fireseg\[search\]'$"):
        run_search(SearchOptions(overrides=SPACE))
