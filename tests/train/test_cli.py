"""The command line of `python -m fireseg.train`: exit codes, output and folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fireseg.console import format_command
from fireseg.files import find_checkpoint
from scripts.kill_test import SETTINGS, write_patches
from tests.processes import ROOT
from tests.sweep.builders import FORKED
from tests.train.builders import finish, start

QUICK = [*(setting for setting in SETTINGS if setting != "tracker=none"), "engine.epochs=1", "data.num_workers=0"]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("cli") / "patches")


def read_settings(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("option", ["--dry-run", "--jobs=2"])
def test_options_of_sweeps_are_refused_for_a_single_run(option: str, tmp_path: Path):
    process = start([option, "model.weights=none"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert output == f"fireseg: {option.partition('=')[0]}: applies only to a sweep; add -m\n"
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_setting_has_exit_code_two_and_one_line(tmp_path: Path):
    process = start(["model.encodr=resnet18"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert output.startswith("fireseg: model.encodr: ")
    assert output.count("\n") == 1
    assert "did you mean 'encoder'?" in output
    assert list(tmp_path.iterdir()) == []


def test_missing_patches_have_exit_code_one_and_no_traceback(tmp_path: Path):
    process = start(["model.weights=none", "model.encoder=mobilenet_v2", "tracker=none"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "Traceback" not in output
    (fault,) = (line for line in output.splitlines() if line.startswith("fireseg: "))
    assert "patches: no such folder" in fault
    assert list((tmp_path / "outputs").iterdir()) == []  # a start that fails leaves no run behind


@pytest.mark.parametrize(
    "failure", ["raise RuntimeError('a mistake')", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
)
def test_a_start_that_fails_for_any_reason_leaves_no_run_behind(failure: str, patches: Path, tmp_path: Path):
    before = f"import fireseg.train.run as run\ndef start(*_, **__): {failure}\nrun.start_tracking = start"
    process = start([f"data.root={patches}", *QUICK], tmp_path, before)
    process.communicate(timeout=300)

    assert process.returncode in (1, 143)
    assert list((tmp_path / "outputs").iterdir()) == []


def test_missing_weights_and_missing_patches_are_reported_together(tmp_path: Path):
    process = start(["model.weights=nowhere.pt", "model.encoder=mobilenet_v2", "tracker=none"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode in (1, 2)
    weights, patches = (line for line in output.splitlines() if line.startswith("fireseg: "))
    assert "nowhere.pt" in weights
    assert "patches: no such folder" in patches
    assert list((tmp_path / "outputs").iterdir()) == []


def test_hydra_run_dir_is_the_run_folder_and_the_last_lines_are_the_commands_to_type_next(
    patches: Path, tmp_path: Path
):
    words = [f"data.root={patches}", *QUICK, "tracker=none", 'hydra.run.dir="runs/my run"']
    process = start(words, tmp_path)
    output, _ = process.communicate()

    assert process.returncode == 0, output
    assert output.splitlines()[-4:] == [
        "next:",
        "  python -m fireseg.evaluate 'runs/my run' --split val",
        "  python -m fireseg.predict 'runs/my run' SCENE.tif",
        "  python -m fireseg.evaluate 'runs/my run' --split val --against OTHER_RUN",
    ]
    assert "best model: runs/my run/checkpoints/best_model.pt" in output
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs/latest").readlink() == Path("my run")
    assert find_checkpoint(tmp_path / "runs/latest") == tmp_path / "runs/latest/checkpoints/best_model.pt"
    assert read_settings(tmp_path / "runs/my run")["output_dir"] == "runs"

    process = start(words, tmp_path)
    output, _ = process.communicate()

    assert process.returncode == 2
    assert output.startswith("fireseg: hydra.run.dir: runs/my run holds a run already; ")
    assert """continue: python -m fireseg.train 'resume="runs/my run"'""" in output


def test_hydra_run_dir_with_other_files_is_refused_and_they_stay(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    process = start(["hydra.run.dir=."], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert output.startswith("fireseg: hydra.run.dir: . holds other files; choose a new or empty folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_sweep_into_a_folder_that_holds_runs_is_refused_and_names_them(tmp_path: Path):
    (tmp_path / "fires/0_a").mkdir(parents=True)
    (tmp_path / "fires/0_a/config.json").write_text("{}")
    process = start(["-m", "hydra.sweep.dir=fires", "seed=1,2"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert output.startswith("fireseg: hydra.sweep.dir: fires holds 1 run already (0_a); choose another folder")
    assert [path.name for path in (tmp_path / "fires").iterdir()] == ["0_a"]


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"]], ids=["help", "cfg_job"])
def test_help_and_settings_are_shown_without_heavy_imports(flags: list[str], tmp_path: Path):
    program = (
        "import sys; from fireseg.train.cli import main\n"
        "main()\n"
        "print([n for n in ('torch', 'segmentation_models_pytorch', 'albumentations', 'mlflow')"
        " if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *flags], capture_output=True, text=True, cwd=tmp_path, check=False
    )

    assert done.stderr.strip() == "[]"
    assert "model" in done.stdout


def test_a_printed_command_runs_in_bash(tmp_path: Path):
    root = tmp_path / 'Évora\'s "burned" areas, $HOME = [1] (été)'
    command = format_command("train", settings={"data.root": root}) + " --cfg job --resolve"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)

    assert done.stderr == ""
    assert yaml.safe_load(done.stdout)["data"]["root"] == str(root)


def test_jobs_of_a_sweep_are_tracked_as_flat_runs_named_by_their_overrides(patches: Path, tmp_path: Path):
    from mlflow import MlflowClient

    settings = [setting for setting in QUICK if "lr" not in setting]
    finish(start(["-m", f"data.root={patches}", *settings, "optimizer.lr=0.001,0.002"], tmp_path, FORKED))

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.run_name for run in runs} == {"lr 0.001", "lr 0.002"}
    (sweep,) = {run.data.tags["sweep"] for run in runs}
    assert all("mlflow.parentRunId" not in run.data.tags for run in runs)
    folders = sorted(path.name for path in (tmp_path / "multirun" / sweep).iterdir() if path.is_dir())
    assert folders == ["0_optimizer.lr-0.001", "1_optimizer.lr-0.002"]
    assert not list(tmp_path.rglob("latest"))


def test_a_sweep_with_an_invalid_job_starts_none(patches: Path, tmp_path: Path):
    process = start(["-m", f"data.root={patches}", "model.encoder=resnet18,resnet81"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert "no encoder 'resnet81' (did you mean 'resnet18'?)" in output
    assert not (tmp_path / "multirun").exists()
