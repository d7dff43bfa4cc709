"""Trackers of no service, and imports of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fireseg.tracker import create_no_tracker
from tests.tracker.builders import start


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    session = start(create_no_tracker())
    session.log({"val/fire_iou": 0.5}, 1)
    session.artifact(tmp_path / "not there")
    session.finish("FINISHED")
    assert session.run_ids == {}
    assert list(tmp_path.iterdir()) == []


def test_neither_library_is_imported_before_it_is_used() -> None:
    script = "import sys, fireseg.tracker as t; t.create_mlflow_tracker(uri='http://x'); t.create_wandb_tracker()"
    script += "; print({'mlflow', 'wandb', 'sqlalchemy', 'torch'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
