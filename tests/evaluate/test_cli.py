"""Tests of the command: options, messages, exit codes and tracking."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fireseg.evaluate.cli import main
from tests.evaluate.builders import read_json
from tests.evaluate.conftest import reset_logging

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_figures: None) -> Iterator[Run]:
    """Runs `python -m fireseg.evaluate` in this process."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: main([str(argument) for argument in arguments])
    signal.signal(signal.SIGTERM, handler)
    reset_logging()


def test_a_run_is_evaluated_and_tracked(
    run: Run, trained: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = workspace / "outputs/ours"
    tracked = read_json(ours / "run.json")["tracking"]["mlflow"]
    client = MlflowClient(f"sqlite:///{trained}/mlflow.db")
    end_time = client.get_run(tracked).info.end_time

    assert run(ours, "--workers", "0") == 0

    lines = capsys.readouterr().out.splitlines()
    report = ours / "evaluation_test.html"
    assert lines[-1] == f"report: {report}"
    assert any(line.startswith("gain over index_tuned: ") for line in lines)
    results = read_json(ours / "evaluation_test.json")
    (row,) = client.get_metric_history(tracked, "test/fire_iou")
    assert row.value == pytest.approx(results["methods"][0]["pixels"]["fire_iou"])
    assert row.step == results["run"]["epoch"] == 1
    artifacts = {file.path for file in client.list_artifacts(tracked)}
    assert {"evaluation_test.json", "evaluation_test.html", "calibration.json"} <= artifacts
    assert client.get_run(tracked).info.end_time == end_time

    before = report.read_bytes()
    assert run(ours, "--no-track") == 0
    assert report.read_bytes() == before


def test_no_track_logs_nothing(run: Run, trained: Path, workspace: Path) -> None:
    tracked = read_json(workspace / "outputs/ours/run.json")["tracking"]["mlflow"]

    assert run(workspace / "outputs/ours", "--split", "val", "--no-track") == 0

    assert not MlflowClient(f"sqlite:///{trained}/mlflow.db").get_metric_history(tracked, "evaluation_val/fire_iou")


def test_moved_patches_are_given_by_data(
    run: Run, trained: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(trained / "packed", trained / "moved")
    try:
        assert run("outputs/ours", "--no-track") == 1
        error = capsys.readouterr().err
        assert "no such folder any more" in error
        assert "--data PATCHES" in error
        assert run("outputs/ours", "--no-track", "--data", "packed") == 0
        assert read_json(workspace / "outputs/ours/evaluation_test.json")["data"]["is_same"]
    finally:
        shutil.move(trained / "moved", trained / "packed")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone"], 1, "gone"),
        (["RUN", "--split", "tests"], 2, "--split"),
        (["RUN", "--batch-size", "0"], 2, "--batch-size: 0"),
        (["RUN", "--workers", "-1"], 2, "--workers: -1"),
        (["RUN", "--tiles", "nowhere"], 2, "--tiles nowhere: no such folder"),
        (["RUN", "--data", "nowhere"], 2, "--data nowhere: no such folder"),
        (["RUN", "--against", "RUN"], 2, "the same checkpoint"),
        ([], 2, "RUN"),
    ],
)
def test_wrong_arguments_are_named(
    run: Run, trained: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        exit_code = run(*(trained / "outputs/ours" if word == "RUN" else word for word in arguments))
    except SystemExit as end:
        exit_code = end.code

    assert exit_code == code
    assert message in capsys.readouterr().err


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from fireseg.evaluate.cli import main\n"
        "try: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    for word in ("RUN", "--split {test,val,train}", "--data PATCHES", "--against RUN", "(default: test)"):
        assert word in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
    assert "None" not in done.stdout
