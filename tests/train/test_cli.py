"""The door, as a shell knows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.kill_test import SETTINGS, finish, read_rows, start, write_patches

QUICK = [*(setting for setting in SETTINGS if setting != "tracker=none"), "engine.epochs=1", "data.num_workers=0"]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("door") / "patches")


def test_a_typo_ends_with_two_and_one_line(tmp_path: Path):
    process = start(["model.encodr=resnet18"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert output == "fireseg: model.encodr: no such setting (did you mean 'encoder'?)\n"
    assert list(tmp_path.iterdir()) == []


def test_missing_patches_end_with_one_and_what_to_do(tmp_path: Path):
    process = start(["model.weights=none", "model.encoder=mobilenet_v2", "tracker=none"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "Traceback" not in output
    (fault,) = (line for line in output.splitlines() if line.startswith("fireseg: "))
    assert "patches: no such folder" in fault


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"]], ids=["help", "cfg_job"])
def test_questions_are_answered_without_heavy_imports(flags: list[str], tmp_path: Path):
    program = (
        "import sys; from fireseg.train.cli import main\n"
        "try: main()\n"
        "finally: print([n for n in ('torch', 'segmentation_models_pytorch', 'albumentations', 'mlflow')"
        " if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *flags], capture_output=True, text=True, cwd=tmp_path, check=False
    )

    assert done.stderr.strip() == "[]"
    assert "model" in done.stdout


def test_a_sweep_gives_flat_runs_named_by_what_was_swept_under_one_tag(patches: Path, tmp_path: Path):
    from mlflow import MlflowClient

    swept = "optimizer.lr=0.001,0.002"
    finish(start(["-m", f"data.root={patches}", *(s for s in QUICK if "lr" not in s), swept], tmp_path))

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert {run.info.run_name for run in runs} == {"optimizer.lr=0.001", "optimizer.lr=0.002"}
    (sweep,) = {run.data.tags["sweep"] for run in runs}
    assert all("mlflow.parentRunId" not in run.data.tags for run in runs)
    folders = sorted(path.name for path in (tmp_path / "multirun" / sweep).iterdir() if path.is_dir())
    assert folders == ["0_optimizer.lr-0.001", "1_optimizer.lr-0.002"]


def test_a_job_that_fails_does_not_stop_the_others_and_is_named_at_the_end(patches: Path, tmp_path: Path):
    arguments = ["-m", f"data.root={tmp_path / 'nowhere'},{patches}", *QUICK, "tracker=none"]
    process = start(arguments, tmp_path)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 1
    assert f"fireseg: {tmp_path / 'nowhere'}: no such folder" in output
    assert output.splitlines()[-1].startswith("fireseg: 1 of 2 jobs failed: data.root=")
    (metrics,) = tmp_path.glob("multirun/*/1_*/metrics.jsonl")
    assert len(read_rows(metrics.parent)) == 1


def test_a_sweep_with_a_job_that_cannot_be_runs_no_job(patches: Path, tmp_path: Path):
    process = start(["-m", f"data.root={patches}", "model.encoder=resnet18,resnet81"], tmp_path)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 2
    assert "no encoder 'resnet81' (did you mean 'resnet18'?)" in output
    assert not (tmp_path / "multirun").exists()
