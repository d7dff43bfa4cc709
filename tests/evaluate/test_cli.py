"""The door: what is typed, what is said, and what it ends with."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fireseg.evaluate.cli import main
from tests.evaluate.trained_run import cut_tiles, read_json, train_run
from tests.prepare.builders import write_set

Run = Callable[..., int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on prepared tiles, tracked in a store of its own."""
    place = tmp_path_factory.mktemp("door")
    tiles = write_set(place / "tiles", train=2, val=1, test=2)
    patches = cut_tiles(tiles, place / "patches")
    train_run(place, patches, "tracker=mlflow", f"tracker.uri=sqlite:///{place}/mlflow.db")
    return place


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Types words behind `python -m fireseg.evaluate`."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *words: main([str(word) for word in words])
    signal.signal(signal.SIGTERM, before)
    logger = logging.getLogger("fireseg")
    logger.handlers.clear()
    logger.propagate = True


def test_a_run_is_enough_and_its_page_is_named(run: Run, made: Path, capsys: pytest.CaptureFixture[str]):
    assert run(made / "run", "--workers", "0") == 0

    lines = capsys.readouterr().out.splitlines()
    page = made / "run/evaluation_test.html"
    assert lines[-1] == f"look at it: {page}"
    assert any(line.startswith("gain over the index: ") for line in lines)
    assert "<html" in page.read_text()
    before = page.read_bytes()
    assert run(made / "run", "--no-track") == 0
    assert page.read_bytes() == before


def test_scores_and_files_reach_the_same_tracked_run(run: Run, made: Path):
    tracked = read_json(made / "run/run.json")["tracking"]["mlflow"]
    client = MlflowClient(f"sqlite:///{made}/mlflow.db")
    ended = client.get_run(tracked).info.end_time

    assert run(made / "run") == 0

    content = read_json(made / "run/evaluation_test.json")
    (row,) = client.get_metric_history(tracked, "test/fire_iou")
    assert row.value == pytest.approx(content["methods"][0]["pixels"]["fire_iou"])
    assert row.step == content["run"]["epoch"] == 1
    kept = {file.path for file in client.list_artifacts(tracked)}
    assert {"evaluation_test.json", "evaluation_test.html", "calibration.json"} <= kept
    assert client.get_run(tracked).info.end_time == ended


def test_nobody_is_told_where_tracking_is_off(run: Run, made: Path):
    tracked = read_json(made / "run/run.json")["tracking"]["mlflow"]

    assert run(made / "run", "--split", "val", "--no-track") == 0

    assert not MlflowClient(f"sqlite:///{made}/mlflow.db").get_metric_history(tracked, "evaluation_val/fire_iou")


def test_a_run_and_patches_that_have_moved_are_found_by_data(
    run: Run, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(made / "run", tmp_path / "moved")
    (made / "patches").rename(tmp_path / "patches")
    try:
        assert run("moved", "--no-track") == 1
        told = capsys.readouterr().err
        assert "no such folder any more" in told
        assert "--data PATCHES" in told
        assert run("moved", "--no-track", "--data", "patches") == 0
        assert read_json(tmp_path / "moved/evaluation_test.json")["data"]["is_same"]
    finally:
        (tmp_path / "patches").rename(made / "patches")


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["gone"], 1, "gone"),
        (["RUN", "--split", "tests"], 2, "--split"),
        (["RUN", "--batch-size", "0"], 2, "--batch-size: 0"),
        (["RUN", "--workers", "-1"], 2, "--workers: -1"),
        (["RUN", "--data", "nowhere"], 2, "--data nowhere: no such folder"),
        (["RUN", "--against", "RUN"], 2, "the same checkpoint"),
        ([], 2, "RUN"),
    ],
)
def test_a_wrong_word_is_named(
    run: Run, made: Path, words: list[str], code: int, what: str, capsys: pytest.CaptureFixture[str]
):
    try:
        ended = run(*(made / "run" if word == "RUN" else word for word in words))
    except SystemExit as end:
        ended = end.code

    assert ended == code
    assert what in capsys.readouterr().err


def test_the_help_needs_no_torch(tmp_path: Path):
    code = (
        "import sys; from fireseg.evaluate import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    for word in ("RUN", "--split {test,val,train}", "--data PATCHES", "--against RUN", "(default: test)"):
        assert word in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
    assert "None" not in done.stdout
