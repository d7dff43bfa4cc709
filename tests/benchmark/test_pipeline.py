"""A benchmark from tiles to its table; jobs of its sweeps are trained in this process, which saves their imports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fireseg.benchmark import pipeline
from fireseg.benchmark.cli import main
from fireseg.sweep.options import EngineOptions
from fireseg.sweep.plan import Plan
from fireseg.train.cli import train_in_folder
from tests.evaluate.conftest import save_empty
from tests.prepare.builders import write_set

PROTOCOL = """
folds: 3
size: 64
stride: 32
settings: [model.encoder=tu-test_efficientnet, model.weights=none, engine.epochs=1, tracker=none,
           data.num_workers=0, data.batch_size=4]
recipes:
  base: []
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands that a benchmark has run, in this process."""
    called: list[str] = []

    def run(command: str, *words: object) -> int:
        called.append(command)
        monkeypatch.setattr(sys, "argv", [command, *map(str, words)])
        return import_module(f"fireseg.{command}.cli").main()

    def run_sweep(plan: Plan, options: EngineOptions) -> int:
        for job in plan.jobs:
            folder = plan.get_folder(job).path
            if not folder.exists():
                folder.mkdir(parents=True)
                train_in_folder(job.settings, run_folder=folder)
        return 0

    monkeypatch.setattr(Figure, "savefig", save_empty)
    monkeypatch.setattr(pipeline, "_run", run)
    monkeypatch.setattr("fireseg.sweep.run.run_sweep", run_sweep)
    return called


def test_every_fire_is_judged_once_and_a_further_seed_and_an_ensemble_repeat_nothing(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("protocol.yaml").write_text(PROTOCOL)
    write_set(tmp_path / "tiles", train=6, val=0, test=0, height=64, width=96)
    assert main(["protocol.yaml", "tiles"]) == 0
    results = json.loads(Path("benchmark/results.json").read_text())
    assert len(results["fires"]) == 6
    assert sorted(entry["fire"] for entry in results["judged"]) == sorted(results["fires"])
    learnt_from = json.loads(min(Path("benchmark/runs/base-all").glob("*/*/config.json")).read_text())
    assert learnt_from["data"]["root"] == "benchmark/patches/64_32/fold_0"
    assert "NBR, tuned" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in Path("benchmark/runs").rglob("*.pt")}
    evaluations = {path: path.stat().st_mtime_ns for path in Path("benchmark/runs").rglob("evaluation_*.json")}
    assert (len(files) > 3, len(evaluations)) == (True, 3)
    Path("protocol.yaml").write_text(PROTOCOL + "seeds: [0, 1]\nensembles: {two seeds: [base]}\n")
    assert main(["protocol.yaml", "tiles"]) == 0
    results = json.loads(Path("benchmark/results.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in [*files, *evaluations]} == {**files, **evaluations}
    assert [row["recipe"] for row in results["rows"]][:2] == ["base", "two seeds"]
    assert results["rows"][1]["difference"]["difference"]["num"] == 6
    entries = [(entry["recipe"], entry["seed"], entry["fire"]) for entry in results["judged"]]
    for recipe, seed in (("base", 0), ("base", 1), ("two seeds", None)):
        assert sorted(fire for *of, fire in entries if of == [recipe, seed]) == results["fires"]
    assert len(entries) == 3 * 6
    together = {path: path.stat().st_mtime_ns for path in Path("benchmark/runs").rglob("ensemble_*/evaluation_*.json")}
    assert len(together) == 3
    assert main(["protocol.yaml", "tiles"]) == 0
    assert {path: path.stat().st_mtime_ns for path in together} == together


def test_a_training_that_fails_is_named_and_the_other_recipes_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("protocol.yaml").write_text("recipes: {base: []}")
    monkeypatch.setattr(pipeline, "_run", lambda command, *words: int(command == "train"))
    assert main(["protocol.yaml", "tiles", "--out", "here"]) == 1
    assert any(
        line.startswith("base: not all trainings are finished; see here/runs/base-all") for line in caplog.messages
    )
    assert not Path("here/results.json").exists()


def test_a_request_to_stop_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    command = tmp_path / "python"
    command.write_text(
        f"#!/bin/sh\ntrap 'sleep 1; touch {tmp_path}/ended; exit 143' TERM\ntouch {tmp_path}/begun\n"
        "while :; do sleep 0.1; done\n"
    )
    command.chmod(0o755)
    program = (
        "import signal, sys\n"
        "from fireseg.benchmark import pipeline\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        f"sys.executable = {str(command)!r}\n"
        "pipeline._run('train')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 7
        assert (tmp_path / "ended").exists()
    finally:
        process.kill()


def test_options_that_falsify_a_benchmark_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol.yaml", "tiles", "--engine", "slurm", "--prune", "median"]) == 2
    printed = capsys.readouterr().err
    assert "--engine slurm: does not wait" in printed
    assert "--prune median: a model that was stopped early" in printed
