"""Fixtures of the evaluation tests: one small trained run for all of them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.evaluate.builders import cut_tiles, make_run, train_run
from tests.prepare.builders import write_set


def save_empty(figure: Figure, file: object, **options: object) -> None:
    """Replaces `Figure.savefig`, which takes most of the time of an evaluation."""
    if isinstance(file, str | os.PathLike):
        Path(file).touch()


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures of reports empty."""
    monkeypatch.setattr(Figure, "savefig", save_empty)


@pytest.fixture
def log_text(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Captures the messages of the package."""
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    caplog.set_level(logging.INFO, "fireseg")
    return caplog


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes tiles, patches in both layouts, the trained and tracked run `ours`, and the untrained run `theirs`."""
    root = tmp_path_factory.mktemp("evaluate")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_empty)
        tiles = write_set(root / "tiles", train=2, val=2, test=2)
        cut_tiles(tiles, root / "packed")
        cut_tiles(tiles, root / "files", "--layout", "files", "--task", "del")
        tracking = ("tracker=mlflow", f"tracker.uri=sqlite:///{root}/mlflow.db")
        ours = train_run(root / "outputs", root / "packed", *tracking, name="ours")
    for name in ("last.pt", "final_model.pt"):
        (ours.checkpoints / name).unlink()
    make_run(root / "outputs", root / "packed", "seed=1", name="theirs")
    signal.signal(signal.SIGTERM, handler)
    reset_logging()
    return root


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """Copies patches and runs, so that a test may change them; checkpoints are linked."""

    def copy(source: str, target: str) -> None:
        (os.link if source.endswith(".pt") else shutil.copy2)(source, target)

    for name in ("packed", "outputs"):
        shutil.copytree(trained / name, tmp_path / name, copy_function=copy)
    return tmp_path


def reset_logging() -> None:
    """Undoes `start_logging`."""
    logger = logging.getLogger("fireseg")
    logger.handlers.clear()
    logger.propagate = True
